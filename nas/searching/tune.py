"""Many networks trained alone, beside each other, by Ray Tune: each as far as it is to come, or up a ladder that the best alone climb (ASHA).

What trainings give lies in the files of `Alone`, not in Tune's: an interrupted run begins Tune anew, every finished rung is there at once, and
what is left over goes on from its checkpoint. In a cluster every node has to see these files; a worker that does not says so.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from nas.networks.architecture import Architecture
from nas.runs.interrupt import Stopped
from nas.searching.jobs import Ask, Climb, Job, Jobs
from nas.searching.ladder import REDUCTION
from nas.searching.ray_cluster import START_SECONDS, Crew, RaySession, Sight, sight, surroundings_kept
from nas.searching.trained_alone import DIED, SHARES, Alone

SECONDS_TO_STOP = 20  # for a training that is asked to: it writes a checkpoint


ERROR = "error"  # in a report: what a training raised
DEATHS = 2  # of a worker without a checkpoint in between, after which its training has failed
LOW = "running low on memory"  # in what Ray says then
HALT = "halt"  # a file that tells trainings to stop
Told = Callable[[Job], None]


class _Training(tune.Trainable):
    """What runs in a worker's process: one network after the other, a rung at a time."""

    def setup(self, config: dict[str, Any], alone: Alone, threads: int, seen: Sight) -> None:  # type: ignore[override] # tune.with_parameters gives the others
        torch.set_num_threads(threads)
        self._alone, self._halt = alone, seen.file.with_name(HALT)
        if not (missing := seen.missing()):
            os.chdir(seen.folders[0])  # images may have a path from there
        self._blind = missing and f"--ray-address: node {platform.node()}, which joined meanwhile, is not as the others: got {missing}"
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._job, self._head_start, self._goal = _job_of(new_config), new_config["head_start"], new_config["goal"]
        self._rung = 0
        return True  # the process and its images serve the next network too

    def step(self) -> dict[str, Any]:
        steps, rung = self._alone.ladder[self._rung], REDUCTION**self._rung
        nothing = {"worth": 0.0, "rung": 0, "done": True}  # below the first rung, so that it lowers nobody's bar
        if self._blind:  # what it did would be lost
            return {
                **nothing,
                ERROR: ValueError(f"{self._blind}; accepted: nodes that see the run. Take it away, or let it see what is missing."),
            }
        try:
            self._alone.train(*self._job, until=steps, stop=self._halt.exists)
        except Stopped:
            return nothing
        except Exception as error:  # Tune would take it for the network's failure
            return {**nothing, ERROR: error}
        self._rung += 1
        accuracy = self._alone.accuracy(*self._job, steps=steps)
        # What is known already climbs rung by rung too: whoever comes next is compared with it at each.
        return nothing if accuracy is None else {"worth": accuracy + self._head_start, "rung": rung, "done": steps >= self._goal}


