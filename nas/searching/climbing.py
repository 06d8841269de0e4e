"""Trains finalists up the ladder, and keeps in the run's log who is trained.

Every finalist is in the log before it is trained, and every lot of them that goes on together. So who continues trains the same ones: first what
is left of the lot that was interrupted, and then who would have come next. Nobody is chosen by what only a part of a lot has shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from nas.networks.architecture import Architecture
from nas.progress import Progress
from nas.runs.folder import Run
from nas.searching.jobs import Climb, Job
from nas.searching.ladder import BY_MODEL, REDUCTION, Finalist, Ladder, Standing, told_apart
from nas.searching.ray_cluster import Crew, RaySession
from nas.searching.trained_alone import SHARES, Alone, Shown

BEFORE_THE_END = len(SHARES) - 2  # the rung that who was chosen comes to at once
APART = 0.07  # the best and the worst network drawn by hand at a rung, in accuracy: CIFAR-10, 5 MMACs


@dataclass(frozen=True)
class Logged:
    """What earlier sittings have logged.

    Attributes:
        asked: the first finalists that were trained or were about to be.
        rounds: of those that were chosen together: the parents, by key, near which networks had been looked for, and who was chosen.
        lot: who was last trained together, by key, and to which rung.
    """

    asked: Sequence[Finalist]
    rounds: Sequence[tuple[Sequence[str], Sequence[Finalist]]]
    lot: Mapping[str, int]


@dataclass(frozen=True)
class Climbing:
    """How finalists are trained, and which log keeps who.

    Attributes:
        alone: how, and where the figures are found.
        run: whose log.
        study: whose finalists.
        crew: trainings beside each other, and where.
        stop: asked again and again; True interrupts.
    """

    alone: Alone
    run: Run
    study: str
    crew: Crew
    stop: Callable[[], bool]

    @property
    def _its(self) -> dict[str, str]:
        """By what the lines of these finalists are told from those of others."""
        return {"study": self.study, "schedule": self.alone.digest}

    def log(self, kind: str, **more: Any) -> None:
        self.run.log(kind, **self._its, **more)

    def logged(self) -> Logged:
        """Who was chosen and never begun is chosen again; of an earlier version's log, which has no lots, whoever was begun is kept."""
        lines = [line for line in self.run.metrics() if self._its.items() <= line.items()]
        known = {line["key"]: _read(line) for line in lines if line["kind"] == "finalist"}
        lots = [line for line in lines if line["kind"] == "lot"]
        rounds = [(line["parents"], [known[key] for key in line["to"]]) for line in lots if line["parents"] is not None]
        by_model = [each for each in known.values() if each.origin == BY_MODEL and not any(each.key in line["to"] for line in lots)]
        if older := [each for each in by_model if self.alone.steps_done(each.architecture, self.alone.setting.seed)]:
            rounds.insert(0, ([], older))
        return Logged([each for each in known.values() if each.origin != BY_MODEL], rounds, lots[-1]["to"] if lots else {})

    def ladder(self, first: Sequence[Finalist]) -> Ladder:
        return Ladder(first, _Standings(self.alone), len(SHARES), self.alone.setting.images.size(self.alone.judged_on))

    @contextmanager
    def sitting(self, ladder: Ladder, chosen: int, lot: Mapping[str, int]) -> Iterator[Sitting]:
        """Trains under one Ray, first what is left of an interrupted lot; about so many networks will be chosen."""
        by_hand = sum(each.by_hand for each in ladder.waiting)
        steps = ladder_steps(self.alone, by_hand, len(ladder.waiting) - by_hand, chosen)
        with RaySession(self.crew) as ray, Progress("finalists", steps, "step") as progress:
            yield Sitting(self, ladder, progress, ray, lot)
            progress.total = progress.done  # it was an estimate


