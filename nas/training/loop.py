"""The only training loop: it trains supernets and standalone networks alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.data import seed_step
from nas.runs.checkpoint import load_checkpoint, save_checkpoint
from nas.training.recipe import Phase

CHECKPOINT_SECONDS = 60.0
Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Course:
    """What one training is: how, how long, from which seed, and where its checkpoint is.

    Attributes:
        phase: the recipe's part.
        steps: in all.
        seed: of data, augmentation and drop path, together with the step.
        autocast: makes the context of the forward passes.
        checkpoint: written at most once a minute, at the end and when stopped; None: not at all.
        identity: what the checkpoint must be of; another's is refused.
        looks: steps after which `Watch.rung` has the model; None: the phase's rungs.
    """

    phase: Phase
    steps: int
    seed: int
    autocast: Autocast = nullcontext
    checkpoint: Path | None = None
    identity: str = ""
    looks: tuple[int, ...] | None = None


class NotFinite(ValueError):
    """The loss of a training is no longer a number."""


class Watch:
    """What a training tells whoever started it, and asks. This one is silent and never stops; override what is wanted."""

    def step(self, done: int, loss: float, lr: float) -> None:
        """After every step on a CPU and every tenth on a GPU, where reading the loss waits."""

    def rung(self, done: int, model: nn.Module) -> None:
        """At each of the phase's rungs, or where the course looks, with the model to evaluate."""

    def stop(self) -> bool:
        """Asked before every step; True ends the training there, with a checkpoint."""
        return False


def train_model(
    model: nn.Module, batches: Batches, course: Course, watch: Watch, path: Callable[[int], tuple[Any, ...]] = lambda step: ()
) -> tuple[nn.Module, int]:
    """Trains `model` up to `course.steps`; continues from the checkpoint if there is one.

    Data, paths, augmentation and drop path are functions of (seed, step), so a continued run is the uninterrupted one.

    Args:
        batches: `batches(start_step)` yields (images, targets) from that step on, as `Data.batches` does.
        path: further arguments of `model` for a step.

    Returns:
        The model to evaluate (the averaged one with `phase.ema`) and the number of steps done, less than `steps` when stopped.

    Raises:
        NotFinite: the loss is no longer a number.
        ValueError: the checkpoint is of something else or damaged beyond use.
    """
    state = _State(model, course)
    start = state.restore()
    phase, device = course.phase, next(model.parameters()).device
    looks = phase.rungs if course.looks is None else course.looks
    model.train()
    for step, (images, targets) in zip(range(start, course.steps), batches(start) if start < course.steps else (), strict=False):
        if watch.stop():
            break
        seed_step(course.seed, step)  # drop path draws from torch's generators
        lr = state.set_learning_rate(step)
        state.optimizer.zero_grad(set_to_none=True)  # what does not run this step must not move: AdamW moves zeros, and skips None
        with course.autocast():
            loss = F.cross_entropy(model(images, *path(step)), targets, label_smoothing=phase.label_smoothing)
        loss.backward()
        state.loss = loss.detach()
        if phase.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), phase.clip_norm)
        state.optimizer.step()
        state.done = step + 1
        if state.ema:
            state.ema.update(model, step=state.done)
        at_rung = state.done in looks
        if device.type == "cpu" or state.done % 10 == 0 or state.done == course.steps or at_rung:
            watch.step(state.done, state.finite_loss(), lr)
            if at_rung:
                watch.rung(state.done, state.evaluated)
                model.train()
            state.save_now_and_then()
    if state.done > start:
        state.finite_loss()  # on a GPU up to nine steps were not looked at
        state.save()
    return state.evaluated, state.done


class _State:
    """What a training carries from step to step, in a checkpoint and out of it."""

    def __init__(self, model: nn.Module, course: Course) -> None:
        from timm.optim import create_optimizer_v2
        from timm.utils import ModelEmaV3

        phase, self.course, self.model = course.phase, course, model
        # fused: 16 instead of 56 ms a step for 26 million parameters on two cores
        self.optimizer = create_optimizer_v2(model, opt="adamw", lr=phase.lr, weight_decay=phase.weight_decay, fused=True)
        # Over the last twentieth of the run; with rungs only the warm-up bounds it, so that a rung does not depend on the length of the run.
        decay = 0.9999 if phase.rungs else max(0.0, min(0.9999, 1 - 20 / course.steps))
        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True) if phase.ema else None
        self.evaluated: nn.Module = self.ema.module if self.ema else model
        self.done, self.loss = 0, torch.zeros(())
        self._saved_at, self._save_seconds = time.monotonic(), 0.0

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer} | ({"ema": self.ema.module} if self.ema else {})

    def restore(self) -> int:
        """Loads the checkpoint, if there is one; the number of steps that it had done."""
        path, identity = self.course.checkpoint, self.course.identity
        state = load_checkpoint(path) if path is not None else None
        if state is not None:
            if state["identity"] != identity:
                raise ValueError(f"{path}: a checkpoint of something else: got {state['identity']}; accepted {identity}. Give a new --run.")
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.done = int(state["step"])
        return self.done

    def save(self) -> None:
        if self.course.checkpoint is not None:
            begun = time.monotonic()
            parts = {name: part.state_dict() for name, part in self._parts().items()}
            save_checkpoint(self.course.checkpoint, {"identity": self.course.identity, "step": self.done, **parts})
            self._saved_at = time.monotonic()
            self._save_seconds = self._saved_at - begun

    def save_now_and_then(self) -> None:
        """At most once a minute; a large checkpoint takes seconds, and at most a twentieth of the time goes into them."""
        if time.monotonic() - self._saved_at > max(CHECKPOINT_SECONDS, 20 * self._save_seconds):
            self.save()

    def set_learning_rate(self, step: int) -> float:
        lr = self.course.phase.learning_rate(step, self.course.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def finite_loss(self) -> float:
        loss = self.loss.item()
        if not math.isfinite(loss):
            kept = f"got lr {self.course.phase.lr}. Lower 'lr' in the recipe; the last checkpoint is kept."
            raise NotFinite(f"training: the loss is {loss} at step {self.done}: {kept}")
        return loss


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], autocast: Autocast = nullcontext, path: tuple[Any, ...] = ()
) -> float:
    """Top-1 accuracy, 0 to 1, over batches of (images, class numbers); 0 without images. Leaves the model in evaluation mode.

    `path` are further arguments of the model, such as the part of a supernet that is to be evaluated.
    """
    model.eval()
    correct, count = None, 0
    for images, targets in batches:
        with autocast():
            hits = (model(images, *path).argmax(dim=1) == targets).sum()
        correct = hits if correct is None else correct + hits  # on the device: one wait at the end
        count += len(targets)
    return correct.item() / count if correct is not None else 0.0
