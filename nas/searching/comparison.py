"""A search's winner beside networks that nobody searched for: all trained alone by one recipe with the same seeds, and who is better by how much."""

from __future__ import annotations

import contextlib
import math
import platform
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nas.cost import cost
from nas.cost.latency import measure_latency
from nas.cost.targets import Target
from nas.networks.architecture import Architecture, Frame, read_architecture
from nas.networks.network import Network
from nas.progress import Progress
from nas.published.presets import architecture_file
from nas.quantities import Budget, parse_budgets
from nas.runs.folder import TRAINED_ALONE, Run
from nas.runs.interrupt import Stopped
from nas.runs.records import SearchRecord, read_record, read_search
from nas.searching.jobs import Job
from nas.searching.known_networks import baselines
from nas.searching.proposals import Band, draw
from nas.searching.ray_cluster import Crew
from nas.searching.search import MEMORY, check_budgets
from nas.searching.trained_alone import Alone, Shown
from nas.searching.tune import train_beside
from nas.spaces.decisions import SearchSpace
from nas.spaces.levels import unrewarded
from nas.spaces.schema import Values
from nas.training.setting import Setting, shipped
from nas.training.train_network import check_rungs

WINNER, ASKED, PATTERN, PRESET, RANDOM = "winner", "asked", "pattern", "preset", "random"  # why a network is compared


# ---- what is compared --------------------------------------------------------------------------------------------------


def read_found(path: Path) -> SearchRecord:
    """The winner of a search, by its file.

    Raises:
        ValueError: no such file, or no winner's.
    """
    _, entries = read_architecture(path)
    found = entries.get("found")
    if not (isinstance(found, dict) and "reason" in found):
        what = "an architecture file without a search's entries"
        raise ValueError(f"{path}: not a winner: got {what}; accepted: what `search` writes, such as runs/best.yaml. Search first.")
    return read_search(path)


def space_of(winner: SearchRecord, path: Path, space_file: str | None) -> tuple[SearchSpace, tuple[Budget, ...]]:
    """The space that a winner was found in, without the decisions that its search did not make, and the budgets that bind there.

    Args:
        winner: its record.
        path: the record's file.
        space_file: where the space is now; None: where it was.

    Raises:
        ValueError: there is no such space, or it is not what it was.
    """
    try:
        whole = SearchSpace.read(shipped("search_spaces", space_file or winner.space, "--space"))
    except ValueError as error:
        if space_file:
            raise
        raise ValueError(f"{path}: space {winner.space}: {error} If the space's file was moved, give its place with --space.") from None
    budgets = parse_budgets(winner.budgets, f"{path}: budgets")
    for fixed in _perhaps_fixed(winner, whole, budgets):
        space = whole.fixing(fixed)
        if space.fingerprint == winner.space_fingerprint:
            return space, check_budgets(whole, cost, budgets)[0]
    raise ValueError(
        f"{path}: space {space_file or winner.space}: changed since the winner was found: got fingerprint {whole.fingerprint}; accepted: "
        f"{winner.space_fingerprint}. Give the file as it was then with --space, or search again."
    )


def _perhaps_fixed(winner: SearchRecord, space: SearchSpace, budgets: Sequence[Budget]) -> Iterator[Values]:
    """What a search may have fixed before it began: nothing, what its own budgets do not reward, or what those of its supernet did not."""
    yield {}
    with contextlib.suppress(ValueError):  # a changed space may have no network within the budgets
        yield unrewarded(space, cost, check_budgets(space, cost, budgets)[0])
    supernet = read_record(Run(winner.run)).supernet
    if supernet and supernet.fixed.keys() <= space.decisions.keys():
        yield supernet.fixed


@dataclass(frozen=True)
class Contestant:
    """A network to be compared; `names` are all that it goes by, each with why it is compared."""

    architecture: Architecture
    names: Mapping[str, str]


