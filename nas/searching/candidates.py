"""Who may become a finalist, and what is found out of these networks before any of them is trained alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.progress import MEANINGFUL, Progress
from nas.quantities import Budget
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching.evaluating import Evaluator
from nas.searching.known_networks import baselines
from nas.searching.ladder import Finalist
from nas.searching.proposals import Band, draw, stratified
from nas.searching.search import SearchRequest, Trial
from nas.searching.supernet_run import SupernetRun

DRAWN = 300  # candidates where no search has evaluated any
FAVOURITES, VARIED = 8, 6  # one finalist of so many is a favourite of the supernet, or drawn for variety; the others a model chooses
VARIED_ALONE = 3  # where there is no supernet


@dataclass(frozen=True)
class Looks:
    """What is found out of networks for a study, each once: whether they obey what is measured, and their scores by the supernet.

    The run's log keeps both. They cost time, and a second measurement would say otherwise of some: who continues would choose others. What was
    measured on another machine or with other versions is found out again.

    Attributes:
        run: whose log keeps them.
        study: that they are for.
        budgets: of the study.
        measure: what is measured of a network and limited; a `MemoryError` where it does not fit.
        stop: asked before each network; True interrupts.
        where: digest of all that what is measured depends on besides the network.
    """

    run: Run
    study: str
    budgets: Sequence[Budget]
    measure: Callable[[Architecture], Mapping[str, float]]
    stop: Callable[[], bool]
    where: str = ""

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        return [line for line in self.run.metrics("looked") if line["study"] == self.study]

    @cached_property
    def obeying(self) -> dict[str, bool]:
        """By key, whether a network obeys what is measured."""
        return {line["key"]: line["obeys"] for line in self._lines if "obeys" in line and line.get("where") == self.where}

    @cached_property
    def scores(self) -> dict[str, float | None]:
        """By key, accuracies with the supernet's weights; None where the evaluation failed."""
        return {line["key"]: line["supernet"] for line in self._lines if "supernet" in line}

    def score(self, architecture: Architecture, accuracy: float | None) -> None:
        """Keeps a score."""
        self.scores[architecture.key] = accuracy
        self.run.log("looked", study=self.study, key=architecture.key, supernet=accuracy)

    def obeys(self, architecture: Architecture) -> bool:
        if not any(each.quantity.measured for each in self.budgets):
            return True
        if architecture.key not in self.obeying:
            measured = obeying(architecture, self.budgets, self.measure)
            self.obeying[architecture.key] = measured is not None
            told = {"obeys": measured is not None, **({"measured": dict(measured)} if measured else {})}
            self.run.log("looked", study=self.study, key=architecture.key, **told, where=self.where)
        return self.obeying[architecture.key]

    def first(
        self, finalists: Sequence[Finalist], num: int, evaluate: Callable[[Architecture], float | None] | None = None
    ) -> list[Finalist]:
        """Of these, in their order, the first so many that obey what is measured; with `evaluate` each with a score, or None where it has none.

        Raises:
            Stopped: `stop` became true; what was found out is kept.
        """
        found = list[Finalist]()
        with Progress("look at candidates", min(num, len(finalists)), "network", quiet=MEANINGFUL) as progress:
            for each in finalists:
                if len(found) == num:
                    break
                if self.stop():
                    raise Stopped(f"looking at candidates stopped after {len(found)} of {num} networks")
                if self.obeys(each.architecture):
                    if evaluate and each.supernet is None:
                        if each.key not in self.scores:
                            self.score(each.architecture, evaluate(each.architecture))
                        each = replace(each, supernet=self.scores[each.key])
                    found.append(each)
                    progress.advance()
        return found


def obeying(
    architecture: Architecture, budgets: Sequence[Budget], measured: Callable[[Architecture], Mapping[str, float]]
) -> Mapping[str, float] | None:
    """What is measured of a network now, if anything measured is limited; None where that is not within the limits."""
    try:
        values = measured(architecture)
    except MemoryError:
        return None
    return values if all(each.violation(values[each.quantity.name]) <= 0 for each in budgets if each.quantity.measured) else None


