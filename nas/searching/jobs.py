"""Which networks are trained beside each other, how far each, and who is tried again where there is no memory for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from nas.networks.architecture import Architecture
from nas.searching.ray_cluster import Crew
from nas.searching.search import MEMORY
from nas.searching.trained_alone import Alone

TRIES = 3  # in a row without a new figure, where workers are ended for want of memory


class Job(NamedTuple):
    """A network to be trained alone, and the seed of everything random in it."""

    architecture: Architecture
    seed: int = 0


Ask = Callable[[], Job | None]
# How far networks come: to the end of the schedule, each to the next rung that it has not reached, to the rung before the end, or the best third of
# them to that rung.
Climb = Literal["all to the end", "all a rung", "all but the end", "the best"]


class Jobs:
    """Asks for networks, and says to which step each is to come. Gives all of them once more where a worker was ended for want of memory.

    Where that happens again and again one network is trained after the other. Who is ended then is out of memory, and comes last, with the remedy.
    Where the next one is too, and nothing was trained in between, the machine is short of memory for any of them.
    """

    def __init__(self, ask: Ask, alone: Alone, climb: Climb, crew: Crew) -> None:
        self._ask, self._alone, self._climb, self._crew = ask, alone, climb, crew
        self._given, self._late = list[tuple[Job, int]](), list[tuple[Job, int]]()  # the late ones come when there are no more to ask for
        self._left, self._left_late = list[tuple[Job, int]](), list[tuple[Job, int]]()  # since Tune began anew
        self._tries, self._figures = 0, 0
        self._failed: Job | None = None  # out of memory, since there was a new figure

    def __call__(self) -> tuple[Job, int] | None:
        if self._left:
            return self._left.pop(0)
        job = self._ask()
        if job is None:
            return self._left_late.pop(0) if self._left_late else None
        self._given.append((job, self._goal(job)))
        return self._given[-1]

    def _goal(self, job: Job) -> int:
        *_, before, end = ladder = self._alone.ladder
        if self._climb == "all a rung":
            return next((steps for steps in ladder if self._alone.accuracy(*job, steps=steps) is None), end)
        return end if self._climb == "all to the end" else before

    @property
    def crew(self) -> Crew:
        """Who is to train now."""
        return replace(self._crew, num=1) if self._tries == TRIES - 1 else self._crew

    def begin_again(self, in_training: Sequence[Job]) -> None:
        """Gives all networks once more.

        Raises:
            ValueError: the machine is short of memory.
        """
        if (figures := self._count()) != self._figures:
            self._tries, self._figures, self._failed = 0, figures, None
        self._tries += 1
        if self._tries == TRIES:
            job = next(iter(in_training), None)
            if job is None or self._failed not in (None, job):
                raise ValueError(
                    f"--workers: Ray ended workers for want of memory again and again: got {max(1, self._crew.num)} workers, and one in the end; accepted: "
                    "what memory allows beside what else runs. Take fewer, or make room: the same command goes on."
                )
            self._alone.fail(*job, reason=MEMORY)
            self._late += [each for each in self._given if each[0] == job]
            self._given = [each for each in self._given if each[0] != job]
            self._tries, self._figures, self._failed = 0, self._count(), job
        self._left, self._left_late = [*self._given], [*self._late]

    def _count(self) -> int:
        """Of the figures that are known."""
        return sum(
            self._alone.accuracy(*job, steps=steps) is not None for job, _ in self._given + self._late for steps in self._alone.ladder
        )
