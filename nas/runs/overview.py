"""What lies in a folder of runs: what each is, how far it came, its result, its size; and what of it can be made again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nas.runs.folder import TRAINED_ALONE, Run
from nas.runs.records import RunStory, read_run


@dataclass(frozen=True)
class Overview:
    """A run in a line.

    Attributes:
        name: its folder's.
        what: what was run: "search of cifar_small", "retraining".
        state: how far it came.
        network: the key of its winner or of the network that it trained; "" where there is none.
        accuracy: as its record says it; "" where there is none.
        size: of all of its files, in bytes.
        spare: files that only a training that goes on would need, of what has ended.
    """

    name: str
    what: str
    state: str
    network: str
    accuracy: str
    size: int
    spare: tuple[Path, ...]


def overviews(root: Path) -> Iterator[Overview]:
    """Of every run in a folder, by name; a run that cannot be read is told as damaged."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
        try:
            yield overview(folder)
        except ValueError as error:
            yield Overview(folder.name, "damaged", str(error), "", "", _size(folder), ())


def overview(folder: Path) -> Overview:
    """Of one run.

    Raises:
        ValueError: its name is none, or its records are damaged.
    """
    run = Run(folder.name, folder.parent)
    story = read_run(folder)
    what, state, ended = _state(story)
    network, accuracy = _result(story)
    spare = tuple(_spare(run.folder, story)) if ended else ()
    return Overview(folder.name, what, state, network, accuracy, _size(folder), spare)


def _state(story: RunStory) -> tuple[str, str, bool]:
    """What it is, how far it came, and whether all that was begun has ended."""
    record = story.record
    if record.supernet:
        done = ", ".join(story.searches)
        state = (
            f"searched: {done}"
            if done
            else "supernet trained"
            if record.supernet_finished
            else f"supernet at step {_last_step(story, 'supernet')}"
        )
        return f"search of {Path(record.supernet.space).stem}", state, bool(done)
    if record.retrain:
        ended = story.training is not None
        return "retraining", "ended" if ended else f"at step {_last_step(story, 'retrain')}", ended
    if record.compare:
        return "comparison", "ended" if record.finished else "under way", record.finished is not None
    if record.imported:
        return f"import of {record.imported.preset}", "ended", True
    return "nothing begun", "", False


def _last_step(story: RunStory, kind: str) -> int:
    return max((line["step"] for line in story.metrics if line.get("kind") == kind), default=0)


def _result(story: RunStory) -> tuple[str, str]:
    if story.training:
        result = story.training.result
        return story.training.architecture.key, f"{result.test_accuracy:.2%} of {result.test_images:,} test images"
    if story.searches:
        winner = list(story.searches.values())[-1]
        found = winner.found
        accuracy = found.accuracy_supernet if found.accuracy_alone is None else found.accuracy_alone
        how = "by the supernet" if found.accuracy_alone is None else "alone"
        return winner.architecture.key, f"{accuracy:.2%} of {found.held_out_images:,} held out, {how}" if accuracy is not None else ""
    return "", ""


def _spare(folder: Path, story: RunStory) -> Iterator[Path]:
    """A finished training's state, the checkpoint before the last, and those of networks trained alone that were left behind."""
    if story.training:
        yield from folder.glob("checkpoint.pt*")
    yield from folder.glob("supernet.pt.previous")
    yield from (folder / TRAINED_ALONE).glob("*/checkpoint.pt*")


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink())
