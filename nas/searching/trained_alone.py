"""Networks trained alone, each once: the truth that a ranking is held against, and what a winner is chosen by in the end.

A training lies in a folder by network, schedule, images and seed. What is there is never trained again, whoever asks; what was interrupted
goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from nas.cost.latency import memory_errors
from nas.machine import deletion
from nas.networks.architecture import Architecture
from nas.progress import Progress
from nas.runs.folder import CHECKPOINT, WEIGHTS, Run
from nas.runs.interrupt import Stopped
from nas.runs.records import HOW
from nas.searching.search import MEMORY, Evaluation
from nas.training.loop import NotFinite
from nas.training.recipe import CONSTANT, Phase
from nas.training.report import Report
from nas.training.setting import Setting
from nas.training.train_network import train_network
from nas.yaml_files import one_line_error, write_atomically

RESULT = "result.json"
LOOK = 1.0  # seconds between two looks at what trainings have logged
TAIL = 2000  # bytes of a log in which the last step stands, some ten lines
SHARES = (1 / 9, 1 / 3, 1.0)  # of a schedule: the rungs of a ladder, where two of three networks are left behind
OWN = {"epochs", "steps", "rungs", "ema"}  # entries of a recipe's phase that trainings on the other images set by themselves


@dataclass(frozen=True)
class Trained:
    """What training a network alone has given so far: an accuracy, or the reason why there is none, once it has ended.

    Attributes:
        ended: with an accuracy after the whole schedule, or with a failure; None while it has not.
        rungs: (steps done, accuracy), ascending; the end is not among them.
        seconds: spent on it in all sittings.
        remedied: begun a second time after it had failed, with what `remedy` says.
        steps: done in all sittings; once it has ended with an accuracy those of the whole schedule.
        epochs: of the whole schedule; None until it has ended.
    """

    ended: Evaluation | None = None
    rungs: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    remedied: bool = False
    steps: int = 0
    epochs: float | None = None


@dataclass(frozen=True)
class Alone:
    """How networks are trained alone, and where these trainings lie.

    Attributes:
        setting: images, device and recipe, whose `retrain` phase is the whole schedule.
        folder: of the trainings.
        fit: the split that is trained on.
        judged_on: the split that accuracies are of.
    """

    setting: Setting
    folder: Path
    fit: str = "fit"
    judged_on: str = "held_out"

    @staticmethod
    def on_held_out(setting: Setting, folder: Path, epochs: float) -> Alone:
        """Trained with the recipe's retraining, but shorter, without the held-out images, and with rungs at which these judge it: after each epoch, below 9
        epochs each ninth, in the first four fifths. So the rate does not fall by a cosine: it is constant there and falls in the last fifth; and averaged
        weights are judged."""
        phase = setting.recipe.retrain
        per_epoch = setting.images.steps_per_epoch("fit", phase.batch_size)
        steps = phase.with_length(epochs, None).num_steps(per_epoch)
        marks = range(per_epoch, round(CONSTANT * steps) + 1, per_epoch) if epochs >= 9 else [round(steps * k / 9) for k in range(1, 8)]
        rungs = tuple(sorted(set(marks) - {0, steps}))
        phase = Phase(**{**phase.model_dump(), "epochs": epochs, "steps": None, "rungs": rungs, "ema": True})
        return Alone(with_phase(setting, "retrain", phase), folder)

    @staticmethod
    def on_test(setting: Setting, folder: Path) -> Alone:
        """Trained with the recipe's retraining on all training images, and tested once at the end."""
        return Alone(setting, folder, "train", "test")

    @property
    def phase(self) -> Phase:
        return self.setting.recipe.retrain

    @cached_property
    def steps(self) -> int:
        """Of the whole schedule."""
        return self.phase.num_steps(self.setting.images.steps_per_epoch(self.fit, self.phase.batch_size))

    @property
    def ladder(self) -> list[int]:
        """Steps done at the rungs of a ladder, the last its end."""
        return [self.judged_at(share) for share in SHARES]

    def judged_at(self, share: float) -> int:
        """Of the steps at which networks are judged the nearest to a share of the schedule."""
        return min((*self.phase.rungs, self.steps), key=lambda mark: abs(mark - share * self.steps))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of all that makes the figures but network and seed: schedule, images and splits."""
        phase = self.phase.model_dump(mode="json", exclude=HOW)
        content = [phase, self.setting.recipe.bf16, self.setting.source.fingerprint, self.setting.resolution]
        return hashlib.sha256(json.dumps([*content, self.fit, self.judged_on], sort_keys=True).encode()).hexdigest()[:8]

    def place(self, architecture: Architecture, seed: int, remedied: bool = False) -> Run:
        """Where the training of a network lies."""
        return _place(self.folder, architecture, self.digest, seed, remedied)

    def known(self, architecture: Architecture, seed: int) -> Trained:
        """What its training has given so far."""
        return read_training_alone(self.folder, architecture, self.digest, seed)

    def accuracy(self, architecture: Architecture, seed: int, steps: int) -> float | None:
        """After so many steps; None where the training has not come so far, or has failed."""
        known = self.known(architecture, seed)
        at_end = known.ended.accuracy if known.ended else None
        return at_end if steps == self.steps else dict(known.rungs).get(steps)

    def kept_at(self, architecture: Architecture, seed: int) -> int:
        """When the last checkpoint of its training was written, in nanoseconds; 0 where there is none."""
        file = self.place(architecture, seed, self.known(architecture, seed).remedied).folder / CHECKPOINT
        return file.stat().st_mtime_ns if file.exists() else 0

    def steps_done(self, architecture: Architecture, seed: int) -> int:
        """How far its training is, by the end of its log: quick enough to be asked every second while another process trains it."""
        place, twice = self.place(architecture, seed), 1
        ended = _ended(place)
        if ended and ended.failure in REMEDIES:
            place, twice = self.place(architecture, seed, remedied=True), REMEDIES[ended.failure]
            ended = _ended(place)
        return self.steps if ended else _last_step(place) // twice

    def train(self, architecture: Architecture, seed: int, until: int | None = None, stop: Callable[[], bool] = lambda: False) -> Trained:
        """Trains a network up to so many steps (a rung; None: to the end) as far as it is not, and gives what is known of it then.

        A loss that is not finite, and memory that runs out, are met once with a remedy and are failures the second time.

        Raises:
            Stopped: `stop` became true; a checkpoint is there.
        """
        until = self.steps if until is None else until
        assert until in (*self.phase.rungs, self.steps), f"{until} of {self.phase.rungs}"
        while (known := self.known(architecture, seed)).ended is None and not (until < self.steps and until in dict(known.rungs)):
            phase, place, twice = self.phase, self.place(architecture, seed, known.remedied), 1
            if known.remedied:
                failure = _read(self.place(architecture, seed)).ended
                assert failure and failure.failure
                phase, twice = remedy(self.phase, self.steps, failure.failure), REMEDIES[failure.failure]
            report = _UpTo(place, twice * until, stop)
            begun = time.monotonic()
            try:
                with memory_errors():
                    setting = with_phase(self.setting, "retrain", phase)
                    found = train_network(
                        architecture, setting, fit=self.fit, evaluate_on=self.judged_on, seed=seed, folder=place, report=report
                    )
                ended = Evaluation(found.accuracy)
            except Stopped:
                if stop():
                    raise
                ended = None
            except MemoryError:
                ended = Evaluation(failure=MEMORY)
            except NotFinite:
                ended = Evaluation(failure=NOT_FINITE)
            finally:
                place.log("sitting", seconds=round(time.monotonic() - begun, 3))
            if ended:
                self._end(architecture, seed, ended, known.remedied)
        return known

    def fail(self, architecture: Architecture, seed: int, reason: str) -> None:
        """Records that a training cannot be had, so that it is not tried for ever; where there is a remedy it is tried once more with that."""
        known = self.known(architecture, seed)
        if known.ended is None:
            self._end(architecture, seed, Evaluation(failure=reason), known.remedied)

    def _end(self, architecture: Architecture, seed: int, ended: Evaluation, remedied: bool) -> None:
        place = self.place(architecture, seed, remedied)
        content = {"architecture": architecture.to_dict(), "seed": seed, "phase": self.phase.model_dump(mode="json"), **asdict(ended)}
        place.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(place.folder / RESULT, json.dumps(content).encode())
        leftovers = (*place.folder.glob(WEIGHTS), *place.folder.glob(f"{CHECKPOINT}*"))  # figures are what is wanted
        for leftover in sorted(leftovers, key=lambda each: each.name == CHECKPOINT):  # until it is gone the training has not ended
            leftover.unlink()


NOT_FINITE = "the loss is not finite"
DIED = "ended its worker twice"  # which a system does where its memory is all used
# What is said of it; the second time it may still fail.
AGAIN = "trained with half the learning rate (after want of memory also half the images in twice the steps), since its first try failed"
REMEDIES = {MEMORY: 2, NOT_FINITE: 1, DIED: 2}  # what is tried a second time, and how many steps then stand for one


def trained_for(epochs: float | None) -> str:
    """How long a network was trained alone, in words."""
    return "trained alone" if epochs is None else f"trained alone for {epochs:g} epoch{'s' * (epochs != 1)}"


def remedy(phase: Phase, steps: int, failure: str) -> Phase:
    """Half of the rate, and against want of memory twice the steps of half of the images (an even number); `steps` is the length of the phase."""
    half = phase.model_copy(update={"lr": phase.lr / 2})
    if REMEDIES[failure] == 1:
        return half
    length = {"epochs": None, "steps": 2 * steps, "rungs": tuple(2 * rung for rung in phase.rungs)}
    return half.model_copy(update={"batch_size": max(2, phase.batch_size // 4 * 2), **length})  # even: images are mixed in pairs


class _UpTo(Report):
    """Stops a training at a rung."""

    def __init__(self, run: Run, until: int, stop: Callable[[], bool]) -> None:
        super().__init__(run, "alone", stop)
        self._until, self._reached = until, False

    def rung(self, done: int, model: torch.nn.Module) -> None:
        super().rung(done, model)
        self._reached = done >= self._until

    def stop(self) -> bool:
        return self._reached or super().stop()


def _place(folder: Path, architecture: Architecture, schedule: str, seed: int, remedied: bool) -> Run:
    return Run(f"{architecture.key}-{schedule}-{seed}{'-remedied' * remedied}", folder)


def read_training_alone(folder: Path, architecture: Architecture, schedule: str, seed: int) -> Trained:
    """What the training of a network by a schedule (`Alone.digest`) has given so far, as a folder of trainings holds it."""
    first = _read(_place(folder, architecture, schedule, seed, remedied=False))
    if first.ended is None or first.ended.failure not in REMEDIES:
        return first
    second, twice = _read(_place(folder, architecture, schedule, seed, remedied=True)), REMEDIES[first.ended.failure]
    rungs = tuple((step // twice, accuracy) for step, accuracy in second.rungs)
    return Trained(second.ended, rungs, first.seconds + second.seconds, True, second.steps // twice, second.epochs)


def _read(place: Run) -> Trained:
    lines = place.metrics()
    rungs = sorted({line["step"]: line["accuracy"] for line in lines if line.get("kind") == "alone rung"}.items())
    seconds = sum(line["seconds"] for line in lines if line.get("kind") == "sitting")
    steps = max((line["step"] for line in lines if line.get("kind") == "alone"), default=0)
    result = _result(place)
    ended, epochs = result if result else (None, None)
    return Trained(ended, tuple(rungs), seconds, steps=steps, epochs=epochs)


def _ended(place: Run) -> Evaluation | None:
    result = _result(place)
    return result[0] if result else None


def _result(place: Run) -> tuple[Evaluation, float | None] | None:
    """How a training ended, and how many epochs its whole schedule has; None while it has not ended.

    Nor has one whose checkpoint is still there: it was killed between its result and its last tidying, and does both again.
    """
    path = place.folder / RESULT
    if not path.exists() or (place.folder / CHECKPOINT).exists():
        return None
    try:
        entries = json.loads(path.read_bytes())
        return Evaluation(entries["accuracy"], entries["failure"]), entries.get("phase", {}).get("epochs")
    except (ValueError, LookupError, TypeError, AssertionError):
        raise one_line_error(
            f"{path}: damaged: got neither an accuracy nor a failure; accepted: what a training wrote. Without it ({deletion(path)}) the network is trained again."
        ) from None


def _last_step(place: Run) -> int:
    """The last one in the log; 0 without any."""
    lines = place.metrics(last_bytes=TAIL)
    return next((line["step"] for line in reversed(lines) if "step" in line), 0)


def with_phase(setting: Setting, name: Literal["supernet", "retrain"], phase: Phase) -> Setting:
    """The same images and device with another phase of the recipe."""
    changed = replace(setting, recipe=setting.recipe.model_copy(update={name: phase}))
    changed.__dict__["images"] = setting.images  # loaded once for all trainings
    return changed


class Shown:
    """Shows trainings that run in other processes by what they log. Called as often as one likes, it looks once a second; at the end one looks.

    Args:
        progress: counts steps of all jobs, those of earlier sittings included.
        alone: how they are trained.
        jobs: (network, seed) of each; the list may grow.
        text: what else is to be said; by default how many have ended.
    """

    def __init__(
        self, progress: Progress, alone: Alone, jobs: Sequence[tuple[Architecture, int]], text: Callable[[], str] | None = None
    ) -> None:
        self._progress, self._alone, self._jobs, self._text = progress, alone, jobs, text
        self.steps_done = dict[tuple[str, int], int]()  # by network and seed
        self._looked = -math.inf

    def __call__(self) -> None:
        if time.monotonic() - self._looked >= LOOK:
            self.look()

    def look(self) -> None:
        self._looked = time.monotonic()
        earlier = 0  # what those that are seen for the first time had done before
        for architecture, seed in self._jobs:
            job = architecture.key, seed
            seen = job in self.steps_done
            if not seen or self.steps_done[job] < self._alone.steps:
                self.steps_done[job] = self._alone.steps_done(architecture, seed)
            earlier += 0 if seen else self.steps_done[job]
        done = sum(self.steps_done.values())
        self._progress.skip(min(earlier, max(0, done - self._progress.done)))
        ended = f"{sum(steps >= self._alone.steps for steps in self.steps_done.values())} of {len(self._jobs)} trainings"
        text = self._text() if self._text else ended
        if done > self._progress.done:  # who goes on from a checkpoint was further once
            self._progress.reach(done, text)
        else:
            self._progress.advance(0, text)
