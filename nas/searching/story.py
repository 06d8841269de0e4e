"""All that a run found out, read back for whoever draws or tells it: what a search looked at, its ladder, its curves, its ranking's quality."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.quantities import Budget, Cost, parse_budgets
from nas.runs.folder import TRAINED_ALONE, WEIGHTS, Run
from nas.runs.records import RunStory, SearchRecord, read_found, read_record, read_run
from nas.searching.additive import AdditiveModel
from nas.searching.finalist_study import Climber, ranked
from nas.searching.optuna_study import StudyTrial, importances, read_studies
from nas.searching.study_storage import place_of
from nas.searching.trained_alone import read_training_alone
from nas.spaces.decisions import SearchSpace
from nas.training.setting import shipped

RANKING = ("settings", "networks", "truth", "figures", "bias", "means", "agreement", "seconds")  # what `fidelity` writes
LEAST = 20  # networks from which on the additive model is asked


class Known(NamedTuple):
    """What a network has of a quantity, and how that is known: foretold is what a latency table or counting says of what can be measured."""

    value: float
    how: Literal["counted", "measured", "foretold"]


@dataclass(frozen=True)
class Candidate:
    """A network that a search looked at.

    Attributes:
        number: of its trial, as the dashboard counts.
        accuracy: of the held-out images with the supernet's weights; None where it was over budget or failed.
        origin: what proposed it.
        failure: why it could not be evaluated.
        measured: measured quantities, such as its latency.
        foretold: the same, as they were foretold before it ran.
        by_hand: whether a person would have drawn it: a pattern of mixers, a published network, or one that the user began with.
    """

    number: int
    architecture: Architecture
    accuracy: float | None
    cost: Cost
    origin: str
    failure: str | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    foretold: Mapping[str, float] = field(default_factory=dict)
    by_hand: bool = False

    def known(self, quantity: str) -> Known | None:
        """What it has of a quantity; None where that was neither measured nor foretold."""
        if quantity in Cost._fields:
            return Known(getattr(self.cost, quantity), "counted")
        if quantity in self.measured:
            return Known(self.measured[quantity], "measured")
        return Known(self.foretold[quantity], "foretold") if quantity in self.foretold else None

    def usage(self, budgets: Sequence[Budget]) -> float:
        """Share of the tightest budget, as far as it is known."""
        there = ((each.limit, self.known(each.quantity.name)) for each in budgets)
        return max((known.value / limit for limit, known in there if known), default=0.0)


@dataclass(frozen=True)
class Search:
    """One study: `winner` is None while it has not ended; the ladder has those that came furthest first, and the winner before them."""

    name: str
    budgets: tuple[Budget, ...]
    floor: float
    candidates: tuple[Candidate, ...]
    ladder: tuple[Climber, ...]
    winner: SearchRecord | None
    importances: Mapping[str, float] = field(default_factory=dict)  # of decisions, by Optuna
    retrained: Run | None = None  # that trained the winner alone on the same images, with its weights
    decided: Collection[str] = ()  # what of each stage has more than one option, as `AdditiveModel.spread` calls it
    looked: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by key what was measured of those that were to be finalists

    @property
    def winners_score(self) -> float | None:
        """The winner's accuracy with the supernet's weights; None too where the supernet does not have it."""
        if self.winner is None:
            return None
        of_ladder = (each.supernet for each in self.ladder if each.architecture.key == self.winner.architecture.key)
        return next(of_ladder, self.winner.found.accuracy_supernet)

    @property
    def limited(self) -> list[str]:
        """The quantities that its budgets limit; multiply-adds where there are none."""
        return list(dict.fromkeys(each.quantity.name for each in self.budgets)) or ["macs"]

    def known(self, architecture: Architecture, quantity: str) -> Known | None:
        """What a network has of a quantity; of what is measured, as the search measured it last, or else as it was foretold."""
        if quantity in Cost._fields:
            return Known(getattr(cost(architecture), quantity), "counted")
        won = self.winner is not None and self.winner.architecture.key == architecture.key
        measured = self.winner.costs if won and self.winner else self.looked.get(architecture.key, {})
        if quantity in measured:
            return Known(measured[quantity], "measured")
        return next((each.known(quantity) for each in self.candidates if each.architecture.key == architecture.key), None)

    @property
    def spread(self) -> dict[str, float]:
        """How far each decision moves the networks in the band apart, in shares of accuracy, by the additive model; empty for a few. A size with one
        option is no decision, though networks with a mixer that has it and without one may differ."""
        there = self.in_band
        if len(there) < LEAST:
            return {}
        networks = [each.architecture for each in there]
        spread = AdditiveModel(networks, [each.accuracy or 0.0 for each in there]).spread(networks)
        return {name: value for name, value in spread.items() if name in self.decided}

    @property
    def beside(self) -> list[str]:
        """The limited quantities that are told beside multiply-adds and parameters."""
        return [name for name in self.limited if name not in ("macs", "params")]

    @property
    def least(self) -> float:
        """Share of the tightest budget that `in_band` asks for: none where arithmetic knows no budget, and most networks were never measured."""
        names = {each.quantity.name for each in self.budgets}
        foretold = any(names & each.foretold.keys() for each in self.candidates)
        return self.floor if foretold or names & set(Cost._fields) else 0.0

    @property
    def in_band(self) -> list[Candidate]:
        """Those evaluated that are within the budgets, as far as that is known, and use as much of them as is asked for; the most accurate first."""
        low = self.least
        there = [each for each in self.candidates if each.accuracy is not None and low <= each.usage(self.budgets) <= 1]
        return sorted(there, key=lambda each: (-(each.accuracy or 0.0), each.number))

    def front(self, quantity: str) -> list[Candidate]:
        """Those evaluated that no other one beats: more accurate than all that need as much of a quantity or less; the cheapest first."""
        there = [
            (known.value, -each.accuracy, each.number, each)
            for each in self.candidates
            if each.accuracy is not None and (known := each.known(quantity))
        ]
        found: list[Candidate] = []
        for *_, each in sorted(there, key=lambda one: one[:3]):
            if not found or (each.accuracy or 0.0) > (found[-1].accuracy or 0.0):
                found.append(each)
        return found

    @cached_property
    def on_fronts(self) -> dict[str, list[str]]:
        """By key the networks on a front, and by which of the limited quantities."""
        found: dict[str, list[str]] = {}
        for name in self.limited:
            for each in self.front(name):
                found.setdefault(each.architecture.key, []).append(name)
        return found


@dataclass(frozen=True)
class Story:
    """A run."""

    run: Run
    told: RunStory
    space: SearchSpace | None
    searches: Mapping[str, Search]
    rankings: Mapping[str, Mapping[str, Any]]  # by file, what `fidelity` wrote
    comparison: Mapping[str, Any] | None = None  # what `compare` wrote

    @property
    def what(self) -> str:
        """Its own training: "supernet" or "retrain"."""
        return "supernet" if self.told.record.supernet else "retrain"

    @property
    def curve(self) -> list[dict[str, Any]]:
        """What was judged on the way: of a supernet the smallest, median and largest network."""
        return [line for line in self.told.metrics if line.get("kind") == f"{self.what} rung"]

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Step and loss; of steps that were done twice, after a crash, the later."""
        return sorted(
            {line["step"]: line["loss"] for line in self.told.metrics if line.get("kind") == self.what and "loss" in line}.items()
        )


