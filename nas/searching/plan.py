"""What a supernet's training and a search will do and how long that takes, said before anything is spent."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from nas.cost import cost
from nas.cost.latency import built, pinned
from nas.machine import cores
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.quantities import format_quantity
from nas.runs.folder import TRAINED_ALONE
from nas.searching.candidates import favourites_and_varied
from nas.searching.climbing import ladder_steps
from nas.searching.finals import WIDER
from nas.searching.jobs import Job
from nas.searching.known_networks import baselines
from nas.searching.proposals import value_of
from nas.searching.search_run import SearchRun
from nas.searching.supernet_run import SupernetRun
from nas.searching.trained_alone import Alone
from nas.spaces.supernet import Supernet
from nas.training.loop import evaluate
from nas.training.plan import FEW, LONG_STEP, WORTH_TIMING, about, block, check_network, data_line, phase_line, step_seconds, time_line
from nas.training.recipe import Phase
from nas.training.setting import Setting
from nas.training.train_supernet import supernet_steps

LOTS, SECONDS_TO_START = 4, 5.0  # lots of finalists besides those that are chosen; of a worker, once in a lot (two idle cores)
VERY_LONG = 60.0  # seconds of a step after which one kind of network is timed alone
DRAWN = 300  # networks that tell how much of a space is within a budget
SPLITS = {"fit": "to train on", "train": "to train on", "held_out": "held out to choose by", "test": "to test"}


def supernet_plan(opened: SupernetRun) -> list[str]:
    """Of `train`."""
    lines, seconds = _lines(opened), _supernet_seconds(opened)
    if seconds is not None:
        lines["time"] = time_line({"supernet": seconds}, opened.setting.device.type)
    return list(block(lines, (*opened.notes, *opened.setting.notes)))


def search_plan(searches: Sequence[SearchRun], devices: int = 1, more: Mapping[str, str] = {}) -> list[str]:
    """Of `search`: the supernet; for each winner evaluations and networks trained alone; and the retraining of the winners behind it.

    Args:
        searches: of one supernet.
        devices: so many share the batches of supernet and retraining, and evaluate and train finalists beside each other.
        more: lines before that of the time.
    """
    opened, trials, several = searches[0].supernet, searches[0].request.trials, len(searches) > 1
    setting, phase = opened.setting, opened.setting.recipe.retrain
    lines, per_epoch = _lines(opened), setting.images.steps_per_epoch("train", phase.batch_size)
    supernet = _supernet_seconds(opened, devices) if trials else 0.0
    for each in searches:
        lines |= _reach(each)
    parts = [_part(each, several, devices) for each in searches]
    for each, (told, _) in zip(searches, parts, strict=True):
        if told:
            lines[" and ".join(budget.text for budget in each.budgets) if several else "finalists"] = told
    lines["retrain"] = "each winner: " * several + phase_line(phase, phase.num_steps(per_epoch), per_epoch)
    lines |= more
    if timed := [seconds for _, seconds in parts if seconds]:
        num = len(timed)
        names = {"evaluations": f"{trials} evaluations", "finalists": "finalists", "retraining": "retraining the winner"}
        if num > 1:
            names |= {"evaluations": f"{num} times {trials} evaluations", "retraining": f"retraining {num} winners"}
        every = {"supernet": supernet or 0.0, **{told: sum(each[name] for each in timed) for name, told in names.items()}}
        lines["time"] = time_line({name: seconds for name, seconds in every.items() if seconds}, setting.device.type)
    return list(block(lines, (*opened.notes, *setting.notes)))


def _reach(search: SearchRun) -> dict[str, str]:
    """By budget, what the smallest network of the space, the median of some drawn at random and the largest have of it, and how many are within."""
    space, budgets = search.supernet.space, [each for each in search.request.budgets if each.by_arithmetic]
    rng = random.Random(0)
    drawn = [space.decode(space.random(rng)) for _ in range(DRAWN)]
    lines, within = {}, [True] * DRAWN
    for budget in budgets:
        value = partial(value_of, cost, budget)
        values = [value(each) for each in drawn]
        three = (value(space.smallest(value)), statistics.median(values), value(space.largest(value)))
        least, middle, most = (format_quantity(budget.quantity.name, each) for each in three)
        obeying = [each <= budget.limit for each in values]
        within = [both and each for both, each in zip(within, obeying, strict=True)]
        lines[f"  {budget.text}"] = (
            f"of {space.name} the smallest has {least}, the median {middle}, the largest {most}; {sum(obeying) / DRAWN:.0%} obey"
        )
    if len(budgets) > 1:
        together = " and ".join(each.text for each in budgets)  # each winner of several has its own
        lines[f"  {together}"] = f"{sum(within) / DRAWN:.0%} obey all of them together"
    return lines


@dataclass(frozen=True)
class Ladder:
    """The networks that a search trains alone.

    Attributes:
        by_hand: those drawn by hand.
        chosen: how many are chosen on the way.
        tuned: steps of fine-tuning before.
        steps: of all of them up the ladder.
        most: of one that comes to its end.
        done: of all of them, in earlier sittings.
    """

    by_hand: list[Architecture]
    chosen: int = 0
    tuned: int = 0
    steps: int = 0
    most: int = 0
    done: int = 0

    @property
    def left(self) -> int:
        return max(0, self.steps - self.done)

    @staticmethod
    def of(search: SearchRun) -> Ladder:
        opened, setting, ranked = search.supernet, search.supernet.setting, search.request.trials > 0
        named = baselines(opened.space, search.request.budgets, search.request.floor, setting.frame)
        by_hand = list({each.architecture.key: each.architecture for each in named}.values())  # two patterns may be one network
        if not search.finalists:
            return Ladder(by_hand)
        how = setting.recipe.search
        alone = Alone.on_held_out(setting, opened.run.folder / TRAINED_ALONE, how.finalist_epochs)
        its = {"study": search.study, "schedule": alone.digest}
        begun = [line["architecture"] for line in opened.run.metrics("finalist") if its.items() <= line.items()]
        done = sum(alone.steps_done(Architecture.from_dict(each, "metrics.jsonl: a finalist"), setting.seed) for each in begun)
        favourites, varied = favourites_and_varied(search.finalists, ranked)
        chosen = max(0, search.finalists - favourites - varied)
        tuned = (len(by_hand) + varied + WIDER * favourites) * how.fine_tune * ranked
        return Ladder(by_hand, chosen, tuned, ladder_steps(alone, len(by_hand), favourites + varied, chosen), alone.steps, done)


def trainings_plan(alone: Alone, jobs: Sequence[Job], workers: int, opened: SupernetRun | None = None) -> list[str]:
    """Of `compare` and `fidelity`.

    Args:
        alone: how networks are trained.
        jobs: all trainings.
        workers: so many are trained beside each other.
        opened: the supernet that is trained before; None: there is none.
    """
    setting, phase, seconds = alone.setting, alone.phase, dict[str, float]()
    left = [job for job in jobs if alone.known(*job).ended is None]
    steps = sum(alone.steps - alone.steps_done(*job) for job in left)
    per_epoch = setting.images.steps_per_epoch(alone.fit, phase.batch_size)
    if opened:
        lines = _lines(opened)
        seconds["supernet"] = _supernet_seconds(opened) or 0.0
    else:
        first, splits = jobs[0].architecture, {split: SPLITS[split] for split in (alone.fit, alone.judged_on)}
        lines = {"images": data_line(setting, first.stride, splits, partial(check_network, first))}
    lines["alone"] = f"{len(left)} of {len(jobs)} trainings left, each {phase_line(phase, alone.steps, per_epoch)}"
    if left and alone.steps >= WORTH_TIMING:
        networks = list({architecture.key: architecture for architecture, _ in left}.values())
        seconds["networks alone"] = steps * _seconds_beside(setting, networks, min(workers, len(left)), alone.fit)
    if seconds := {name: each for name, each in seconds.items() if each}:
        lines["time"] = time_line(seconds, setting.device.type)
    return list(block(lines, setting.notes))


def _part(search: SearchRun, several: bool, devices: int) -> tuple[str, dict[str, float]]:
    """What one winner takes, in words and in seconds; none where these are not worth timing, or nothing is left to do."""
    if search.done():
        return "searched already", {}
    setting, recipe, trials = search.supernet.setting, search.supernet.setting.recipe, search.request.trials
    told, ladder = [f"{trials} evaluations"] * bool(several and trials), Ladder.of(search)
    by_hand = ladder.by_hand
    if search.finalists:
        num = f"{search.finalists}{' finalists' * several} and {len(by_hand)} drawn by hand"
        told.append(
            f"{num}, up to {ladder.most:,} steps each, some {ladder.steps:,} steps in all{f', {ladder.done:,} of them done' * bool(ladder.done)}"
        )
    retraining = recipe.retrain.num_steps(setting.images.steps_per_epoch("train", recipe.retrain.batch_size))
    seconds: dict[str, float] = {}
    if by_hand and max(retraining, ladder.steps) >= WORTH_TIMING:
        step, image = _network_seconds(setting, by_hand)
        workers = max(devices, search.crew.num)
        beside = step / devices
        if ladder.steps and workers > 1 and devices == 1 and setting.device.type == "cpu":
            beside = _seconds_beside(setting, by_hand, workers)
        together = _network_seconds(setting, by_hand, devices)[0] if devices > 1 else step
        starts = (LOTS + math.ceil(ladder.chosen / workers)) * bool(ladder.steps)
        seconds = {
            "evaluations": trials * setting.images.size("held_out") * image / devices,
            "finalists": ladder.tuned * step + ladder.left * beside + starts * SECONDS_TO_START,
            "retraining": retraining * together,
        }
        told += [about(seconds["evaluations"] + seconds["finalists"])] * several
    return "; ".join(told), seconds


def _lines(opened: SupernetRun) -> dict[str, str]:
    """What both begin with."""
    setting, space = opened.setting, opened.space
    lines = {"images": data_line(setting, space.stride, {split: SPLITS[split] for split in ("fit", "held_out", "test")}, opened.check_at)}
    phase, done = setting.recipe.supernet, opened.done()
    trained = "trained already: " if opened.finished() else f"{done:,} steps done already: " * bool(done)
    ends = " and ".join(f"{format_quantity(name, low)} to {format_quantity(name, high)}" for name, (low, high) in opened.range.ends.items())
    lines["supernet"] = (
        f"{trained}{phase_line(phase, supernet_steps(setting), setting.images.steps_per_epoch('fit', phase.batch_size))}; of {space.name}, {ends}"
    )
    if (setting.resolution, setting.source.channels) != (space.frame.resolution, space.frame.channels):
        for name, network in (
            ("smallest", opened.ends(opened.range).get("smallest")),
            ("largest", opened.ends(opened.range).get("largest")),
        ):
            if network:
                counted, used = cost(network).macs, cost(network.at(setting.frame)).macs
                other = space.frame.channels != setting.source.channels
                channels = [f" and {_channels(each)}" * other for each in (space.frame.channels, setting.source.channels)]
                lines[f"  {name}"] = (
                    f"{format_quantity('macs', counted)} at {space.frame.resolution} px{channels[0]}, which budgets count in; "
                    f"{format_quantity('macs', used)} at {setting.resolution} px{channels[1]}"
                )
    return lines


def _channels(num: int) -> str:
    return f"{num} channel{'s' * (num != 1)}"


def shared(phase: Phase, devices: int) -> Phase:
    """The part of each batch that one of so many devices computes."""
    return phase.model_copy(update={"batch_size": max(2, phase.batch_size // devices // 2 * 2)}) if devices > 1 else phase


def _supernet_seconds(opened: SupernetRun, devices: int = 1) -> float | None:
    """None where it is not worth timing; nothing is left to do where it is trained."""
    steps, done = supernet_steps(opened.setting), opened.done()
    if done >= steps:
        return 0.0
    if steps < WORTH_TIMING:
        return None
    torch.manual_seed(opened.setting.seed)
    supernet = built(partial(Supernet, opened.trained_space), opened.setting.device)
    return (steps - done) * step_seconds(supernet, opened.setting, shared(opened.setting.recipe.supernet, devices), "fit", opened.path)


def _seconds_beside(setting: Setting, networks: Sequence[Architecture], workers: int, split: str = "fit") -> float:
    """Of a training step, where so many networks are trained beside each other; on a CPU each has its share of the cores."""
    if setting.device.type != "cpu" or workers == 1:
        return _network_seconds(setting, networks, split=split)[0]
    with pinned(max(1, cores() // workers)):
        return _network_seconds(setting, networks, split=split)[0] / workers


def _network_seconds(setting: Setting, networks: Sequence[Architecture], devices: int = 1, split: str = "fit") -> tuple[float, float]:
    """Of a network of the budget: a training step, and one image evaluated; the mean of three kinds."""
    kinds = networks[:: max(1, len(networks) // 3)][:3]
    phase, steps, images = shared(setting.recipe.retrain, devices), list[float](), list[float]()
    whole = next(setting.images.evaluation_batches("held_out", setting.recipe.search.batch_size))
    for kind in kinds:
        network = built(partial(Network, kind.at(setting.frame)), setting.device)
        steps.append(step_seconds(network, setting, phase, split))
        few = max(FEW, int(LONG_STEP / (steps[-1] / phase.batch_size)))  # one takes less than in training
        x, labels = (each[:few] for each in whole)
        evaluate(network, [(x, labels)], setting.autocast)
        begun = time.perf_counter()
        evaluate(network, [(x, labels)], setting.autocast)
        images.append((time.perf_counter() - begun) / len(labels))
        if steps[-1] > VERY_LONG:
            break  # what differs between kinds is less than an estimate for such a training is good for
    return statistics.mean(steps), statistics.mean(images)
