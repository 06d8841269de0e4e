"""The only search loop: ask, check the budget, evaluate, tell; and how the winner is chosen.

Nothing here knows a sampler, a network's weights or a worker: a `Study` asks and remembers, `evaluate` gives accuracies.
An interrupted search is continued by running it again: every generation is asked as before (randomness is a function of
seed and generation), and what the study already holds is not evaluated a second time.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from nas.networks.architecture import Architecture
from nas.pareto import dominates
from nas.quantities import Budget, Cost, format_quantity
from nas.spaces.schema import Value, Values

if TYPE_CHECKING:  # the space itself comes with torch
    from nas.spaces.decisions import SearchSpace

FLOOR = 0.8  # of the tightest budget: below it a network leaves more than a fifth of what was granted unused
DIRECTIONS = ("maximize", "minimize")  # of (accuracy, MACs)


class Asked(NamedTuple):
    """A trial to be evaluated: its number, an option for every decision, and where it comes from ("" for the sampler)."""

    number: int
    values: Values
    origin: str


class Proposal(NamedTuple):
    """Values that the study is to ask next, and what they are: "smallest", a pattern's name, "drawn" and so on."""

    values: Values
    origin: str


class Stored(NamedTuple):
    """What a finished trial cost time to find out. `accuracy` is None where it was over budget."""

    accuracy: float | None
    latency_ms: float | None


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        number: place in the study, from 0.
        values: an option for every decision.
        architecture: what they decode to.
        cost: in the space's frame.
        accuracy: share of the held-out images, 0 to 1, to be maximised; None where an arithmetic budget forbade to evaluate it.
        constraints: per budget's quantity, value / limit - 1: above 0 is over budget. Latency only where it was measured.
        usage: largest value / limit over the budgets; 0 with no budget.
        latency_ms: None where it was not measured.
        repeat_of: number of the trial that evaluated the same architecture.
        origin: as in `Asked`.
    """

    number: int
    values: Values
    architecture: Architecture
    cost: Cost
    accuracy: float | None
    constraints: Mapping[str, float]
    usage: float
    latency_ms: float | None = None
    repeat_of: int | None = None
    origin: str = ""

    @property
    def feasible(self) -> bool:
        """Evaluated and within every budget it was held to."""
        return self.accuracy is not None and all(violation <= 0 for violation in self.constraints.values())

    @property
    def objectives(self) -> tuple[float, float]:
        """Accuracy (to be maximised) and MACs (to be minimised)."""
        assert self.accuracy is not None
        return self.accuracy, self.cost.macs


class Study(Protocol):
    """Who asks and remembers. `stored` has the trials of earlier sittings, by number."""

    @property
    def stored(self) -> Mapping[int, Stored]: ...

    def ask(self, generation: int, proposals: Sequence[Proposal], num: int) -> list[Asked]:
        """The next `num` trials, of which the first are the proposals. The answer depends on seed, generation and the trials told."""

    def tell(self, trial: Trial) -> None:
        """Takes a finished trial, in order of number, and writes it at once if it is not stored yet."""


@dataclass(frozen=True)
class Result:
    """What a search leaves.

    Attributes:
        trials: all told, in order of number.
        ending: "trials" (as many networks evaluated as wanted), "exhausted" (nothing new to be found) or "stopped".
        num_evaluated: distinct networks evaluated, those of earlier sittings included.
        seconds: duration of this sitting.
        evaluate_seconds: the part of it spent waiting for accuracies and latencies.
    """

    trials: list[Trial]
    ending: str
    num_evaluated: int
    seconds: float
    evaluate_seconds: float


# ---- the loop ----------------------------------------------------------------------------------------------------------


def search(
    space: SearchSpace,
    study: Study,
    cost_of: Callable[[Architecture], Cost],
    budgets: Sequence[Budget],
    evaluate: Callable[[list[Architecture]], Iterator[float]],
    *,
    trials: int,
    population: int,
    seed: int,
    floor: float = FLOOR,
    starts: Mapping[str, Values] = MappingProxyType({}),
    measure_latency: Callable[[Architecture], float] | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[Trial, int, Trial | None], None] = lambda trial, num_evaluated, best: None,
) -> Result:
    """Evaluates up to `trials` distinct networks within the budgets, a generation at a time.

    Args:
        space: where the networks are.
        study: asks and remembers.
        cost_of: cost in the space's frame, by arithmetic.
        budgets: limits that bind, as `check_budgets` gives them.
        evaluate: accuracies of networks, lazily and in their order.
        trials: distinct networks to evaluate in all, those of earlier sittings included.
        population: trials of a generation.
        seed: of what is drawn here.
        floor: lower end of the band that the first generation is drawn in, as a share of the tightest budget.
        starts: networks by name that the first generation is to have, where they are within the budgets.
        measure_latency: median time of a network in milliseconds; needed with a latency budget.
        stop: polled before each evaluation; True ends the search there.
        report: called after each trial that was not stored before, with the number of networks evaluated so far and the most
            accurate feasible one.
    """
    began, waited = time.perf_counter(), 0.0
    arithmetic, latency_budget = _split(budgets)
    assert latency_budget is None or measure_latency is not None
    used = _usage_of_values(space, cost_of, arithmetic)
    known: dict[str, Trial] = {}  # the evaluated networks, by key
    new: dict[str, tuple[int, Architecture]] = {}  # those of a generation that are to be evaluated, with their trials' numbers
    finished: list[Trial] = []
    best: Trial | None = None

    def result(ending: str) -> Result:
        return Result(finished, ending, len(known), time.perf_counter() - began, waited)

    for generation in itertools.count():
        # Ask: first what arithmetic proposes, then what the sampler thinks. Where a generation brought hardly anything new,
        # half of the next is drawn from the band; where even that finds nothing, the search is over.
        rng = random.Random(f"{seed}/{generation}")
        proposals: list[Proposal] = []
        if generation == 0:
            proposals = first_generation(space, cost_of, arithmetic, used, floor, starts, population, rng)
        elif len(new) < max(1, population // 10):
            proposals = draw(space, used, _low(arithmetic, floor), rng, max(1, population // 2), set(known))
            if not new and not proposals:
                return result("exhausted")
        asked = study.ask(generation, proposals, max(population, len(proposals)))

        # Evaluate what was not seen before and is within budget as far as arithmetic can say.
        networks = [space.decode(trial.values) for trial in asked]
        costs = [cost_of(network) for network in networks]
        new = {}
        for trial, network, cost in zip(asked, networks, costs, strict=True):
            if network.key not in known and usage(cost, arithmetic) <= 1:
                new.setdefault(network.key, (trial.number, network))
        wanted = list(new.values())[: trials - len(known)]
        accuracies = evaluate([network for number, network in wanted if number not in study.stored])

        # Tell, strictly in order of number: whichever worker is first, the study is the same.
        for (number, values, origin), network, cost in zip(asked, networks, costs, strict=True):
            stored = study.stored.get(number)
            constraints = {budget.quantity: budget.violation(getattr(cost, budget.quantity)) for budget in arithmetic}
            told = Trial(number, values, network, cost, None, constraints, usage(cost, arithmetic), origin=origin)
            if network.key in known:
                told = dataclasses.replace(
                    known[network.key], number=number, values=values, repeat_of=known[network.key].number, origin=origin
                )
            elif told.usage <= 1:
                if len(known) >= trials or (stored is None and stop()):
                    return result("trials" if len(known) >= trials else "stopped")
                waiting = time.perf_counter()
                accuracy = next(accuracies) if stored is None else stored.accuracy
                assert accuracy is not None and math.isfinite(accuracy), f"accuracy of {network.key}: {accuracy}"
                latency_ms = None if stored is None else stored.latency_ms
                if measure_latency and latency_budget and stored is None and _enters_front((accuracy, cost.macs), known.values()):
                    latency_ms = round(measure_latency(network), 4)  # as it is stored, since a continued search reads it there
                waited += time.perf_counter() - waiting
                told = known[network.key] = _with_results(told, accuracy, latency_ms, latency_budget)
                if told.feasible and (best is None or told.objectives[0] > best.objectives[0]):
                    best = told
            study.tell(told)
            finished.append(told)
            if stored is None:
                report(told, len(known), best)
        if len(known) >= trials:
            return result("trials")
    raise AssertionError("unreachable")


def _with_results(trial: Trial, accuracy: float, latency_ms: float | None, budget: Budget | None) -> Trial:
    """The trial with what was found out about it; a measured latency counts like any other cost."""
    if budget is None or latency_ms is None:
        return dataclasses.replace(trial, accuracy=accuracy)
    constraints = {**trial.constraints, budget.quantity: budget.violation(latency_ms)}
    share = max(trial.usage, latency_ms / budget.limit)
    return dataclasses.replace(trial, accuracy=accuracy, latency_ms=latency_ms, constraints=constraints, usage=share)


def _enters_front(point: tuple[float, float], evaluated: Iterable[Trial]) -> bool:
    """Whether no feasible network so far dominates the point (accuracy, MACs)."""
    return not any(trial.feasible and dominates(trial.objectives, point, DIRECTIONS) for trial in evaluated)


# ---- budgets -----------------------------------------------------------------------------------------------------------


def _split(budgets: Sequence[Budget]) -> tuple[list[Budget], Budget | None]:
    """The budgets that arithmetic checks, and the one on latency."""
    latency = [budget for budget in budgets if budget.quantity == "latency_ms"]
    assert len(latency) <= 1, "two limits for one quantity"
    return [budget for budget in budgets if budget.quantity != "latency_ms"], latency[0] if latency else None


def usage(cost: Cost, budgets: Sequence[Budget]) -> float:
    """Share of the tightest budget: the largest cost / limit over the budgets on MACs and parameters; 0 with none of these."""
    return max((getattr(cost, budget.quantity) / budget.limit for budget in _split(budgets)[0]), default=0.0)


def check_budgets(
    space: SearchSpace, cost_of: Callable[[Architecture], Cost], budgets: Sequence[Budget]
) -> tuple[list[Budget], list[Budget]]:
    """Tells budgets that bind from budgets that are no limit.

    Returns:
        The budgets that some network exceeds (and any on latency, which arithmetic cannot judge), and those above the largest.

    Raises:
        ValueError: no network meets a budget, or none could be found that meets them together.
    """
    arithmetic, latency = _split(budgets)
    binding: list[Budget] = []
    unlimited: list[Budget] = []
    for budget in arithmetic:

        def measure(architecture: Architecture, quantity: str = budget.quantity) -> float:
            return getattr(cost_of(architecture), quantity)

        least = measure(space.smallest(measure))
        if least > budget.limit:
            raise ValueError(
                f"--budget {budget.text}: no network of space {space.name} is that small: got {budget.text}; "
                f"accepted: {_at_least(budget.quantity, least)}, its smallest, or more. Raise the budget, or widen the space downwards."
            )
        (binding if measure(space.largest(measure)) > budget.limit else unlimited).append(budget)
    if len(binding) > 1 and largest_that_fits(space, {}, _usage_of_values(space, cost_of, binding)) is None:
        texts = " and ".join(budget.text for budget in binding)
        raise ValueError(
            f"--budget: no network of space {space.name} was found within all at once: got {texts}; "
            f"accepted: limits that one network can meet. Raise one of them."
        )
    return binding + ([latency] if latency else []), unlimited


def _at_least(quantity: str, value: float) -> str:
    """The value with its unit, rounded up to three figures: what is printed as accepted is accepted."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return format_quantity(quantity, max(math.ceil(value / step - 1e-9) * step, value))


