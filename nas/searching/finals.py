"""The end of a search: finalists are fine-tuned, then trained alone up a ladder, and the best one seen wins."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.progress import Progress
from nas.quantities import format_quantity
from nas.runs.interrupt import Stopped
from nas.searching.evaluating import Evaluator
from nas.searching.inherited import FineTuned
from nas.searching.known_networks import baselines
from nas.searching.ladder import Finalist, Ladder, Standing
from nas.searching.proposals import Band, draw, stratified
from nas.searching.search import Measure, SearchRequest, Trial, measured_values
from nas.searching.supernet_run import SupernetRun
from nas.searching.trained_alone import SHARES, Alone, Shown
from nas.spaces.supernet import Supernet
from nas.training.fine_tune import fine_tune
from nas.training.train_network import save_network

DRAWN = 300  # candidates where no search has evaluated any; where one has, only as many as it leaves open
FAVOURITES, VARIED = 2, 6  # one finalist of so many is a favourite of the supernet, or drawn for variety; the others the first rung chooses
WIDER = 2  # so many times the favourites are fine-tuned before these are chosen


@dataclass(frozen=True)
class Candidates:
    """Who may become a finalist, with the supernet's scores.

    Attributes:
        by_hand: the single-mixer networks and other patterns, and published networks, all within the budgets.
        varied: drawn for variety.
        pool: the others: what the search evaluated in the band, the most accurate first; draws where these are too few.
    """

    by_hand: tuple[Finalist, ...]
    varied: tuple[Finalist, ...]
    pool: tuple[Finalist, ...]


def candidates(
    opened: SupernetRun, request: SearchRequest, num: int, trials: Sequence[Trial], evaluator: Evaluator | None, measure: Measure
) -> Candidates:
    """Gathers them, and finds out what is not known yet: scores of those drawn by hand and for variety, and what is measured of all.

    Without an evaluator there is no supernet, and nobody has a score. Measured budgets are checked now, while nothing else runs; the pool then has only networks that were measured.
    """
    space, rng = opened.space, random.Random(f"{request.seed}/finalists")
    band = Band(space, cost, request.budgets, request.floor)
    evaluated = {trial.architecture.key: trial for trial in trials if trial.evaluation and trial.repeat_of is None}

    def within(architecture: Architecture) -> bool:
        try:
            measured = measured_values(architecture, request.budgets, measure)
        except MemoryError:
            return False
        return all(each.violation(measured[each.quantity.name]) <= 0 for each in request.budgets if each.quantity.measured)

    named = list(baselines(space, request.budgets, request.floor, opened.setting.frame))
    by_hand = {each.architecture.key: (each.name, each.architecture) for each in reversed(named)}  # two patterns may be one network
    taken = set(by_hand)
    varied = [space.decode(values) for values in stratified(band, num // (VARIED if evaluator else 3), request.seed)]
    varied = [each for each in varied if each.key not in taken]
    measured = any(each.quantity.measured for each in request.budgets)
    low = request.floor if request.budgets else 0.0
    pool = [each for each in evaluated.values() if each.feasible and each.usage >= low and each.architecture.key not in taken]
    pool.sort(key=lambda each: (-each.objectives[0], each.number))
    drawn = [space.decode(each.values) for each in draw(band, num - len(pool) if evaluator else DRAWN, {*taken, *evaluated}, rng)]

    scores = {key: trial.accuracy for key, trial in evaluated.items()}
    asked = (*(architecture for _, architecture in by_hand.values()), *varied, *drawn)
    unknown = [each for each in asked if each.key not in scores and _in(space, each)]
    if evaluator:
        scores |= {each.key: found.accuracy for each, found in zip(unknown, evaluator.evaluate(unknown), strict=True)}

    def finalist(origin: str, architecture: Architecture, by_hand: bool = False) -> Finalist:
        return Finalist(origin, architecture, by_hand, scores.get(architecture.key))

    return Candidates(
        tuple(finalist(name, each, True) for name, each in by_hand.values() if within(each)),
        tuple(finalist("variety", each) for each in varied if within(each)),
        tuple(finalist("supernet", each.architecture) for each in pool if not measured or within(each.architecture))
        + tuple(finalist("drawn", each) for each in drawn if not measured or within(each)),
    )


def _in(space: Any, architecture: Architecture) -> bool:
    try:
        space.encode(architecture)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Finals:
    """What the ladder needs.

    Attributes:
        opened: the run, with images and recipe.
        study: whose search it ends.
        num: finalists besides those drawn by hand.
        workers: trainings beside each other.
        stop: asked again and again; True interrupts.
        measured: what is measured of a network and limited, in the end once more; a `MemoryError` where it does not fit.
    """

    opened: SupernetRun
    study: str
    request: SearchRequest
    num: int
    workers: int
    stop: Callable[[], bool]
    measured: Callable[[Architecture], Mapping[str, float]]

    @cached_property
    def alone(self) -> Alone:
        """How finalists are trained."""
        setting = self.opened.setting
        return Alone.on_held_out(setting, self.opened.run.folder / "alone", setting.recipe.search.finalist_epochs)

    def fine_tuned(self, supernet: Supernet | None, finalists: Sequence[Finalist]) -> list[Finalist]:
        """The same finalists; those that the supernet knows with their accuracies after fine-tuning."""
        if supernet is None:
            return list(finalists)
        tuned, known = FineTuned(self.opened.setting, self.opened.run), [each for each in finalists if each.supernet is not None]
        accuracies = dict[str, float | None]()
        with Progress("fine-tune", len(known), "network") as progress:
            for each in known:
                if self.stop():
                    raise Stopped(f"fine-tuning stopped after {progress.done} of {len(known)} networks")
                accuracies[each.key] = tuned.evaluation(supernet, each.architecture).accuracy
                progress.advance()
        return [replace(each, fine_tuned=accuracies.get(each.key)) for each in finalists]

    def climb(self, supernet: Supernet | None, who: Candidates) -> Ladder:
        """Chooses the first finalists, and trains all of them up the ladder."""
        favourites = max(1, self.num // FAVOURITES)
        by_supernet = [each for each in who.pool if each.supernet is not None][: WIDER * favourites]
        tuned = self.fine_tuned(supernet, [*who.by_hand, *who.varied, *by_supernet])
        best = sorted((each for each in tuned if each.origin == "supernet"), key=_by_fine_tuned)[:favourites]
        first = sorted((each for each in tuned if each.by_hand or each.origin == "variety" or each in best), key=_by_fine_tuned)
        asked = [_read(line) for line in self._metrics()]
        first = [*asked, *(each for each in first if each.key not in {one.key for one in asked})]
        num_images, seed = self.opened.setting.images.size(self.alone.judged_on), self.opened.setting.seed
        ladder = Ladder(first, self.num, who.pool, _Standings(self.alone), len(SHARES), num_images, seed)
        return self._train(ladder, len(asked))

    def _metrics(self) -> list[dict[str, Any]]:
        lines = self.opened.run.metrics("finalist")
        return [line for line in lines if (line["study"], line["schedule"]) == (self.study, self.alone.digest)]

    def _train(self, ladder: Ladder, logged: int) -> Ladder:
        from nas.searching.tune import WAIT, Job, train_beside  # Ray

        alone, seed, run = self.alone, self.opened.setting.seed, self.opened.run
        standings = ladder.standing
        assert isinstance(standings, _Standings)

        def ask() -> Job | str | None:
            chosen = ladder.ask()
            if not isinstance(chosen, Finalist):
                return WAIT if chosen else None
            if len(ladder.asked) > logged:
                run.log("finalist", study=self.study, schedule=alone.digest, **_plain(chosen))
            jobs.append(Job(chosen.architecture, seed))
            return jobs[-1]

        def head_start(job: Job) -> float:
            return ladder.head_start(next(each for each in ladder.asked if each.architecture == job.architecture))

        def told(job: Job) -> None:
            standings.refresh(job.architecture)

        def text() -> str:
            come = [each for each in ladder.ranked() if ladder.accuracies(each)]
            done = [*show.steps_done.values(), *[0] * (most - len(show.steps_done))]
            next_rungs = (steps if steps in alone.ladder else min(rung for rung in alone.ladder if rung > steps) for steps in done)
            progress.total = max(progress.total, sum(next_rungs))  # that much at least
            return f"{len(come)} of {most} networks" + (f", best {ladder.accuracies(come[0])[-1]:.2%} ({come[0].origin})" if come else "")

        most = self.num + sum(each.by_hand for each in ladder.waiting)
        jobs: list[Job] = []
        with Progress("finalists", self._steps(most), "step") as progress:
            show = Shown(progress, alone, jobs, text)
            train = partial(train_beside, alone, told=told, workers=self.workers, stop=self.stop, show=show)
            train(ask, climb="the best", head_start=head_start)
            while challengers := ladder.challengers():
                progress.total = max(progress.total, progress.done + sum(self._next_rung(ladder, each) for each in challengers))
                train(partial(next, iter([Job(each.architecture, seed) for each in challengers]), None), climb="all a rung")
        return ladder

    def _steps(self, networks: int) -> int:
        """What a ladder of so many networks takes about: of three at a rung one goes on, and the first two in any case."""
        steps, before, climbing = 0.0, 0, float(networks)
        for rung in self.alone.ladder:
            steps, before, climbing = steps + climbing * (rung - before), rung, (climbing + 2) / 3
        return round(steps)

    def _next_rung(self, ladder: Ladder, finalist: Finalist) -> int:
        """The steps to it."""
        before, after = [0, *self.alone.ladder][(reached := len(ladder.accuracies(finalist))) : reached + 2]
        return after - before

    def winner(self, ladder: Ladder) -> tuple[Finalist, Mapping[str, float]]:
        """The most accurate finalist that obeys all budgets, and what was measured of it now.

        Raises:
            ValueError: there is none.
        """
        while winner := ladder.winner():
            try:
                measured = self.measured(winner.architecture)
            except MemoryError:
                measured = None
            if measured is not None and all(each.violation(measured.get(each.quantity.name, 0)) <= 0 for each in self.request.budgets):
                return winner, measured
            ladder.leave_out(winner)
            self._train(ladder, len(ladder.asked))
        failed = sum(ladder.failed(each) for each in ladder.asked)
        raise ValueError(
            f"search: no finalist obeys the budgets to its end: got {len(ladder.asked)}, {failed} of which failed in training; accepted: one or "
            "more. Raise the budget, mend the cause of the failures, or give --finalists 0."
        )

    def keep(self, supernet: Supernet, winner: Finalist, path: Path) -> float | None:
        """Writes the winner's inherited weights, fine-tuned where that helps: a network that can be used at once. Its accuracy on the held-out
        images; None, and nothing written, for a published network that the space does not have."""
        if not _in(self.opened.space, winner.architecture):
            return None
        setting, architecture = self.opened.setting, winner.architecture.at(self.opened.setting.frame)
        tuned = FineTuned(setting, self.opened.run).evaluation(supernet, winner.architecture).accuracy
        if tuned is not None and tuned >= (winner.supernet or 0.0):
            network, accuracy = fine_tune(supernet, winner.architecture, setting, setting.recipe.search.fine_tune), tuned
        elif winner.supernet is not None:
            network, accuracy = supernet.subnet(architecture).eval(), winner.supernet
        else:  # it fails to be fine-tuned, and nobody knows what it is worth before
            return None
        save_network(path, network, architecture, setting.images)
        return accuracy


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
        return self._known.get(finalist.key, [None] * len(SHARES))[rung]


def _by_fine_tuned(finalist: Finalist) -> tuple[float, str]:
    return -(finalist.fine_tuned or 0.0), finalist.key


def _plain(finalist: Finalist) -> dict[str, Any]:
    return {**finalist.__dict__, "key": finalist.key, "architecture": finalist.architecture.to_dict()}


def _read(line: Mapping[str, Any]) -> Finalist:
    architecture = Architecture.from_dict(line["architecture"], "metrics.jsonl: a finalist")
    return Finalist(line["origin"], architecture, line["by_hand"], line["supernet"], line["fine_tuned"])


def table(ladder: Ladder, alone: Alone) -> list[str]:
    """The finalists, the best first: where they come from, cost, supernet, fine-tuned, rung by rung, and which one is chosen."""
    per_epoch = alone.steps / (alone.phase.epochs or 1)
    heads = ["network", "from", "MACs", "params", "supernet", "fine-tuned", *(f"{step / per_epoch:.3g} ep" for step in alone.ladder), ""]
    rows = [heads]
    for each in ladder.ranked():
        costs = cost(each.architecture)
        at = [ladder.standing(each, rung) for rung in range(len(alone.ladder))]
        shown = [
            value if isinstance(value, str) else "-" if value is None else f"{value:.2%}" for value in (each.supernet, each.fine_tuned, *at)
        ]
        sizes = [format_quantity("macs", costs.macs), format_quantity("params", costs.params)]
        rows.append([each.key, each.origin, *sizes, *shown, "chosen" if each == ladder.winner() else ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
