"""What arithmetic proposes to a search before any network is evaluated: extremes, patterns, and draws near the budget."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from nas.networks.architecture import Architecture
from nas.quantities import QUANTITIES, Budget, Cost
from nas.spaces.levels import moved

if TYPE_CHECKING:  # the space itself comes with torch
    from nas.networks.mixers import Value
    from nas.spaces.decisions import SearchSpace
    from nas.spaces.schema import Values


class Proposal(NamedTuple):
    """A trial to be made: an option for every decision, and where they come from: "smallest", a pattern's name, "drawn"; "" for the sampler."""

    values: Values
    origin: str


def usage(architecture: Architecture, cost: Cost, budgets: Sequence[Budget]) -> float:
    """Share of the tightest budget: the largest value / limit over the budgets that arithmetic judges; 0 with none of these."""
    return max((b.value(architecture, cost) / b.limit for b in budgets if b.by_arithmetic), default=0.0)


def value_of(cost_of: Callable[[Architecture], Cost], budget: Budget, architecture: Architecture) -> float:
    """What a network has of a budget's quantity, by arithmetic."""
    return budget.value(architecture, cost_of(architecture))


class Band:
    """The networks that use between `floor` and all of the tightest budget. Budgets that arithmetic cannot judge are left out.

    Without another the band holds sizes of all kinds: `floor` is 0 and the limit the MACs of the largest network.

    Attributes:
        space: where the networks are.
        cost: of a network, by arithmetic.
        limits: the budgets that arithmetic judges, at least one.
        floor: lower end, as a share of the tightest limit.
    """

    def __init__(self, space: SearchSpace, cost: Callable[[Architecture], Cost], budgets: Sequence[Budget], floor: float) -> None:
        self.space, self.cost = space, cost
        self.limits = [budget for budget in budgets if budget.by_arithmetic]
        self.floor = floor if self.limits else 0.0
        if not self.limits:
            macs = Budget(QUANTITIES["macs"], math.inf, "")
            most = value_of(cost, macs, space.largest(partial(value_of, cost, macs)))
            self.limits = [replace(macs, limit=most)]

    def used(self, values: Values) -> float:
        """Share of the tightest limit that the network of these values uses; above 1 does not fit."""
        architecture = self.space.decode(values)
        return usage(architecture, self.cost(architecture), self.limits)


LOWEST, HIGHEST = 0.9, 1.1  # of the tightest budget: over a wider range size alone would rank well


def around(space: SearchSpace, cost: Callable[[Architecture], Cost], budgets: Sequence[Budget]) -> Band:
    """The networks that use 90 to 110% of the tightest budget: among which a ranking means something."""
    return Band(space, cost, [replace(each, limit=HIGHEST * each.limit) for each in budgets], LOWEST / HIGHEST)


def first_generation(band: Band, starts: Mapping[str, Values], population: int, rng: random.Random) -> list[Proposal]:
    """Distinct networks within the budgets: the starts, the smallest, the largest that fits, each pattern's, and draws from the band."""
    space = band.space
    smallest = space.encode(space.smallest(partial(value_of, band.cost, band.limits[0])))
    seeds: list[tuple[Values | None, str]] = [(values, name) for name, values in starts.items()]
    seeds += [(smallest, "smallest"), (largest_that_fits(space, {}, band.used), "largest that fits")]
    seeds += [(drawn_by_hand(space, fixed, band.used), name) for name, fixed in space.patterns().items()]
    proposals: dict[str, Proposal] = {}
    for values, origin in seeds:
        if values is not None and band.used(values) <= 1:
            proposals.setdefault(space.decode(values).key, Proposal(values, origin))
    return [*proposals.values(), *draw(band, population - len(proposals), set(proposals), rng)]


