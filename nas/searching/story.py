"""All that a run found out, read back for whoever draws or tells it: what a search looked at, its ladder, its curves, its ranking's quality."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.quantities import Budget, Cost, parse_budgets
from nas.runs.folder import TRAINED_ALONE, Run
from nas.runs.records import RunStory, SearchRecord, read_run
from nas.searching.additive import AdditiveModel
from nas.searching.finalist_study import Climber, ranked
from nas.searching.optuna_study import StudyTrial, importances, read_studies
from nas.searching.proposals import usage
from nas.searching.study_storage import place_of
from nas.searching.trained_alone import read_training_alone
from nas.spaces.decisions import SearchSpace
from nas.training.setting import shipped

LEAST = 20  # networks from which on the additive model is asked


@dataclass(frozen=True)
class Candidate:
    """A network that a search looked at.

    Attributes:
        number: of its trial, as the dashboard counts.
        accuracy: of the held-out images with the supernet's weights; None where it was over budget or failed.
        usage: share of the tightest budget on exact quantities.
        origin: what proposed it.
        failure: why it could not be evaluated.
        measured: measured quantities, such as its latency.
    """

    number: int
    architecture: Architecture
    accuracy: float | None
    cost: Cost
    usage: float
    origin: str
    failure: str | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    def value(self, quantity: str) -> float | None:
        """What it costs; None where that was never measured."""
        return {**self.cost._asdict(), **self.measured}.get(quantity)


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

    @property
    def limited(self) -> list[str]:
        """The quantities that its budgets limit; multiply-adds where there are none."""
        return list(dict.fromkeys(each.quantity.name for each in self.budgets)) or ["macs"]

    def value(self, architecture: Architecture, quantity: str) -> float | None:
        """What a network costs; of what is measured, as the search measured it last, and None where it did not."""
        if quantity in Cost._fields:
            return float(getattr(cost(architecture), quantity))
        if self.winner and self.winner.architecture.key == architecture.key:
            return self.winner.costs.get(quantity)
        return next((each.measured.get(quantity) for each in self.candidates if each.architecture.key == architecture.key), None)

    @property
    def spread(self) -> dict[str, float]:
        """How far each decision moves the networks in the band apart, in shares of accuracy, by the additive model; empty for a few."""
        there = self.in_band
        if len(there) < LEAST:
            return {}
        networks = [each.architecture for each in there]
        return AdditiveModel(networks, [each.accuracy or 0.0 for each in there]).spread(networks)

    @property
    def in_band(self) -> list[Candidate]:
        """Those evaluated that use as much of the tightest budget as a winner does, the most accurate first."""
        low = self.floor if self.budgets else 0.0
        there = [each for each in self.candidates if each.accuracy is not None and low <= each.usage <= 1]
        return sorted(there, key=lambda each: (-(each.accuracy or 0.0), each.number))


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
    searches = {name: replace(each, importances=importances(place, name)) for name, each in searches.items()}
    rankings = {path.stem: json.loads(path.read_text()) for path in sorted(run.folder.glob("fidelity-*.json"))}
    compared = run.folder / "comparison.json"
    return Story(run, told, space, searches, rankings, json.loads(compared.read_text()) if compared.exists() else None)


def _search(
    run: Run, told: RunStory, space: SearchSpace | None, name: str, facts: Mapping[str, Any], trials: Sequence[StudyTrial]
) -> Search:
    budgets = parse_budgets(facts.get("budgets", []), f"study {name}: budgets")
    exact = [each for each in budgets if not each.quantity.measured]
    candidates = []
    for each in trials:
        if space and each.repeat_of is None and set(each.values) == set(space.decisions):
            architecture = space.decode(each.values)
            counted = cost(architecture)
            candidates.append(
                Candidate(
                    each.number,
                    architecture,
                    each.accuracy,
                    counted,
                    usage(architecture, counted, exact),
                    each.origin,
                    each.failure,
                    each.measured,
                )
            )
    lines = [line for line in told.metrics if line.get("kind") == "finalist" and line.get("study") == name]
    schedule, seed = (lines[-1]["schedule"] if lines else ""), (told.record.supernet.seed if told.record.supernet else 0) or 0
    ladder = [_climber(run, line, seed) for line in {line["key"]: line for line in lines if line["schedule"] == schedule}.values()]
    winner = told.searches.get(name)
    ladder = ranked(ladder, winner.architecture.key if winner else "")
    return Search(name, budgets, facts.get("floor", 0.0), tuple(candidates), tuple(ladder), winner)


def _climber(run: Run, line: Mapping[str, Any], seed: int) -> Climber:
    architecture = Architecture.from_dict(line["architecture"], f"{run.folder}/metrics.jsonl: a finalist")
    trained = read_training_alone(run.folder / TRAINED_ALONE, architecture, line["schedule"], seed)
    return Climber(architecture, line["origin"], line["by_hand"], line["supernet"], line["fine_tuned"], trained)
