"""How far a supernet's ranking can be trusted: networks of one budget are scored in every way there is, and trained alone for the truth."""

from __future__ import annotations

import datetime
import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from nas.cost import cost
from nas.cost.latency import built
from nas.data import Augmentation
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.pareto import LEAST, Estimate, foretold_from_others, mean_rank_residuals, rank_figures, tau_ceiling
from nas.progress import Progress
from nas.quantities import Budget, format_quantity
from nas.runs.folder import provenance
from nas.runs.interrupt import heeded, saying
from nas.searching.evaluating import open_evaluator
from nas.searching.inherited import FineTuned
from nas.searching.jobs import Job
from nas.searching.proposals import around, stratified
from nas.searching.ray_cluster import Crew
from nas.searching.search import Evaluation
from nas.searching.supernet_run import SupernetRun
from nas.searching.trained_alone import Alone, Shown
from nas.searching.zero_cost import PROXIES
from nas.spaces.supernet import Supernet

# By its entry in a file: what is held against the truth, the larger the better. The first two cost a supernet, `both` is what a ladder's first
# rung goes by, the sum of the supernet's accuracy and the one after a ninth; then the same training cut short; the others are controls.
RANKED = ("supernet", "fine_tuned")
EARLY = {
    "ninth": 1 / 9,
    "quarter": 1 / 4,
    "third": 1 / 3,
    "half": 1 / 2,
}  # shares of the schedule; a ladder judges after a ninth and a third
SCORES = (*RANKED, "both", *EARLY, "macs", "params", *PROXIES)
ACCURACIES = (*RANKED, *EARLY)
# Found out of a file's networks: each foretold from the others by a score and its number of blocks, since supernets underrate depth.
BY_DEPTH = {name: f"{name}_by_depth" for name in RANKED}
COMPARED = (*RANKED, BY_DEPTH["supernet"])
PAUSE = 60.0  # seconds between two lines of a log that are no part of a training


def networks_around(opened: SupernetRun, num: int) -> list[Architecture]:
    """Different networks that use 90 to 110% of the tightest budget, each mixer as often as any other in every place.

    Raises:
        ValueError: fewer than a correlation wants are asked for or found, no exact budget binds, or the supernet was trained for others.
    """
    if num < LEAST:
        raise ValueError(
            f"--networks: too few to rank: got {num}; accepted: {LEAST} or more, since chance alone gives any figure to fewer."
        )
    if all(budget.quantity.measured for budget in opened.budgets):
        got = " and ".join(each.text for each in (*opened.budgets, *opened.unlimited))
        raise ValueError(
            f"--budget: no exact limit that binds: got {got}; accepted: one on MACs, params or activations, below the largest network's."
        )
    band = around(opened.space, cost, opened.budgets)
    if opened.levels and not opened.levels.covers(band.limits, band.floor):
        ends = (f"{format_quantity(name, low)} to {format_quantity(name, high)}" for name, (low, high) in opened.levels.ends.items())
        got = " and ".join(each.text for each in opened.budgets)
        raise ValueError(
            f"--budget: networks 10% above it are none that the supernet was trained for: got {got}; accepted: {', '.join(ends)}. "
            "Lower it, or begin another --run."
        )
    return [opened.space.decode(values) for values in stratified(band, num, opened.setting.seed)]