def read_story(folder: Path, storage: str = "") -> Story:
    """Reads a run's folder; what is not there yet is empty.

    Without the file of its space (a run that was sent to somebody) what a search looked at cannot be told, only its ladder and its winner.

    Args:
        folder: of the run.
        storage: where its studies are, if that is a server and what the run records of it (no password) does not do.

    Raises:
        ValueError: a file in it is damaged, or its server does not answer; one line.
    """
    told = read_run(folder)
    run, record, space = Run(folder.name, folder.parent), told.record.supernet, None
    if record:
        with contextlib.suppress(ValueError):
            space = SearchSpace.read(shipped("search_spaces", record.space, "--space")).fixing(record.fixed)
            space = space if space.fingerprint == record.space_fingerprint else None
    place = place_of(run, storage)
    studies = read_studies(place)
    searches = {name: _search(run, told, space, name, facts, trials) for name, (facts, trials) in studies.items()}
    trained = _trained_beside(run) if told.searches else {}  # read once for all searches
    searches = {
        name: replace(
            each,
            importances=importances(place, name, space),
            retrained=trained.get((each.winner.architecture.key, each.winner.data_fingerprint)) if each.winner else None,
        )
        for name, each in searches.items()
    }
    rankings = {path.stem: read_found(path, *RANKING) for path in sorted(run.folder.glob("fidelity-*.json"))}
    compared = run.folder / "comparison.json"
    return Story(run, told, space, searches, rankings, read_found(compared, "settings", "networks") if compared.exists() else None)


