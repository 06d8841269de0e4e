"""What a training is about besides the network: images, recipe, resolution, device and seed, checked before work begins."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from nas import HOME
from nas.cost import cost
from nas.data import Augmentation, Data, DataSource, open_data
from nas.machine import cores, program_digest
from nas.networks.architecture import MAX_RESOLUTION, Architecture, Frame
from nas.networks.layers import check_layers
from nas.networks.precision import bf16_note
from nas.quantities import format_quantity
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.runs.records import Begun, NetworkRecord, digest, read_record
from nas.training.given import Given
from nas.training.imagined import imagined
from nas.training.loop import Autocast
from nas.training.ranks import ALONE, Ranks
from nas.training.recipe import Phase, Recipe, read_recipe, shortened
from nas.yaml_files import did_you_mean, validate

SMALL_IMAGES = 64  # up to this resolution the default recipe is cifar's
LARGE_SET = 200_000  # of larger images: from so many on it is ImageNet's
DIGITS = "digits"
CLASSES = 1000  # of images that are made up, where nobody says how many
FINE = 0.1  # of the rate, where a training begins with trained weights
MOST_MACS = 1e13  # of a network for one image; more takes minutes to hours of all cores in one operation, which not even Ctrl-C ends
TRIES = 32  # resolutions that are tried on each side of one that cannot be
LONG_LOOK = 30.0  # seconds; what takes longer is not done twice for the same files


@dataclass(frozen=True)
class Setting:
    """Images, recipe, resolution, device and seed of a command."""

    source: DataSource
    data: str  # how to come back to it: a name, or an absolute path
    data_root: str | None
    recipe: Recipe
    recipe_name: str
    resolution: int
    device: torch.device
    seed: int
    loaders: int | None = None
    flip: bool | None = None  # where the user decided it
    init: Path | None = None  # a weights file that a retraining begins with
    notes: tuple[str, ...] = ()  # what was chosen by the data, and why, a sentence each
    ranks: Ranks = ALONE  # that train together

    @property
    def frame(self) -> Frame:
        """What networks are trained for."""
        return Frame(self.resolution, self.source.channels, len(self.source.classes))

    @cached_property
    def images(self) -> Data:
        loaders = max(1, cores() // self.ranks.local[1]) if self.loaders is None else self.loaders
        return self.source.load(self.resolution, self.device, loaders, part=self.ranks.part)

    @property
    def where(self) -> str:
        """On what it is trained, in words."""
        return f"{self.ranks.count} processes, {self.device.type}" if self.ranks.count > 1 else str(self.device)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where images are read from, if that has been named by a path."""
        return tuple(Path(each) for each in (self.data, self.data_root) if each and Path(each).is_absolute())

    @property
    def autocast(self) -> Autocast:
        return partial(self.recipe.autocast, self.device)

    def check(self, architecture: Architecture) -> None:
        """Refuses a network that is too large at the resolution trained at: attention's cost grows with the fourth power of the side.

        Raises:
            ValueError: it is; one line.
        """
        if (macs := cost(architecture.at(self.frame)).macs) > MOST_MACS:
            raise ValueError(
                f"--resolution: too much for one image: got {format_quantity('macs', macs)} at {self.resolution} px; accepted: at most "
                f"{format_quantity('macs', MOST_MACS)}. Give a lower one."
            )

    def agree(self) -> None:
        """Refuses, where several processes train together, one that has other images or another program than the first.

        Raises:
            ValueError: this one has; one line.
        """
        if self.ranks.count > 1:
            self.ranks.agree({"images": self.source.fingerprint, "program": program_digest()})

    def record(self) -> dict[str, Any]:
        """The entries by which a run or a winner says what it was made with, as `Begun` reads them."""
        return {
            "data": self.data,
            **({"data_root": self.data_root} if self.data_root else {}),
            "data_fingerprint": self.source.fingerprint,
            "recipe": self.recipe_name,
            "resolution": self.resolution,
            "seed": self.seed,
            "train_images": self.source.num_images["train"],
            "classes": len(self.source.classes),
            **({"flip": self.flip} if self.flip is not None else {}),
        }

    def as_begun(self, begun: NetworkRecord | None, given: Given, epochs: float | None, steps: int | None) -> Setting:
        """With the retraining as it began, if it did: whole where the user names no recipe, or else in its length; what the user says counts."""
        recipe = self.recipe
        if begun and given.recipe is None and not given.smoke:
            recipe = recipe.model_copy(update={"retrain": validate(Phase, begun.phase, "run.yaml: phase")})
            recipe = given.changing(recipe)
        elif begun and epochs is None and steps is None:
            epochs, steps = begun.phase.get("epochs"), begun.phase.get("steps")
        return replace(self, recipe=recipe.model_copy(update={"retrain": recipe.retrain.with_length(epochs, steps)}))

    def network_record(self, architecture: Architecture, found_at: Path) -> NetworkRecord:
        """With what the retraining of a network begins."""
        phase = self.recipe.retrain.model_dump(mode="json", exclude_none=True)
        begun = {"architecture": architecture.key, "bf16": self.recipe.bf16, "found_at": str(found_at), "phase": phase, **self.record()}
        return NetworkRecord(init=digest(self.init) if self.init else None, **begun)

    def beginning_with(self, init: Path, lr: float | None) -> Setting:
        """With weights that a retraining begins with, and a tenth of its rate where the user says none."""
        if lr is not None:
            return replace(self, init=init)
        phase = self.recipe.retrain.model_copy(update={"lr": self.recipe.retrain.lr * FINE})
        note = (
            f"The rate is {phase.lr:g}, a tenth of the recipe's, since training begins with weights that are trained; --lr gives another."
        )
        return replace(self, init=init, recipe=self.recipe.model_copy(update={"retrain": phase}), notes=(*self.notes, note))


