"""`show`: what networks look like."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from nas.commands.options import option


@click.command(short_help="Draw networks.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@option(
    "--out",
    "PICTURE",
    "Draw them into a file too, side by side where they fit: .svg or .png.",
    type=click.Path(path_type=Path, dir_okay=False),
)
def show(files: tuple[str, ...], out: Path | None) -> int:
    """Draw networks: each stage with its blocks, by their mixers.

    FILE is an architecture file, a published network's name, or the name or folder of a run, whose winner (or trained network) is drawn.
    """
    from nas.cost import cost
    from nas.networks.architecture import read_architecture
    from nas.published.presets import network_file
    from nas.quantities import format_quantity
    from nas.reporting.drawings import as_text, draw, form_of, key_of, side_by_side
    from nas.runs.folder import RUNS
    from nas.yaml_files import write_atomically

    form = form_of(out) if out else None
    networks = {file: read_architecture(network_file(file, RUNS))[0] for file in files}
    colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for name, architecture in networks.items():
        counted = cost(architecture)
        print(
            f"{name}: {format_quantity('macs', counted.macs)}, {format_quantity('params', counted.params)} at {architecture.frame.resolution} px"
        )
        print("\n".join(as_text(architecture, colored)))
    print(key_of(networks.values(), colored))
    if out and form:
        write_atomically(out, draw(networks, form, side_by_side(networks)))
        print(f"Drawn: {out}")
    return 0
