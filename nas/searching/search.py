"""The only search loop: ask, check the budget, evaluate, tell.

Nothing here knows a sampler, a network's weights or a worker: a `Study` suggests and remembers, `Instruments` find out what a network costs
and is worth. An interrupted search is continued by running it again: every generation is suggested as before (randomness is a function of
seed and generation), and what the study already holds is neither evaluated nor measured a second time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from nas.networks.architecture import Architecture
from nas.pareto import dominates
from nas.quantities import Budget, Cost, format_quantity
from nas.runs.interrupt import Stopped
from nas.searching.evolution import PROPOSERS, History
from nas.searching.proposals import Band, Proposal, draw, first_generation, largest_that_fits, usage, value_of

if TYPE_CHECKING:  # the space itself comes with torch
    from nas.spaces.decisions import SearchSpace
    from nas.spaces.schema import Values

DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")  # of (accuracy, MACs)
BATCHES = 5  # what stays within the band learns after a fifth of a generation
CostOf = Callable[[Architecture], Cost]
# By name of a measured quantity: its value for a network, in its unit, taken while nothing else of ours runs. `MemoryError`: it does not fit.
Measure = Mapping[str, Callable[[Architecture], float]]


@dataclass(frozen=True)
class SearchRequest:
    """What is searched for, and how."""

    budgets: tuple[Budget, ...]  # limits that bind, as `check_budgets` gives them; at most one per quantity
    trials: int  # distinct networks to evaluate in all, those of earlier sittings included
    population: int  # trials of a generation, at least 2
    sampler: str = "evolution"  # a name of `evolution.PROPOSERS` or `optuna_study.SAMPLERS`
    seed: int = 0  # of all that is sampled
    floor: float = 0.8  # share of the tightest budget, in [0, 1), that the first generation and the winner use at least
    starts: Mapping[str, Values] = field(default_factory=dict)  # by name, for the first generation, where they are within the budgets


MEMORY, LOGITS = "out of memory", "logits are not finite"  # reasons of failures for which there is advice


@dataclass(frozen=True)
class Evaluation:
    """What evaluating a network gave, exactly one of the two: an accuracy (share of the held-out images, to be maximised), or the reason
    why there is none, in a few words that are the same for the same reason."""

    accuracy: float | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        assert (self.accuracy is None) != (self.failure is None), self
        assert self.accuracy is None or 0 <= self.accuracy <= 1, self  # and not NaN


@dataclass(frozen=True)
class Instruments:
    """What finds out about networks: what they cost by arithmetic, what they are worth, and what has to be measured."""

    cost: CostOf  # in the space's frame
    evaluate: Callable[[list[Architecture]], Iterator[Evaluation]]  # lazily and in their order
    measure: Measure = field(default_factory=dict)


class Stored(NamedTuple):
    """What a trial cost time to find out. Without an evaluation it was over budget by arithmetic."""

    evaluation: Evaluation | None
    measured: Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """A trial with all that is known of it."""

    number: int  # place in the study, from 0
    values: Values  # an option for every decision
    architecture: Architecture
    cost: Cost  # in the space's frame
    constraints: Mapping[str, float]  # by name of a limited quantity value / limit - 1: above 0 is over budget
    origin: str = ""  # as in `Proposal`
    evaluation: Evaluation | None = None  # None where an exact budget forbade it
    measured: Mapping[str, float] = field(default_factory=dict)  # by name; empty where the network did not enter the front
    foretold: Mapping[str, float] = field(default_factory=dict)  # by name, what arithmetic says of measured quantities
    repeat_of: int | None = None  # number of the trial that evaluated the same architecture

    @property
    def usage(self) -> float:
        """Largest value / limit over the budgets; 0 with no budget."""
        return max((1 + violation for violation in self.constraints.values()), default=0.0)

    @property
    def accuracy(self) -> float | None:
        """None where it was not evaluated, or the evaluation failed."""
        return self.evaluation.accuracy if self.evaluation else None

    @property
    def feasible(self) -> bool:
        """Has an accuracy and is within every budget it was held to."""
        return self.accuracy is not None and self.usage <= 1

    @property
    def objectives(self) -> tuple[float, float]:
        """Accuracy (to be maximised) and MACs (to be minimised)."""
        assert self.accuracy is not None
        return self.accuracy, self.cost.macs

    def held_to(self, budgets: Sequence[Budget], measured: Mapping[str, float]) -> Trial:
        """The same with these measured values, which bind like any other."""
        over = {b.quantity.name: b.violation(measured[b.quantity.name]) for b in budgets if b.quantity.name in measured}
        return dataclasses.replace(self, measured=measured, constraints={**self.constraints, **over})


class Study(Protocol):
    """Who suggests and remembers. `stored` has the trials of earlier sittings, by number."""

    @property
    def stored(self) -> Mapping[int, Stored]: ...

    def ask(self, generation: int, proposals: Sequence[Proposal], num: int) -> list[Proposal]:
        """The next `num` trials, the proposals first. The answer depends on seed, generation and the trials before."""

    def tell(self, trial: Trial) -> None:
        """Takes a finished trial, in order of number, and writes it at once if it is not stored yet."""


@dataclass(frozen=True)
class Result:
    """What a search leaves."""

    trials: list[Trial]  # all of them, in order of number
    ending: Literal["trials", "exhausted", "stopped"]  # as many networks evaluated as wanted; nothing new to be found; asked to
    num_evaluated: int  # distinct networks, those that failed and those of earlier sittings included
    seconds: float  # duration of this sitting
    evaluate_seconds: float  # the part of it spent waiting for evaluations and measurements


def failures(trials: Iterable[Trial]) -> Counter[str]:
    """How many distinct networks failed, by reason."""
    return Counter(t.evaluation.failure for t in trials if t.evaluation and t.evaluation.failure and t.repeat_of is None)


def search(
    space: SearchSpace,
    study: Study,
    request: SearchRequest,
    instruments: Instruments,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[Trial, int, Trial | None], None] = lambda trial, num_evaluated, best: None,
) -> Result:
    """Evaluates up to `request.trials` distinct networks within the budgets, a generation at a time.

    Args:
        stop: asked before each evaluation; True ends the search there, as a `Stopped` of the instruments does.
        report: called after each trial that was not stored before, with the number of networks evaluated and the most accurate feasible trial.
    """
    began, waited = time.perf_counter(), 0.0
    band = Band(space, instruments.cost, request.budgets, request.floor)
    known, new = dict[str, Trial](), dict[str, Trial]()  # by key: first trials of what was evaluated, and what is to be in a generation
    finished: list[Trial] = []
    best: Trial | None = None

    def result(ending: Literal["trials", "exhausted", "stopped"]) -> Result:
        return Result(finished, ending, len(known), time.perf_counter() - began, waited)

    for generation in itertools.count():
        proposals, num = _proposals(band, request, generation, known, len(new))
        if not num:
            return result("exhausted")
        suggestions = study.ask(generation, proposals, num)
        candidates = [_candidate(band, request.budgets, number, each) for number, each in enumerate(suggestions, len(finished))]

        # Evaluate what was not seen before and is within budget as far as arithmetic can say.
        new = {}
        for trial in candidates:
            if trial.usage <= 1 and trial.architecture.key not in known:
                new.setdefault(trial.architecture.key, trial)
        wanted = list(new.values())[: request.trials - len(known)]
        evaluations = instruments.evaluate([trial.architecture for trial in wanted if trial.number not in study.stored])

        # Tell, strictly in order of number: whichever worker is first, the study is the same.
        for trial in candidates:
            key, stored = trial.architecture.key, study.stored.get(trial.number)
            if first := known.get(key):
                trial = dataclasses.replace(first, number=trial.number, values=trial.values, origin=trial.origin, repeat_of=first.number)
            elif trial.usage <= 1:
                if len(known) >= request.trials or (stored is None and stop()):
                    return result("trials" if len(known) >= request.trials else "stopped")
                waiting = time.perf_counter()
                if (found := _find_out(trial, stored, evaluations, request.budgets, instruments.measure, known.values())) is None:
                    return result("stopped")
                known[key] = trial = found
                waited += time.perf_counter() - waiting
                if trial.feasible and (best is None or trial.objectives[0] > best.objectives[0]):
                    best = trial
            study.tell(trial)
            finished.append(trial)
            if stored is None:
                report(trial, len(known), best)
        if len(known) >= request.trials:
            return result("trials")
    raise AssertionError("unreachable")


def _proposals(band: Band, request: SearchRequest, generation: int, known: Mapping[str, Trial], num_new: int) -> tuple[list[Proposal], int]:
    """What the study is to suggest first, and of how many trials in all; of none where the search is over.

    Where a generation of Optuna's brought hardly anything new, half of the next is drawn from the band.
    """
    rng, propose = random.Random(f"{request.seed}/{generation}"), PROPOSERS.get(request.sampler)
    if generation == 0:
        proposals = first_generation(band, request.starts, request.population, rng)
    elif propose:
        in_band = [t for t in known.values() if t.feasible and band.floor <= usage(t.architecture, t.cost, band.limits) <= 1]
        history = History([(t.values, t.objectives[0]) for t in in_band], set(known))
        proposals = propose(band, history, max(1, request.population // BATCHES), rng)
    else:
        proposals = draw(band, max(1, request.population // 2), set(known), rng) if num_new < max(1, request.population // 10) else []
    found_new = generation == 0 or num_new or proposals
    return proposals, len(proposals) if propose else max(request.population, len(proposals)) if found_new else 0


def _candidate(band: Band, budgets: Sequence[Budget], number: int, suggestion: Proposal) -> Trial:
    """The suggested trial with all that arithmetic knows of it."""
    architecture = band.space.decode(suggestion.values)
    cost = band.cost(architecture)
    found = {b.quantity.name: b.value(architecture, cost) for b in budgets if b.by_arithmetic}
    over = {b.quantity.name: b.violation(found[b.quantity.name]) for b in budgets if b.by_arithmetic}
    foretold = {b.quantity.name: found[b.quantity.name] for b in budgets if b.foretell}
    return Trial(number, suggestion.values, architecture, cost, over, suggestion.origin, foretold=foretold)


def _find_out(
    trial: Trial,
    stored: Stored | None,
    evaluations: Iterator[Evaluation],
    budgets: Sequence[Budget],
    measure: Measure,
    known: Iterable[Trial],
) -> Trial | None:
    """The trial with its evaluation, measured where it would enter the front of the feasible ones so far; as it is stored, if it is. None where that was
    stopped.

    What arithmetic foretells is measured of finalists and winners alone.
    """
    if stored is not None:
        assert stored.evaluation is not None, f"trial {trial.number} is within budget, and is stored as over it"
        return dataclasses.replace(trial, evaluation=stored.evaluation).held_to(budgets, stored.measured)
    try:
        evaluated = dataclasses.replace(trial, evaluation=next(evaluations))
    except Stopped:
        return None
    if evaluated.accuracy is None or any(t.feasible and dominates(t.objectives, evaluated.objectives, DIRECTIONS) for t in known):
        return evaluated
    try:
        unforetold = [each for each in budgets if not each.by_arithmetic]
        return evaluated.held_to(budgets, measured_values(trial.architecture, unforetold, measure))
    except MemoryError:
        return dataclasses.replace(trial, evaluation=Evaluation(failure="out of memory when measured"))
    except Stopped:
        return None


def measured_values(architecture: Architecture, budgets: Sequence[Budget], measure: Measure) -> dict[str, float]:
    """By name, the value of every measured quantity that is limited."""
    return {b.quantity.name: measure[b.quantity.name](architecture) for b in budgets if b.quantity.measured}


def check_budgets(space: SearchSpace, cost_of: CostOf, budgets: Sequence[Budget]) -> tuple[tuple[Budget, ...], tuple[Budget, ...]]:
    """Tells budgets that bind from budgets that are no limit.

    Returns:
        The budgets that some network exceeds, with all that arithmetic cannot judge; and those above the largest.

    Raises:
        ValueError: no network meets a budget, or none could be found that meets them together.
    """
    unlimited: list[Budget] = []
    judged = [budget for budget in budgets if budget.by_arithmetic]
    for budget in judged:
        value = partial(value_of, cost_of, budget)
        least = value(space.smallest(value))
        if least > budget.limit:
            step = 10.0 ** (math.floor(math.log10(least)) - 2)  # rounded up to three figures: what is printed as accepted is accepted
            accepted = format_quantity(budget.quantity.name, max(math.ceil(least / step - 1e-9) * step, least))
            raise ValueError(
                f"--budget {budget.text}: no network of space {space.name} is that small: got {budget.text}; accepted: {accepted}, its "
                "smallest, or more. Raise the budget, or widen the space downwards."
            )
        if value(space.largest(value)) <= budget.limit:
            unlimited.append(budget)
    judged = [budget for budget in judged if budget not in unlimited]
    if len(judged) > 1 and largest_that_fits(space, {}, Band(space, cost_of, judged, 0.0).used) is None:
        raise ValueError(
            f"--budget: no network of space {space.name} was found within all at once: got {' and '.join(b.text for b in judged)}; "
            f"accepted: limits that one network can meet. Raise one of them."
        )
    return tuple(budget for budget in budgets if budget not in unlimited), tuple(unlimited)
