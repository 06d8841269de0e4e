"""Networks trained alone, each once: the truth that a ranking is held against, and what a winner is chosen by in the end.

A training lies in the run's folder `alone/`, by network, schedule, images and seed. What is there is never trained again, whoever asks; what
was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nas.cost.latency import memory_errors
from nas.machine import cores
from nas.networks.architecture import Architecture
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching.ray_workers import Workers, gpu_share
from nas.searching.search import Evaluation
from nas.training.recipe import Phase
from nas.training.report import Report
from nas.training.setting import Setting
from nas.training.train_network import train_network
from nas.yaml_files import write_atomically

FOLDER = "alone"
RESULT = "result.json"
REMEDY = 0.5  # of the learning rate, for a training whose loss stopped being finite


@dataclass(frozen=True)
class Trained:
    """What training a network alone gave: an accuracy on the held-out images with those of the rungs, or the reason why there is none."""

    evaluation: Evaluation
    rungs: tuple[tuple[int, float], ...] = ()  # (steps done, accuracy), ascending
    lr: float = 0.0  # it was trained with
    seconds: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """How networks are trained alone: on the images that are not held out, judged on those that are.

    Attributes:
        setting: images, device and recipe, whose `retrain` phase is the schedule.
        seed: of weights, images and augmentation.
        folder: of the run.
    """

    setting: Setting
    seed: int
    folder: Path

    @property
    def phase(self) -> Phase:
        return self.setting.recipe.retrain

    def place(self, architecture: Architecture) -> Run:
        """Where the training of a network lies."""
        content = [self.phase.model_dump(mode="json"), self.setting.recipe.bf16, self.setting.source.fingerprint, self.setting.resolution]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        return Run(f"{architecture.key}-{digest}-{self.seed}", self.folder / FOLDER)

    def recorded(self, architecture: Architecture) -> Trained | None:
        """The result of a finished training."""
        path = self.place(architecture).folder / RESULT
        if not path.exists():
            return None
        entries = json.loads(path.read_text())
        evaluation = Evaluation(entries["accuracy"], entries["failure"])
        return Trained(evaluation, tuple((step, accuracy) for step, accuracy in entries["rungs"]), entries["lr"], entries["seconds"])


def train_alone(schedule: Schedule, architecture: Architecture, report: Report | None = None) -> Trained:
    """The result of training a network alone, trained now as far as it was not.

    A loss that is not finite is met once with half of the learning rate; memory that runs out, and a second such loss, are failures.

    Raises:
        Stopped: interrupted; a checkpoint is there.
    """
    if known := schedule.recorded(architecture):
        return known
    place, begun, rate = schedule.place(architecture), time.monotonic(), schedule.phase.lr
    report = report or Report(place, "alone")
    for lr in (rate, REMEDY * rate):
        phase = schedule.phase.model_copy(update={"lr": lr})
        setting = dataclasses.replace(schedule.setting, recipe=schedule.setting.recipe.model_copy(update={"retrain": phase}))
        try:
            with memory_errors():
                found = train_network(architecture, setting, fit="fit", evaluate_on="held_out", seed=schedule.seed, folder=place, report=report)
            trained = Trained(Evaluation(found.accuracy), found.rungs, lr, time.monotonic() - begun)
            break
        except MemoryError:
            trained = Trained(Evaluation(failure="out of memory"), (), lr, time.monotonic() - begun)
            break
        except NotFinite:
            trained = Trained(Evaluation(failure="the loss is not finite, with half of the rate neither"), (), lr, time.monotonic() - begun)
            for leftover in place.folder.glob("checkpoint.pt*"):
                leftover.unlink()
    content = {"key": architecture.key, "architecture": architecture.to_dict(), "seed": schedule.seed, **dataclasses.asdict(trained.evaluation)}
    content |= {"rungs": trained.rungs, "lr": trained.lr, "seconds": round(trained.seconds, 1)}
    write_atomically(place.folder / RESULT, json.dumps(content).encode())
    for leftover in place.folder.glob("checkpoint.pt*"):  # what is finished is not continued
        leftover.unlink()
    return trained
