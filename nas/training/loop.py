"""Recipes, and the only training loop: it trains supernets and standalone networks alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator
from torch import Tensor, nn

from nas.data import Augmentation, seed_step
from nas.runs.checkpoint import load_checkpoint, save_checkpoint
from nas.yaml_files import read_yaml, validate

FORMAT = "recipe 1"
CHECKPOINT_SECONDS = 60.0
Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


class Phase(BaseModel):
    """How one training goes: AdamW with a linear warm-up and a cosine to `min_lr`. Give `epochs` or `steps`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[StrictInt, Field(ge=1)] | None = None
    batch_size: Annotated[StrictInt, Field(ge=2)]
    lr: Annotated[float, Field(gt=0)]
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05  # none on norms, scales and biases
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05  # share of the steps
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the last block; standalone networks only
    ema: StrictBool = False  # evaluate an average of the weights over the last twentieth of the run
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _one_length(self) -> Phase:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self

    def num_steps(self, steps_per_epoch: int) -> int:
        """Steps in all."""
        return self.steps if self.steps is not None else max(1, round(self.epochs * steps_per_epoch))  # type: ignore[operator]


class SearchSettings(BaseModel):
    """How many networks a search evaluates, in generations of `population`, with `batch_size` images at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    trials: Annotated[StrictInt, Field(ge=1)]
    population: Annotated[StrictInt, Field(ge=2)] = 50
    batch_size: Annotated[StrictInt, Field(ge=1)] = 500


class Recipe(BaseModel):
    """How to train a supernet, search it and retrain the winner; `bf16` says where autocast runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: str
    resolution: Annotated[StrictInt, Field(ge=1)] | None = None  # None: the images' own
    bf16: Literal["gpu", "always", "never"] = "gpu"
    supernet: Phase
    search: SearchSettings
    retrain: Phase

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """bfloat16 autocast where the recipe wants it; a new context at each call."""
        wanted = self.bf16 == "always" or (self.bf16 == "gpu" and device.type == "cuda")
        return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe file.

    Raises:
        ValueError: an error in the file, with its place.
    """
    return validate(Recipe, read_yaml(path, format=FORMAT), str(path))


def train(
    model: nn.Module,
    batches: Batches,
    phase: Phase,
    *,
    steps: int,
    seed: int,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    paths: Callable[[int], Iterable[tuple[Any, ...]]] = lambda step: [()],
    checkpoint: Path | None = None,
    identity: str = "",
    report: Callable[[int, float, float], None] = lambda step, loss, lr: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, int]:
    """Trains `model` up to step `steps`; continues from `checkpoint` if there is one.

    Data, paths, augmentation and drop path are functions of (seed, step), so a continued run is the uninterrupted one.

    Args:
        batches: `batches(start_step)` yields (images, targets) from that step on, as `Data.batches` does.
        autocast: makes the context of the forward passes.
        paths: what to run in a step: one tuple of further arguments of `model` for each path. Backward follows each path at once, with its share of
            the loss; then one clip and one optimiser step.
        checkpoint: written at most once a minute, at the end and when stopped.
        identity: what the checkpoint must be of; another's is refused.
        report: called as (steps done, loss, learning rate) after every step on a CPU and every tenth on a GPU, where reading the loss waits.
        stop: asked before every step.

    Returns:
        The model to evaluate (the averaged one with `phase.ema`) and the number of steps done, less than `steps` when stopped.

    Raises:
        ValueError: the checkpoint is of something else or damaged beyond use, or the loss is no longer finite.
    """
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import ModelEmaV3

    # fused: 16 instead of 56 ms a step for 26 million parameters on two cores
    optimizer = create_optimizer_v2(model, opt="adamw", lr=phase.lr, weight_decay=phase.weight_decay, fused=True)
    warmup = round(phase.warmup * steps)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=steps,
        lr_min=phase.min_lr,
        warmup_t=warmup,
        warmup_lr_init=phase.lr / max(1, warmup),
        warmup_prefix=False,
        t_in_epochs=False,
    )
    ema = ModelEmaV3(model, decay=max(0.0, min(0.9999, 1 - 20 / steps)), use_warmup=True) if phase.ema else None
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer} | ({"ema": ema.module} if ema else {})
    start = _restore(checkpoint, identity, parts)
    saved_at, save_seconds = time.monotonic(), 0.0
    device = next(model.parameters()).device

    def save(done: int) -> None:
        nonlocal saved_at, save_seconds
        if checkpoint is not None:
            begun = time.monotonic()
            save_checkpoint(checkpoint, {"identity": identity, "step": done, **{name: part.state_dict() for name, part in parts.items()}})
            saved_at = time.monotonic()
            save_seconds = saved_at - begun

    def check(total: Tensor, done: int) -> None:
        if not math.isfinite(total.item()):
            raise ValueError(
                f"training: the loss is {total.item()} at step {done}: got lr {phase.lr}. Lower 'lr' in the recipe; the last checkpoint is kept."
            )

    model.train()
    done = start
    total = torch.zeros((), device=device)
    for step, (images, targets) in zip(range(start, steps), batches(start) if start < steps else (), strict=False):
        if stop():
            break
        seed_step(seed, step)  # drop path draws from torch's generators
        schedule.step_update(step)
        optimizer.zero_grad(set_to_none=True)  # what does not run this step must not move: AdamW moves zeros, and skips None
        todo = list(paths(step))
        total = torch.zeros((), device=device)
        for path in todo:
            with autocast():
                loss = F.cross_entropy(model(images, *path), targets, label_smoothing=phase.label_smoothing) / len(todo)
            loss.backward()
            total += loss.detach()
        if phase.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), phase.clip_norm)
        optimizer.step()
        done = step + 1
        if ema:
            ema.update(model, step=done)
        if device.type == "cpu" or done % 10 == 0 or done == steps:
            check(total, done)
            report(done, total.item(), optimizer.param_groups[0]["lr"])
            # a large checkpoint takes seconds: at most a twentieth of the time goes into them
            if time.monotonic() - saved_at > max(CHECKPOINT_SECONDS, 20 * save_seconds):
                save(done)
    if done > start:
        check(total, done)  # on a GPU up to nine steps were not looked at
        save(done)
    return (ema.module if ema else model), done


def _restore(checkpoint: Path | None, identity: str, parts: dict[str, Any]) -> int:
    """Loads a checkpoint into the parts; gives the number of steps it had done, 0 without one."""
    state = load_checkpoint(checkpoint) if checkpoint is not None else None
    if state is None:
        return 0
    if state["identity"] != identity:
        raise ValueError(f"{checkpoint}: a checkpoint of something else: got {state['identity']}; accepted {identity}. Give another --run.")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> float:
    """Top-1 accuracy, 0 to 1, over batches of (images, class numbers); 0 without images. Leaves the model in evaluation mode."""
    model.eval()
    correct, count = None, 0
    for images, targets in batches:
        with autocast():
            hits = (model(images).argmax(dim=1) == targets).sum()
        correct = hits if correct is None else correct + hits  # on the device: one wait at the end
        count += len(targets)
    return correct.item() / count if correct is not None else 0.0
