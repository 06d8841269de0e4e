"""Who is trained alone before a winner is chosen, and which of them wins.

Finalists are the networks that anyone would draw by hand, the supernet's favourites, and networks drawn for variety. They are trained alone up
the rungs of a ladder, which the better third climbs. A low rung alone ranks worse than a supernet that ranks well, and both together better than
either: below the end a finalist's worth is the sum of its two accuracies, alone and with the supernet's weights. Who comes next is chosen by a
model of the first rung. Nothing here trains: `standing` tells how far a network has come.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from nas.networks.architecture import Architecture
from nas.searching.additive import AdditiveModel
from nas.searching.winner import standard_error

BY_FIRST_RUNG = "first rung"
TOLD_APART = 2  # standard errors of a difference between two accuracies
Standing = Literal["failed"] | float | None  # None: not there yet


@dataclass(frozen=True)
class Finalist:
    """A network that is trained alone.

    Attributes:
        origin: the name of a pattern of mixers or of a published network, or "supernet", "variety", "first rung" after what chose it.
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


class Ladder:
    """Gives the finalists one by one, and names the winner.

    Args:
        first: those known before any is trained, in the order in which they are begun.
        num: finalists besides those drawn by hand; what `first` leaves open is chosen by what the first rung shows.
        pool: candidates for that.
        standing: of a finalist at a rung, 0 the first: an accuracy, "failed", or None.
        rungs: how many there are; the last is the end of the training.
        num_images: that accuracies are shares of.
        seed: of the choices.
    """

    def __init__(
        self,
        first: Sequence[Finalist],
        num: int,
        pool: Sequence[Finalist],
        standing: Callable[[Finalist, int], Standing],
        rungs: int,
        num_images: int,
        seed: int = 0,
    ) -> None:
        self.standing, self._rungs, self._num_images, self._seed = standing, rungs, num_images, seed
        self.waiting, self._num = list(first), num
        self.asked: list[Finalist] = []
        self._pool = list(pool)
        self._out: set[str] = set()
        scored = {each.key: each.supernet for each in (*first, *pool) if each.supernet is not None}
        self._unscored = sum(scored.values()) / len(scored) if scored else 0.0  # for whom the supernet has no score

    def ask(self) -> Finalist | Literal["wait"] | None:
        """The next finalist; "wait" where too little is known to choose one; None: no more."""
        full = sum(not each.by_hand for each in self.asked) >= self._num
        self.waiting = [each for each in self.waiting if each.by_hand or not full]
        if self.waiting:
            chosen = self.waiting.pop(0)
        elif full or not (candidates := self._candidates()):
            return None
        else:
            known = [(each, at) for each in self.asked if (at := self.standing(each, 0)) is not None]
            if 2 * len(known) < len(self.asked):
                return "wait"
            chosen = replace(self._choose(candidates, [(each, at) for each, at in known if at != "failed"]), origin=BY_FIRST_RUNG)
        self.asked.append(chosen)
        return chosen

    def _candidates(self) -> list[Finalist]:
        taken = {each.key for each in self.asked}
        return [each for each in self._pool if each.key not in taken]

    def head_start(self, finalist: Finalist) -> float:
        """What is added to an accuracy alone below the end: the accuracy with the supernet's weights."""
        return self._unscored if finalist.supernet is None else finalist.supernet

    def _choose(self, candidates: Sequence[Finalist], seen: Sequence[tuple[Finalist, float]]) -> Finalist:
        """The candidate worth most in the eyes of an additive model of the first rung, taught by the finalists drawn with replacement: another
        draw, another opinion, so that what is uncertain is tried too (Thompson sampling by bootstrap)."""
        rng = random.Random(f"{self._seed}/finalist {len(self.asked)}")
        if len(seen) < 2:
            return rng.choice(list(candidates))
        drawn = rng.choices(list(seen), k=len(seen))

        def scores(finalists: Sequence[Finalist]) -> dict[str, list[float]]:
            return {"supernet": [self.head_start(each) for each in finalists]}

        model = AdditiveModel([each.architecture for each, _ in drawn], [at for _, at in drawn], scores([each for each, _ in drawn]))
        predicted = model.predict([each.architecture for each in candidates], scores(candidates))
        worth = [at + self.head_start(each) for at, each in zip(predicted, candidates, strict=True)]
        return candidates[max(range(len(candidates)), key=lambda number: worth[number])]

    def accuracies(self, finalist: Finalist) -> list[float]:
        """At the rungs that it has reached."""
        found = (self.standing(finalist, rung) for rung in range(self._rungs))
        return [at for at in found if isinstance(at, float)]

    def ranked(self) -> list[Finalist]:
        """The best first: who has come further, and then who is more accurate there."""
        return sorted(self.asked, key=lambda each: (len(found := self.accuracies(each)), found[-1:]), reverse=True)

    def winner(self) -> Finalist | None:
        """The most accurate of those that have come to the end and were not left out."""
        finished = [each for each in self.asked if len(self.accuracies(each)) == self._rungs and each.key not in self._out]
        return max(finished, key=lambda each: self.accuracies(each)[-1], default=None)

    def leave_out(self, finalist: Finalist) -> None:
        """What turned out not to obey a budget cannot win."""
        self._out.add(finalist.key)

    def failed(self, finalist: Finalist) -> bool:
        return any(self.standing(finalist, rung) == "failed" for rung in range(self._rungs))

    def challengers(self) -> list[Finalist]:
        """Who is to go on by a rung although it was left behind: networks drawn by hand that the images cannot tell from the winner, at the rung
        where they were left, by two standard errors. Asked until there is none, so that a winner is never seen to be worse than what anyone
        would have drawn, and no late one is missed. With no winner, who is ahead."""
        left = [each for each in self.ranked() if 0 < len(self.accuracies(each)) < self._rungs and not self.failed(each)]
        left = [each for each in left if each.key not in self._out]
        winner = self.winner()
        if winner is None:
            return left[:1]
        bar = self.accuracies(winner)
        return [each for each in left if each.by_hand and not self._worse((found := self.accuracies(each))[-1], bar[len(found) - 1])]

    def _worse(self, accuracy: float, bar: float) -> bool:
        """Whether it is below the bar by more than chance explains. Both are of the same images, so the error is rather smaller."""
        errors = (standard_error(each, self._num_images) for each in (accuracy, bar))
        return bar - accuracy > TOLD_APART * math.hypot(*errors)