def in_space(space: Any, architecture: Architecture) -> bool:
    try:
        space.encode(architecture)
    except ValueError:
        return False
    return True


def favourites_and_varied(num: int, supernet: bool) -> tuple[int, int]:
    """How many of so many finalists are favourites of the supernet, and how many are drawn for variety."""
    return (max(1, num // FAVOURITES), num // VARIED) if supernet else (0, num // VARIED_ALONE)


@dataclass(frozen=True)
class Candidates:
    """Who may become a finalist, with the supernet's scores.

    Attributes:
        by_hand: the single-mixer networks and other patterns, and published networks, all within the budgets.
        varied: drawn for variety, within the budgets too.
        pool: the others: what the search evaluated in the band, the most accurate first; without a supernet, draws. What is measured of them
            is found out when they are looked at.
    """

    by_hand: tuple[Finalist, ...]
    varied: tuple[Finalist, ...]
    pool: tuple[Finalist, ...]


def candidates(
    opened: SupernetRun, request: SearchRequest, num: int, trials: Sequence[Trial], evaluator: Evaluator | None, looks: Looks
) -> Candidates:
    """Gathers them; finds out scores and what is measured of those drawn by hand and for variety, as far as that is not known.

    Without an evaluator there is no supernet, and nobody has a score.

    Raises:
        Stopped: interrupted; what was found out is kept.
    """
    space, rng = opened.space, random.Random(f"{request.seed}/finalists")
    band = Band(space, cost, request.budgets, request.floor)
    evaluated = {trial.architecture.key: trial for trial in trials if trial.evaluation and trial.repeat_of is None}
    measured = {each.quantity.name for each in request.budgets if each.quantity.measured}
    looks.obeying.update({key: trial.feasible for key, trial in evaluated.items() if measured and measured <= trial.measured.keys()})

    named = list(baselines(space, request.budgets, request.floor, opened.setting.frame))
    by_hand = {each.architecture.key: (each.name, each.architecture) for each in reversed(named)}  # two patterns may be one network
    varied = [space.decode(values) for values in stratified(band, favourites_and_varied(num, evaluator is not None)[1], request.seed)]
    varied = [each for each in varied if each.key not in by_hand]
    low, taken = request.floor if request.budgets else 0.0, {*by_hand, *(each.key for each in varied)}  # each is trained once
    pool = [each for each in evaluated.values() if each.feasible and each.usage >= low and each.architecture.key not in taken]
    pool.sort(key=lambda each: (-each.objectives[0], each.number))
    drawn = [space.decode(each.values) for each in draw(band, 0 if evaluator else DRAWN, set(by_hand), rng)]

    scores = {**looks.scores, **{key: trial.accuracy for key, trial in evaluated.items()}}
    asked = (*(architecture for _, architecture in by_hand.values()), *varied)
    unknown = [each for each in asked if each.key not in scores and in_space(space, each)] if evaluator else []
    for each, found in zip(unknown, evaluator.evaluate(unknown) if evaluator else (), strict=True):
        looks.score(each, found.accuracy)
        scores[each.key] = found.accuracy
        if looks.stop():
            raise Stopped("looking at networks drawn by hand stopped")

    def finalist(origin: str, architecture: Architecture, by_hand: bool = False) -> Finalist:
        return Finalist(origin, architecture, by_hand, scores.get(architecture.key))

    by_name = [finalist(name, each, True) for name, each in by_hand.values()]
    return Candidates(
        tuple(looks.first(by_name, len(by_name))),
        tuple(looks.first([finalist("variety", each) for each in varied], len(varied))),
        tuple(finalist("supernet", each.architecture) for each in pool) + tuple(finalist("drawn", each) for each in drawn),
    )