def _usage_of_values(space: SearchSpace, cost_of: Callable[[Architecture], Cost], budgets: Sequence[Budget]) -> Callable[[Values], float]:
    """Usage as a function of values. With no budget: MACs over those of the largest network."""
    if budgets:
        return lambda values: usage(cost_of(space.decode(values)), budgets)
    largest = cost_of(space.largest(lambda architecture: cost_of(architecture).macs)).macs
    return lambda values: cost_of(space.decode(values)).macs / largest


def _low(budgets: Sequence[Budget], floor: float) -> float:
    """Lower end of the band to draw in: without an arithmetic budget, sizes of all kinds."""
    return floor if budgets else 0.0


# ---- what arithmetic proposes ------------------------------------------------------------------------------------------


def first_generation(
    space: SearchSpace,
    cost_of: Callable[[Architecture], Cost],
    budgets: Sequence[Budget],
    used: Callable[[Values], float],
    floor: float,
    starts: Mapping[str, Values],
    population: int,
    rng: random.Random,
) -> list[Proposal]:
    """Distinct networks within the budgets: the starts, the smallest, the largest that fits, each pattern's, and draws from the band."""
    quantity = budgets[0].quantity if budgets else "macs"
    smallest = space.encode(space.smallest(lambda architecture: getattr(cost_of(architecture), quantity)))
    seeds: list[tuple[Values | None, str]] = [(values, name) for name, values in starts.items()]
    seeds += [(smallest, "smallest"), (largest_that_fits(space, {}, used), "largest that fits")]
    seeds += [(largest_that_fits(space, fixed, used), name) for name, fixed in space.patterns().items()]
    proposals: dict[str, Proposal] = {}
    for values, origin in seeds:
        if values is not None and used(values) <= 1:
            proposals.setdefault(space.decode(values).key, Proposal(values, origin))
    drawn = draw(space, used, _low(budgets, floor), rng, population - len(proposals), set(proposals))
    return [*proposals.values(), *drawn]