@dataclass(frozen=True)
class Fidelity:
    """A supernet's scores of networks, held against the accuracies of the same networks trained alone.

    Attributes:
        supernet: the run; trained first where it is not.
        budgets: all that were given.
        networks: that are compared, in the frame in which budgets are counted.
        alone: how they are trained for the truth; its setting's seed is the first.
        seeds: with how many seeds each is trained; more that are known count too.
        crew: scores and trains; without workers this process scores, and one network is trained at a time.
    """

    supernet: SupernetRun
    budgets: tuple[Budget, ...]
    networks: Sequence[Architecture]
    alone: Alone
    seeds: int = 1
    crew: Crew = field(default_factory=Crew)

    @cached_property
    def fine_tuned(self) -> FineTuned:
        return FineTuned(self.supernet.setting, self.supernet.run)

    def entries(self, stop: Callable[[], bool]) -> dict[str, Any]:
        """All that a fidelity file holds: settings, networks, what `figures_of` makes of them, seconds. Goes on from what the run has.

        Raises:
            ValueError: fewer than ten networks have all scores and a truth; one line.
            Stopped: `stop` became true; what was trained is kept.
        """
        supernet = self.supernet.trained(stop)
        begun, earlier = time.monotonic(), dict(self.fine_tuned.known)
        scored = self._scored(supernet, stop)
        scoring = time.monotonic() - begun
        self._train(stop)
        networks = [_with_both({**scores, **self._truth(each)}) for each, scores in zip(self.networks, scored, strict=True)]
        failed = Counter(each["failure"] for each in networks if "failure" in each)
        if len(networks) - failed.total() < LEAST:
            got = f"{len(networks) - failed.total()} of {len(networks)} ({', '.join(f'{count} {reason}' for reason, count in failed.items())})"
            raise ValueError(f"fidelity: too few networks could be ranked: got {got}; accepted: {LEAST} or more. Ask for more --networks.")
        counted = ((each, range(max(self.seeds, len(entry["retrained"])))) for each, entry in zip(self.networks, networks, strict=True))
        trainings = (self.alone.known(each, self._seeds.start + number).seconds for each, numbers in counted for number in numbers)
        kept = sum(earlier[each.key].seconds for each in self.networks if each.key in earlier)  # what earlier sittings spent on fine-tuning
        seconds = {"supernet": self._supernet_seconds(), "scores": round(scoring + kept, 1), "trainings": round(sum(trainings), 1)}
        return {"settings": self._settings(), "networks": networks, "seconds": seconds, **figures_of({"networks": networks})}

    # ---- scores ----------------------------------------------------------------------------------------------------

    def _scored(self, supernet: Supernet, stop: Callable[[], bool]) -> list[dict[str, Any]]:
        """Of each network what it is and every score but the one that needs its training."""
        found = []
        inherited = self._inherited(supernet, stop)
        batch = self._batch()
        with Progress("scores", len(self.networks), "network") as progress:
            where = partial(_where, progress)
            for architecture, accuracy in heeded(zip(self.networks, inherited, strict=True), stop, where):
                with saying(where):
                    tuned = self.fine_tuned.evaluation(supernet, architecture, stop)
                costs = cost(architecture)
                entry = {"key": architecture.key, "architecture": architecture.to_dict(), "macs": costs.macs, "params": costs.params}
                entry |= {"supernet": accuracy.accuracy, "fine_tuned": tuned.accuracy, **self._zero_cost(architecture, batch)}
                failures = [f"{name}: {each.failure}" for name, each in (("supernet", accuracy), ("fine-tuned", tuned)) if each.failure]
                found.append(entry | ({"failure": failures[0]} if failures else {}))
                progress.advance()
        return found

    def _inherited(self, supernet: Supernet, stop: Callable[[], bool]) -> list[Evaluation]:
        """Accuracies with the supernet's weights."""
        setting, found = self.supernet.setting, list[Evaluation]()
        with (
            open_evaluator(supernet, self.fine_tuned.held_out, setting.recipe, setting.device, self.crew, stop) as evaluator,
            Progress("supernet's accuracies", len(self.networks), "network") as progress,
            saying(partial(_where, progress)),
        ):
            for evaluation in evaluator.evaluate(self.networks):
                found.append(evaluation)
                progress.advance()
        return found

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The images that networks without training are scored by: a batch as training has it, but not augmented."""
        setting = self.supernet.setting
        return next(setting.images.batches("fit", self.alone.phase.batch_size, setting.seed, Augmentation())(0))

    def _zero_cost(self, architecture: Architecture, batch: tuple[Tensor, Tensor]) -> dict[str, float | None]:
        setting = self.supernet.setting
        torch.manual_seed(setting.seed)
        network = built(partial(Network, architecture.at(setting.frame)), setting.device)
        return {name: _finite(score(network, *batch)) for name, score in PROXIES.items()}

    # ---- the truth -------------------------------------------------------------------------------------------------

    @property
    def _seeds(self) -> range:
        return range(self.alone.setting.seed, self.alone.setting.seed + self.seeds)

    @property
    def jobs(self) -> list[Job]:
        """All trainings, those with the first seed first."""
        return [Job(architecture, seed) for seed in self._seeds for architecture in self.networks]

    def _train(self, stop: Callable[[], bool]) -> None:
        from nas.searching.tune import train_beside  # Ray, only where there is something to train

        jobs = self.jobs
        left = [job for job in jobs if self.alone.known(*job).ended is None]
        if not left:
            return
        waiting = iter(left)
        print(
            f"Training {len(left)} of {len(jobs)} networks alone, {self.alone.steps} steps each, {max(1, self.crew.num)} beside each other.",
            flush=True,
        )
        with Progress("networks alone", len(jobs) * self.alone.steps, "step") as progress:
            show = Shown(progress, self.alone, jobs)
            train_beside(
                self.alone, lambda: next(waiting, None), lambda job: None, crew=self.crew, climb="all to the end", show=show, stop=stop
            )  # fmt: skip
            show.look()

    def _truth(self, architecture: Architecture) -> dict[str, Any]:
        """The accuracies of a network alone by all seeds known, the first one's on the way, the seeds that a second try was needed with, and a failure's
        reason."""
        first, found = self.alone.setting.seed, list[float]()
        for seed in itertools.count(first):
            ended = self.alone.known(architecture, seed).ended
            if ended is None or ended.accuracy is None:
                break
            found.append(ended.accuracy)
        again = [seed for seed in range(first, first + len(found)) if self.alone.known(architecture, seed).remedied]
        early = {name: self.alone.accuracy(architecture, first, self.alone.judged_at(share)) for name, share in EARLY.items()}
        entry = {**early, "retrained": found, **({"second_tries": again} if again else {})}
        return entry if len(found) >= self.seeds else {**entry, "failure": (ended and ended.failure) or "its training did not end"}

    # ---- what it was made with -------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        opened, setting = self.supernet, self.supernet.setting
        made = provenance()
        return {
            "run": opened.run.name, "budgets": [each.text for each in self.budgets],
            "space": opened.space.name, "space_fingerprint": opened.space.fingerprint, **setting.record(), "data": setting.source.name,
            "held_out_images": setting.images.size("held_out"), "networks": len(self.networks), "seeds": self.seeds,
            "epochs": self.alone.phase.epochs, "steps": self.alone.steps, "fine_tune": setting.recipe.search.fine_tune,
            "device": setting.device.type, **{name: made[name] for name in ("command", "started", "versions", "revision") if name in made},
        }  # fmt: skip

    def _supernet_seconds(self) -> float | None:
        """Of the supernet's training, by its log; None where there is none. Pauses between sittings are left out."""
        times = [datetime.datetime.fromisoformat(line["time"]) for line in self.supernet.run.metrics("supernet")]
        gaps = ((after - before).total_seconds() for before, after in itertools.pairwise(times))
        return sum(gap for gap in gaps if 0 <= gap <= PAUSE) if times else None


