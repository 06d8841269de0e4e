"""What a run's YAML files hold, in one place: written through these models and checked by them when read.

    runs/<run>/run.yaml        `RunRecord`: what was begun and finished, with what, by which commands
    runs/<run>/<study>.yaml    `SearchRecord`: the winner of a search; best.yaml is a copy of the last one
    runs/<run>/result.yaml     `TrainingRecord`: a network trained from scratch, and its accuracy

A winner and a result are architecture files too: `retrain` takes them, and whatever else they hold is for people and for `read_run`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, StrictBool, StrictInt, StrictStr

from nas.machine import deletion
from nas.networks.architecture import FORMAT as ARCHITECTURE_FORMAT
from nas.networks.architecture import MAX_RESOLUTION, Architecture, read_architecture
from nas.runs.folder import Run, now, provenance
from nas.yaml_files import listed, one_line_error, validate, write_yaml

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[StrictInt, Field(ge=0)]
Resolution = Annotated[StrictInt, Field(ge=1, le=MAX_RESOLUTION)]
# Entries of a recipe's phase that say how it is computed, not what: with others a training goes on, and gives the same to rounding.
HOW = {"accumulate", "recompute"}


class _Entries(BaseModel):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)  # keys of other versions are passed over


class Begun(_Entries):
    """With what a training began: enough to come back to it. Identity is `data_fingerprint`, not the path or name in `data`."""

    data: StrictStr | None = None
    data_root: StrictStr | None = None
    data_fingerprint: StrictStr | None = None
    recipe: StrictStr | None = None
    resolution: Resolution | None = None
    seed: Count | None = None
    flip: StrictBool | None = None  # where the user decided whether images are mirrored
    train_images: Count | None = None  # how many images but the test's, of how many classes
    classes: Count | None = None


class SupernetRecord(Begun):
    """With what a run's supernet began; `recipe_content` is the whole recipe, since the file may change meanwhile.

    `levels` are lowest and highest cost of what is trained, by quantity (all of the space where there is none), `fixed` the decisions that are
    not searched; the fingerprint is that of the space without them.
    """

    space: StrictStr
    space_fingerprint: StrictStr
    levels: dict[str, tuple[float, float]] | None = None
    fixed: dict[str, StrictBool | StrictInt | StrictStr | float] = {}
    recipe_content: dict[str, Any]


class NetworkRecord(Begun):
    """With what the training of one network began; `architecture` is its key, `found_at` its file, `init` the digest of weights it began with."""

    architecture: StrictStr
    init: StrictStr | None = None
    bf16: StrictStr
    phase: dict[str, Any]
    found_at: StrictStr


class StudyRecord(_Entries):
    """A finished search: how many networks it was to evaluate and to train alone, and the digest of the winner's file."""

    trials: Count
    finalists: Count = 0
    finished: StrictStr
    winner: StrictStr


class ImportRecord(_Entries):
    """Whose weights were imported, from which file."""

    preset: StrictStr
    file: StrictStr
    sha256: StrictStr


class Invocation(_Entries):
    """Who wrote to a run, and when."""

    command: StrictStr = ""
    started: StrictStr = ""
    revision: StrictStr = ""  # of the program, in a git checkout


class RunRecord(_Entries):
    """run.yaml."""

    name: StrictStr | None = None
    invocations: list[Invocation] = []
    supernet: SupernetRecord | None = None
    supernet_finished: StrictStr | None = None
    searches: dict[str, StudyRecord] = {}
    storage: StrictStr | None = None  # the server with its studies, without a password; None: they are in study.db
    retrain: NetworkRecord | None = None
    compare: NetworkRecord | None = None  # the winner's, and how all networks of the comparison are trained
    imported: Annotated[ImportRecord | None, Field(alias="import")] = None
    conditions: dict[str, dict[str, StrictStr]] = {}  # under which a latency table was measured, by digest
    images_looked_at: StrictStr | None = None  # the fingerprint of images that were all found whole, where that took long
    finished: StrictStr | None = None


class Found(_Entries):
    """How a search came to its winner."""

    accuracy_supernet: Share | None = None  # of the held-out images, with the supernet's weights; None where it does not have the network
    accuracy_at_once: Share | None = None  # of the weights beside it: the supernet's, after a few steps more where these help
    accuracy_alone: Share | None = None  # trained from scratch for `epochs_alone`, where there were finalists
    epochs_alone: Annotated[float, Field(gt=0)] | None = None
    finalists: Count = 0
    origin: StrictStr | None = None  # what made it a finalist
    standard_error: Share  # of the accuracy that it was chosen by
    held_out_images: Count
    trial: Count | None = None  # where the supernet chose
    evaluations: Count
    failures: Count = 0
    usage: Annotated[float, Field(ge=0)]  # share of the tightest budget; 0 without one
    latency_spread: Annotated[float, Field(ge=0)] | None = None  # of the winner's passes, where they were timed, as a share of the median
    floor: Share
    reason: StrictStr


class SearchRecord(Begun):
    """A winner's file."""

    architecture: InstanceOf[Architecture]
    costs: dict[str, float]
    budgets: list[StrictStr]
    found: Found
    run: StrictStr
    study: StrictStr
    space: StrictStr
    space_fingerprint: StrictStr
    target: StrictStr | None = None  # where costs were measured


class Result(_Entries):
    """What training one network from scratch gave; accuracies are shares, 0 to 1."""

    test_accuracy: Share
    test_images: Count
    steps: Count
    epochs: Annotated[float, Field(ge=0)]


class TrainingRecord(Begun):
    """A result's file."""

    architecture: InstanceOf[Architecture]
    costs: dict[str, float]
    result: Result
    run: StrictStr


# ---- reading -----------------------------------------------------------------------------------------------------------