class _Unwritten:
    """Tune writes what it is given into a file that nobody reads: ours may be as large as all images, or hold what no file can."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Asked(_Unwritten, Searcher):
    """Gives Tune what `ask` wants trained, each with the steps to which it is to come, and tells of every rung."""

    def __init__(self, ask: Jobs, told: Told, alone: Alone, head_start: Callable[[Job], float]) -> None:
        super().__init__(metric="worth", mode="max")
        self._ask, self._told, self._alone, self._head_start = ask, told, alone, head_start
        self.jobs: dict[str, Job] = {}  # in training
        self.errors: list[Exception] = []  # the first ends everything
        self._deaths = dict[str, tuple[int, int]]()  # that count, and when the last checkpoint was written

    def suggest(self, trial_id: str) -> Any:
        asked = None if self.errors else self._ask()
        if asked is None:
            return Searcher.FINISHED
        job, goal = asked
        self.jobs[trial_id] = job
        return {"architecture": job.architecture.to_dict(), "seed": job.seed, "head_start": self._head_start(job), "goal": goal}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._tell(self.jobs[trial_id])

    def on_trial_recover(self, trial_id: str, deaths: int) -> int:
        """Before it is tried again since its worker died: after two deaths it is with the remedy, and after two more it has failed. Gives how many
        count: only those since its last checkpoint. Where machines are taken away a training of days loses many workers, and is not to blame.

        Args:
            deaths: one more than was given last, unless Ray knows that the machine was taken away.
        """
        job = self.jobs[trial_id]
        counted, kept = self._deaths.get(trial_id, (0, -1))
        if deaths == counted:
            return counted
        before = DEATHS if self._alone.known(*job).remedied else 0  # of the training without it
        if (now := self._alone.kept_at(*job)) != kept:
            counted = before
        counted += 1
        if counted in (DEATHS, 2 * DEATHS):
            self._tell(job, died=True)
            now = self._alone.kept_at(*job)
        self._deaths[trial_id] = counted, now
        return counted

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        job = self.jobs.pop(trial_id)
        if result and ERROR in result:
            self.errors.append(result[ERROR])
        else:
            self._tell(job, died=error)

    def _tell(self, job: Job, died: bool = False) -> None:
        try:
            if died:
                self._alone.fail(*job, reason=DIED)
            self._told(job)
        except Exception as error:  # Tune would log it and go on
            self.errors.append(error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing of Tune's is ever restored."""


class _Halt(_Unwritten, tune.Stopper):
    """Once there is an error, or `stop` is true, the trainings are told by a file and have time to write their checkpoints; then everything ends."""

    def __init__(self, errors: list[Exception], stop: Callable[[], bool], file: Path, show: Callable[[], None]) -> None:
        self._errors, self._stop, self.file, self._show = errors, stop, file, show
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Asked ten times a second."""
        self._show()
        if self._since is None and (self._errors or self._stop()):
            self.file.touch()
            self._since = time.monotonic()
        return self._since is not None and time.monotonic() - self._since > SECONDS_TO_STOP


class _Watched(_Unwritten, tune.Callback):
    """Ends everything where for too long no training has been at work: Tune would wait for ever for what there is no room for. Tells `asked`
    whose worker died, which Tune tells no searcher, and Tune how many deaths count. And hears SIGUSR1, which Tune takes for itself: it would end
    at once, as if all were trained."""

    def __init__(self, asked: _Asked, crew: Crew) -> None:
        self._asked, self._crew, self._since = asked, crew, time.monotonic()
        self._warned = signal.getsignal(signal.SIGUSR1)

    def setup(self, *about: Any, **info: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # else neither of us has one
            signal.signal(signal.SIGUSR1, self._warned)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.run_metadata.num_failures = self._asked.on_trial_recover(trial.trial_id, trial.num_failures)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called ten times a second."""
        if any(trial.status == "RUNNING" for trial in trials) or not any(trial.status == "PENDING" for trial in trials):
            self._since = time.monotonic()
        elif time.monotonic() - self._since > START_SECONDS and not self._asked.errors:
            got = f"got {max(1, self._crew.num)} workers; accepted: what cores, GPUs, memory allow"
            self._asked.errors.append(
                ValueError(f"--workers: none at work for {START_SECONDS:g} s: {got}. Take fewer, or mend the cluster.")
            )


