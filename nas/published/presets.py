"""The published networks: their files in `search_spaces/presets/`, and the figures of their papers beside exact counts (docs/networks.md)."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from nas import HOME
from nas.cost import cost
from nas.networks.architecture import Architecture, read_architecture
from nas.networks.blocks import Head
from nas.yaml_files import did_you_mean, one_line_error, validate

FOLDER = HOME / "search_spaces" / "presets"
MISFIT = "*"  # beside a published figure that the exact count does not round to

System = Literal["SPACH", "MLP-Mixer", "ResMLP", "S2-MLP", "S2-MLPv2", "AS-MLP", "ViP"]
Printed = Annotated[StrictInt, Field(gt=0)] | Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]


class Published(BaseModel):
    """What a paper prints of a network, None where it prints nothing.

    Digits count: 30 millions are 29.5 to 30.5, and 30.0 millions are 29.95 to 30.05.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[StrictStr, Field(min_length=1)]
    system: System
    params_M: Printed | None = None  # millions
    params_with_head: StrictBool | None = None  # whether the classifier is among them
    gflops: Printed | None = None  # billions of multiply-adds
    top1: Printed | None = None  # accuracy on ImageNet-1k in percent

    @model_validator(mode="after")
    def _says_what_it_counts(self) -> Published:
        if (self.params_M is None) != (self.params_with_head is None):
            one = "params_M" if self.params_with_head is None else "params_with_head"
            raise ValueError(f"{one} alone: params_M and params_with_head belong together. Give both or neither.")
        return self


class Figure(NamedTuple):
    """A published figure, in millions of parameters or billions of multiply-adds, beside the exact count of the same thing."""

    quantity: Literal["params", "macs"]
    published: int | float
    exact: int

    @property
    def unit(self) -> tuple[int, str]:
        return (10**6, "M") if self.quantity == "params" else (10**9, "G")

    @property
    def difference(self) -> int:
        """Exact count less the published figure."""
        return int(self.exact - Decimal(repr(self.published)) * self.unit[0])  # by its digits: 4.4 is 4.4 to the last bit

    @property
    def fits(self) -> bool:
        """Whether the count is within half a unit of the last printed digit."""
        decimals = len(repr(self.published).partition(".")[2])
        return 2 * abs(self.difference) <= Decimal(self.unit[0]) / 10**decimals


@dataclass(frozen=True)
class Preset:
    """A published network: its file's name, what it is, and what its paper says of it."""

    name: str
    architecture: Architecture
    published: Published

    @property
    def head_params(self) -> int:
        """Weights and biases of the classifier."""
        return Head.cost(self.architecture.stages[-1].width, self.architecture.frame.classes, norm="none", eps=0.0).params

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The published figures that can be counted."""
        macs, params, _ = cost(self.architecture)
        given, found = self.published, []
        if given.params_M is not None:
            found.append(Figure("params", given.params_M, params if given.params_with_head else params - self.head_params))
        if given.gflops is not None:
            found.append(Figure("macs", given.gflops, macs))
        return tuple(found)

    @property
    def misfits(self) -> tuple[Figure, ...]:
        return tuple(figure for figure in self.figures if not figure.fits)


def preset_names() -> list[str]:
    """The names of all presets, in the order of the alphabet."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of a preset; a ValueError with the nearest name when there is none of this one."""
    known = preset_names()
    if name not in known:
        near = did_you_mean(re.sub("[^a-z0-9]", "_", name.lower()), known)  # of a published name, "AS-MLP-T", the file's
        raise one_line_error(f"unknown preset {name!r}; known: the {len(known)} names that `python launch.py presets` prints.{near}")
    return FOLDER / f"{name}.yaml"


def architecture_file(given: Path) -> Path:
    """An architecture's file by its path, or by the name of a published network.

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


def network_file(given: str, runs: Path) -> Path:
    """The same, or a run by its name or folder: the winner of its last search, or else the network that it trained.

    Raises:
        ValueError: a run that has neither, or as `architecture_file`.
    """
    for folder in (Path(given), runs / given):
        if folder.is_dir():
            found = next((path for path in (folder / "best.yaml", folder / "result.yaml") if path.exists()), None)
            if found is None:
                raise one_line_error(
                    f"{folder}: no network in it yet: got no {folder / 'best.yaml'} and no result.yaml; accepted: a run that ended. Wait for it."
                )
            return found
    return architecture_file(Path(given))


def read_preset(name: str) -> Preset:
    """A published network by its name, `as_mlp_t`; a ValueError of one line when there is none, or its file has an error."""
    path = preset_path(name)
    architecture, data = read_architecture(path)
    published = validate(Published, data.get("published"), f"{path}: published")
    try:
        cost(architecture)
    except ValueError as error:  # a mixer that does not exist, say
        raise ValueError(f"{path}: {error}") from None
    return Preset(name, architecture, published)


@functools.cache  # a search asks twice
def read_presets() -> tuple[Preset, ...]:
    """All of them, by system and size."""
    presets = [read_preset(name) for name in preset_names()]
    return tuple(sorted(presets, key=lambda each: (get_args(System).index(each.published.system), *cost(each.architecture)[:2], each.name)))


_RIGHT = (False, True, True, False, False, True)  # whether a column of `_cells` stands to the right


def rows() -> list[dict[str, Any]]:
    """A flat dict for each preset, by system and size: what it is, counts, published figures (None where there are none)."""
    return [
        {
            "name": preset.name,
            "key": preset.architecture.key,
            **cost(preset.architecture)._asdict(),
            "published_name": preset.published.name,
            **{f"published_{name}": value for name, value in preset.published.model_dump(exclude={"name", "system"}).items()},
            "system": preset.published.system,
            "misfits": [figure.quantity for figure in preset.misfits],
        }
        for preset in read_presets()
    ]


def _cells(preset: Preset) -> tuple[str, ...]:
    """Exact parameters and multiply-adds, then what was published of both and of the accuracy, `-` for nothing."""
    macs, params, _ = cost(preset.architecture)
    printed = {"params": "-", "macs": "-"}
    for figure in preset.figures:
        without = " (no head)" if figure.quantity == "params" and not preset.published.params_with_head else ""
        printed[figure.quantity] = f"{figure.published} {figure.unit[1]}{'' if figure.fits else MISFIT}{without}"
    return f"{params:,}", f"{macs:,}", printed["params"], printed["macs"], str(preset.published.top1 or "-")


def as_table() -> str:
    """The table for a terminal."""
    head = ("network", "params", "MACs", "published params", "published FLOPs", "top-1")
    lines = [head, *((preset.name, *_cells(preset)) for preset in read_presets())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    justified = (
        [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(line, widths, _RIGHT, strict=True)]
        for line in lines
    )
    text = [
        *map("  ".join, justified),
        "Counts at 224 px with 1000 classes. One multiply-add counts as one, as in the papers' FLOPs.",
        f"{MISFIT} the exact count does not round to the published figure; (no head): published without the classifier. See docs/networks.md.",
    ]
    return "\n".join(text) + "\n"