def contestants(
    winner: SearchRecord,
    space: SearchSpace,
    budgets: Sequence[Budget],
    floor: float,
    trained_at: Frame,
    drawn: tuple[int, int],
    asked: Sequence[str] = (),
) -> list[Contestant]:
    """The winner, networks that were asked for, the patterns and published networks of its budget, and networks drawn from the band; equal
    ones are one with several names.

    Args:
        winner: its record.
        space: in the frame in which budgets are counted.
        budgets: those that bind.
        floor: share of the tightest budget that published and drawn networks use at least.
        trained_at: what networks are trained for.
        drawn: how many at random, and the seed of the draw. Fewer where the band seems to have no more.
        asked: architecture files or published networks, of whatever cost.

    Raises:
        ValueError: one that is asked for cannot be read, or not be built at that resolution.
    """
    num, seed = drawn
    named = [("winner", WINNER, winner.architecture)]
    for name in asked:
        architecture, _ = read_architecture(architecture_file(Path(name)))
        with torch.device("meta"):
            Network(architecture.at(trained_at))
        named.append((name, ASKED, architecture.at(space.frame)))
    for baseline in baselines(space, budgets, floor, trained_at):
        (why,) = baseline.found
        named.append((baseline.name, why, baseline.architecture))
    band = Band(space, cost, budgets, floor)
    # None is left out for being known: a draw that avoided the good ones would be no draw.
    for number, proposal in enumerate(draw(band, num, set(), random.Random(seed)), start=1):
        named.append((f"random {number}", RANDOM, space.decode(proposal.values)))
    networks = {architecture.key: architecture for _, _, architecture in named}
    return [Contestant(its, {name: why for name, why, each in named if each.key == key}) for key, its in networks.items()]


# ---- measuring and training --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Networks that are each trained with every seed, as `alone` says; what is known is in the run."""

    run: Run
    alone: Alone
    networks: Sequence[Contestant]
    seeds: Sequence[int]

    @property
    def jobs(self) -> list[Job]:
        """All trainings, those with the first seed first."""
        return [Job(each.architecture, seed) for seed in self.seeds for each in self.networks]

    def left(self) -> list[Job]:
        """The trainings that have not ended."""
        return [job for job in self.jobs if self.alone.known(*job).ended is None]

    def latencies(self, stop: Callable[[], bool]) -> dict[str, float | None]:
        """Of each network by key, in ms; None where it does not fit. Measured now as far as the run has none of this machine's device.

        Raises:
            Stopped: `stop` became true; what was measured is kept.
        """
        device = self.alone.setting.device
        here = {"host": platform.node(), "device": str(device)}
        found = {line["key"]: line["latency_ms"] for line in self.run.metrics("latency") if here.items() <= line.items()}
        missing = [each.architecture for each in self.networks if each.architecture.key not in found]
        with Progress("latency", len(missing), "network") as progress:
            for architecture in missing:
                if stop():
                    raise Stopped("comparison stopped before its trainings")
                try:
                    found[architecture.key] = measure_latency(architecture, Target(str(device)))
                except MemoryError:
                    found[architecture.key] = None
                self.run.log("latency", key=architecture.key, latency_ms=found[architecture.key], **here)
                progress.advance()
        return found

    def train(self, crew: Crew, stop: Callable[[], bool]) -> None:
        """Trains what is left.

        Raises:
            Stopped: `stop` became true; checkpoints are there.
        """
        left = self.left()
        if not left:
            return
        waiting = iter(left)
        with Progress("compare", len(self.jobs) * self.alone.steps, "step") as progress:
            show = Shown(progress, self.alone, self.jobs)
            try:
                train_beside(
                    self.alone, lambda: next(waiting, None), lambda job: None, crew=crew, climb="all to the end", show=show, stop=stop
                )
            except Stopped:
                ended = len(self.jobs) - len(self.left())  # some ended while they were asked to stop
                raise Stopped(f"comparison stopped after {ended} of {len(self.jobs)} trainings") from None
            show.look()

    def entries(self, latencies: Mapping[str, float | None]) -> list[dict[str, Any]]:
        """The `networks` of comparison.json once all trainings have ended, in the order of `networks`."""
        return [_entry(each, self.alone, self.seeds, latencies[each.architecture.key]) for each in self.networks]


