"""The end of a search: finalists are fine-tuned, then trained alone up a ladder, and the best one seen wins."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.networks.trained import save_network
from nas.progress import Progress
from nas.quantities import Budget, format_quantity
from nas.runs.folder import TRAINED_ALONE
from nas.runs.interrupt import Stopped
from nas.searching.evaluating import Evaluator
from nas.searching.evolution import History, children
from nas.searching.inherited import FineTuned
from nas.searching.known_networks import baselines
from nas.searching.ladder import BY_MODEL, Finalist, Ladder, Standing
from nas.searching.proposals import Band, draw, stratified
from nas.searching.search import Measure, SearchRequest, Trial, measured_values
from nas.searching.supernet_run import SupernetRun
from nas.searching.trained_alone import SHARES, Alone, Shown
from nas.spaces.supernet import Supernet
from nas.training.fine_tune import fine_tune
from nas.training.loop import evaluate

DRAWN = 300  # candidates where no search has evaluated any
FAVOURITES, VARIED = 4, 6  # one finalist of so many is a favourite of the supernet, or drawn for variety; the others a model chooses
WIDER = 2  # so many times the favourites are fine-tuned before these are chosen
LEADERS, CHILDREN = 5, 60  # near so many finalists the model may choose, of so many networks each


@dataclass(frozen=True)
class Candidates:
    """Who may become a finalist, with the supernet's scores.

    Attributes:
        by_hand: the single-mixer networks and other patterns, and published networks, all within the budgets.
        varied: drawn for variety.
        pool: the others: what the search evaluated in the band, the most accurate first; without a supernet, draws.
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
        return obeying(architecture, request.budgets, partial(measured_values, budgets=request.budgets, measure=measure)) is not None

    named = list(baselines(space, request.budgets, request.floor, opened.setting.frame))
    by_hand = {each.architecture.key: (each.name, each.architecture) for each in reversed(named)}  # two patterns may be one network
    taken = set(by_hand)
    varied = [space.decode(values) for values in stratified(band, num // (VARIED if evaluator else 3), request.seed)]
    varied = [each for each in varied if each.key not in taken]
    measured = any(each.quantity.measured for each in request.budgets)
    low = request.floor if request.budgets else 0.0
    pool = [each for each in evaluated.values() if each.feasible and each.usage >= low and each.architecture.key not in taken]
    pool.sort(key=lambda each: (-each.objectives[0], each.number))
    drawn = [space.decode(each.values) for each in draw(band, 0 if evaluator else DRAWN, taken, rng)]

    scores = {key: trial.accuracy for key, trial in evaluated.items()}
    asked = (*(architecture for _, architecture in by_hand.values()), *varied)
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


def obeying(
    architecture: Architecture, budgets: Sequence[Budget], measured: Callable[[Architecture], Mapping[str, float]]
) -> Mapping[str, float] | None:
    """What is measured of a network now, if anything measured is limited; None where that is not within the limits."""
    try:
        values = measured(architecture)
    except MemoryError:
        return None
    return values if all(each.violation(values[each.quantity.name]) <= 0 for each in budgets if each.quantity.measured) else None


def _in(space: Any, architecture: Architecture) -> bool:
    try:
        space.encode(architecture)
    except ValueError:
        return False
    return True


def ladder_steps(alone: Alone, networks: int) -> int:
    """What a ladder of so many networks takes about: of three at a rung one goes on."""
    steps, before, climbing = 0.0, 0, float(networks)
    for rung in alone.ladder:
        steps, before, climbing = steps + climbing * (rung - before), rung, (climbing + 2) / 3
    return round(steps)


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
        return Alone.on_held_out(setting, self.opened.run.folder / TRAINED_ALONE, setting.recipe.search.finalist_epochs)

    @cached_property
    def _tuned(self) -> FineTuned:
        """Held-out images and what fine-tuning gave, read once."""
        return FineTuned(self.opened.setting, self.opened.run)

    def fine_tuned(self, supernet: Supernet | None, finalists: Sequence[Finalist]) -> list[Finalist]:
        """The same finalists; those that the supernet knows with their accuracies after fine-tuning."""
        if supernet is None:
            return list(finalists)
        known = [each for each in finalists if each.supernet is not None]
        accuracies = dict[str, float | None]()
        with Progress("fine-tune", len(known), "network") as progress:
            for each in known:
                if self.stop():
                    raise Stopped(f"fine-tuning stopped after {progress.done} of {len(known)} networks")
                accuracies[each.key] = self._tuned.evaluation(supernet, each.architecture).accuracy
                progress.advance()
        return [replace(each, fine_tuned=accuracies.get(each.key)) for each in finalists]

    def climb(self, supernet: Supernet | None, who: Candidates) -> Ladder:
        """Chooses the finalists, and trains all of them up the ladder."""
        favourites = max(1, self.num // FAVOURITES)
        by_supernet = [each for each in who.pool if each.supernet is not None][: WIDER * favourites]
        tuned = self.fine_tuned(supernet, [*who.by_hand, *who.varied, *by_supernet])
        best = sorted((each for each in tuned if each.origin == "supernet"), key=_by_fine_tuned)[:favourites]
        first = sorted((each for each in tuned if each.by_hand or each.origin == "variety" or each in best), key=_by_fine_tuned)
        asked, chosen = self._asked_before()
        first = [*asked, *(each for each in first if each.key not in {one.key for one in (*asked, *chosen)})]
        ladder = Ladder(first, _Standings(self.alone), len(SHARES), self.opened.setting.images.size(self.alone.judged_on))
        num_chosen = max(0, self.num - sum(not each.by_hand for each in first))
        with Progress("finalists", ladder_steps(self.alone, len(first) + num_chosen), "step") as progress:
            self._train_first(ladder, progress, len(asked))
            self._train_climbers(ladder, progress)
            ladder.again(chosen)
            self._train_climbers(ladder, progress)
            self._train_chosen(ladder, progress, supernet, who.pool, num_chosen - len(chosen))
            self._train_climbers(ladder, progress, to_the_end=True)
        return ladder

    def _asked_before(self) -> tuple[list[Finalist], list[Finalist]]:
        """In an earlier sitting: of the first finalists, and of those that the model chose."""
        lines = [
            line for line in self.opened.run.metrics("finalist") if line["study"] == self.study and line["schedule"] == self.alone.digest
        ]
        found = [_read(line) for line in lines]
        return [each for each in found if each.origin != BY_MODEL], [each for each in found if each.origin == BY_MODEL]

    def _log(self, finalist: Finalist) -> None:
        self.opened.run.log("finalist", study=self.study, schedule=self.alone.digest, **_plain(finalist))

    def _children(self, leaders: Sequence[Finalist], known: Set[str]) -> list[Finalist]:
        """Networks near the leaders, one or two decisions away and not known yet."""
        space, band = self.opened.space, Band(self.opened.space, cost, self.request.budgets, self.request.floor)
        found: dict[str, Architecture] = {}
        for parent in (each.architecture for each in leaders if _in(space, each.architecture)):
            rng = random.Random(f"{self.opened.setting.seed}/children of {parent.key}")
            near = children(band, History([(space.encode(parent), 0.0)], {*known, *found}), CHILDREN, rng)
            found |= {each.key: each for each in (space.decode(one.values) for one in near)}
        return [Finalist(BY_MODEL, each) for each in found.values()]

    def _look(self, supernet: Supernet | None, finalists: Sequence[Finalist], scored: bool) -> list[Finalist]:
        """Those of a shortlist that obey what is measured; if wanted, with their accuracies by the supernet. Both are found out once."""
        setting, looked, found = self.opened.setting, self._looked, list[Finalist]()
        with Progress("shortlist", len(finalists), "network") as progress:
            for each in finalists:
                if self.stop():
                    raise Stopped(f"looking at candidates stopped after {progress.done} of {len(finalists)} networks")
                obeys, score = looked.get(each.key, (None, each.supernet))
                obeys = obeying(each.architecture, self.request.budgets, self.measured) is not None if obeys is None else obeys
                if obeys and scored and score is None and supernet is not None and _in(self.opened.space, each.architecture):
                    score = evaluate(supernet, self._tuned.held_out, setting.autocast, (each.architecture.at(setting.frame),))
                looked[each.key] = (obeys, score)
                found += [replace(each, supernet=score)] if obeys else []
                progress.advance()
        return found

    @cached_property
    def _looked(self) -> dict[str, tuple[bool, float | None]]:
        """By key, what `_look` has found out."""
        return {}

    def _train_first(self, ladder: Ladder, progress: Progress, logged: int) -> None:
        """Trains the first finalists; the better third climbs to the rung before the last."""
        from nas.searching.tune import Job  # Ray

        def ask() -> Job | None:
            chosen = ladder.ask()
            if chosen and len(ladder.asked) > logged:
                self._log(chosen)
            return Job(chosen.architecture, self.opened.setting.seed) if chosen else None

        def head_start(job: Job) -> float:
            return ladder.head_start(next(each for each in ladder.asked if each.architecture == job.architecture))

        self._train(ladder, progress, ask, climb="the best", head_start=head_start)

    def _train_chosen(self, ladder: Ladder, progress: Progress, supernet: Supernet | None, pool: Sequence[Finalist], num: int) -> None:
        """Chooses and trains the others, as many at a time as are trained beside each other, each time with what the last ones have shown."""
        found, parents = list(pool), set[str]()
        while num > 0:
            leaders = [each for each in ladder.leaders(LEADERS) if each.key not in parents]
            parents |= {each.key for each in leaders}
            found += self._children(leaders, {each.key for each in (*found, *ladder.asked)})
            chosen = ladder.choose(found, min(num, max(1, self.workers)), partial(self._look, supernet))
            for each in chosen:
                self._log(each)
            if chosen:
                self._train_all(ladder, progress, chosen, "all but the end")
            left = [each for each in found if self._looked.get(each.key, (True, None))[0]]
            num = num - len(chosen) if chosen or len(left) < len(found) else 0
            found = left

    def _train_climbers(self, ladder: Ladder, progress: Progress, to_the_end: bool = False) -> None:
        """Trains who goes on, a rung at a time, until there is none."""
        while climbers := ladder.climbers(to_the_end):
            self._train_all(ladder, progress, climbers, "all a rung")

    def _train_all(self, ladder: Ladder, progress: Progress, which: Sequence[Finalist], climb: str) -> None:
        from nas.searching.tune import Job  # Ray

        jobs = iter([Job(each.architecture, self.opened.setting.seed) for each in which])
        self._train(ladder, progress, partial(next, jobs, None), climb=climb)

    def _train(self, ladder: Ladder, progress: Progress, ask: Callable[[], Any], **how: Any) -> None:
        from nas.searching.tune import Job, train_beside  # Ray

        alone, standings = self.alone, ladder.standing
        assert isinstance(standings, _Standings)

        def told(job: Job) -> None:
            standings.refresh(job.architecture)

        def text() -> str:
            come = [each for each in ladder.ranked() if ladder.accuracies(each)]
            best = f", best {ladder.accuracies(come[0])[-1]:.2%} ({come[0].origin})" if come else ""
            next_rungs = (min(rung for rung in alone.ladder if rung >= steps) for steps in show.steps_done.values())
            progress.total = max(progress.total, sum(next_rungs))  # that much at least
            return f"{len(come)} of {len(ladder.asked) + len(ladder.waiting)} networks{best}"

        def noted() -> Job | None:
            job = ask()
            if job and job not in jobs:
                jobs.append(job)
            return job

        jobs = [Job(each.architecture, self.opened.setting.seed) for each in ladder.asked]
        show = Shown(progress, alone, jobs, text)
        train_beside(alone, noted, told, workers=self.workers, stop=self.stop, show=show, **how)

    def winner(self, ladder: Ladder) -> tuple[Finalist, Mapping[str, float]]:
        """The most accurate finalist that obeys all budgets, and what was measured of it now.

        Raises:
            ValueError: there is none.
        """
        while winner := ladder.winner():
            if (measured := obeying(winner.architecture, self.request.budgets, self.measured)) is not None:
                return winner, measured
            ladder.leave_out(winner)
            with Progress("finalists", self.alone.steps, "step") as progress:
                self._train_climbers(ladder, progress, to_the_end=True)
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
        tuned = self._tuned.evaluation(supernet, winner.architecture).accuracy
        if tuned is not None and tuned >= (winner.supernet or 0.0):
            network, accuracy = fine_tune(supernet, winner.architecture, setting, setting.recipe.search.fine_tune), tuned
        elif winner.supernet is not None:
            network, accuracy = supernet.subnet(architecture).eval(), winner.supernet
        else:  # it fails to be fine-tuned, and nobody knows what it is worth before
            return None
        save_network(path, network.state_dict(), architecture, setting.images.classes, setting.images.preprocessing, setting.recipe.bf16)
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
        if finalist.key not in self._known:
            self.refresh(finalist.architecture)
        return self._known[finalist.key][rung]


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