def largest_that_fits(space: SearchSpace, fixed: Values, used: Callable[[Values], float]) -> Values | None:
    """The largest network with the fixed decisions, or near it.

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
    reached: list[tuple[float, Values]] = []
    for found in itertools.islice(_fillings(space, fixed, used, [name for name in space.decisions if name not in fixed]), 8):
        reached.append(found)
        if found[0] >= 0.97:
            break
    return max(reached, key=lambda pair: pair[0])[1] if reached else None


def drawn_by_hand(space: SearchSpace, mixers: Values, used: Callable[[Values], float]) -> Values | None:
    """What a pattern of mixers makes of a budget: of sixteen ways to fill 90% of it the one with the most blocks, and of these the largest.

    The largest network by the budget alone is often a shallow one, which is worse than deeper ones of its own kind (docs/decisions.md). Where
    steps are fine all ways lead to much the same network, as deep and as wide as its neighbours; where they are coarse, blocks come first.

    Args:
        space: where to look.
        mixers: the decisions of the pattern.
        used: usage of values; above 1 does not fit.

    Returns:
        An option for every decision, `largest_that_fits` where no way uses 90%; None where even the smallest does not fit.
    """
    others = [name for name in space.decisions if name not in mixers and name not in space.depths]
    reached = itertools.islice(_fillings(space, mixers, used, space.depths, others), 16)
    deep = [(sum(stage.depth for stage in space.decode(values).stages), usage, values) for usage, values in reached if usage >= 0.9]
    return max(deep, key=lambda each: each[:2])[2] if deep else largest_that_fits(space, mixers, used)


def _fillings(space: SearchSpace, fixed: Values, used: Callable[[Values], float], *groups: Sequence[str]) -> Iterator[tuple[float, Values]]:
    """Ways to fill a budget, without end, as usages and values: the free decisions are raised in turn, group after group, first in the order
    given and then in random ones. Nothing where the smallest network does not fit."""
    smallest = {name: options[0] for name, options in space.decisions.items()} | dict(fixed)
    orders = [list(group) for group in groups]
    # The last of equally cheap options: sharing saves no MACs, so under a budget of MACs nothing is shared.
    for name in [name for name in space.decisions if name not in fixed]:
        smallest[name] = min(reversed(space.decisions[name]), key=lambda option: used({**smallest, name: option}))
    rng = random.Random(0)
    while used(smallest) <= 1:
        yield _raise_sizes(space, smallest, [name for order in orders for name in order], used)
        for order in orders:
            rng.shuffle(order)


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


def draw(band: Band, num: int, seen: set[str], rng: random.Random) -> list[Proposal]:
    """Up to `num` networks of the band that are not in `seen` (keys), all different; fewer where the band seems to have no more."""
    drawn: dict[str, Proposal] = {}
    failures = 0  # in a row
    while len(drawn) < num and failures < 50:
        values = draw_in_band(band, rng, [each.values for each in drawn.values()])
        key = None if values is None else band.space.decode(values).key
        if values is None or key is None or key in seen or key in drawn:
            failures += 1
        else:
            drawn[key] = Proposal(values, "drawn")
            failures = 0
    return list(drawn.values())


def draw_in_band(band: Band, rng: random.Random, found: Sequence[Values] = ()) -> Values | None:
    """A network of the band.

    A usage is drawn first and then a network for it (uniform choices pile up in the middle of the range of costs): a uniform
    draw whose sizes are moved towards the usage. Mixers stay as drawn where any sizes suit them. Where no sizes suit those of a few draws,
    hardly any mixers come into the band, and it is a walk in the band that ends at a network: from one of `found`, others that were drawn
    from it, or from the first one into which all decisions could be moved.

    Returns:
        An option for every decision; None where nothing was found.
    """
    space = band.space
    for _ in range(DRAWS):
        start = space.random(rng)
        if not _suited(band, start):
            continue
        for _ in range(TRIES):
            values, now = moved(space, start, rng.uniform(band.floor, 1.0), band.used, _sizes(space), rng)
            if band.floor <= now <= 1:
                return values
            start = {**space.random(rng), **{name: start[name] for name in space.mixer_decisions}}
    near = rng.choice(found) if found else _moved_into(band, rng)
    return None if near is None else _walked(band, near, rng)


DRAWS, TRIES = 3, 10  # of mixers, and of sizes for them


def _sizes(space: SearchSpace) -> list[str]:
    return [name for name in space.decisions if name not in space.mixer_decisions]


def _suited(band: Band, values: Values) -> bool:
    """Whether the mixers of these values come into the band at some size: it reaches between what they use at all sizes' first and at all their
    last options. Sharing takes the first block's mixer for all, which may use more or less: both ways are looked at."""
    decisions, sizes = band.space.decisions, band.space.sizes
    ends = [{name: decisions[name][end] for name in sizes} for end in (0, -1)]
    shared = [name for name in sizes if name.endswith(".sharing")]
    used = [
        band.used({**values, **each, **{name: decisions[name][end] for name in shared}})
        for each in ends
        for end in ((0, -1) if shared else (0,))
    ]
    return min(used) <= 1 and band.floor <= max(used)


