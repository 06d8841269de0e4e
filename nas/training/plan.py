"""What a training will do and how long that takes, said before anything is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from nas.cost import cost
from nas.cost.latency import memory_errors
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.quantities import format_quantity
from nas.training.loop import Course, train_model
from nas.training.recipe import Phase
from nas.training.setting import Setting
from nas.training.watch import Watch

TIMED = {"cpu": 9, "cuda": 40}  # steps; the first ones warm up
WARM = {"cpu": 1, "cuda": 10}
MINUTE = 45.0  # seconds from which on they are called one
WORTH_TIMING = 100  # steps: fewer are done before an estimate helps anyone


def data_line(setting: Setting, stride: int, splits: Mapping[str, str]) -> str:
    """What is seen of the images; `splits` says what each split is for."""
    images, source, own = setting.images, setting.source, setting.source.resolution
    counts = ", ".join(f"{images.size(split):,} {what}" for split, what in splits.items())
    line = f"{source.name}, {len(source.classes)} classes: {counts}; {own} px"
    if setting.resolution == own:
        return f"{line} as they are"
    nearest = -(-own // stride) * stride
    return f"{line}, scaled to {setting.resolution} px" + f" (--resolution {nearest} for their own size)" * (setting.resolution != nearest)


def phase_line(phase: Phase, steps: int, per_epoch: int) -> str:
    """How a training goes."""
    how = phase.augmentation
    crop = {"none": "no crop", "pad": "padded and cropped", "resized": f"cropped to {how.crop_scale[0]:.0%} or more"}[how.crop]
    strong = {
        "RandAugment": how.randaugment is not None, "erasing": how.erasing > 0, "mixup": how.mixup > 0, "cutmix": how.cutmix > 0,
    }  # fmt: skip
    done = [crop, "mirrored" if how.flip else "not mirrored", *(name for name, used in strong.items() if used)]
    return f"{steps:,} steps of {phase.batch_size} images ({steps / per_epoch:.3g} epochs), rate {phase.lr:g}; {', '.join(done)}"


def step_seconds(
    model: nn.Module, setting: Setting, phase: Phase, split: str, path: Callable[[int], tuple[Any, ...]] = lambda step: ()
) -> float:
    """Mean seconds of a training step, by some steps on the images of a split; the model is spoilt for a training.

    Raises:
        MemoryError: a step does not fit.
    """
    kind, clock = setting.device.type, _Clock()
    batches = setting.images.batches(split, phase.batch_size, setting.seed, phase.augmentation)
    course = Course(phase, TIMED[kind], setting.seed, setting.autocast, looks=(), ranks=setting.ranks)
    with memory_errors():
        train_model(model.to(setting.device), batches, course, clock, path)
    return setting.ranks.of_first(lambda: clock.mean(WARM[kind]))


class _Clock(Watch):
    """When how many steps were done."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float]] = []

    def step(self, done: int, loss: float, lr: float) -> None:
        self.told.append((done, time.perf_counter()))

    def mean(self, warm: int) -> float:
        """Seconds of a step, of those after the first ones."""
        timed = [(done, at) for done, at in self.told if done >= warm]
        (first, begun), (last, ended) = timed[0], timed[-1]
        return (ended - begun) / (last - first)


def network_plan(architecture: Architecture, setting: Setting) -> list[str]:
    """Of `retrain`."""
    phase, images, trained = setting.recipe.retrain, setting.images, architecture.at(setting.frame)
    per_epoch = images.steps_per_epoch("train", phase.batch_size)
    steps, counted = phase.num_steps(per_epoch), cost(architecture)
    lines = {
        "images": data_line(setting, architecture.stride, {"train": "to train on", "test": "to test"}),
        "network": f"{format_quantity('macs', counted.macs)} at {architecture.frame.resolution} px, {format_quantity('params', counted.params)}",
        "training": phase_line(phase, steps, per_epoch),
    }
    if setting.resolution != architecture.frame.resolution:
        lines["network"] += f"; {format_quantity('macs', cost(trained).macs)} at {setting.resolution} px"
    if steps >= WORTH_TIMING:
        lines["time"] = time_line(
            {"training": steps * step_seconds(Network(trained, phase.drop_path), setting, phase, "train")}, setting.device.type
        )
    return list(block(lines, setting.notes))


def time_line(parts: Mapping[str, float], device: str) -> str:
    """Seconds of each part as people say them, and their sum."""
    if len(parts) == 1:
        ((name, seconds),) = parts.items()
        told = f"{name} {about(seconds)}"
    else:
        each = ", ".join(f"{name} {rough(seconds)}" for name, seconds in parts.items())
        told = f"{about(sum(parts.values()))} in all: {each}"
    return f"{told} (by a few steps timed on this {device})"


def about(seconds: float) -> str:
    """``about 3.5 hours``, ``under a minute``."""
    return "about " * (seconds >= MINUTE) + rough(seconds)


def rough(seconds: float) -> str:
    """``under a minute``, ``23 minutes``, ``3.5 hours``, ``12 days``: no better than an estimate is."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if (number := seconds / length) >= 1.5:
            return f"{number:.2g} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return "a minute" if seconds >= MINUTE else "under a minute"


def block(lines: Mapping[str, str], notes: tuple[str, ...]) -> Iterator[str]:
    """The lines as a table of what and how, and what was chosen by the data."""
    width = max(10, *map(len, lines))
    for name, line in lines.items():
        yield f"  {name:{width}} {line}"
    for note in notes:
        yield f"  {note}"
