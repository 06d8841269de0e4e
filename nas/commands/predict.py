"""`predict`: what a trained network says of images."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import COUNT, batch_size_option, device_option, option

if TYPE_CHECKING:
    from nas.data.folder import FileImages
    from nas.progress import Progress
    from nas.training.answers import Answering

Answer = tuple[str, list[tuple[str, float]]]  # about which image: the likeliest classes with their probabilities
WIDEST = 24  # letters of a class's name in the table


@click.command(short_help="Ask a trained network what is in images.")
@click.argument("weights", metavar="WEIGHTS")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@option("--top", "N", "How many classes of each image, the likeliest first (default: 5).", type=COUNT, default=5)
@click.option("--json", is_flag=True, help="Print one JSON object.")
@device_option
@batch_size_option
def predict(weights: str, images: tuple[str, ...], top: int, json: bool, device: str, batch_size: int) -> int:
    """Ask a trained network which classes images are of, and how likely each is.

    WEIGHTS is a file of weights, or the name or folder of a run; IMAGE is a file, or a folder with images in or below it. They are prepared as
    for the test. Images that are broken are named and passed over, and the exit status is 2.
    """
    from nas.data.decoding import QUIET_SECONDS
    from nas.data.folder import list_images
    from nas.progress import Progress
    from nas.runs.folder import weights_file
    from nas.runs.interrupt import Interrupt, Stopped
    from nas.training.answers import Answering
    from nas.training.setting import open_device

    path = weights_file(weights)
    files, left_out = list_images(images)
    answering = Answering.load(path, open_device(device), batch_size)
    number, broken = len(files.labels), dict[str, str]()
    if left_out or number > len(images):
        print(f"{number:,} images{f', {left_out:,} other or hidden files left out' if left_out else ''}.", file=sys.stderr)
    # On a terminal the answers themselves show how far it is.
    quiet = float("inf") if sys.stdout.isatty() else QUIET_SECONDS
    with Interrupt() as interrupt, Progress("predict", number, "image", quiet=quiet) as progress:
        answers = _answers(answering, files, top, broken, progress, lambda: interrupt.requested)
        if json:
            _print_json({"weights": str(path), "architecture": answering.network.architecture.key}, answers, broken)
        else:
            _print_table(answers, max(len(files.place(index)) for index in range(number)), answering.classes)
        for reason in broken.values():
            print(reason, file=sys.stderr)
        if progress.done < number:
            raise Stopped(f"predict stopped after {progress.done:,} of {number:,} images", continues=False)
    if broken:
        raise ValueError(f"{len(broken):,} of {number:,} images are broken, as said above, and have no answer. Replace or remove them.")
    return 0


def _answers(
    answering: Answering, files: FileImages, top: int, broken: dict[str, str], progress: Progress, stop: Callable[[], bool]
) -> Iterator[Answer]:
    """Yields the answer about each image that is whole, and notes of each other one what is wrong; ends early when it is to stop."""
    import numpy as np

    for batch in answering.logits(files, np.arange(len(files.labels))):
        for index, logits in enumerate(batch, progress.done):
            if isinstance(logits, ValueError):
                broken[files.place(index)] = str(logits)
                continue
            likely, which = (each[:top].tolist() for each in logits.softmax(dim=0).sort(descending=True, stable=True))
            yield files.place(index), [(answering.classes[number], share) for number, share in zip(which, likely, strict=True)]
        progress.advance(len(batch))
        if stop():
            return


def _print_json(about: dict[str, Any], answers: Iterable[Answer], broken: dict[str, str]) -> None:
    """One object, written as the answers come: a folder may have a million images."""
    print(json_format.dumps(about)[:-1], end=',\n"images": {')
    comma = ""
    for path, best in answers:
        listed = [{"class": name, "probability": round(share, 6)} for name, share in best]
        print(f"{comma}\n {json_format.dumps(path)}: {json_format.dumps(listed)}", end="", flush=True)
        comma = ","
    print(f'\n}},\n"broken": {json_format.dumps(broken)}}}')


def _print_table(answers: Iterable[Answer], width: int, classes: tuple[str, ...]) -> None:
    widest = min(WIDEST, max(map(len, classes)))
    print(f"{'image':{width}}  most likely")
    for path, best in answers:
        print("  ".join([f"{path:{width}}", *(f"{name[:widest]:{widest}} {share:7.2%}" for name, share in best)]), flush=True)
