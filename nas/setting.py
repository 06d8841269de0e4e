"""What a command is about: its data, recipe, device and run, with everything checked that can be checked before work begins."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nas import HOME
from nas.data import Data, DataSource, open_data
from nas.networks.architecture import MAX_RESOLUTION, Frame
from nas.published.presets import preset_path
from nas.runs.folder import Run
from nas.training.loop import Phase, Recipe, read_recipe
from nas.yaml_files import did_you_mean

RUNS = Path("runs")
SMALL_IMAGES = 64  # up to this resolution the default recipe is cifar's


@dataclass
class Setting:
    """The data, recipe, device and run of a command, with everything checked that can be checked before work begins."""

    data_name: str
    data_root: Path | None
    recipe_name: str
    recipe: Recipe
    source: DataSource
    resolution: int
    device: torch.device
    seed: int

    @property
    def frame(self) -> Frame:
        """What networks are trained for."""
        return Frame(self.resolution, self.source.channels, len(self.source.classes))

    @cached_property
    def data(self) -> Data:
        return self.source.load(self.resolution, self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return self.recipe.autocast(self.device)

    def record(self) -> dict[str, Any]:
        """How to come back to this setting: the entries that best.yaml and run.yaml carry."""
        root = {"data_root": str(self.data_root)} if self.data_root else {}
        return {"data": self.data_name, **root, "recipe": self.recipe_name, "resolution": self.resolution, "seed": self.seed}


def make_setting(
    data: str | None,
    data_root: Path | None,
    recipe: str | None,
    resolution: int | None,
    device: str,
    seed: int,
    stride: int,
    largest: int,
    smoke: bool,
) -> Setting:
    data = "digits" if data is None else data
    if data and Path(data).is_dir():
        data = str(Path(data))  # with and without a slash at the end it is the same run
    source = open_data(data, data_root)
    default = "digits" if data == "digits" else "cifar" if source.resolution <= SMALL_IMAGES else "imagenet"
    recipe = default if recipe is None else recipe
    read = read_recipe(shipped("recipes", recipe, "--recipe"))
    if smoke:
        read = _smoke(read)
    wanted = resolution or read.resolution or min(-(-source.resolution // stride) * stride, largest)
    if wanted > MAX_RESOLUTION:
        raise ValueError(f"--resolution: too large: got {wanted}; accepted: at most {MAX_RESOLUTION}. Take a smaller one.")
    return Setting(data, data_root, recipe, read, source, wanted, _device(device), seed)


def _smoke(recipe: Recipe) -> Recipe:
    """The recipe with next to nothing of everything."""
    short = {"epochs": None, "steps": 2, "batch_size": 8}
    return recipe.model_copy(
        update={
            "supernet": recipe.supernet.model_copy(update=short),
            "search": recipe.search.model_copy(update={"trials": 4, "population": 4}),
            "retrain": recipe.retrain.model_copy(update=short),
        }
    )


def shipped(folder: str, name: str, option: str) -> Path:
    """A YAML file by its path, or by its name in a folder of the project."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    shipped = HOME / folder / f"{name}.yaml"
    if not shipped.exists():
        known = sorted(each.stem for each in (HOME / folder).glob("*.yaml"))
        raise ValueError(f"{option}: unknown: got {name!r}; accepted: {', '.join(known)}, or a YAML file.{did_you_mean(name, known)}")
    return Path(os.path.relpath(shipped)) if shipped.is_relative_to(Path.cwd()) else shipped


def architecture_file(given: Path) -> Path:
    """An architecture's file by its path, or by the name of a published network in search_spaces/presets/.

    Raises:
        ValueError: neither a path nor such a name.
    """
    if given.exists() or given.suffix in (".yaml", ".yml") or len(given.parts) > 1:
        return given
    try:
        path = preset_path(str(given))
    except ValueError as error:
        raise ValueError(f"{given}: no such file, and {error}") from None
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ValueError(
            f"--device: unknown: got {name!r}; accepted: auto, cpu, cuda, cuda:N.{did_you_mean(name, ('auto', 'cpu', 'cuda'))}"
        )
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device: no usable GPU here: got {name!r}; accepted: cpu or auto. Check the driver with nvidia-smi.")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ValueError(f"--device: no such GPU: got {name!r}; accepted: cuda:0 to cuda:{torch.cuda.device_count() - 1}.")
    return torch.device(name)


def with_length(phase: Phase, epochs: float | None, steps: int | None) -> Phase:
    """The phase with the length of the command line, if any."""
    if epochs is None and steps is None:
        return phase
    if epochs is not None and not 0 < epochs < 1e6:
        raise ValueError(f"--epochs: out of range: got {epochs}; accepted: more than 0.")
    return phase.model_copy(update={"epochs": epochs, "steps": steps})


def short_name(name: str) -> str:
    """A space's, data set's or recipe's short name for the name of a run."""
    return Path(name).stem if Path(name).suffix in (".yaml", ".yml") else Path(name).name


def open_run(name: str | None, parts: list[str], resolution: int | None, smoke: bool) -> Run:
    """The run of that name, or the default one: named after what is run."""
    if name is None:
        name = "-".join([*parts, *([f"{resolution}px"] if resolution else []), *(["smoke"] if smoke else [])])
        plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name).lstrip("._-")
        # Cut, a name would lose its recipe and seed, and two runs would become one.
        name = plain if len(plain) <= 64 else f"{plain[:55]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Run(name, RUNS)


def same_as_begun(run: Run, entry: str, wanted: dict[str, Any]) -> None:
    """Refuses to go on with a run that was begun with other settings."""
    begun = run.recorded().get(entry)
    if begun is None:
        return
    pairs = {key: (wanted[key], begun.get(key)) for key in wanted}
    new, old = pairs.pop("phase")
    pairs |= {key: (new.get(key, "none"), old.get(key, "none")) for key in {**old, **new}}  # name what differs, not the whole phase
    for key, (got, accepted) in pairs.items():
        if got != accepted:
            raise ValueError(
                f"{run.folder}: begun with another value of '{key}': got {got}; accepted: {accepted}. Take that, or another --run."
            )


class Stopped(Exception):
    """A command was interrupted and has left everything in order."""