def largest_that_fits(space: SearchSpace, fixed: Values, used: Callable[[Values], float]) -> Values | None:
    """The largest network with the fixed decisions, or near it: what a pattern makes of a budget.

    From the smallest, the free decisions are raised in turn, one step each, while the network fits; then pairs are exchanged (one
    raised, one lowered) while the usage grows. Where steps are so coarse that this leaves more than 3% unused, other orders are
    tried. Deterministic.

    Args:
        space: where to look.
        fixed: decisions that stay, such as a pattern's mixers.
        used: usage of values; above 1 does not fit.

    Returns:
        An option for every decision; None where even the smallest does not fit.
    """
    free = [name for name in space.decisions if name not in fixed]
    smallest = {name: options[0] for name, options in space.decisions.items()} | dict(fixed)
    # The last of equally cheap options: sharing saves no MACs, so under a budget of MACs nothing is shared.
    for name in free:
        smallest[name] = min(reversed(space.decisions[name]), key=lambda option: used({**smallest, name: option}))
    if used(smallest) > 1:
        return None
    rng, order = random.Random(0), list(free)
    found: list[tuple[float, Values]] = []
    while len(found) < 8 and not (found and found[-1][0] >= 0.97):
        found.append(_raise_sizes(space, smallest, order, used))
        rng.shuffle(order)
    return max(found, key=lambda pair: pair[0])[1]


