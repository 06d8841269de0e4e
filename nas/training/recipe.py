"""Recipes: how to train a supernet, search it, and train a network from scratch."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from nas.data import Augmentation
from nas.networks.precision import autocast
from nas.yaml_files import read_yaml, validate

FORMAT = "recipe 1"
SMALL_BATCH = 16  # images, below which no batch is made to fit


MOST_EPOCHS = 1e6
CONSTANT = 0.8  # of a training with rungs its rate does not fall, nor later than the last rung (as Haegele et al. found to be enough)
Epochs = Annotated[float, Field(gt=0, lt=MOST_EPOCHS, allow_inf_nan=False)]


class Phase(BaseModel):
    """How one training goes: AdamW with a linear warm-up and a cosine to `min_lr`. Give `epochs` or `steps`.

    With `rungs` (steps, ascending) the network is also evaluated on the way. The figure of a rung must not depend on how long the training is
    to be: the rate then stays at `lr` after the warm-up, which is a share of the first rung, up to the last rung, and to four fifths of the steps
    at least; from there it falls to `min_lr` in a line. Give `ema` with it, since averaged weights do at a constant rate what a falling rate does
    (Haegele et al., https://arxiv.org/abs/2405.18392).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: Epochs | None = None
    steps: Annotated[StrictInt, Field(ge=1)] | None = None
    batch_size: Annotated[StrictInt, Field(ge=2)]
    lr: Annotated[float, Field(gt=0)]
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05  # none on norms, scales and biases
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05  # share of the steps
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    accumulate: Annotated[StrictInt, Field(ge=1)] = 1  # parts in which a process does its images of a batch, where they do not fit at once
    recompute: StrictBool = False  # blocks keep their inputs alone for the backward pass and run twice: less memory, more time
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the last block; standalone networks only
    ema: StrictBool = False  # evaluate an average of the weights over the last twentieth of the run
    rungs: tuple[Annotated[StrictInt, Field(ge=1)], ...] = ()
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _one_length(self) -> Phase:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs: steps must ascend: got {list(self.rungs)}")
        return self

    def with_length(self, epochs: float | None, steps: int | None) -> Self:
        """The phase with another length; with neither, the phase as it is.

        Raises:
            ValueError: both, or not a length.
        """
        if epochs is not None and steps is not None:
            raise ValueError("--steps: not with --epochs: got both; accepted: one of them.")
        if epochs is not None and not 0 < epochs < MOST_EPOCHS:
            raise ValueError(f"--epochs: out of range: got {epochs}; accepted: more than 0, less than {MOST_EPOCHS:,.0f}.")
        return self if epochs is None and steps is None else self.model_copy(update={"epochs": epochs, "steps": steps})

    def learning_rate(self, step: int, steps: int) -> float:
        """The rate of step `step`, from 0, of `steps`."""
        warmup = round(self.warmup * (self.rungs[0] if self.rungs else steps))
        if step < warmup:
            start = self.lr / warmup
            return start + step * (self.lr - start) / warmup
        if not self.rungs:
            return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * step / steps))
        left = (steps - step) / max(1, steps - max(round(CONSTANT * steps), self.rungs[-1]))
        return self.min_lr + (self.lr - self.min_lr) * min(1.0, left)

    def num_steps(self, steps_per_epoch: int) -> int:
        """Steps in all."""
        return self.steps if self.steps is not None else max(1, round(self.epochs * steps_per_epoch))  # type: ignore[operator]


