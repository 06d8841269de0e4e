"""`presets`: the published networks."""

from __future__ import annotations

import json as json_format
from pathlib import Path

import click

from nas.commands.options import option


@click.command(short_help="List the published networks and their figures.")
@click.option("--json", is_flag=True, help="Print a JSON list, one object for each network.")
@option(
    "--gallery", "FOLDER", "Draw them instead: a page, and a picture for each family.", type=click.Path(path_type=Path, file_okay=False)
)
def presets(json: bool, gallery: Path | None) -> int:
    """List the published networks with their counts and published figures."""
    from nas.published.presets import as_table, rows

    if gallery:
        _draw(gallery)
        return 0

    print(json_format.dumps(rows(), indent=2) + "\n" if json else as_table(), end="")
    return 0


def _draw(folder: Path) -> None:
    from nas.reporting.gallery import gallery
    from nas.yaml_files import write_atomically

    for name, content in gallery().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content)
    print(f"Written to {folder / 'gallery.md'}")
