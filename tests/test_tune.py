"""Trainings beside each other under Ray Tune: who climbs the ladder, and what interrupts, deaths and kills leave. A start of Ray takes seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from errors import refused
from faults import happened

import nas.searching.tune as tune
from nas.machine import cores
from nas.networks.architecture import Architecture, Frame, Stage
from nas.runs.interrupt import Interrupt, Stopped
from nas.searching.jobs import TRIES, Climb, Job, Jobs
from nas.searching.ray_cluster import Crew, RaySession, Share, Sight, sight
from nas.searching.search import MEMORY, Evaluation
from nas.searching.trained_alone import DIED, Alone, Trained
from nas.searching.tune import _Asked, _Training, _Watched, train_beside
from nas.training.given import Given
from nas.training.recipe import Phase
from nas.training.setting import open_setting
from tests.processes import REPOSITORY
from tests.recording import SIDE, write_images

NUM = min(2, cores())
DEADLY, HUNGRY, BROKEN = 24, 20, 40  # widths


def network(width: int) -> Architecture:
    return Architecture(Frame(32, 3, 10), 4, (Stage(width, ("conv",), 1.0, kernel=3),))


class Spoilt(Alone):
    """Some widths end their worker at the second rung, with the remedy too or without it alone, or raise an error there."""

    def train(self, architecture: Architecture, seed: int, until: int | None = None, stop: Callable[[], bool] = lambda: False) -> Trained:
        width, known = architecture.stages[0].width, self.known(architecture, seed)
        if until != self.ladder[0] and not known.ended and (width == DEADLY or (width == HUNGRY and not known.remedied)):
            with (self.folder / f"deaths of {width}").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        if until != self.ladder[0] and width == BROKEN:
            raise OSError("a broken image")
        return super().train(architecture, seed, until, stop)


def opened(images: Path, folder: Path) -> Alone:
    setting = open_setting(Given(data=str(images), device="cpu", resolution=SIDE), 4, SIDE)
    phase = Phase(steps=1, batch_size=8, lr=1e-2, warmup=0.2)
    setting = replace(setting, recipe=setting.recipe.model_copy(update={"retrain": phase}))
    alone = Alone.on_held_out(setting, folder, 9)
    return Spoilt(alone.setting, folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many as each of two workers has: another number gives other roundings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // NUM))
    yield
    torch.set_num_threads(threads)


def trained_steps(alone: Alone, job: Job) -> list[int]:
    """Every step that was ever taken for a job, in order."""
    return [line["step"] for line in alone.place(*job).metrics("alone")]


class Report(NamedTuple):
    job: Job
    rung: int  # the highest of the ladder at which it had a figure, from 0
    accuracy: float | None  # None: it failed


@dataclass
class Run:
    """A call of `train_beside`, and what was seen of it."""

    alone: Alone
    jobs: Sequence[Job]
    reports: list[Report] = field(default_factory=list)
    processes: set[int] = field(default_factory=set)
    error: BaseException | None = None

    def told(self, job: Job) -> None:
        self.processes |= descendants()
        figures = [self.alone.accuracy(*job, steps) for steps in self.alone.ladder]
        rung = max((rung for rung, figure in enumerate(figures) if figure is not None), default=-1)
        ended = self.alone.known(*job).ended
        self.reports.append(Report(job, rung, None if ended and ended.failure else figures[rung]))

    def __call__(self, ask: Callable[[], Job | None], climb: Climb, stop: Callable[[], bool] = lambda: False, **others: Any) -> Run:
        def show() -> None:
            self.processes.update(descendants())

        try:
            train_beside(self.alone, ask, self.told, crew=Crew(NUM), climb=climb, show=show, stop=stop, **others)
        except BaseException as error:
            self.error = error
        return self


def parents() -> dict[int, int]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(path.parent.name)] = int(parent)
    return found


def descendants() -> set[int]:
    tree, found = parents(), {os.getpid()}
    while more := {child for child, parent in tree.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def surroundings() -> tuple[dict[str, str], list[object]]:
    return dict(os.environ), [signal.getsignal(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}]


# ---- the ladder ----------------------------------------------------------------------------------------------------

CLIMBERS = [Job(network(width), seed) for seed in (1, 2) for width in (4, 16, 8, 32)]
DEATH, LARGE = Job(network(DEADLY), 0), Job(network(HUNGRY), 0)


def head_start(job: Job) -> float:
    """Enough to turn the order of some, and for who dies later to come so far."""
    return {4: 0.3, 8: 0.1, DEADLY: 1.0, HUNGRY: 1.0}.get(job.architecture.stages[0].width, 0.0)


@pytest.fixture(scope="module")
def interrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three trainings to the end, in a Ray of their own, stopped by a cluster's warning when one has reached a rung."""
    run = Run(opened(images, tmp_path_factory.mktemp("interrupted")), CLIMBERS[:3])
    given, once = iter(run.jobs), iter([signal.SIGUSR1])
    with Interrupt(quiet=True) as warned:

        def stop() -> bool:
            for number in once if run.reports else ():
                os.kill(os.getpid(), number)
            return warned.requested

        before = surroundings()
        run(lambda: next(given, None), climb="all to the end", stop=stop)
        assert surroundings() == before, "signal handlers and environment are put back"
    time_out = time.monotonic() + 10
    while (living := run.processes & set(parents())) and time.monotonic() < time_out:
        time.sleep(0.1)
    assert run.processes and not living, "no process of Ray's is left behind"
    return run