class SearchSettings(BaseModel):
    """How many networks a search evaluates with the supernet's weights, in generations of `population`, with `batch_size` images at a time;
    and how the best are told apart: fine-tuned for so many steps, and `finalists` of them trained alone for so many epochs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    trials: Annotated[StrictInt, Field(ge=0)]  # with 0 there is no supernet: finalists alone decide
    population: Annotated[StrictInt, Field(ge=2)] = 50
    batch_size: Annotated[StrictInt, Field(ge=1)] = 500
    fine_tune: Annotated[StrictInt, Field(ge=1)] = 40  # steps
    finalists: Annotated[StrictInt, Field(ge=0)] = 0  # besides the networks drawn by hand; with 0 none of these is trained either
    finalist_epochs: Epochs = 9


class Recipe(BaseModel):
    """How to train a supernet, search it and retrain the winner; `bf16` says where autocast runs.

    `images` says for how many training images lengths and batches are meant; `fitted` makes them fit fewer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: str
    resolution: Annotated[StrictInt, Field(ge=1)] | None = None  # None: the images' own
    bf16: Literal["gpu", "auto", "always", "never"] = "gpu"  # auto: on a CPU too, where that is quicker
    images: Annotated[StrictInt, Field(ge=1)] | None = None
    supernet: Phase
    search: SearchSettings
    retrain: Phase

    @model_validator(mode="after")
    def _whole_networks(self) -> Recipe:
        if self.supernet.drop_path or self.supernet.rungs:
            name, got = ("drop_path", self.supernet.drop_path) if self.supernet.drop_path else ("rungs", list(self.supernet.rungs))
            raise ValueError(
                f"supernet.{name}: for networks trained alone: got {got}; accepted: none. Take it away, or put it under retrain."
            )
        return self

    def fitted(self, images: int, mirrored: bool) -> Recipe:
        """For so many training images, with `flip: auto` settled.

        With fewer than the recipe is meant for a training has fewer steps and more epochs, both by the square root of the ratio: as many epochs
        would be hardly any steps, and as many steps hundreds of epochs. A batch is at most an eighth of the images (a power of two), but not
        below 16 where there are so many, and the rate then falls by the square root of its part.
        """
        ratio = math.sqrt(max(1.0, (self.images or 0) / images))
        fit = images - images // 5  # what is left where images are held out
        most = min(max(SMALL_BATCH, 2 ** int(math.log2(max(2, images // 8)))), max(2, fit // 2 * 2))  # even: images may be mixed in pairs

        def fitting(phase: Phase) -> Phase:
            batch = phase.batch_size if self.images is None else min(phase.batch_size, most)
            changed: dict[str, Any] = {}
            if ratio > 1:
                epochs, steps = phase.epochs, phase.steps
                changed = {"epochs": epochs and round(epochs * ratio, 1), "steps": steps and max(1, round(steps / ratio))}
            if batch < phase.batch_size:
                changed |= {"batch_size": batch, "lr": float(f"{phase.lr * math.sqrt(batch / phase.batch_size):.3g}")}
            if phase.augmentation.flip == "auto":
                changed["augmentation"] = phase.augmentation.model_copy(update={"flip": mirrored})
            return phase.model_copy(update=changed)

        search = self.search
        if ratio > 1:
            search = search.model_copy(update={"finalist_epochs": round(search.finalist_epochs * ratio, 1)})
        return self.model_copy(
            update={"images": None, "supernet": fitting(self.supernet), "search": search, "retrain": fitting(self.retrain)}
        )

    def changed(self, trains: Literal["supernet", "retrain"], flip: bool | None, **said: float | None) -> Recipe:
        """With what a user says instead: of the images (`flip`) for all trainings, entries of one's phase for it; None leaves what is there."""
        recipe = self
        if flip is not None:
            for name in ("supernet", "retrain"):
                phase: Phase = getattr(recipe, name)
                other = phase.model_copy(update={"augmentation": phase.augmentation.model_copy(update={"flip": flip})})
                recipe = recipe.model_copy(update={name: other})
        changes = {name: value for name, value in said.items() if value is not None}
        return recipe.model_copy(update={trains: getattr(recipe, trains).model_copy(update=changes)}) if changes else recipe

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """bfloat16 autocast where the recipe wants it; a new context at each call."""
        return autocast(self.bf16, device)


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe file.

    Raises:
        ValueError: an error in the file, with its place.
    """
    return validate(Recipe, read_yaml(path, format=FORMAT), str(path))


def shortened(recipe: Recipe) -> Recipe:
    """The recipe with next to nothing of everything, for tests."""
    short = {"epochs": None, "steps": 2, "batch_size": 8}
    return recipe.model_copy(
        update={
            "images": None,
            "supernet": recipe.supernet.model_copy(update=short),
            "search": recipe.search.model_copy(
                update={"trials": 4, "population": 4, "fine_tune": 2, "finalists": 0, "finalist_epochs": 0.02}
            ),
            "retrain": recipe.retrain.model_copy(update=short),
        }
    )
