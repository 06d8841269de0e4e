"""Who is trained alone before a winner is chosen, and which of them wins.

Finalists are the networks that anyone would draw by hand, the supernet's favourites, and networks drawn for variety. They are trained alone up
the rungs of a ladder. Of those that nobody drew by hand two of three are left behind at the first one (by ASHA, as they arrive). A low rung alone
ranks worse than a supernet that ranks well: there a finalist's worth is the sum of its two accuracies, alone and with the supernet's weights. And it
prefers quick learners, so it leaves no network drawn by hand behind. What the rungs have shown then
teaches an additive model, which chooses the other finalists near the best ones, a few at a time and each time with what the last ones have
shown. The best third of all that stand at the rung before the last is trained to the end. Nothing here trains: `standing` tells how far a
network has come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.searching.additive import AdditiveModel
from nas.searching.winner import standard_error

BY_MODEL = "model"
TOLD_APART = 2  # standard errors of a difference between two accuracies
REDUCTION = 3  # of three networks at a rung one climbs on
SHORTLIST = 10  # so many for each one to be chosen are looked at
Standing = Literal["failed"] | float | None  # None: not there yet


@dataclass(frozen=True)
class Finalist:
    """A network that is trained alone.

    Attributes:
        origin: the name of a pattern of mixers or of a published network, or "supernet", "variety", "model" after what chose it.
        architecture: in the space's frame.
        by_hand: whether a person would have drawn it.
        supernet: accuracy with inherited weights, a share of the held-out images; None where the space does not have the network.
        fine_tuned: the same after a few steps on its own.
    """

    origin: str
    architecture: Architecture
    by_hand: bool = False
    supernet: float | None = None
    fine_tuned: float | None = None

    @property
    def key(self) -> str:
        return self.architecture.key


Look = Callable[[Sequence[Finalist], int, bool], list[Finalist]]


class Ladder:
    """Says who is trained next, and names the winner.

    Args:
        first: those known before any is trained, in the order in which they are begun.
        standing: of a finalist at a rung, 0 the first: an accuracy, "failed", or None.
        rungs: how many there are, two or more; the last is the end of the training.
        num_images: that accuracies are shares of.
    """

    def __init__(self, first: Sequence[Finalist], standing: Callable[[Finalist, int], Standing], rungs: int, num_images: int) -> None:
        self.standing, self._rungs, self._num_images = standing, rungs, num_images
        self.waiting = list(first)
        self.asked: list[Finalist] = []
        self._out: set[str] = set()
        scored = [each.supernet for each in first if each.supernet is not None]
        self._unscored = sum(scored) / len(scored) if scored else 0.0  # for whom the supernet has no score

    # ---- who is trained --------------------------------------------------------------------------------------------

    def ask(self) -> Finalist | None:
        """The next of the first finalists, of whom the better third climbs to the rung before the last."""
        if not self.waiting:
            return None
        self.asked.append(self.waiting.pop(0))
        return self.asked[-1]

    def head_start(self, finalist: Finalist) -> float:
        """What is added to an accuracy alone at the first rung: the accuracy with the supernet's weights."""
        return self._unscored if finalist.supernet is None else finalist.supernet

    def choose(
        self, pool: Sequence[Finalist], num: int, look: Look = lambda finalists, num, scored: list(finalists[:num])
    ) -> list[Finalist]:
        """More finalists: `num` of a pool, those that an additive model of what the asked ones have shown puts first.

        The model knows what networks are made of and cost. It heeds the supernet's scores too, among those that it puts on a shortlist without
        them, where it then foretells each of the asked ones from the others better.

        Args:
            pool: candidates; those that were asked for already are left out.
            num: how many, fewer where the pool has no more.
            look: gives the first so many that may be trained, in their order; with True, each with the supernet's score.
        """
        known = {each.key for each in self.asked}
        left = [each for each in pool if each.key not in known]
        heeds, taught = False, self._taught()
        if len(taught) > 1:
            plain, with_scores = (_Model(self, taught, names) for names in (("macs",), ("macs", "supernet")))
            left, heeds = plain.ordered(left), with_scores.error < plain.error
        left = look(left, SHORTLIST * num, heeds)
        if heeds:
            left = with_scores.ordered(left)
        chosen = [replace(each, origin=BY_MODEL) for each in look(left, num, True)]
        self.asked += chosen
        return chosen

    def again(self, chosen: Sequence[Finalist]) -> None:
        """Takes back those that were asked for or chosen in an earlier sitting."""
        self.asked += chosen
        self.waiting = [each for each in self.waiting if each not in chosen]

    def leaders(self, num: int) -> list[Finalist]:
        """Those of the asked whose accuracies promise most."""
        ordered = sorted(self._taught(), key=lambda pair: pair[1], reverse=True)
        return [each for each, _ in ordered[:num]]

    def _taught(self) -> list[tuple[Finalist, float]]:
        """What is known of the asked ones at the rung before the last. Who was left behind earlier is taken to have risen as much as the others."""
        found = [(each, at) for each in self.asked if not self.failed(each) and (at := self.accuracies(each)[: self._rungs - 1])]
        both = [at for _, at in found if len(at) == self._rungs - 1]
        risen = [sum(at[-1] - at[reached] for at in both) / len(both) if both else 0.0 for reached in range(self._rungs - 1)]
        return [(each, at[-1] + risen[len(at) - 1]) for each, at in found]

    def climbers(self, to_the_end: bool = False) -> list[Finalist]:
        """Who goes on by a rung, once those asked for one by one have come as far as they do; asked again after they have, until there is none.

        At the lower rungs: who was chosen by the model, and networks drawn by hand. To the end, once all are chosen: the best third of those at
        the rung before it, and then networks drawn by hand that the images cannot tell from the winner there. So a winner is never seen to be
        worse than what anyone would have drawn, and no late one is missed.
        """
        left = [each for each in self.asked if not self.failed(each) and each.key not in self._out]
        reached = {each.key: self.accuracies(each) for each in left}
        low = [each for each in left if len(reached[each.key]) < self._rungs - 1]
        going = [each for each in low if each.origin == BY_MODEL or each.by_hand]
        if going or not to_the_end:
            return going
        high = sorted((each for each in left if each not in low), key=lambda each: reached[each.key][self._rungs - 2], reverse=True)
        going = [each for each in high[: math.ceil(len(high) / REDUCTION)] if len(reached[each.key]) < self._rungs]
        winner = self.winner()
        if going or winner is None:
            return going or high[:1] or [each for each in self.ranked() if each in left and reached[each.key]][:1]
        return [each for each in high if each.by_hand and len(reached[each.key]) < self._rungs and self._open(each, winner)]

    def _open(self, finalist: Finalist, best: Finalist) -> bool:
        """Whether chance may explain that it is below another network at the last rung that it has reached."""
        found, bar = self.accuracies(finalist), self.accuracies(best)
        at, above = found[-1], bar[len(found) - 1]
        return above - at <= told_apart(at, above, self._num_images)

    # ---- how they stand --------------------------------------------------------------------------------------------

    def accuracies(self, finalist: Finalist) -> list[float]:
        """At the rungs that it has reached."""
        found = (self.standing(finalist, rung) for rung in range(self._rungs))
        return [at for at in found if isinstance(at, float)]

    def _order(self, finalist: Finalist) -> tuple[int, list[float]]:
        found = self.accuracies(finalist)
        return len(found), found[-1:]

    def ranked(self) -> list[Finalist]:
        """The best first: who has come further, and then who is more accurate there."""
        return sorted(self.asked, key=self._order, reverse=True)

    def winner(self) -> Finalist | None:
        """The most accurate of those that have come to the end and were not left out."""
        finished = [each for each in self.asked if len(self.accuracies(each)) == self._rungs and each.key not in self._out]
        return max(finished, key=lambda each: self.accuracies(each)[-1], default=None)

    def leave_out(self, finalist: Finalist) -> None:
        """What turned out not to obey a budget cannot win."""
        self._out.add(finalist.key)

    def failed(self, finalist: Finalist) -> bool:
        return any(self.standing(finalist, rung) == "failed" for rung in range(self._rungs))