def again(path: Path, command: str, source: str) -> str:
    """What to do about a file that a command makes again of something else."""
    return f"Without it ({deletion(path)}) the same {command} command writes it again from the {source}."


@contextlib.contextmanager
def _saying(advice: str) -> Iterator[None]:
    """Adds to an error of reading whether the file can be made again."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error} {advice}") from None


def read_record(run: Run) -> RunRecord:
    """What run.yaml says; all empty when there is none yet. A file damaged or changed by hand is a ValueError, here and below."""
    path = run.folder / "run.yaml"
    with _saying("It cannot be made again: restore it from a copy, or begin another run with --run."):
        return validate(RunRecord, run.recorded(), str(path))


def _entries(path: Path) -> dict[str, Any]:
    architecture, entries = read_architecture(path)
    return {**entries, "architecture": architecture}


def read_search(path: Path) -> SearchRecord:
    """The winner of a search, by its file."""
    with _saying(again(path, "search", "study")):
        return validate(SearchRecord, _entries(path), str(path))


def read_training(path: Path) -> TrainingRecord:
    """The result of training one network, by its file."""
    with _saying(again(path, "retrain", "last checkpoint")):
        return validate(TrainingRecord, _entries(path), str(path))


def read_winner(run: Run, study: str) -> SearchRecord | None:
    """The winner of a finished search; None where the search or its file is not there. It has to be as the search wrote it."""
    path, record = winner_path(run, study), read_record(run).searches.get(study)
    if record is None or not path.exists():
        return None
    winner = read_search(path)
    if digest(path) != record.winner:
        raise ValueError(f"{path}: changed since the search wrote it. {again(path, 'search', 'study')}")
    return winner


@dataclass(frozen=True)
class RunStory:
    """All that a run's records say."""

    record: RunRecord  # run.yaml
    searches: dict[str, SearchRecord]  # the winners by study
    training: TrainingRecord | None  # result.yaml, if the run trained one network to its end
    metrics: list[dict[str, Any]]  # the lines of metrics.jsonl


def read_run(folder: Path) -> RunStory:
    """Reads a run's folder.

    Raises:
        ValueError: a file in it was damaged or changed by hand; one line that names it and says whether it can be made again.
    """
    run = Run(folder.name, folder.parent)
    record, result = read_record(run), run.folder / "result.yaml"
    winners = {study: winner for study in record.searches if (winner := read_winner(run, study))}
    return RunStory(record, winners, read_training(result) if result.exists() else None, run.metrics())


# ---- writing -----------------------------------------------------------------------------------------------------------


def winner_path(run: Run, study: str) -> Path:
    return run.folder / f"{study}.yaml"


def digest(path: Path) -> str:
    """Twelve hexadecimal digits of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def write_architecture(path: Path, architecture: Architecture, entries: dict[str, Any], header: str) -> None:
    """Writes an architecture file with other entries and with what made it."""
    made = provenance()
    written = {"command": made["command"], "versions": made["versions"], "written": now()}
    write_yaml(path, {"format": ARCHITECTURE_FORMAT, "architecture": architecture.to_dict(), **entries, **written}, header=header)


def same_as_begun(run: Run, begun: Begun | None, wanted: Begun) -> None:
    """Refuses to go on with a run that was begun with something else. Names and paths do not count, contents do.

    Raises:
        ValueError: names the first difference, and what to do.
    """
    if begun is None:
        return
    new, old = _flat(wanted), _flat(begun)
    for key in dict.fromkeys([*new, *old]):
        if new.get(key) != old.get(key):
            what = _SAID.get(key, f"with another value of '{key}'")
            got, accepted = _shown(key, wanted, new), _shown(key, begun, old)
            raise ValueError(f"{run.folder}: begun {what}: got {got}; accepted: {accepted}. Take that, or begin another with --run NAME.")


_SAID = {"data_fingerprint": "with other images", "space_fingerprint": "with another space", "architecture": "with another architecture",
         "init": "with other weights"}  # fmt: skip
_CALLED = {"data_fingerprint": "data", "space_fingerprint": "space"}  # what a fingerprint is of


def _shown(key: str, record: Begun, plain: dict[str, Any]) -> object:
    value = plain.get(key, "none")
    return f"{getattr(record, _CALLED[key])} ({value})" if key in _CALLED else value


# how something was called, not what it is; `flip` is part of the recipe, and earlier versions counted no images
_NAMES = ("data", "data_root", "train_images", "classes", "recipe", "space", "found_at", "flip")


def _flat(record: Begun) -> dict[str, Any]:
    """What has to be the same, by name; a phase entry by entry, so that a message names what differs. The search part of a recipe and the
    retraining's are no part of a supernet."""
    plain = record.model_dump(mode="json", exclude=set(_NAMES))
    recipe = plain.pop("recipe_content", {})
    phase = {**plain.pop("phase", {}), **recipe.get("supernet", {})}
    return {
        **plain,
        **({"bf16": recipe["bf16"]} if "bf16" in recipe else {}),
        **{key: value for key, value in phase.items() if value is not None and key not in HOW},
    }


def read_found(path: Path, *keys: str) -> dict[str, Any]:
    """What a command found out and wrote as JSON: `fidelity`, `compare` or `evaluate`.

    Raises:
        ValueError: it is damaged, or another file; one line.
    """
    try:
        found = json.loads(path.read_bytes())
        if missing := [key for key in keys if not isinstance(found, dict) or key not in found]:
            raise ValueError(f"no {listed(missing)}")
    except (ValueError, RecursionError) as error:
        raise one_line_error(
            f"{path}: damaged: {error}; accepted: what a command wrote there. Without it ({deletion(path)}) the command that made it writes it anew."
        ) from None
    return dict(found)
