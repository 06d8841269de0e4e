"""`report`: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from nas.commands.options import option


@click.command(short_help="Write a run's story as one HTML page.")
@click.argument("run", metavar="RUN")
@option("--out", "PAGE", "Where to (default: report.html in the run).", type=click.Path(path_type=Path, dir_okay=False))
def report(run: str, out: Path | None) -> int:
    """Write a run's story as one HTML page, with its pictures and their numbers, to be opened anywhere and sent to anybody.

    RUN is the name or folder of a run. Of a run that has not ended the page tells what there is so far.
    """
    from nas.reporting.page import page
    from nas.runs.folder import run_folder
    from nas.searching.story import read_story
    from nas.yaml_files import write_atomically

    folder = run_folder(run)
    target = folder / "report.html" if out is None else out
    write_atomically(target, page(read_story(folder)).encode())
    print(f"Written to {target}")
    return 0