@dataclass
class Sitting:
    """A ladder in training.

    Attributes:
        how: and where it is kept.
        ladder: who stands where.
        progress: counts steps.
        ray: for all trainings of the sitting.
        lot: who was last trained together, by key, and to which rung.
    """

    how: Climbing
    ladder: Ladder
    progress: Progress
    ray: RaySession
    lot: Mapping[str, int]

    def train_first(self, logged: int) -> None:
        """Trains the first finalists, of whom so many are in the log; the better third climbs to the rung before the last."""
        ladder = self.ladder

        def ask() -> Finalist | None:
            chosen = ladder.ask()
            if chosen and len(ladder.asked) > logged:
                self.how.log("finalist", **_plain(chosen))
            return chosen

        def head_start(job: Job) -> float:
            return ladder.head_start(next(each for each in ladder.asked if each.architecture == job.architecture))

        self._train(ask, "the best", head_start=head_start)

    def train_chosen(self, chosen: Sequence[Finalist], parents: Sequence[str]) -> None:
        """Trains finalists that were chosen together up to the rung before the last."""
        for each in chosen:
            self.how.log("finalist", **_plain(each))
        self._train_lot(chosen, dict.fromkeys((each.key for each in chosen), BEFORE_THE_END), "all but the end", parents)

    def train_climbers(self, to_the_end: bool = False) -> None:
        """Trains who goes on, a rung at a time, until there is none."""
        self.finish_lot()
        while climbers := self.ladder.climbers(to_the_end):
            self._train_lot(climbers, {each.key: len(self.ladder.accuracies(each)) for each in climbers}, "all a rung")

    def finish_lot(self) -> None:
        """Trains those whom an interruption left behind, before anyone is chosen by what the others have shown."""
        while left := [each for each in self.ladder.asked if self._is_left(each)]:
            self._train(partial(next, iter(left), None), "all a rung")

    def _is_left(self, finalist: Finalist) -> bool:
        rung = self.lot.get(finalist.key)
        return rung is not None and self.ladder.standing(finalist, rung) is None and not self.ladder.failed(finalist)

    def _train_lot(self, lot: Sequence[Finalist], to: Mapping[str, int], climb: Climb, parents: Sequence[str] | None = None) -> None:
        self.lot = to
        self.how.log("lot", to=to, parents=parents)
        self._train(partial(next, iter(lot), None), climb)

    def _train(self, ask: Callable[[], Finalist | None], climb: Climb, **more: Any) -> None:
        from nas.searching.tune import train_beside  # Ray, only where there is something to train

        how, ladder, progress, standings = self.how, self.ladder, self.progress, self.ladder.standing
        seed = how.alone.setting.seed
        assert isinstance(standings, _Standings)

        def told(job: Job) -> None:
            standings.refresh(job.architecture)

        def text() -> str:
            come = [each for each in ladder.ranked() if ladder.accuracies(each)]
            best = ""
            if come:
                *_, accuracy = at = ladder.accuracies(come[0])
                best = f", best after {how.alone.ladder[len(at) - 1]:,} steps {accuracy:.2%} ({come[0].origin})"
            progress.total = max(progress.total, sum(map(least, show.steps_done.items())), progress.done + 1)  # that much at least
            return f"{len(come)} of {len(ladder.asked) + len(ladder.waiting)} networks{best}"

        def least(job: tuple[tuple[str, int], int]) -> int:
            (key, _), steps = job
            return max(how.alone.ladder[self.lot.get(key, 0)], min(rung for rung in how.alone.ladder if rung >= steps))

        def noted() -> Job | None:
            chosen = ask()
            job = Job(chosen.architecture, seed) if chosen else None
            if job and job not in jobs:
                jobs.append(job)
            return job

        jobs = [Job(each.architecture, seed) for each in ladder.asked]
        show = Shown(progress, how.alone, jobs, text)
        train_beside(how.alone, noted, told, crew=how.crew, climb=climb, show=show, stop=how.stop, ray=self.ray, **more)
        show.look()


class _Standings:
    """How far finalists have come, as the files of their trainings say; read again when one reports."""

    def __init__(self, alone: Alone) -> None:
        self._alone, self._known = alone, dict[str, list[Standing]]()

    def refresh(self, architecture: Architecture) -> None:
        known = self._alone.known(architecture, self._alone.setting.seed)
        failed = known.ended is not None and known.ended.failure is not None
        at = {**dict(known.rungs), **({self._alone.steps: known.ended.accuracy} if known.ended else {})}
        self._known[architecture.key] = ["failed"] * len(SHARES) if failed else [at.get(step) for step in self._alone.ladder]

    def __call__(self, finalist: Finalist, rung: int) -> Standing:
        if finalist.key not in self._known:
            self.refresh(finalist.architecture)
        return self._known[finalist.key][rung]


def ladder_steps(alone: Alone, by_hand: int, others: int, chosen: int) -> int:
    """What a ladder takes about, of so many first ones and so many that are chosen later.

    Of three at a rung one goes on. All that are chosen later and all that are drawn by hand come to the rung before the end, and of the latter all
    that the held-out images cannot tell from the best come to it: the fewer images, the more.
    """
    low, high, end = alone.ladder
    told = told_apart(0.5, 0.5, alone.setting.images.size(alone.judged_on))
    open_ = by_hand * min(1.0, max(1 / REDUCTION, told / APART))
    climbing = (others + 2) / REDUCTION
    ending = open_ + (climbing + chosen) / REDUCTION
    return round((by_hand + others) * low + (by_hand + climbing) * (high - low) + chosen * high + ending * (end - high))


def _plain(finalist: Finalist) -> dict[str, Any]:
    return {**finalist.__dict__, "key": finalist.key, "architecture": finalist.architecture.to_dict()}


def _read(line: Mapping[str, Any]) -> Finalist:
    architecture = Architecture.from_dict(line["architecture"], "metrics.jsonl: a finalist")
    return Finalist(line["origin"], architecture, line["by_hand"], line["supernet"], line["fine_tuned"])