# Nine parameters, seven of them by name: what a caller is asked, told and shown on the way. An object for them would only be unpacked again here.
def train_beside(
    alone: Alone,
    ask: Ask,
    told: Told,
    *,
    crew: Crew,
    climb: Climb,
    head_start: Callable[[Job], float] = lambda job: 0.0,
    show: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
    ray: RaySession | None = None,
) -> None:
    """Trains what `ask` gives until that is None, and tells of each network at each rung, at its end and when it is left behind.

    Args:
        alone: how, and where the figures are found afterwards.
        ask: the next network, each once; None: no more.
        told: called with each network whose figures may have changed.
        crew: trainings beside each other, and where; without workers it is one.
        climb: how far each is trained.
        head_start: what is added to all accuracies of a network before they are compared on the ladder.
        show: called ten times a second.
        stop: asked as often.
        ray: is started if it is not, and goes on for the next call; None: one for this call alone.

    Raises:
        Stopped: `stop` became true; every finished rung and a checkpoint of each training are there.
        ValueError: more workers than the machine has cores, no such cluster, or no worker starts in time.
        Exception: what a training, `ask` or `told` raised. A training that ends its worker again and again has failed instead, and the others go on.
    """
    crew.check()
    kind = alone.setting.device.type
    # Ray shows a worker its own GPU alone; images are loaded there.
    its = replace(alone, setting=replace(alone.setting, device=torch.device(kind)), folder=alone.folder.resolve())
    with ExitStack() as held:
        scratch = held.enter_context(_scratch(its.folder if crew.address else None))
        seen = held.enter_context(sight(scratch, *its.setting.folders))
        held.enter_context(_quiet())
        running = ray or held.enter_context(RaySession(crew))
        running.start()
        share = running.share(kind == "cuda")
        given = {"alone": its, "threads": share.cpus, "seen": seen}
        trainable = tune.with_resources(tune.with_parameters(_Training, **given), {"cpu": share.cpus, "gpu": share.gpus})
        jobs, ended = Jobs(lambda: None if stop() else ask(), alone, climb, crew), False
        while not ended:
            asked = _Asked(jobs, told, alone, head_start)
            ended = _came_to_its_end(_tuner(trainable, asked, jobs.crew, climb, _Halt(asked.errors, stop, scratch / HALT, show)))
            if not ended:
                jobs.begin_again([*asked.jobs.values()])
    if asked.errors:
        raise asked.errors[0]
    if stop():
        raise Stopped("trainings stopped")


def _tuner(trainable: Any, asked: _Asked, crew: Crew, climb: Climb, halt: _Halt) -> tune.Tuner:
    """Tune for trainings that ask by themselves; what it writes is in the folder of `halt`."""
    settings = tune.TuneConfig(
        metric="worth", mode="max", num_samples=-1, max_concurrent_trials=max(1, crew.num), reuse_actors=True,
        search_alg=asked, scheduler=_scheduler() if climb == "the best" else FIFOScheduler(),
    )  # fmt: skip
    about = tune.RunConfig(
        name="trainings",
        storage_path=str(halt.file.parent),
        verbose=0,
        stop=halt,
        callbacks=[_Watched(asked, crew)],
        failure_config=tune.FailureConfig(max_failures=2 * DEATHS),  # who has failed by then says so when it is tried once more
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
    )
    return tune.Tuner(trainable, tune_config=settings, run_config=about)


def _came_to_its_end(tuner: tune.Tuner) -> bool:
    """Runs Tune. False where Ray has ended a worker since the machine was short of memory: of other deaths Tune goes on, that one is an error to it."""
    try:
        tuner.fit()
        return True
    except RuntimeError as error:
        if LOW not in str(error):
            raise
        print("A worker was ended for want of memory. What was trained is kept; the rest goes on.", flush=True)
        return False


def _scheduler() -> ASHAScheduler:
    return ASHAScheduler("rung", grace_period=1, max_t=REDUCTION ** (len(SHARES) - 1), reduction_factor=REDUCTION)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder for what Tune writes and nobody reads: in a cluster in one that all nodes see, where a process that was killed may have left another."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".tune-*"):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".tune-", dir=folder, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune without its own signal handler, files of results, talk, and folder for each training: images may have a relative path."""
    wanted = {"TUNE_DISABLE_SIGINT_HANDLER": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    wanted["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    with surroundings_kept():
        os.environ |= wanted
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        yield


def _job_of(config: dict[str, Any]) -> Job:
    return Job(Architecture.from_dict(config["architecture"], "a network to train"), config["seed"])