def open_setting(
    given: Given,
    stride: int,
    largest: int,
    begun_recipe: dict[str, Any] | None = None,
    source: DataSource | None = None,
    possible: Callable[[int], object] = lambda side: None,
) -> Setting:
    """Opens the data and the recipe and settles resolution and device.

    Args:
        given: what the user said.
        stride: the resolution is a multiple of it.
        largest: resolution above which images are scaled down, where nobody said another.
        begun_recipe: the recipe's content when the run began, which counts where the user names no other.
        source: the images, where they are opened already.
        possible: raises a ValueError for a resolution that the networks cannot have; `largest` is one that they can.

    Raises:
        ValueError: an option cannot be used; one line.
    """
    source, device = source or open_source(given), open_device(given.device, given.ranks)
    data = source.name if given.images is not None else DIGITS if given.data is None else given.data
    if Path(data).expanduser().is_dir() and data != DIGITS:
        data = str(Path(data).expanduser().resolve())
    root = str(Path(given.data_root).expanduser().resolve()) if given.data_root else None
    name = _usual_recipe(source, data, device) if given.recipe is None else given.recipe
    recipe, notes = _recipe(given, begun_recipe, name, source)
    if given.recipe is None and begun_recipe is None and name != DIGITS:
        notes = (f"Recipe {name}, for images of {source.resolution} px on this {device.type}; --recipe names another.", *notes)
    notes = (source.note, *notes) if source.note else notes
    if note := bf16_note(recipe.bf16, device):
        notes = (*notes, note)
    if said := given.resolution or recipe.resolution:
        _check_resolution(said, stride, largest, possible)
        resolution = said
    else:
        resolution, further = _usual_resolution(source, stride, largest, possible)
        notes = (*notes, *further)
    if given.seed is not None and given.seed >= 2**63:  # what torch takes
        raise ValueError(f"--seed: out of range: got {given.seed}; accepted: whole numbers below 2**63.")
    return Setting(
        source, data, root, recipe, name, resolution, device, given.seed or 0, given.loaders, given.flip, notes=notes, ranks=given.ranks
    )