def _with_both(entry: dict[str, Any]) -> dict[str, Any]:
    supernet, ninth = entry["supernet"], entry["ninth"]
    return {**entry, "both": None if supernet is None or ninth is None else supernet + ninth}


def _where(progress: Progress) -> str:
    return f"scoring stopped after {progress.done} of {progress.total} networks"


# ---- what the networks of a file say -------------------------------------------------------------------------------------


def mixer_shares(architecture: Mapping[str, Any]) -> dict[str, float]:
    """Of an architecture as a file holds it: the share of its blocks that each mixer has."""
    blocks = [mixer for stage in architecture["stages"] for mixer in stage["mixers"]]
    return {mixer: count / len(blocks) for mixer, count in Counter(blocks).items()}


def _thirds(depths: Sequence[int]) -> list[dict[str, float]]:
    """Of each network which third of all it is in by its number of blocks, as ``{"5 to 6 blocks": 1.0}``; networks of one depth are in the same."""
    ordered, third = sorted(depths), len(depths) // 3
    low, high = ordered[third - 1], ordered[-third]
    parts = [0 if depth <= low else 2 if depth >= high else 1 for depth in depths]
    its = {part: [depth for depth, each in zip(depths, parts, strict=True) if each == part] for part in set(parts)}
    names = {part: f"{min(each)} to {max(each)} blocks" for part, each in its.items()}
    return [{names[part]: 1.0} for part in parts]


