"""What the user said of a training, on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nas.runs.records import Begun
from nas.training.ranks import ALONE, Ranks
from nas.training.recipe import Recipe


@dataclass(frozen=True)
class Given:
    """What the user said of a setting; None where nothing was said."""

    data: str | None = None  # digits, a folder, or the name of a torchvision data set, which is in `data_root`
    data_root: str | None = None
    recipe: str | None = None  # a name in recipes/, or a YAML file
    resolution: int | None = None  # side of the images in training, in pixels
    device: str = "auto"  # or cpu, cuda, cuda:N
    seed: int | None = None
    loaders: int | None = None  # processes or threads that decode images
    smoke: bool = False  # a few steps and trials
    flip: bool | None = None  # whether images are mirrored at random
    batch_size: int | None = None  # of what the command trains; the next three likewise, the rate for the batch as it is
    lr: float | None = None
    accumulate: int | None = None
    recompute: bool | None = None
    images: int | None = None  # of a set that is not here, whose images are made up; with so many classes
    classes: int | None = None
    trains: Literal["supernet", "retrain"] = "supernet"  # the part of the recipe that the command trains with
    ranks: Ranks = ALONE  # that run the command together

    @staticmethod
    def of(options: dict[str, Any], trains: Literal["supernet", "retrain"] = "supernet", ranks: Ranks = ALONE) -> Given:
        """Of the options of a command line, by name."""
        named = {name: options[name] for name in Given.__dataclass_fields__ if name in options}
        return Given(**named, trains=trains, ranks=ranks)

    def changing(self, recipe: Recipe) -> Recipe:
        """A recipe with what was said instead of its entries."""
        said = {name: getattr(self, name) for name in ("batch_size", "lr", "accumulate", "recompute")}
        return recipe.changed(self.trains, self.flip, **said)

    def unusual(self) -> list[str]:
        """What the name of a run that nobody named also says."""
        said = {
            f"{self.resolution}px": self.resolution, "flip" if self.flip else "no_flip": self.flip, f"batch{self.batch_size}": self.batch_size,
            f"lr{self.lr}": self.lr,
        }  # fmt: skip
        return [name for name, value in said.items() if value is not None] + ["smoke"] * self.smoke

    def or_else(self, begun: Begun) -> Given:
        """What was not said is as it was when the run, or the search that found the network, began.

        Raises:
            ValueError: only told of are images, and the run has some.
        """
        if self.images is not None and begun.data:
            raise ValueError(
                f"--images: not with a run that has its own: got {self.images} beside {begun.data}; accepted: a set that is not here, or that run. Leave one "
                "of --images and --run out."
            )
        found: dict[str, Any] = {name: getattr(begun, name) for name in ("resolution", "seed", "flip") if getattr(self, name) is None}
        if self.data is None:
            found |= {"data": begun.data, "data_root": self.data_root or begun.data_root}
        if self.recipe is None:
            found["recipe"] = begun.recipe
        return Given(**{**self.__dict__, **found})