def _usual_resolution(source: DataSource, stride: int, largest: int, possible: Callable[[int], object]) -> tuple[int, tuple[str, ...]]:
    """The resolution where nobody named one, and what is to be said of it: the images' own, or the next one that the networks can have."""
    wanted = min(-(-source.resolution // stride) * stride, largest)
    if (why := _why_not(wanted, possible)) is None:
        return wanted, ()
    side = next(side for side in range(wanted + stride, largest + 1, stride) if side == largest or _why_not(side, possible) is None)
    return side, (f"Images are scaled to {side} px, the next size that the networks can have: {why}.",)


def _check_resolution(side: int, stride: int, largest: int, possible: Callable[[int], object]) -> None:
    """Refuses a resolution that the networks cannot have, and names those next to it that they can."""
    if side > MAX_RESOLUTION:
        raise ValueError(f"--resolution: too large: got {side}; accepted: at most {MAX_RESOLUTION}. Take a smaller one.")
    if (why := _why_not(side, possible)) is None:
        return
    below = range((side - 1) // stride * stride, 0, -stride)[:TRIES]
    above = range((side // stride + 1) * stride, min(2 * max(side, largest), MAX_RESOLUTION) + 1, stride)[:TRIES]
    found = [next((each for each in sides if _why_not(each, possible) is None), None) for sides in (below, above)]
    taken = [each for each in found if each is not None] or [largest]
    raise ValueError(
        f"--resolution: not for these networks: got {side} ({why}); accepted next to it: {' and '.join(map(str, taken))}. "
        f"Give --resolution {min(taken, key=lambda each: abs(each - side))}."
    )


def _why_not(side: int, possible: Callable[[int], object]) -> str | None:
    """Why networks cannot have a resolution, without advice; None: they can."""
    try:
        possible(side)
    except ValueError as error:
        return re.sub(r"\.( Take \d+\.)?$", "", str(error))
    return None


def open_source(given: Given) -> DataSource:
    """The images that the user named or only told of, or digits; nothing is decoded.

    Raises:
        ValueError: the data set is unknown or cannot be used; one line.
    """
    if given.images is not None:
        if given.data is not None:
            raise ValueError(
                "--images: not with --data: got both; accepted: one of them, --images for a set that is not here. Leave one out."
            )
        return imagined(given.images, given.classes or CLASSES, given.resolution)
    return open_data(DIGITS if given.data is None else given.data, Path(given.data_root) if given.data_root else None)


def _usual_recipe(source: DataSource, data: str, device: torch.device) -> str:
    """The recipe where nobody named one."""
    if data == DIGITS:
        return DIGITS
    if source.resolution > SMALL_IMAGES and source.num_images["train"] >= LARGE_SET:
        return "imagenet"
    return ("cifar" if source.resolution <= SMALL_IMAGES else "photos") + "_cpu" * (device.type != "cuda")


def _recipe(given: Given, begun: dict[str, Any] | None, name: str, source: DataSource) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe for these images with what the user said of it, and what is to be said of that."""
    written = validate(Recipe, begun, "run.yaml: recipe") if begun else read_recipe(shipped("recipes", name, "--recipe"))
    written = shortened(written) if given.smoke else written
    images, unmirrored, notes = source.num_images["train"], source.unmirrored, []
    fitted = written.fitted(images, mirrored=unmirrored is None)
    if (ratio := f"{math.sqrt(max(1.0, (written.images or 0) / images)):.1f}") != "1.0":
        notes.append(
            f"Recipe {name} is meant for {written.images:,} training images: with {images:,} a training has fewer steps and more epochs, "
            f"by {ratio}, the square root of the ratio, and a batch is at most an eighth of them (or 16)."
        )
    if written.retrain.augmentation.flip == "auto" and unmirrored and given.flip is None:
        notes.append(f"Images are not mirrored: {unmirrored}. --flip mirrors them.")
    elif written.retrain.augmentation.flip == "auto" and given.flip is None:
        notes.append("Images are mirrored at random; --no-flip for writing and signs.")
    return given.changing(fitted), tuple(notes)


def open_as_found(given: Given, found: Begun, architecture: Architecture, possible: Callable[[int], object] | None = None) -> Setting:
    """The setting for a network of a file: what was not said is as when it was found, but other images have their own recipe and resolution.

    The same images may be named again, also by another path. `possible` is as for `open_setting`, where other networks are trained beside it.

    Raises:
        ValueError: as `open_setting`.
    """
    as_found = given.or_else(found)
    source = open_source(as_found)
    same = found.data_fingerprint == source.fingerprint
    whole = as_found if same or given.data is None else given

    def of_it(side: int) -> None:
        if side != architecture.frame.resolution:
            check_layers(architecture.at(replace(architecture.frame, resolution=side)))

    setting = open_setting(whole, architecture.stride, architecture.frame.resolution, source=source, possible=possible or of_it)
    setting.check(architecture)
    if given.data is None and found.data_fingerprint is not None and not same:
        print(f"The images of {setting.data} are not those that the network was found with: files were changed, added or removed.")
    return setting


def look_at_images(
    setting: Setting, run: Run, training: Augmentation | None, stop: Callable[[], bool] = lambda: False, remember: bool = True
) -> None:
    """Looks at the files of all splits, the test's among them, before anything is spent; a long look is remembered in the run.

    Of several processes the first one looks for all.

    Args:
        setting: whose images.
        run: that is about to begin or to go on.
        training: how this process will train; None: it will not.
        stop: asked on the way.
        remember: whether this process holds the run.

    Raises:
        ValueError: broken images; one line.
        Stopped: `stop` became true.
    """

    def heed() -> None:
        if stop():
            raise Stopped("the look at the images stopped")

    setting.ranks.of_first(lambda: _look(setting, run, training, heed, remember))


def _look(setting: Setting, run: Run, training: Augmentation | None, heed: Callable[[], None], remember: bool) -> None:
    if read_record(run).images_looked_at == setting.source.fingerprint:
        return
    new = setting.images.looked is None
    undecoded = setting.images.check(training, heed)
    if undecoded and new:
        print(
            f"Not decoded before they are used: {undecoded:,} images of {setting.source.name}. Their headers and endings are whole.",
            flush=True,
        )
    assert setting.images.looked is not None
    if remember and setting.images.looked[1] > LONG_LOOK:
        run.record(images_looked_at=setting.source.fingerprint)


def shipped(folder: str, name: str, option: str) -> Path:
    """A YAML file by its path, or by its name in a folder of the project.

    Raises:
        ValueError: neither.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    found = HOME / folder / f"{name}.yaml"
    if not found.exists():
        known = sorted(each.stem for each in (HOME / folder).glob("*.yaml"))
        raise ValueError(f"{option}: unknown: got {name!r}; accepted: {', '.join(known)}, or a YAML file.{did_you_mean(name, known)}")
    return Path(os.path.relpath(found)) if found.is_relative_to(Path.cwd()) else found


def open_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one. Each of several processes of a machine has a GPU of its own.

    Raises:
        ValueError: no such device.
    """
    if name in ("auto", "cuda") and ranks.count > 1 and torch.cuda.is_available():
        return ranks.gpu()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    meant = " Did you mean 'cuda'?" if kind.lower() == "gpu" else did_you_mean(name, ("auto", "cpu", "cuda"))
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"--device: got {name!r}; accepted: auto, cpu, cuda, cuda:N.{meant}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device: no usable GPU here: got {name!r}; accepted: cpu or auto. Check the driver with nvidia-smi.")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ValueError(f"--device: no such GPU: got {name!r}; accepted: cuda:0 to cuda:{torch.cuda.device_count() - 1}.")
    if index and ranks.count > 1:
        raise ValueError(f"--device: one GPU for several processes: got {name!r}; accepted: cuda, which gives each its own. Take that.")
    return torch.device(name)