def _moved_into(band: Band, rng: random.Random) -> Values | None:
    """A network of the band that is reached from a random one by any decisions, each time one that brings it nearer; None where none is."""

    def away(used: float) -> float:
        return max(band.floor - used, used - 1, 0.0)

    for _ in range(TRIES):
        values = dict(band.space.random(rng))
        left, names = away(band.used(values)), list(band.space.decisions)
        nearer = True
        while left and nearer:
            nearer = False
            for name in rng.sample(names, len(names)):
                after = [(away(band.used({**values, name: option})), option) for option in band.space.decisions[name]]
                if left and (better := [pair for pair in after if pair[0] < left]):
                    left, values[name] = rng.choice(better)
                    nearer = True
        if not left:
            return values
    return None


def _walked(band: Band, values: Values, rng: random.Random) -> Values:
    """Where a walk through the band ends that changes one or two decisions at a time, about as many times as there are."""
    names = list(band.space.decisions)
    for _ in names:
        changed = {name: rng.choice(band.space.decisions[name]) for name in rng.sample(names, min(len(names), rng.choice((1, 2))))}
        after = {**values, **changed}
        if band.floor <= band.used(after) <= 1:
            values = after
    return values


def stratified(band: Band, num: int, seed: int) -> list[Values]:
    """`num` networks of the band in whose every place each mixer occurs as often as any other, but for one; all different.

    Such a list tells mixers apart that a uniform draw would leave out by chance. Where the mixers that a place is to have come into the band
    at no size, those of the places are drawn again. A longer list begins with the shorter one.

    Raises:
        ValueError: the band seems to have fewer networks.
    """
    space = band.space
    columns = {name: _turns(options, num, random.Random(f"{seed}/{name}")) for name, options in space.mixer_decisions.items()}
    found: dict[str, Values] = {}
    for number in range(num):
        rng = random.Random(f"{seed}/network {number}")
        for attempt in range(200):
            mixers = {name: column[number] if attempt < 100 else rng.choice(space.decisions[name]) for name, column in columns.items()}
            values, used = moved(space, {**space.random(rng), **mixers}, rng.uniform(band.floor, 1.0), band.used, _sizes(space), rng)
            key = space.decode(values).key
            if band.floor <= used <= 1 and key not in found:
                found[key] = values
                break
        else:
            raise ValueError(
                f"ranking: too few networks in the band: got {len(found)} of {num}; accepted: a wider band, or fewer. Lower --networks."
            )
    return list(found.values())


def _turns(options: Sequence[Value], num: int, rng: random.Random) -> list[Value]:
    """`num` options in turn, in an order drawn anew for each round of all of them."""
    return list(itertools.islice(itertools.chain.from_iterable(rng.sample(options, len(options)) for _ in itertools.count()), num))