def told_apart(at: float, above: float, num_images: int) -> float:
    """From which difference on two accuracies are told apart by so many images: two standard errors of the difference. Both are of the same
    images, so the error is rather smaller."""
    return TOLD_APART * math.hypot(*(standard_error(each, num_images) for each in (at, above)))


class _Model:
    """What finalists are worth at the rung before the last, by their choices and some numbers, "macs" and "supernet"."""

    def __init__(self, ladder: Ladder, taught: Sequence[tuple[Finalist, float]], names: Sequence[str]) -> None:
        self._ladder, self._names = ladder, names
        known = [each for each, _ in taught]
        self._model = AdditiveModel([each.architecture for each in known], [at for _, at in taught], self._numbers(known))
        self.error = self._model.error

    def _numbers(self, finalists: Sequence[Finalist]) -> dict[str, list[float]]:
        every: dict[str, Callable[[Finalist], float]] = {
            "macs": lambda each: cost(each.architecture).macs,
            "supernet": self._ladder.head_start,
        }
        return {name: [every[name](each) for each in finalists] for name in self._names}

    def ordered(self, finalists: Sequence[Finalist]) -> list[Finalist]:
        """The best first. What none of the asked ones has is taken to be worse by the model's error: networks drawn by hand all have position
        encodings, and a model that knew of none without would spend on blocks what leaving these out saves."""
        networks = [each.architecture for each in finalists]
        predicted = self._model.predict(networks, self._numbers(finalists))
        worth = [value - self.error * unseen for value, unseen in zip(predicted, self._model.unseen(networks), strict=True)]
        return [finalists[number] for number in sorted(range(len(finalists)), key=worth.__getitem__, reverse=True)]
