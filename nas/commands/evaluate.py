"""`evaluate`: how often a trained network is right about a split of a data set, class by class."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import DATA_SETS, batch_size_option, data_root_option, device_option, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nas.data import DataSource
    from nas.training.answers import Answering

SPLITS = ("test", "held_out", "train", "all")


@click.command(short_help="Test a trained network, class by class.")
@click.argument("weights", metavar="WEIGHTS")
@option("--data", "DATA", f"digits; {DATA_SETS}", required=True)
@data_root_option
@option(
    "--split",
    "SPLIT",
    f"{', '.join(SPLITS)} (default: test). `retrain` trains on all but test; all is for images that it never had.",
    type=click.Choice(SPLITS),
    default="test",
)
@option("--out", "FOLDER", "Where the results go (default: beside the weights).", type=click.Path(path_type=Path, file_okay=False))
@device_option
@batch_size_option
def evaluate(
    weights: str, data: str, data_root: str | None, split: str, out: Path | None, device: str, batch_size: int
) -> int:  # fmt: skip
    """Say how often a trained network is right about images whose classes are known, and what it confuses.

    WEIGHTS is a file of weights, or the name or folder of a run. Images are prepared as for the test of the network, and classes are matched by
    name. Writes the figures of each class as JSON, and a picture of the confusion matrix.
    """
    from nas.data import open_data
    from nas.reporting.confusion import as_table, png
    from nas.runs.folder import weights_file
    from nas.training.answers import Answering, judged
    from nas.training.setting import open_device
    from nas.yaml_files import write_atomically

    path = weights_file(weights)
    answering = Answering.load(path, open_device(device), batch_size)
    source = open_data(data, Path(data_root) if data_root else None)
    for note in filter(None, (source.note, _changed(path, source, data))):
        print(note)
    classes, outputs = _matched(answering, source, path)
    confusion = _confusion(answering, source, split, outputs)
    found = {"settings": _settings(answering, source, split, path), **judged(confusion, classes)}
    for line in as_table(found):
        print(line)
    print(f"Accuracy: {found['accuracy']:.2%} of {found['images']} images ({source.name}, {split})")
    target = _target(path.parent if out is None else out, path, found["settings"])
    write_atomically(target, json.dumps(found, indent=1).encode())
    write_atomically(target.with_suffix(".png"), png(found))
    print(f"Written to {target} and {target.with_suffix('.png')}")
    return 0


def _changed(weights: Path, source: DataSource, data: str) -> str:
    """Whether the images are not those that the network was trained with, although they lie in the same place; in words."""
    from nas.networks.architecture import read_architecture
    from nas.runs.folder import told_beside
    from nas.runs.records import Begun
    from nas.yaml_files import validate

    told = told_beside(weights)
    with contextlib.suppress(ValueError):  # a file of weights that lies alone
        begun = validate(Begun, read_architecture(told)[1], str(told))
        if begun.data == str(Path(data).expanduser().resolve()) and begun.data_fingerprint != source.fingerprint:
            return f"The images of {data} changed since the network was trained: it may have been trained on some that are now in another split."
    return ""


def _matched(answering: Answering, source: DataSource, path: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of the network's outputs (where its file has none, those of the data), and which of them each class of the data is."""
    from nas.training.answers import outputs_of

    classes, notes = answering.classes, []
    if not answering.network.classes and len(source.classes) == len(classes):
        classes = source.classes
        notes = [f"{path} does not name its classes: its outputs are taken for those of {source.name}, in their order."]
    outputs = outputs_of(source.classes, classes, source.name)
    if missing := [name for name in classes if name not in source.classes]:
        notes = [f"{source.name} lacks {len(missing)} of the network's {len(classes)} classes, such as {missing[0]!r}."]
    for note in notes:
        print(note)
    return classes, outputs


def _confusion(answering: Answering, source: DataSource, split: str, outputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many images of each class got which answer, in the order of the network's outputs."""
    import numpy as np

    from nas.data.decoding import QUIET_SECONDS
    from nas.progress import Progress
    from nas.runs.interrupt import Interrupt, Stopped

    images, indices = source.split(split)
    confusion = np.zeros((len(answering.classes), len(answering.classes)), np.int64)
    with Interrupt() as interrupt, Progress("evaluate", len(indices), "image", quiet=QUIET_SECONDS) as progress:
        for batch in answering.logits(images, indices):
            if interrupt.requested:
                raise Stopped(f"evaluation stopped after {progress.done:,} of {len(indices):,} images", continues=False)
            for index, logits in zip(indices[progress.done :], batch, strict=False):
                if isinstance(logits, ValueError):
                    raise logits
                confusion[outputs[images.labels[index]], int(logits.argmax())] += 1
            progress.advance(len(batch))
    return confusion


def _settings(answering: Answering, source: DataSource, split: str, path: Path) -> dict[str, Any]:
    """What was evaluated; no time, so that the same command writes the same file."""
    from dataclasses import asdict

    from nas.runs.records import digest

    network = answering.network
    assert network.preprocess is not None
    return {
        "weights": str(path), "weights_digest": digest(path), "architecture": network.architecture.key,
        "data": source.name, "data_fingerprint": source.fingerprint, "split": split, "device": str(answering.device),
        "bf16": network.bf16, "preprocessing": asdict(network.preprocess),
    }  # fmt: skip


IDENTITY = ("weights_digest", "data_fingerprint", "split")


def _target(folder: Path, weights: Path, settings: dict[str, Any]) -> Path:
    """Where the figures go: the file of the same evaluation, or a new one; what else is there stays."""
    from nas.runs.folder import default_name

    of = [] if weights.stem == "weights" else [weights.stem]
    name = default_name("evaluation", *of, settings["data"], settings["split"])
    for number in itertools.count(1):
        path = folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
        if not path.exists() and not path.with_suffix(".png").exists():
            return path
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # no file of an evaluation
            there = json.loads(path.read_text())["settings"]
            if all(there[key] == settings[key] for key in IDENTITY):
                return path
    raise AssertionError("the numbers do not end")
