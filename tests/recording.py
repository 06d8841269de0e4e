"""Records what a training, an evaluation or a timing really receives, whatever code stands between it and the command line.

Watched are places that stay where they are: the two public methods of `Data` that give batches, the forward passes of whole networks,
torch's cross entropy, torch's hook before an optimiser's step, the clock. The images carry a number of their own in their first
two rows (`write_images`), so that every image that a network sees can be told by its file.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from nas.data import Data
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.spaces.supernet import Supernet

SIDE = 16
NUM_BITS = 10
MARK = [0, 1, 1], [0, 0, 0]  # left and right of the number: mirrored, they are something else
SPLITS = {"train": 48, "val": 40, "test": 24}  # folders with images in each; beside a test/, val/ is held out
CLASSES = 4


def numbers(split: str) -> set[int]:
    """The numbers of the images in a folder: `train` from 0 on, then `val`, then `test`."""
    ends = list(itertools.accumulate(SPLITS.values()))
    i = list(SPLITS).index(split)
    return set(range(ends[i] - SPLITS[split], ends[i]))


def write_images(folder: Path) -> Path:
    """Scanned digits as PNG files, `folder/<split>/<class>/<number>.png`, each with its number written into it in black and white."""
    from sklearn.datasets import load_digits  # not above: Ray's workers read this file and write no images

    digits = load_digits(n_class=CLASSES)
    number = 0
    for split, count in SPLITS.items():
        for _ in range(count):
            bits = [*MARK[0], *(number >> bit & 1 for bit in range(NUM_BITS)), *MARK[1]]
            pixels = np.asarray(Image.fromarray((digits.images[number] * 15).astype(np.uint8)).resize((SIDE, SIDE))).copy()
            pixels[0], pixels[1] = 255 * np.array(bits), 255 * (1 - np.array(bits))
            path = folder / split / str(digits.target[number]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            number += 1
    return folder


def read_number(image_CHW: Tensor) -> tuple[int, bool] | None:
    """The number written into an image, and whether the image is mirrored; None for any other image.

    Normalisation changes neither; of two mixed images it is the number of the stronger one.
    """
    rows = image_CHW[0, :2].detach().cpu()
    bits = rows > (rows.min() + rows.max()) / 2
    if torch.equal(bits[0], bits[1]) or not torch.equal(bits[0], ~bits[1]):
        return None
    for mirrored in (False, True):
        line = bits[0].flip(0).tolist() if mirrored else bits[0].tolist()
        if (line[:3], line[-3:]) == MARK:
            return sum(bit << place for place, bit in enumerate(line[3:-3])), mirrored
    return None


@dataclass
class Pass:
    """One forward pass of a whole network, as it was when it happened."""

    module: nn.Module
    architecture: Architecture
    images: Tensor
    logits: Tensor
    read: list[tuple[int, bool] | None]
    training: bool
    autocast: bool
    threads: int
    collecting: bool  # whether Python might stop to collect garbage
    random_seed: int  # of what torch's own generator draws from, drop path say

    @property
    def numbers(self) -> list[int | None]:
        return [one and one[0] for one in self.read]

    @property
    def mirrored(self) -> list[bool]:
        return [bool(one and one[1]) for one in self.read]


@dataclass
class Step:
    """One step of an optimiser: the passes since the one before, and what stood in the optimiser when it was taken."""

    passes: list[Pass]
    losses: list[tuple[Tensor, float]]  # targets and label smoothing of each
    lr: float
    decay: dict[str, float]  # by the parameter's name
    gradient_norm: float

    @property
    def module(self) -> nn.Module:
        return self.passes[0].module

    @property
    def numbers(self) -> list[int | None]:
        return self.passes[0].numbers


@dataclass
class Recording:
    """What was seen, in order.

    Attributes:
        batches: split, batch size, seed and augmentation of each `Data.batches`.
        evaluated_splits: the split of each `Data.evaluation_batches`.
        steps: of training.
        initial: the weights that the first pass of training found, by name.
        evaluations: passes without gradients on images of the data set; `steps_before` of each: the training steps taken before it.
        timed: passes without gradients on other images: latency is measured on noise.
    """

    batches: list[tuple[str, int, int, Any]] = field(default_factory=list)
    evaluated_splits: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    initial: dict[str, Tensor] = field(default_factory=dict)
    evaluations: list[Pass] = field(default_factory=list)
    steps_before: list[int] = field(default_factory=list)
    timed: list[Pass] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)  # of the step that is being made
    losses: list[tuple[Tensor, float]] = field(default_factory=list)

    def add(self, one: Pass) -> None:
        if torch.is_grad_enabled():
            self.passes.append(one)
        elif None in one.read:
            self.timed.append(one)
        else:
            self.evaluations.append(one)
            self.steps_before.append(len(self.steps))


@contextlib.contextmanager
def recording(
    *,
    before_pass: Callable[[nn.Module, Tensor], None] = lambda module, images: None,
    before_step: Callable[[int], None] = lambda step: None,
) -> Iterator[Recording]:
    """Records what the commands in the block do in this process.

    Args:
        before_pass: called with the network and its images before each pass.
        before_step: called with the number of steps recorded so far before each of the optimiser's steps.
    """
    seen = Recording()
    patch = pytest.MonkeyPatch()
    real_batches, real_evaluation, real_loss = Data.batches, Data.evaluation_batches, nn.functional.cross_entropy

    def batches(self: Data, split: str, batch_size: int, seed: int, augmentation: Any) -> Any:
        seen.batches.append((split, batch_size, seed, augmentation))
        return real_batches(self, split, batch_size, seed, augmentation)

    def evaluation_batches(self: Data, split: str, *others: Any, **named: Any) -> Any:
        seen.evaluated_splits.append(split)
        return real_evaluation(self, split, *others, **named)

    def watched(real: Callable[..., Tensor], architecture_of: Callable[..., Architecture]) -> Callable[..., Tensor]:
        def forward(self: nn.Module, images: Tensor, *others: Any, **named: Any) -> Tensor:
            before_pass(self, images)
            if torch.is_grad_enabled() and not seen.initial:
                seen.initial = {name: value.detach().clone() for name, value in self.state_dict().items()}
            logits = real(self, images, *others, **named)
            autocast, threads = torch.is_autocast_enabled(images.device.type), torch.get_num_threads()
            read = [read_number(image) for image in images]
            architecture = architecture_of(self, *others, **named)
            seen.add(
                Pass(
                    self,
                    architecture,
                    images.detach().clone(),
                    logits.detach().clone(),
                    read,
                    self.training,
                    autocast,
                    threads,
                    gc.isenabled(),
                    torch.initial_seed(),
                )
            )
            return logits

        return forward

    def cross_entropy(logits: Tensor, targets: Tensor, *others: Any, label_smoothing: float = 0.0, **named: Any) -> Tensor:
        seen.losses.append((targets.detach().clone(), label_smoothing))
        return real_loss(logits, targets, *others, label_smoothing=label_smoothing, **named)

    def step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        names = {id(parameter): name for name, parameter in seen.passes[0].module.named_parameters()}
        decay = {names[id(one)]: group["weight_decay"] for group in optimizer.param_groups for one in group["params"]}
        gradients = [one.grad.norm() for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        seen.steps.append(Step(seen.passes, seen.losses, optimizer.param_groups[0]["lr"], decay, torch.stack(gradients).norm().item()))
        seen.passes, seen.losses = [], []
        before_step(len(seen.steps))

    patch.setattr(Data, "batches", batches)
    patch.setattr(Data, "evaluation_batches", evaluation_batches)
    patch.setattr(Supernet, "forward", watched(Supernet.forward, lambda self, architecture, **how: architecture))
    patch.setattr(Network, "forward", watched(Network.forward, lambda self, **how: self.architecture))
    patch.setattr(nn.functional, "cross_entropy", cross_entropy)
    hook = register_optimizer_step_pre_hook(step)
    try:
        yield seen
    finally:
        hook.remove()
        patch.undo()


class Clock:
    """A clock on which the k-th pass of a network on noise takes `taken(k)` seconds more: a median of them tells which were counted."""

    def __init__(self) -> None:
        self.ahead, self.passes = 0.0, dict[int, int]()
        self._real = time.perf_counter

    def __call__(self) -> float:
        return self._real() + self.ahead

    @staticmethod
    def taken(k: int) -> float:
        return 10_000 / (k + 1)  # a mean of these is no median of any

    def before_pass(self, module: nn.Module, images: Tensor) -> None:
        if not torch.is_grad_enabled() and read_number(images[0]) is None:
            done = self.passes.get(id(module), 0)
            self.passes[id(module)] = done + 1
            self.ahead += self.taken(done)