def open_comparison(setting: Setting, run: Run, networks: Sequence[Contestant], num_seeds: int) -> Comparison:
    """A comparison in a run, with seeds from the setting's on; nothing is written.

    Raises:
        ValueError: the data or the recipe cannot be used.
    """
    alone = Alone.on_test(setting, run.folder / TRAINED_ALONE)
    check_rungs(alone.phase, alone.judged_on)
    _ = alone.steps, setting.images.size(alone.judged_on)
    return Comparison(run, alone, networks, range(setting.seed, setting.seed + num_seeds))


# ---- figures -----------------------------------------------------------------------------------------------------------


def _entry(contestant: Contestant, alone: Alone, seeds: Sequence[int], latency_ms: float | None) -> dict[str, Any]:
    """What comparison.json says of a network whose trainings have ended.

    Lists have an entry for each seed: `accuracies` (shares of the test images; None where there is none), `failures` (why there is none) and
    `second_tries` (whether the first try failed, and this one had half the learning rate). `latency_ms` is None where the network does not fit.
    """
    known = [alone.known(contestant.architecture, seed) for seed in seeds]
    ended = [each.ended for each in known if each.ended]
    assert len(ended) == len(seeds), "trained before it is reported"
    accuracies, costs = [each.accuracy for each in ended], cost(contestant.architecture)
    return {
        "names": list(contestant.names),
        "kinds": list(contestant.names.values()),
        "key": contestant.architecture.key,
        "architecture": contestant.architecture.to_dict(),
        "macs": costs.macs,
        "params": costs.params,
        "latency_ms": latency_ms,
        "latency_failure": MEMORY if latency_ms is None else None,
        "accuracies": accuracies,
        "failures": [each.failure for each in ended],
        "second_tries": [each.remedied for each in known],
        "mean": mean(accuracies),
        "deviation": deviation(accuracies),
    }


def mean(accuracies: Sequence[float | None]) -> float | None:
    """Of those that there are; None with none."""
    there = [each for each in accuracies if each is not None]
    return statistics.fmean(there) if there else None


def deviation(accuracies: Sequence[float | None]) -> float | None:
    """The sample standard deviation of those that there are; None with fewer than two."""
    there = [each for each in accuracies if each is not None]
    return statistics.stdev(there) if len(there) > 1 else None


class Lead(NamedTuple):
    """By how much the winner is better than another network, as a share of the test images: the mean difference over seeds that both have.

    Attributes:
        value: positive where the winner is better.
        error: its standard error by how the differences vary from seed to seed; None with one seed.
        num_seeds: that both have.
    """

    value: float
    error: float | None
    num_seeds: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of 95% by Student's t, which with few seeds is far wider than two standard errors; None where the seeds show no noise to tell it by: one
        seed, or all differences equal, as happens by chance with two seeds and few test images."""
        from scipy.stats import t

        if not self.error:
            return None
        half = float(t.ppf(0.975, self.num_seeds - 1)) * self.error
        return self.value - half, self.value + half


class Standing(NamedTuple):
    """A network's line of the table; all figures are shares of the test images, and None where seeds are missing for them."""

    entry: Mapping[str, Any]  # of comparison.json
    mean: float | None
    deviation: float | None
    lead: Lead | None  # the winner's over it; None for the winner too

    @property
    def label(self) -> str:
        return ", ".join(self.entry["names"])

    def is_a(self, kind: str) -> bool:
        return kind in self.entry["kinds"]


def standings(entries: Sequence[Mapping[str, Any]]) -> list[Standing]:
    """The table of a comparison by the `networks` of its comparison.json, the best mean first, networks without an accuracy last."""
    (winner,) = (each for each in entries if WINNER in each["kinds"])
    rows = [
        Standing(each, mean(its := each["accuracies"]), deviation(its), None if each is winner else lead(winner["accuracies"], its))
        for each in entries
    ]
    return sorted(rows, key=lambda row: -1.0 if row.mean is None else row.mean, reverse=True)


def lead(winners: Sequence[float | None], others: Sequence[float | None]) -> Lead | None:
    """From the accuracies of two networks, seed by seed; None where no seed has both."""
    pairs = zip(winners, others, strict=True)
    differences = [one - other for one, other in pairs if one is not None and other is not None]
    if not differences:
        return None
    spread = deviation(differences)
    return Lead(statistics.fmean(differences), None if spread is None else spread / math.sqrt(len(differences)), len(differences))
