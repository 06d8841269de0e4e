"""What lies in a folder of runs: what each is, how far it came, its result, its size; and what of it can be made again."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nas.runs.folder import CHECKPOINT, TRAINED_ALONE, WEIGHTS, Run
from nas.runs.records import RunStory, read_run


@dataclass(frozen=True)
class Overview:
    """A run in a line.

    Attributes:
        name: its folder's.
        what: what was run: "search of cifar_small", "retraining".
        state: how far it came.
        results: of each network that it trained, or that won a search in it: for which search ("" for none), its key, and its accuracy as its record
            says it.
        size: of all of its files, in bytes.
        spare: files that only a training that goes on would need, of what has ended.
    """

    name: str
    what: str
    state: str
    results: tuple[tuple[str, str, str], ...]
    size: int
    spare: tuple[Path, ...]


def overviews(root: Path) -> Iterator[Overview]:
    """Of every run in a folder, by name; a run that cannot be read is told as damaged."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
        try:
            yield overview(folder)
        except ValueError as error:
            yield Overview(folder.name, "damaged", str(error), (), _size(folder), ())


def overview(folder: Path) -> Overview:
    """Of one run.

    Raises:
        ValueError: its name is none, or its records are damaged.
    """
    run = Run(folder.name, folder.parent)
    story = read_run(folder)
    what, state = _state(story)
    return Overview(folder.name, what, state, tuple(_results(story)), _size(folder), tuple(_spare(run.folder, story)))


def _state(story: RunStory) -> tuple[str, str]:
    """What it is, and how far it came."""
    record = story.record
    if record.supernet:
        return f"search of {Path(record.supernet.space).stem}", "; ".join(_searched(story))
    if record.retrain:
        return "retraining", "ended" if story.training else f"at step {_last_step(story, 'retrain')}"
    if record.compare:
        return "comparison", "ended" if record.finished else "under way"
    if record.imported:
        return f"import of {record.imported.preset}", "ended"
    if record.conditions:
        return "latency table", timed(story)
    return "nothing begun", ""


def timed(story: RunStory) -> str:
    """What a latency table has."""
    parts, networks = ({line["key"] for line in story.metrics if line.get("kind") == kind} for kind in ("part", "network"))
    return f"{len(parts)} parts and {len(networks)} whole networks timed"


def _searched(story: RunStory) -> Iterator[str]:
    """How far a supernet and its searches came."""
    going = _under_way(story)
    if any(name not in going for name in story.searches):
        yield "searched"
    else:
        yield "supernet trained" if story.record.supernet_finished else f"supernet at step {_last_step(story, 'supernet')}"
    if going:
        yield f"{', '.join(going)} under way"


def _under_way(story: RunStory) -> list[str]:
    """The searches in the log that have no winner, or that went on since, for more trials or finalists."""
    ended = {name: story.record.searches[name].finished for name in story.searches}
    lines = (line for line in story.metrics if "study" in line)
    return list(dict.fromkeys(line["study"] for line in lines if line["time"] > ended.get(line["study"], "")))


def _last_step(story: RunStory, kind: str) -> int:
    return max((line["step"] for line in story.metrics if line.get("kind") == kind), default=0)


def _results(story: RunStory) -> Iterator[tuple[str, str, str]]:
    if story.training:
        result = story.training.result
        yield "", story.training.architecture.key, f"{result.test_accuracy:.2%} of {result.test_images:,} test images"
    for study, winner in story.searches.items():
        found = winner.found
        accuracy = found.accuracy_supernet if found.accuracy_alone is None else found.accuracy_alone
        how = "by the supernet" if found.accuracy_alone is None else "alone"
        said = f"{accuracy:.2%} of {found.held_out_images:,} held out, {how}" if accuracy is not None else ""
        yield study, winner.architecture.key, said


def _spare(folder: Path, story: RunStory) -> Iterator[Path]:
    """A finished training's state, the checkpoint before the last, and those of networks trained alone that were left behind."""
    if story.training and (folder / WEIGHTS).exists():
        yield from folder.glob(f"{CHECKPOINT}*")
    if story.searches and story.record.supernet_finished:
        yield from folder.glob("supernet.pt.previous")
    yield from _left_behind(folder, story)


def _left_behind(folder: Path, story: RunStory) -> Iterator[Path]:
    """The checkpoints that an ended search's finalists left behind, but for those from which anybody may go on: a search under way that has the same
    finalist, or whoever trained it since, `fidelity` among them."""
    going, left, kept = _under_way(story), dict[str, float](), set[str]()
    for line in (line for line in story.metrics if line.get("kind") == "finalist"):
        place, study = f"{line['key']}-{line['schedule']}", line["study"]  # a seed follows
        if study in going:
            kept.add(place)
        else:
            ended = datetime.datetime.fromisoformat(story.record.searches[study].finished).timestamp()
            left[place] = max(ended, left.get(place, 0.0))
    for path in (folder / TRAINED_ALONE).glob(f"*/{CHECKPOINT}*"):
        place = "-".join(path.parent.name.split("-")[:2])
        if place in left and place not in kept and int(path.stat().st_mtime) <= left[place]:
            yield path


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink())