def _raise_sizes(space: SearchSpace, start: Values, free: Sequence[str], used: Callable[[Values], float]) -> tuple[float, Values]:
    """The usage reached from the start, and the values: steps in turn, then exchanges, as `largest_that_fits` says."""
    values, now = dict(start), used(start)

    def steps_up(name: str) -> list[tuple[float, Value]]:
        """The options of a decision that use more, with the usages they lead to, ascending."""
        after = ((used({**values, name: option}), option) for option in space.decisions[name] if option != values[name])
        return sorted((pair for pair in after if pair[0] > now), key=lambda pair: pair[0])

    raised = True
    while raised:
        raised = False
        for name in free:
            after, option = next(iter(steps_up(name)), (2.0, values[name]))
            if after <= 1:
                values[name], now, raised = option, after, True

    sizes = [name for name in free if name not in space.mixer_decisions]
    exchanged = True
    while exchanged and now < 0.99:  # the last hundredth is not worth the arithmetic
        exchanged = False
        for name, other in itertools.permutations(sizes, 2):
            for _, option in steps_up(name):
                pairs = [(used({**values, name: option, other: lower}), lower) for lower in space.decisions[other]]
                after, lower = max((pair for pair in pairs if pair[0] <= 1), key=lambda pair: pair[0], default=(0.0, values[other]))
                if after > now:
                    values.update({name: option, other: lower})
                    now, exchanged = after, True
                    break  # the other steps were from where we were
    return now, values


def draw(space: SearchSpace, used: Callable[[Values], float], floor: float, rng: random.Random, num: int, seen: set[str]) -> list[Proposal]:
    """Up to `num` networks of the band that are not in `seen` (keys), all different; fewer where the band seems to have no more."""
    found: list[Proposal] = []
    seen, failures = set(seen), 0
    while len(found) < num and failures < 50:
        values = draw_in_band(space, used, floor, rng)
        key = None if values is None else space.decode(values).key
        if values is None or key is None or key in seen:
            failures += 1
        else:
            seen.add(key)
            found.append(Proposal(values, "drawn"))
            failures = 0
    return found


