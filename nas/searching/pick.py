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
from nas.searching.trained_alone import trained_for

SUPERNET = "with the supernet's weights"
Found = tuple[float, Architecture, str]  # accuracy, network, where it is from


@dataclass(frozen=True)
class Picked:
    """A network that obeys other budgets.

    Attributes:
        accuracy: by which it was picked.
        how: whether that is of a training alone, and of how many epochs, or with the supernet's weights.
        usage: share of the tightest budget that arithmetic judges.
        measured: measured quantities that are limited, measured now.
        origin: where the study had it from.
        among: how many networks of the study use the budgets so.
    """

    architecture: Architecture
    accuracy: float
    how: str
    usage: float
    measured: Mapping[str, float]
    origin: str
    among: int


def pick(
    searches: Sequence[Search], budgets: Sequence[Budget], floor: float, measured: Callable[[Architecture], Mapping[str, float]]
) -> Picked | None:
    """The most accurate network that uses `floor` to all of the budgets: of those trained alone to the end, or else by the supernet's weights.

    Accuracies of these two kinds, and of trainings by different schedules, are never compared with each other: the longest schedule that has a
    network decides. What is measured is measured from the best on, until one obeys; None where no network does.
    """
    judged = [each for each in budgets if each.by_arithmetic]
    low = floor if judged else 0.0
    for how, group in (*_trained(searches), (SUPERNET, list(_scored(searches)))):
        there = {each.key: (accuracy, each, origin) for accuracy, each, origin in group if low <= usage(each, cost(each), judged) <= 1}
        for accuracy, each, origin in sorted(there.values(), key=lambda one: (-one[0], one[1].key)):
            if (values := obeying(each, budgets, measured)) is not None:
                return Picked(each, accuracy, how, usage(each, cost(each), judged), values, origin, len(there))
    return None


def _trained(searches: Sequence[Search]) -> list[tuple[str, list[Found]]]:
    """By schedule, the longest first, how long that is in words, and who came to its end."""
    groups: dict[tuple[float, str], list[Found]] = {}
    for climber in (each for search in searches for each in search.ladder):
        ended, epochs = climber.trained.ended, climber.trained.epochs
        if ended and ended.accuracy is not None:
            groups.setdefault((epochs or 0.0, climber.schedule), []).append((ended.accuracy, climber.architecture, climber.origin))
    return [(trained_for(epochs or None), group) for (epochs, _), group in sorted(groups.items(), key=lambda each: each[0], reverse=True)]


def _scored(searches: Sequence[Search]) -> Iterator[Found]:
    for search in searches:
        for each in search.candidates:
            if each.accuracy is not None:
                yield each.accuracy, each.architecture, f"trial {each.number} of {search.name}"
        for climber in search.ladder:
            if climber.supernet is not None:
                yield climber.supernet, climber.architecture, climber.origin
