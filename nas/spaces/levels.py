"""Where the budgets are: the range of costs that a supernet is trained for, and networks of a wanted cost in it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.networks.architecture import Architecture
from nas.quantities import Budget, Cost

if TYPE_CHECKING:  # the space itself comes with torch
    from nas.networks.mixers import Value
    from nas.spaces.decisions import SearchSpace
    from nas.spaces.schema import Values

CostOf = Callable[[Architecture], Cost]
BELOW, ABOVE = 0.5, 1.2  # of the smallest and of the largest limit: networks beside the band teach it too
ROUNDS = 4  # tries for each size


@dataclass(frozen=True)
class Levels:
    """A range of costs. A network's level is the largest of its costs, each as a share of the highest; it lies between `low` and 1.

    Attributes:
        ends: by name of an exact quantity its lowest and its highest value.
    """

    ends: Mapping[str, tuple[float, float]]

    @staticmethod
    def around(budgets: Sequence[Budget]) -> Levels | None:
        """From half of the smallest limit on a quantity to 1.2 times its largest; None where no limit is on an exact quantity."""
        limits: dict[str, list[float]] = {}
        for budget in budgets:
            if not budget.quantity.measured:
                limits.setdefault(budget.quantity.name, []).append(budget.limit)
        return Levels({name: (BELOW * min(each), ABOVE * max(each)) for name, each in limits.items()}) if limits else None

    @staticmethod
    def whole(space: SearchSpace, cost: CostOf) -> Levels:
        """The multiply-adds of all networks of a space."""

        def macs(architecture: Architecture) -> int:
            return cost(architecture).macs

        return Levels({"macs": (macs(space.smallest(macs)), macs(space.largest(macs)))})

    @property
    def low(self) -> float:
        return max(low / high for low, high in self.ends.values())

    def covers(self, budgets: Sequence[Budget], floor: float) -> bool:
        """Whether networks that use between `floor` and all of the budgets are in the range. It needs one budget on a quantity of the range;
        limits on others only leave some of these networks out."""
        ends = [(self.ends[each.quantity.name], each.limit) for each in budgets if each.quantity.name in self.ends]
        return bool(ends) and all(low <= max(floor, BELOW) * limit and limit <= high for (low, high), limit in ends)

    def of(self, cost: Cost) -> float:
        """The level of a network by its cost."""
        return max(getattr(cost, name) / high for name, (_, high) in self.ends.items())


def moved(
    space: SearchSpace, values: Values, level: float, level_of: Callable[[Values], float], movable: Sequence[str], rng: random.Random
) -> tuple[Values, float]:
    """The values with those of `movable` changed, one at a time and at random, towards a level; and the level that was reached."""
    now = level_of(values)
    for name in itertools.chain.from_iterable(rng.sample(movable, len(movable)) for _ in range(ROUNDS)):
        if abs(now - level) <= 0.01:
            break
        option = rng.choice(space.decisions[name])
        after = level_of({**values, name: option})
        if abs(after - level) < abs(now - level):
            values, now = {**values, name: option}, after
    return values, now


def unrewarded(space: SearchSpace, cost: CostOf, budgets: Sequence[Budget]) -> dict[str, Value]:
    """The sizes that no budget can reward, each at its last option: where every option costs the same in all that is limited, a smaller one
    can only lose. Under a limit on multiply-adds that is sharing. Measured budgets count as rewarding nothing of that kind."""
    names = [each.quantity.name for each in budgets if not each.quantity.measured]
    found: dict[str, Value] = {}
    for name in space.sizes if names else ():
        whole = ({other: options[end] for other, options in space.decisions.items()} for end in (0, -1))
        networks = (
            [cost(space.decode({**values, **pattern, name: option})) for option in space.decisions[name]]
            for values, pattern in itertools.product(whole, space.patterns().values())
        )
        if all(len({tuple(getattr(each, quantity) for quantity in names) for each in costs}) == 1 for costs in networks):
            found[name] = space.decisions[name][-1]
    return found