def _search(
    run: Run, told: RunStory, space: SearchSpace | None, name: str, facts: Mapping[str, Any], trials: Sequence[StudyTrial]
) -> Search:
    budgets = parse_budgets(facts.get("budgets", []), f"study {name}: budgets")
    drawn = {*(space.patterns() if space else ()), *(start.rpartition(" ")[0] for start in facts.get("starts", []))}
    candidates = []
    for each in trials:
        if space and each.repeat_of is None and set(each.values) == set(space.decisions):
            architecture = space.decode(each.values)
            found = each.origin, each.failure, each.measured, each.foretold, each.origin in drawn
            candidates.append(Candidate(each.number, architecture, each.accuracy, cost(architecture), *found))
    its = [line for line in told.metrics if line.get("study") == name]
    looked = {line["key"]: line["measured"] for line in its if line.get("kind") == "looked" and "measured" in line}
    lines = [line for line in its if line.get("kind") == "finalist"]
    schedule, seed = (lines[-1]["schedule"] if lines else ""), (told.record.supernet.seed if told.record.supernet else 0) or 0
    ladder = [_climber(run, line, seed) for line in {line["key"]: line for line in lines if line["schedule"] == schedule}.values()]
    winner = told.searches.get(name)
    ladder = ranked(ladder, winner.architecture.key if winner else "")
    return Search(
        name,
        budgets,
        facts.get("floor", 0.0),
        tuple(candidates),
        tuple(ladder),
        winner,
        looked=looked,
        decided=space.fields if space else (),
    )


def _trained_beside(run: Run) -> dict[tuple[str, str | None], Run]:
    """The runs beside this one that ended training a network alone, by network and images; of several the last."""
    found: dict[tuple[str, str | None], tuple[str, str]] = {}
    for path in run.folder.parent.glob(f"*/{WEIGHTS}"):
        with contextlib.suppress(ValueError):  # another run that is damaged
            record = read_record(Run(path.parent.name, path.parent.parent))
            if record.retrain and record.finished:
                whose = record.retrain.architecture, record.retrain.data_fingerprint
                found[whose] = max(found.get(whose, ("", "")), (record.finished, path.parent.name))
    return {whose: Run(name, run.folder.parent) for whose, (_, name) in found.items()}


def _climber(run: Run, line: Mapping[str, Any], seed: int) -> Climber:
    architecture = Architecture.from_dict(line["architecture"], f"{run.folder}/metrics.jsonl: a finalist")
    trained = read_training_alone(run.folder / TRAINED_ALONE, architecture, line["schedule"], seed)
    return Climber(architecture, line["origin"], line["by_hand"], line["supernet"], line["fine_tuned"], trained, line["schedule"])
