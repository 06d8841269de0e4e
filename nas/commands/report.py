"""`report`: a run as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nas.commands.options import option, storage_option

if TYPE_CHECKING:
    from nas.reporting.parts import Look
    from nas.runs.records import Begun
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


def _looks(story: Story) -> Iterator[tuple[str, Look]]:
    """What the winner of each study looks at, by study, and by "" what the network does that the run itself trained."""
    from nas.reporting.parts import Look
    from nas.runs.folder import WEIGHTS

    record = story.told.record
    for name, search in story.searches.items():
        if search.winner and record.supernet:
            weights, again = story.run.folder / f"{name}.safetensors", search.retrained
            whose = f"the weights of {again.name}, trained alone" if again else "the supernet's weights, as they lie beside the winner"
            if again or weights.exists():
                yield name, _look(again.folder / WEIGHTS if again else weights, whose, record.supernet)
            else:
                yield name, Look("No weights of it are here: once it is retrained, this page shows it.")
    if story.told.training and record.retrain:
        yield "", _look(story.run.folder / WEIGHTS, "its own weights", record.retrain)


def _look(weights: Path, whose: str, begun: Begun) -> Look:
    from nas.data import open_data
    from nas.networks.trained import load_network
    from nas.reporting import figures
    from nas.reporting.drawings import save
    from nas.reporting.parts import Look
    from nas.training.answers import some_images
    from nas.training.looking import mixing_fields, receptive_fields

    try:
        network = load_network(weights)
        images = some_images(network, open_data(str(begun.data), Path(begun.data_root) if begun.data_root else None), LOOKED_AT)
    except ValueError as error:
        return Look(f"Not shown, since its weights or images cannot be read: {error}")
    fields = receptive_fields(network, images), mixing_fields(network, images)
    return Look(whose, save(figures.looking(*fields, network.architecture), "svg"), figures.reaches(*fields, network.architecture))