def draw_in_band(space: SearchSpace, used: Callable[[Values], float], floor: float, rng: random.Random) -> Values | None:
    """A network that uses between `floor` and all of the tightest budget.

    A usage is drawn first and then a network for it (uniform choices pile up in the middle of the range of costs): a uniform
    draw whose sizes are moved towards the usage. Mixers stay as drawn where any sizes suit them.

    Returns:
        An option for every decision; None where 20 tries found nothing.
    """
    sizes = [name for name in space.decisions if name not in space.mixer_decisions]
    for attempt in range(20):
        level = rng.uniform(floor, 1.0)
        values = space.random(rng)
        now = used(values)
        movable = sizes if attempt < 10 else list(space.decisions)  # ... and where none does, they move too
        for name in itertools.chain.from_iterable(rng.sample(movable, len(movable)) for _ in range(4)):
            if abs(now - level) <= 0.01:
                break
            option = rng.choice(space.decisions[name])
            after = used({**values, name: option})
            if abs(after - level) < abs(now - level):
                values, now = {**values, name: option}, after
        if floor <= now <= 1:
            return values
    return None


# ---- the winner --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Winner:
    """The network a search ends with.

    Attributes:
        trial: of the study.
        latency_ms: as measured again at the end; None without a latency budget.
        usage: largest value / limit over the budgets, with that latency.
        standard_error: of the most accurate candidate's accuracy.
        reason: why this one, to be printed.
    """

    trial: Trial
    latency_ms: float | None
    usage: float
    standard_error: float
    reason: str


def standard_error(accuracy: float, num_heldout: int) -> float:
    """Of a share measured on so many images."""
    return math.sqrt(accuracy * (1 - accuracy) / num_heldout)


def choose_winner(
    trials: Sequence[Trial],
    budgets: Sequence[Budget],
    *,
    num_heldout: int,
    floor: float = FLOOR,
    measure_latency: Callable[[Architecture], float] | None = None,
) -> Winner:
    """The most accurate network whose usage lies between `floor` and 1; among those within one standard error, the largest.

    With a latency budget the choice is timed again and has to obey as measured now, or the next one is chosen. Where nothing
    lies in the band, the most accurate feasible network is taken and the reason says so.

    Args:
        trials: all of a search.
        budgets: those of the search.
        num_heldout: images that the accuracies are shares of.
        floor: share of the tightest budget that a winner uses at least.
        measure_latency: as in `search`.

    Raises:
        ValueError: no network obeys the budgets.
    """
    arithmetic, latency_budget = _split(budgets)
    candidates = [trial for trial in trials if trial.feasible and trial.repeat_of is None]
    low = floor if budgets else 0.0  # without a limit there is no band
    while candidates:
        in_band = [trial for trial in candidates if low <= trial.usage <= 1]
        most_accurate = max(in_band or candidates, key=_by_accuracy)
        assert most_accurate.accuracy is not None
        error = standard_error(most_accurate.accuracy, num_heldout)
        chosen = most_accurate
        if in_band:
            chosen = max((trial for trial in in_band if trial.objectives[0] >= most_accurate.accuracy - error), key=_by_size)
        share, latency_ms = chosen.usage, None
        if latency_budget:
            assert measure_latency is not None
            latency_ms = measure_latency(chosen.architecture)
            if latency_ms > latency_budget.limit:
                candidates.remove(chosen)
                continue
            share = max(usage(chosen.cost, arithmetic), latency_ms / latency_budget.limit)
        return Winner(chosen, latency_ms, share, error, _reason(chosen, most_accurate, error, low, bool(in_band), bool(budgets)))
    texts = " and ".join(budget.text for budget in budgets)
    raise ValueError(
        f"--budget {texts}: no network evaluated obeys it: got {len(trials)} trials; accepted: at least one. Raise the budget or --trials."
    )


def _by_accuracy(trial: Trial) -> tuple[float, float, int]:
    assert trial.accuracy is not None
    return trial.accuracy, trial.usage, -trial.number


def _by_size(trial: Trial) -> tuple[float, int, float, int]:
    assert trial.accuracy is not None
    return trial.usage, trial.cost.macs, trial.accuracy, -trial.number


def _reason(chosen: Trial, most_accurate: Trial, error: float, low: float, in_band: bool, limited: bool) -> str:
    band = f"between {low:.0%} and 100% of the tightest budget" if limited else "of all, since no budget binds"
    if not in_band:
        return f"no network evaluated lies {band}: the most accurate within budget"
    if chosen is most_accurate:
        return f"the most accurate {band}"
    return (
        f"the largest {band} within one standard error ({100 * error:.2f} points) of the most accurate there "
        f"(trial {most_accurate.number}, {100 * most_accurate.objectives[0]:.2f}%)"
    )
