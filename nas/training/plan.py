"""What a training will do and how long that takes, said before anything is spent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nas.cost import cost
from nas.cost.latency import built, memory_errors
from nas.cost.memory import Live
from nas.networks.architecture import MAX_RESOLUTION, Architecture
from nas.networks.layers import check_layers
from nas.networks.network import Network
from nas.quantities import format_quantity
from nas.training.loop import Course, train_model
from nas.training.recipe import Phase
from nas.training.setting import Setting
from nas.training.watch import Watch

TIMED = {"cpu": 9, "cuda": 40}  # steps; the first ones warm up
WARM = {"cpu": 1, "cuda": 10}
FEW = 4  # images of a step, for each process, by which it is told how many images are few enough
LONG_TIMED = 3  # steps of such
LONG_STEP = 4.0  # seconds: a longer step is foretold by two shorter ones
MOST_MADE_UP = 16  # images of a step by which its memory is told
MINUTE = 45.0  # seconds from which on they are called one
WORTH_TIMING = 100  # steps: fewer are done before an estimate helps anyone


def data_line(setting: Setting, stride: int, splits: Mapping[str, str], check: Callable[[Setting], object]) -> str:
    """What is seen of the images.

    Args:
        setting: whose.
        stride: of the networks.
        splits: what each is for.
        check: raises a ValueError for a setting that is refused: the images' own size is then no advice.
    """
    images, source, own = setting.images, setting.source, setting.source.resolution
    counts = ", ".join(f"{images.size(split):,} {what}" for split, what in splits.items())
    line, nearest = f"{source.name}, {len(source.classes)} classes: {counts}", -(-own // stride) * stride
    if source.sides == (setting.resolution, setting.resolution):
        return f"{line}; {own} px as they are"
    of_sample = f"some {source.sides[0]} to {source.sides[1]} px a side, of each the square in the middle"
    sizes = of_sample if source.sides[0] < source.sides[1] else f"{own} px"
    larger = ""
    if setting.resolution != nearest <= MAX_RESOLUTION:
        with contextlib.suppress(ValueError):
            check(replace(setting, resolution=nearest))
            larger = f" (--resolution {nearest} for their own size)"
    return f"{line}; {sizes}, scaled to {setting.resolution} px{larger}"


def phase_line(phase: Phase, steps: int, per_epoch: int) -> str:
    """How a training goes."""
    how = phase.augmentation
    crop = {"none": "no random crop", "pad": "padded and cropped", "resized": f"cropped to {how.crop_scale[0]:.0%} or more"}[how.crop]
    strong = {
        "RandAugment": how.randaugment is not None, "erasing": how.erasing > 0, "mixup": how.mixup > 0, "cutmix": how.cutmix > 0,
    }  # fmt: skip
    done = [crop, "mirrored" if how.flip else "not mirrored", *(name for name, used in strong.items() if used)]
    return f"{steps:,} steps of {phase.batch_size} images ({steps / per_epoch:.3g} epochs), rate {phase.lr:g}; {', '.join(done)}"


def step_seconds(
    model: nn.Module, setting: Setting, phase: Phase, split: str, path: Callable[[int], tuple[Any, ...]] = lambda step: ()
) -> float:
    """Mean seconds of a training step, by some steps on the images of a split; the model is spoilt for a training.

    A step that takes long (ImageNet's batches on a CPU) is foretold by steps of fewer images: each image more takes as long as the one before.

    Raises:
        MemoryError: a step does not fit.
    """

    def timed(images: int, steps: int) -> float:
        return _timed(model, setting, phase.model_copy(update={"batch_size": images}), split, path, steps)

    whole, steps, fewest = phase.batch_size, TIMED[setting.device.type], FEW * setting.ranks.count
    if setting.device.type == "cuda" or whole <= fewest or (few := timed(fewest, 2)) * whole / fewest <= LONG_STEP:
        return timed(whole, steps)
    more = min(whole, max(2 * fewest, int(LONG_STEP / few * fewest))) // 4 * 4  # even, and so is its half: images may be mixed in pairs
    low, high = timed(more // 2, LONG_TIMED), timed(more, LONG_TIMED)
    return high + (whole - more) * max(high - low, 0.0) / (more - more // 2)


# Six parameters and what is asked of the steps: those of `step_seconds`, and how many steps.
def _timed(model: nn.Module, setting: Setting, phase: Phase, split: str, path: Callable[[int], tuple[Any, ...]], steps: int) -> float:
    kind, clock = setting.device.type, _Clock()
    batches = setting.images.batches(split, phase.batch_size, setting.seed, phase.augmentation)
    course = Course(phase, steps, setting.seed, setting.autocast, looks=(), ranks=setting.ranks)
    with memory_errors():
        train_model(model, batches, course, clock, path)
    return setting.ranks.of_first(lambda: clock.mean(min(WARM[kind], steps - 1)))


def training_bytes(model: nn.Module, setting: Setting, phase: Phase, images: int, path: tuple[Any, ...] = ()) -> float:
    """Memory of a training step of so many images: weights, AdamW's two moments and averaged weights, and what is alive at once beside them.

    The last grows with the images, and is foretold by steps of a few that are made up: of so many that each image more takes as much as the
    ones before, since with fewest images it is the weights' gradients that need most. What torch takes for itself is not in it.
    """
    frame, device, further = setting.frame, setting.device, {"recompute": True} if phase.recompute else {}
    images = -(-images // phase.accumulate)

    def alive(num: int) -> float:
        x = torch.randn(num, frame.channels, frame.resolution, frame.resolution, device=device)
        targets = torch.arange(num, device=device) % frame.classes
        model.zero_grad(set_to_none=True)
        with _peak(device) as peak:
            with setting.autocast():
                loss = F.cross_entropy(model(x, *path, **further), targets)
            loss.backward()
        return peak() + x.nbytes

    num, taken, slope, before = 2, alive(2), 0.0, -1.0
    while num < min(images, MOST_MADE_UP) and slope > 1.01 * before:
        more, before = alive(2 * num), slope
        num, taken, slope = 2 * num, more, (more - taken) / num
    kept = sum(each.nbytes for each in model.parameters()) * (3 + phase.ema)
    return kept + taken + (images - num) * slope


@contextmanager
def _peak(device: torch.device) -> Iterator[Callable[[], float]]:
    """How many bytes are alive at once at most, of those that the block makes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
    else:
        with Live(in_bytes=True) as live:
            yield lambda: live.peak


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
        "images": data_line(
            setting, architecture.stride, {"train": "to train on", "test": "to test"}, partial(check_network, architecture)
        ),
        "network": f"{format_quantity('macs', counted.macs)} at {architecture.frame.resolution} px, {format_quantity('params', counted.params)}",
        "training": phase_line(phase, steps, per_epoch),
    }
    if setting.resolution != architecture.frame.resolution:
        lines["network"] += f"; {format_quantity('macs', cost(trained).macs)} at {setting.resolution} px"
    if steps >= WORTH_TIMING:
        network = built(partial(Network, trained, phase.drop_path), setting.device)
        lines["time"] = time_line({"training": steps * step_seconds(network, setting, phase, "train")}, setting.device.type)
    return list(block(lines, setting.notes))


def check_network(architecture: Architecture, setting: Setting) -> None:
    """Refuses a network that cannot be at a setting's resolution, or is too large there.

    Raises:
        ValueError: it is so; one line.
    """
    check_layers(architecture.at(setting.frame))
    setting.check(architecture)


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
