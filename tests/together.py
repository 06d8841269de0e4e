"""Trainings that one process or several do, for tests that compare them: real digits, float32, all that a recipe can do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from nas.cost import cost
from nas.data import Augmentation, open_data
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.spaces.decisions import SearchSpace
from nas.spaces.levels import Levels
from nas.spaces.supernet import Supernet
from nas.training.loop import Course, train_model
from nas.training.paths import path_of_step
from nas.training.ranks import ALONE, Ranks
from nas.training.recipe import Phase
from nas.training.watch import Watch

FRAME = Frame(16, 1, 10)
SPACE = """
format: search space 1
frame: {resolution: 16, channels: 1, classes: 10}
patch: 4
stages:
  - {width: [16, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2], kernel: [3, 5]}
  - {width: [32, 64], depth: [1, 2], mixer: [conv, attention, token_mlp], mlp_ratio: [1, 2], head_width: 16, sharing: [false, true]}
"""
EVERY_MIXER = (
    Stage(32, ("conv", "s2_shift", "as_shift"), 1.0, cpe=True, kernel=3),
    Stage(64, ("attention", "token_mlp", "permute"), 1.0, cpe=True, head_width=16),
)
STEPS = 12
PLAIN = Phase(steps=STEPS, batch_size=10, lr=1e-3, clip_norm=1.0, augmentation=Augmentation(crop="pad", flip=True))
MIXED = Augmentation(crop="pad", flip=True, randaugment=(2, 5), erasing=0.25, mixup=0.8, cutmix=1.0)
EVERYTHING = PLAIN.model_copy(update={"batch_size": 14, "label_smoothing": 0.1, "drop_path": 0.3, "ema": True, "augmentation": MIXED})


def supernet() -> tuple[nn.Module, Callable[[int], tuple[Any, ...]]]:
    space = SearchSpace.from_data(yaml.safe_load(SPACE), "tiny", "tiny").at(FRAME)
    levels = Levels.whole(space, cost)
    return Supernet(space), lambda step: (path_of_step(space, levels, 0, step),)


def network(stages: tuple[Stage, ...], drop_path: float = 0.0, **options: Any) -> tuple[nn.Module, Callable[[int], tuple[Any, ...]]]:
    return Network(Architecture(FRAME, 4, stages, **options), drop_path), lambda step: ()


MADE: dict[str, tuple[Callable[[], tuple[nn.Module, Callable[[int], tuple[Any, ...]]]], Phase]] = {
    "supernet": (supernet, PLAIN),
    "network": (lambda: network(EVERY_MIXER, 0.3), EVERYTHING),
    "batch norm": (lambda: network((Stage(16, ("conv",), 1.0, kernel=3),), stem="conv4"), PLAIN),
}


def trained(
    kind: str,
    ranks: Ranks = ALONE,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
    device: str = "cpu",
    bf16: bool = False,
    **how: Any,
) -> dict[str, Tensor]:
    """The weights that are evaluated, and those behind them; `how` changes the phase."""
    make, phase = MADE[kind]
    phase = phase.model_copy(update=how)
    torch.manual_seed(0)
    model, path = make()
    model = model.to(device)
    images = open_data("digits").load(FRAME.resolution, torch.device(device), 0, part=ranks.part)
    batches = images.batches("fit", phase.batch_size, 0, phase.augmentation)
    assert phase.steps is not None
    autocast = partial(torch.autocast, device, torch.bfloat16) if bf16 else nullcontext
    course = Course(phase, phase.steps, 0, autocast, checkpoint=checkpoint, identity=kind, ranks=ranks)
    evaluated, _ = train_model(model, batches, course, watch or Watch(), path)
    found = {**model.state_dict(), **{f"evaluated.{name}": value for name, value in evaluated.state_dict().items()}}
    return {name: value.cpu() for name, value in found.items()}


def fresh(kind: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    weights = MADE[kind][0]()[0].state_dict()
    return {**weights, **{f"evaluated.{name}": value for name, value in weights.items()}}


class Until(Watch):
    """Stops after a step."""

    def __init__(self, until: int) -> None:
        self._until, self._done = until, 0

    def begin(self, done: int) -> None:
        self._done = done

    def step(self, done: int, loss: float, lr: float) -> None:
        self._done = done

    def stop(self) -> bool:
        return self._done >= self._until