@pytest.fixture(scope="module")
def in_one_ray(interrupted: Run) -> Iterator[None]:
    """One start of Ray for all that does not look at how it starts and ends; after the one that does."""
    with RaySession(Crew(NUM)) as ray, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "RaySession", lambda crew: nullcontext(ray))
        yield


@pytest.fixture(scope="module")
def climbed(in_one_ray: None, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A ladder of eight networks and two that end their workers."""
    run = Run(opened(images, tmp_path_factory.mktemp("climbed")), [*CLIMBERS[:2], DEATH, *CLIMBERS[2:4], LARGE, *CLIMBERS[4:]])
    given = iter(run.jobs)
    return run(lambda: next(given, None), climb="the best", head_start=head_start)


def third(values: list[float]) -> float:
    """What two thirds of the values are below, between two of them in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * 2 / 3
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@pytest.mark.whole
def test_one_ray_serves_one_lot_after_the_other_and_ends_with_them_whatever_happens(images: Path, tmp_path: Path) -> None:
    """The second lot is interrupted as by a second Ctrl-C."""
    alone, rays, processes, before = opened(images, tmp_path), dict[Job, set[int]](), set[int](), surroundings()

    def seen(job: Job) -> None:
        processes.update(descendants())
        rays[job] = named("raylet", processes)

    def pressed() -> None:
        if alone.known(*CLIMBERS[1]).rungs:
            seen(CLIMBERS[1])
            raise KeyboardInterrupt

    unwritten = threading.Lock()  # Tune writes nothing of ours into its files: neither images nor what cannot be written

    with pytest.raises(KeyboardInterrupt), RaySession(Crew(1)) as ray:
        assert not named("raylet", descendants()), "it starts when it is needed"
        train_beside(
            alone, partial(next, iter(CLIMBERS[:1]), None), seen, crew=Crew(1), climb="all a rung", stop=lambda: not unwritten, ray=ray
        )
        train_beside(alone, partial(next, iter(CLIMBERS[1:2]), None), seen, crew=Crew(1), climb="all but the end", show=pressed, ray=ray)
    time_out = time.monotonic() + 10
    while (living := processes & set(parents())) and time.monotonic() < time_out:
        time.sleep(0.1)
    assert processes and not living
    assert len(rays[CLIMBERS[0]]) == 1 and rays[CLIMBERS[0]] == rays[CLIMBERS[1]]
    assert surroundings() == before


@pytest.mark.slow
def test_the_networks_that_are_left_behind_are_those_below_the_best_third_when_they_report(climbed: Run) -> None:
    """By their accuracies with their head starts."""
    assert climbed.error is None
    alone, seen = climbed.alone, dict[int, dict[Job, float]]()
    behind: dict[Job, int] = {}
    for job, rung, accuracy in climbed.reports:
        before = seen.setdefault(rung, {})
        if accuracy is not None and rung < 1 and job not in before:  # a worker's second try reports again what was there
            worth = accuracy + head_start(job)
            if before and worth < third([*before.values()]) - 1e-12:
                behind[job] = rung
            before[job] = worth
    assert 0 < len(behind) < len(CLIMBERS), "else the ladder is none"
    for job in CLIMBERS:
        known, steps = alone.known(*job), trained_steps(alone, job)
        last = alone.ladder[behind.get(job, 1)]
        assert steps == list(range(1, last + 1)), (
            "each step once, and none beyond where it was left behind, or beyond the rung before the end"
        )
        assert known.ended is None
        assert alone.accuracy(*job, alone.ladder[0]) is not None
    assert {report.job for report in climbed.reports} == set(climbed.jobs)


@pytest.mark.slow
def test_who_ends_a_worker_twice_is_tried_with_the_remedy_and_the_others_go_on(climbed: Run) -> None:
    """Which is half of the images in twice as many steps; after two more deaths it has failed."""
    alone, (first, second, _) = climbed.alone, climbed.alone.ladder
    assert alone.known(*DEATH).ended == Evaluation(failure=DIED)
    assert alone.accuracy(*DEATH, first) is not None
    assert all(alone.accuracy(*job, first) is not None for job in CLIMBERS)
    known, steps = alone.known(*LARGE), [line["step"] for line in alone.place(*LARGE, remedied=True).metrics("alone")]
    assert known.remedied and known.ended is None and alone.accuracy(*LARGE, second) is not None
    assert steps == list(range(1, 2 * second + 1)), "up to where it was to come"
    assert [len((alone.folder / f"deaths of {width}").read_text()) for width in (DEADLY, HUNGRY)] == [4, 2]
    happened(
        "a worker of Ray dies twice of one network",
        "networks trained alone",
        "it is tried with half of the images, and fails after two more",
        2,
    )


# ---- interrupted ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupt_leaves_whole_rungs_and_nothing_of_rays(interrupted: Run) -> None:
    assert isinstance(interrupted.error, Stopped), interrupted.error
    known = {job: interrupted.alone.known(*job) for job in interrupted.jobs}
    assert known[interrupted.reports[0].job].rungs and any(each.ended is None for each in known.values())


def test_who_fails_lowers_no_bar(tmp_path: Path) -> None:
    """With failures before and between them the same networks climb as without."""
    worths = {4: 0.5, 8: 0.6, 12: 0.4, 16: 0.55, 20: 0.7, 24: 0.52, 28: 0.3, 32: 0.65, 36: 0.45}
    toy: Any = SimpleNamespace(ladder=[6, 18, 54], train=lambda *job, **how: None)
    toy.accuracy = lambda architecture, seed, steps: worths.get(architecture.stages[0].width)

    def left_behind(order: Sequence[int]) -> set[int]:
        scheduler, found = tune._scheduler(), set[int]()
        scheduler.set_search_properties("worth", "max")
        for width in order:
            trial: Any = SimpleNamespace(trial_id=str(width))
            scheduler.on_trial_add(None, trial)
            worker = worker_here(toy, Job(network(width)), "the best", seen)
            while not (result := worker.step())["done"]:
                if scheduler.on_trial_result(None, trial, result) == scheduler.STOP:
                    found.add(width)
                    break
            scheduler.on_trial_complete(None, trial, result)  # of who is done Tune asks no more than that
        return found

    with sight(tmp_path) as seen:
        whole = list(worths)
        without, beside = left_behind(whole), left_behind([100, 104, 108, *whole[:4], 112, *whole[4:]])
    assert 2 < len(without) < len(worths) and without == beside


def worker_here(alone: Alone, job: Job, climb: Climb, seen: Sight) -> _Training:
    """What trains a job in a worker, in this process."""
    jobs, worker = Jobs(iter([job]).__next__, alone, climb, Crew()), object.__new__(_Training)
    worker.setup(_Asked(jobs, lambda job: None, alone, lambda job: 0.0).suggest("one"), alone, torch.get_num_threads(), seen)
    return worker


def climb_here(alone: Alone, jobs: Sequence[Job], climb: Climb, seen: Sight) -> list[int]:
    """What a worker does with each of the jobs, in this process, and how many rungs of the ladder each has reached then."""
    for job in jobs:
        worker = worker_here(alone, job, climb, seen)
        while not worker.step()["done"]:
            pass
    return [sum(alone.accuracy(*job, steps) is not None for steps in alone.ladder) for job in jobs]


@pytest.mark.slow
def test_the_same_call_trains_what_is_missing_as_far_as_each_is_to_come(
    interrupted: Run, in_one_ray: None, images: Path, tmp_path: Path
) -> None:
    """Each goes on by a rung where that is wanted, and then to the end."""
    alone, jobs = interrupted.alone, interrupted.jobs
    known = {job: alone.known(*job) for job in jobs}
    reached = [sum(alone.accuracy(*job, steps) is not None for steps in alone.ladder) for job in jobs]
    with sight(tmp_path) as seen:
        assert climb_here(alone, jobs, "all a rung", seen) == [min(3, at + 1) for at in reached]
        assert climb_here(alone, jobs, "all but the end", seen) == [max(2, min(3, at + 1)) for at in reached]

    again, given = Run(alone, jobs), iter(jobs)
    again(lambda: next(given, None), climb="all to the end")
    assert again.error is None
    expected = opened(images, tmp_path / "here")
    for job in jobs:
        assert set(known[job].rungs) <= set(alone.known(*job).rungs)
        assert trained_steps(alone, job) == list(range(1, alone.steps + 1)), "each step once"
        here, beside = expected.train(*job), alone.known(*job)
        assert (here.ended, here.rungs) == (beside.ended, beside.rungs) and here.ended


def test_more_workers_than_cores_are_refused_before_anything_starts(images: Path, tmp_path: Path) -> None:
    for num in (-1, cores() + 1):
        with refused("--workers", num, cores()):
            train_beside(opened(images, tmp_path), lambda: pytest.fail("asked"), lambda job: None, crew=Crew(num), climb="the best")


@pytest.mark.slow
def test_an_error_in_a_training_arrives_as_it_was_and_is_no_failure_of_the_network(images: Path, tmp_path: Path) -> None:
    run = Run(opened(images, tmp_path), [CLIMBERS[0], Job(network(BROKEN))])
    given = iter(run.jobs)
    run(lambda: next(given, None), climb="all to the end")
    assert isinstance(run.error, OSError) and str(run.error) == "a broken image"
    assert all(run.alone.known(*job).ended is None or run.alone.accuracy(*job, run.alone.steps) for job in run.jobs)


@pytest.mark.slow
def test_an_error_of_who_is_told_arrives_as_it_was(images: Path, tmp_path: Path) -> None:
    def told(job: Job) -> None:
        raise ValueError("no room")

    given = iter(CLIMBERS[:2])
    with pytest.raises(ValueError, match=r"^no room$"):
        train_beside(opened(images, tmp_path), lambda: next(given, None), told, crew=Crew(1), climb="the best")


class NoRay:
    """Stands for Ray where a test needs none."""

    def start(self) -> None:
        pass

    def share(self, gpu: bool) -> Share:
        return Share(1, 0.0)


@dataclass(frozen=True)
class Noted(Alone):
    """Trains nothing: whom a test says to be trained has an accuracy, and who fails has a reason."""

    accuracies: dict[Job, float] = field(default_factory=dict)
    failures: dict[Job, list[str]] = field(default_factory=dict)

    def known(self, architecture: Architecture, seed: int) -> Trained:
        job, failures = Job(architecture, seed), self.failures.get(Job(architecture, seed), [])
        ended = Evaluation(self.accuracies[job]) if job in self.accuracies else None
        return Trained(Evaluation(failure=failures[1]) if len(failures) > 1 else ended, remedied=bool(failures))

    def fail(self, architecture: Architecture, seed: int, reason: str) -> None:
        self.failures.setdefault(Job(architecture, seed), []).append(reason)


@pytest.mark.parametrize("workers", sorted({1, NUM}))
@pytest.mark.parametrize(
    ("fits", "failures", "lots"),
    [
        (lambda lot, jobs, remedied: lot > 2, {}, 3),  # others ran beside it for a while
        (lambda lot, jobs, remedied: len(jobs) == 1, {}, None),  # not two of them
        (lambda lot, jobs, remedied: CLIMBERS[2] not in jobs or CLIMBERS[2] in remedied, {CLIMBERS[2]: [MEMORY]}, None),
        (lambda lot, jobs, remedied: CLIMBERS[2] not in jobs, {CLIMBERS[2]: [MEMORY, MEMORY]}, None),
        (lambda lot, jobs, remedied: False, None, 2 * TRIES),  # others take the memory
    ],
    ids=["for a while", "not together", "too large", "far too large", "never"],
)
def test_where_ray_ends_workers_for_want_of_memory_who_is_too_large_fails_and_the_others_are_trained(
    fits: Callable[[int, Sequence[Job], Sequence[Job]], bool], failures: dict[Job, list[str]] | None, lots: int | None, workers: int, images: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Tune takes such an end for an error of its own, which would end a search of days; a machine that stays short of memory ends it with a reason."""
    alone, begun = Noted(opened(images, tmp_path).setting, tmp_path), list[list[Job]]()

    class Tuner:
        """Tune with so many workers, of whom the one that began first is done first."""

        def __init__(self, trainable: object, tune_config: Any, run_config: object) -> None:
            self._asked, self._num = tune_config.search_alg, tune_config.max_concurrent_trials

        def fit(self) -> None:
            begun.append([])
            training, more = dict[str, Job](), True
            while training or more:
                while more and len(training) < self._num:
                    trial = str(len(begun[-1]))
                    if more := isinstance(config := self._asked.suggest(trial), dict):
                        assert config["goal"] == alone.steps
                        training[trial] = Job(Architecture.from_dict(config["architecture"], ""), config["seed"])
                        begun[-1].append(training[trial])
                news = [job for job in training.values() if alone.known(*job).ended is None]
                if news and not fits(len(begun), news, [*alone.failures]):
                    raise RuntimeError("Caught unexpected exception: 1 worker(s) were killed due to the node running low on memory.")
                for trial in [*training][:1]:
                    alone.accuracies.setdefault(training.pop(trial), 0.5)
                    self._asked.on_trial_complete(trial, {})

    monkeypatch.setattr(tune.tune, "Tuner", Tuner)
    given = iter(CLIMBERS)
    with nullcontext() if failures is not None else refused("--workers", "memory", "goes on"):
        train_beside(alone, lambda: next(given, None), lambda job: None, crew=Crew(workers), climb="all to the end", ray=NoRay())  # type: ignore[arg-type]
    if failures is None:
        assert max(len(each) for each in alone.failures.values()) == 1, "one network alone has the remedy before its time"
    else:
        assert alone.failures == failures and all(alone.known(*job).ended for job in CLIMBERS)
        assert begun[-1] == sorted(CLIMBERS, key=lambda job: job in failures), "all of them, and who has failed behind the others"
    assert lots is None or len(begun) == lots


def test_who_is_given_again_is_to_come_no_further() -> None:
    figures = dict[int, float]()
    toy: Any = SimpleNamespace(ladder=[6, 18, 54], accuracy=lambda *job, steps: figures.get(steps))
    jobs = Jobs(iter(CLIMBERS[:1]).__next__, toy, "all a rung", Crew())
    assert jobs() == (CLIMBERS[0], 6)
    figures[6] = 0.5
    jobs.begin_again(CLIMBERS[:1])
    assert jobs() == (CLIMBERS[0], 6)


# Deaths of a worker, whether a checkpoint was written before each, and what is on record after each.
DEATHS = {
    "at one place": ("....", [[], [DIED], [DIED], [DIED, DIED]]),
    "on the way": ("cc.c.", [[], [], [DIED], [DIED], [DIED, DIED]]),
    "of many machines": ("c" * 9, [[]] * 9),
    "remedied before": ("c.", [[MEMORY], [MEMORY, DIED]]),
}


@pytest.mark.parametrize("name", DEATHS)
def test_who_ends_a_worker_twice_without_a_checkpoint_between_has_the_remedy_and_then_has_failed(
    name: str, images: Path, tmp_path: Path
) -> None:
    """Tune tells of each death with its count, which goes on from what it is told; of machines that it knows to be taken away it does not count."""
    (moments, expected), job = DEATHS[name], CLIMBERS[0]
    alone = Noted(opened(images, tmp_path).setting, tmp_path, failures={job: [*expected[0]]})
    asked = _Asked(Jobs(iter([job]).__next__, alone, "the best", Crew()), lambda job: None, alone, lambda job: 0.0)
    asked.suggest("one")
    trial: Any = SimpleNamespace(trial_id="one", run_metadata=SimpleNamespace(num_failures=0))
    found = list[list[str]]()
    for time_ns, moment in enumerate(moments, start=1):
        if moment == "c":
            file = alone.place(*job, remedied=alone.known(*job).remedied).folder / "checkpoint.pt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            os.utime(file, ns=(time_ns, time_ns))
        for died in (0, 1):  # the first time with its machine
            trial.num_failures = trial.run_metadata.num_failures + died
            _Watched(asked, Crew()).on_trial_recover(0, [], trial)
        assert trial.run_metadata.num_failures <= 2 * tune.DEATHS, "Tune tries it again"
        found.append([*alone.failures[job]])
    assert found == expected and not asked.errors
    asked.on_trial_complete("one", error=True)
    assert alone.known(*job).ended or name == "of many machines"


# ---- killed --------------------------------------------------------------------------------------------------------

CLIMB = """
import os, signal, sys
from pathlib import Path
import tests.conftest
from tests.test_tune import CLIMBERS, Crew, opened, train_beside
images, folder, kill_at, climb = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
given, calls = iter(CLIMBERS[:5 if climb == "the best" else 2]), [0]
def told(job):
    calls[0] += 1
    if calls[0] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
alone = opened(images, folder)
in_training = lambda: sum(len(path.read_bytes().splitlines()) for path in folder.rglob("metrics.jsonl"))
lines = in_training()
def show():
    if kill_at < 0 and in_training() >= lines - kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
train_beside(alone, lambda: next(given, None), told, crew=Crew(1), climb=climb, show=show)
"""


def climb(images: Path, folder: Path, kill_at: int, how: str = "the best") -> int:
    """A ladder in a process of its own, that kills itself when it is told for the so many-th time, or after so many steps (below 0)."""
    command = [sys.executable, "-W", "ignore", "-c", CLIMB, str(images), str(folder), str(kill_at), how]
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        command, cwd=REPOSITORY, timeout=600, env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"}
    ).returncode


@pytest.mark.slow
def test_a_ladder_killed_at_each_rung_and_between_ends_as_if_it_had_not_been(images: Path, tmp_path: Path) -> None:
    """With one worker the networks report in their order, so that the same ones are left behind. Then two of them come to the last rung, the end."""
    for kill_at in (1, 2, 3, -10):
        assert climb(images, tmp_path / "killed", kill_at) == -signal.SIGKILL
    assert climb(images, tmp_path / "killed", 0) == climb(images, tmp_path / "whole", 0) == 0
    assert not any(opened(images, tmp_path / "whole").known(*job).ended for job in CLIMBERS[:5])
    for kill_at in (1, 1, -10):
        assert climb(images, tmp_path / "killed", kill_at, "all to the end") == -signal.SIGKILL
    for name in ("killed", "whole"):
        assert climb(images, tmp_path / name, 0, "all to the end") == 0
    killed, whole = (opened(images, tmp_path / name) for name in ("killed", "whole"))
    for job in CLIMBERS[:5]:
        here, there = killed.known(*job), whole.known(*job)
        assert (here.ended, here.rungs) == (there.ended, there.rungs) and here.rungs
    assert all(whole.known(*job).ended for job in CLIMBERS[:2]), "the last rung"
    assert len({len(whole.known(*job).rungs) for job in CLIMBERS[:5]}) > 1, "some were left behind"
    happened("SIGKILL at a rung of the ladder or between", "networks trained alone, with Ray", "the same call ends as if uninterrupted", 7)


# ---- one Ray -------------------------------------------------------------------------------------------------------


def named(name: str, processes: set[int]) -> set[int]:
    found = set()
    for process in processes:
        with contextlib.suppress(OSError):
            found |= {process} if name in Path(f"/proc/{process}/comm").read_text() else set()
    return found
