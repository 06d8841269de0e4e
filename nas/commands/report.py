"""`report`: a run as one HTML page."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas.commands.options import option, storage_option

if TYPE_CHECKING:
    from nas.searching.story import Story

LOOKED_AT = 32  # images


@click.command(short_help="Write a run's story as one HTML page.")
@click.argument("run", metavar="RUN")
@option("--out", "PAGE", "Where to (default: report.html in the run).", type=click.Path(path_type=Path, dir_okay=False))
@storage_option
def report(run: str, out: Path | None, storage: str) -> int:
    """Write a run's story as one HTML page, with its pictures and their numbers, to be opened anywhere and sent to anybody.

    RUN is the name or folder of a run. Of a run that has not ended the page tells what there is so far.
    """
    from nas.reporting.page import page
    from nas.runs.folder import run_folder
    from nas.searching.story import read_story
    from nas.yaml_files import write_atomically

    folder = run_folder(run)
    target = folder / "report.html" if out is None else out
    story = read_story(folder, storage)
    write_atomically(target, page(story, dict(_looks(story))).encode())
    print(f"Written to {target}")
    return 0


def _looks(story: Story) -> Iterator[tuple[str, bytes]]:
    """Of each study whose winner's weights and images are here, the picture of what it looks at."""
    from nas.data import open_data
    from nas.networks.trained import load_network
    from nas.reporting import figures
    from nas.reporting.drawings import save
    from nas.training.answers import some_images
    from nas.training.looking import mixing_fields, receptive_fields

    record = story.told.record.supernet
    for name in story.searches if record else ():
        weights = story.run.folder / f"{name}.safetensors"
        if weights.exists() and record and record.data:
            with contextlib.suppress(ValueError):  # images that are gone
                network = load_network(weights)
                images = some_images(network, open_data(record.data, Path(record.data_root) if record.data_root else None), LOOKED_AT)
                fields = receptive_fields(network, images), mixing_fields(network, images)
                yield name, save(figures.looking(*fields, network.architecture), "svg")
