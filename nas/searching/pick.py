"""A winner for another budget, out of what a finished search has found out already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.quantities import Budget
from nas.searching.candidates import obeying
from nas.searching.proposals import usage
from nas.searching.story import Search


@dataclass(frozen=True)
class Picked:
    """A network that obeys other budgets.

    Attributes:
        accuracy: by which it was picked.
        alone: whether that is of a training alone; otherwise it is with the supernet's weights.
        usage: share of the tightest budget that arithmetic judges.
        measured: measured quantities that are limited, measured now.
        origin: where the study had it from.
        among: how many networks of the study use the budgets so.
    """

    architecture: Architecture
    accuracy: float
    alone: bool
    usage: float
    measured: Mapping[str, float]
    origin: str
    among: int


def pick(
    searches: Sequence[Search], budgets: Sequence[Budget], floor: float, measured: Callable[[Architecture], Mapping[str, float]]
) -> Picked | None:
    """The most accurate network that uses `floor` to all of the budgets: of those trained alone to the end, or else by the supernet's weights.

    The two kinds of accuracy are never compared with each other. What is measured is measured from the best on, until one obeys; None where no
    network does.
    """
    judged = [each for each in budgets if each.by_arithmetic]
    low = floor if judged else 0.0
    for alone, group in ((True, list(_trained(searches))), (False, list(_scored(searches)))):
        there = {each.key: (accuracy, each, origin) for accuracy, each, origin in group if low <= usage(each, cost(each), judged) <= 1}
        for accuracy, each, origin in sorted(there.values(), key=lambda one: (-one[0], one[1].key)):
            if (values := obeying(each, budgets, measured)) is not None:
                return Picked(each, accuracy, alone, usage(each, cost(each), judged), values, origin, len(there))
    return None


def _trained(searches: Sequence[Search]) -> Iterator[tuple[float, Architecture, str]]:
    for search in searches:
        for each in search.ladder:
            if each.trained.ended and each.trained.ended.accuracy is not None:
                yield each.trained.ended.accuracy, each.architecture, each.origin


def _scored(searches: Sequence[Search]) -> Iterator[tuple[float, Architecture, str]]:
    for search in searches:
        for each in search.candidates:
            if each.accuracy is not None:
                yield each.accuracy, each.architecture, f"trial {each.number} of {search.name}"
        for climber in search.ladder:
            if climber.supernet is not None:
                yield climber.supernet, climber.architecture, climber.origin