def ranked(entries: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The networks of a fidelity file that count, each with its `truth`: the mean accuracy over the seeds it was trained with."""
    return [{**each, "truth": statistics.fmean(each["retrained"])} for each in entries["networks"] if "failure" not in each]


def blocks_of(network: Mapping[str, Any]) -> int:
    """How many blocks a network of a fidelity file has."""
    return sum(len(stage["mixers"]) for stage in network["architecture"]["stages"])


def figures_of(entries: Mapping[str, Any], resamples: int = 1000) -> dict[str, Any]:
    """All figures of a fidelity file, from its list of networks alone; JSON's values, None for what cannot be told.

    Args:
        entries: what the file holds.
        resamples: for the intervals, as in `rank_figures`; a thousand take some ten seconds.

    Returns:
        figures: by score ("A - B": their difference) and figure of `nas.pareto.FIGURES` [value, low, high], of what `rank_figures` gives. Two
            scores more: what each network's truth is foretold to be from the others' by the supernet's accuracy, or the fine-tuned one, and blocks.
        agreement: the same figures of one seed's accuracies against another's, over the networks that have both; None with fewer than ten. It
            tells how much noise a training has, and both sides have it: a score without noise may come nearer to either seed, and nearer still
            to the mean of the seeds that scores are held against.
        ceiling: of tau, as `tau_ceiling` says; None with fewer than ten networks that have two seeds.
        bias: by ranked score and mixer, and third of the networks by number of blocks, how far the networks are overrated, as
            `mean_rank_residuals` says.
        truth: mean, standard deviation, minimum and maximum of the accuracies alone.
        means: of the scores that are accuracies.

    Raises:
        ValueError: fewer than ten networks count.
    """
    networks = ranked(entries)
    truth = [each["truth"] for each in networks]
    columns: dict[str, list[Any]] = {name: [each.get(name) for each in networks] for name in SCORES}
    scores = {name: column for name, column in columns.items() if None not in column}  # with a gap there is no ranking
    blocks = [blocks_of(each) for each in networks]
    scores |= {BY_DEPTH[name]: foretold_from_others([scores[name], blocks], truth) for name in RANKED}
    made_of = [{**mixer_shares(each["architecture"]), **depth} for each, depth in zip(networks, _thirds(blocks), strict=True)]
    both = [each["retrained"] for each in networks if len(each["retrained"]) > 1]
    again = {"again": [each[1] for each in both]}
    agreement = rank_figures(again, [each[0] for each in both], resamples)["again"] if len(both) >= LEAST else None
    return {
        "figures": {name: _plain(found) for name, found in rank_figures(scores, truth, resamples, COMPARED).items()},
        "agreement": _plain(agreement) if agreement else None,
        "ceiling": tau_ceiling([each["retrained"] for each in networks]) if agreement else None,
        "bias": {name: mean_rank_residuals(scores[name], truth, made_of) for name in RANKED},
        "truth": {"mean": statistics.fmean(truth), "std": statistics.stdev(truth), "min": min(truth), "max": max(truth)},
        "means": {name: statistics.fmean(scores[name]) for name in ACCURACIES if name in scores},
    }


def _plain(figures: Mapping[str, Estimate]) -> dict[str, list[float | None]]:
    return {name: [_finite(value) for value in estimate] for name, estimate in figures.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
