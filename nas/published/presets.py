"""The published networks: their files in `search_spaces/presets/`, and the figures of their papers beside exact counts.

`python launch.py presets` prints the table.
"""

from __future__ import annotations

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
from nas.yaml_files import did_you_mean, validate

FOLDER = HOME / "search_spaces" / "presets"
MISFIT = "*"  # beside a published figure that the exact count does not round to

System = Literal["SPACH", "MLP-Mixer", "ResMLP", "S2-MLP", "S2-MLPv2", "AS-MLP", "ViP"]
Printed = Annotated[StrictInt, Field(gt=0)] | Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]


class Paper(NamedTuple):
    """Where a system was published; `code` is the authors' repository on GitHub, where there is one."""

    title: str
    arxiv: str
    code: str | None

    @property
    def link(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}"


PAPERS: dict[str, Paper] = {
    "SPACH": Paper("A Battle of Network Structures: An Empirical Study of CNN, Transformer, and MLP", "2108.13002", "microsoft/SPACH"),
    "MLP-Mixer": Paper("MLP-Mixer: An all-MLP Architecture for Vision", "2105.01601", "google-research/vision_transformer"),
    "ResMLP": Paper(
        "ResMLP: Feedforward networks for image classification with data-efficient training", "2105.03404", "facebookresearch/deit"
    ),
    "S2-MLP": Paper("S2-MLP: Spatial-Shift MLP Architecture for Vision", "2106.07477", None),
    "S2-MLPv2": Paper("S2-MLPv2: Improved Spatial-Shift MLP Architecture for Vision", "2108.01072", None),
    "AS-MLP": Paper("AS-MLP: An Axial Shifted MLP Architecture for Vision", "2107.08391", "svip-lab/AS-MLP"),
    "ViP": Paper("Vision Permutator: A Permutable MLP-Like Architecture for Visual Recognition", "2106.12368", "houqb/VisionPermutator"),
}
assert tuple(PAPERS) == get_args(System)


# ---- one preset --------------------------------------------------------------------------------------------------------


class Published(BaseModel):
    """What a paper prints of a network, None where it prints nothing.

    Digits count: 30 millions are 29.5 to 30.5, and 30.0 millions are 29.95 to 30.05.

    Attributes:
        params_M: parameters in millions.
        params_with_head: whether the classifier is among them.
        gflops: multiply-adds in billions.
        top1: accuracy on ImageNet-1k in percent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[StrictStr, Field(min_length=1)]
    system: System
    params_M: Printed | None = None
    params_with_head: StrictBool | None = None
    gflops: Printed | None = None
    top1: Printed | None = None

    @model_validator(mode="after")
    def _says_what_it_counts(self) -> Published:
        if (self.params_M is None) != (self.params_with_head is None):
            one = "params_M" if self.params_with_head is None else "params_with_head"
            raise ValueError(f"{one} alone: params_M and params_with_head belong together. Give both or neither.")
        return self


class Figure(NamedTuple):
    """A published figure beside the exact count of the same thing.

    Attributes:
        quantity: `params` (without the classifier, where the paper leaves it out) or `macs`.
        published: as printed, in millions of parameters or billions of multiply-adds.
    """

    quantity: Literal["params", "macs"]
    published: int | float
    exact: int

    @property
    def unit(self) -> int:
        return 10**6 if self.quantity == "params" else 10**9

    @property
    def difference(self) -> int:
        """Exact count less the published figure."""
        return int(self.exact - Decimal(repr(self.published)) * self.unit)

    @property
    def fits(self) -> bool:
        """Whether the count is within half a unit of the last printed digit."""
        printed = Decimal(repr(self.published))  # keeps the digits, and 4.4 is 4.4 to the last bit
        last_digit = Decimal((0, (1,), printed.as_tuple().exponent))  # type: ignore[arg-type]  # no infinity gets here
        return abs(self.exact - printed * self.unit) <= last_digit / 2 * self.unit


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
        found: list[Figure] = []
        if self.published.params_M is not None:
            found.append(Figure("params", self.published.params_M, params - (0 if self.published.params_with_head else self.head_params)))
        if self.published.gflops is not None:
            found.append(Figure("macs", self.published.gflops, macs))
        return tuple(found)

    @property
    def misfits(self) -> tuple[Figure, ...]:
        return tuple(figure for figure in self.figures if not figure.fits)


class _Entry(BaseModel):
    """Where a file has what was published."""

    published: Published


def preset_names() -> list[str]:
    """The names of all presets, in the order of the alphabet."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_path(name: str) -> Path:
    """The file of a preset.

    Raises:
        ValueError: there is none of this name.
    """
    known = preset_names()
    if name not in known:
        near = did_you_mean(re.sub("[^a-z0-9]", "_", name.lower()), known)  # of a published name, "AS-MLP-T", the file's
        raise ValueError(f"unknown preset {name!r}; known: the {len(known)} names that `python launch.py presets` prints.{near}")
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


def read_preset(name: str) -> Preset:
    """A published network by its name, `as_mlp_t`.

    Raises:
        ValueError: there is none of this name, or its file has an error.
    """
    path = preset_path(name)
    architecture, data = read_architecture(path)
    published = validate(_Entry, data, str(path)).published
    try:
        cost(architecture)
    except ValueError as error:  # a mixer that does not exist, say
        raise ValueError(f"{path}: {error}") from None
    return Preset(name, architecture, published)


def read_presets() -> list[Preset]:
    """All of them, by system and size."""
    presets = [read_preset(name) for name in preset_names()]
    return sorted(presets, key=lambda each: (list(PAPERS).index(each.published.system), *cost(each.architecture)[:2], each.name))


# ---- tables ------------------------------------------------------------------------------------------------------------


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


def cells(preset: Preset) -> tuple[str, str, str, str, str]:
    """Exact parameters and multiply-adds, then what was published of both and of the accuracy, `-` for nothing."""
    macs, params, _ = cost(preset.architecture)
    printed = {"params": "-", "macs": "-"}
    for figure in preset.figures:
        unit = "M" if figure.quantity == "params" else "G"
        without = " (no head)" if figure.quantity == "params" and not preset.published.params_with_head else ""
        printed[figure.quantity] = f"{figure.published} {unit}{'' if figure.fits else MISFIT}{without}"
    return f"{params:,}", f"{macs:,}", printed["params"], printed["macs"], str(preset.published.top1 or "-")


def as_table() -> str:
    """The table for a terminal."""
    head = ("network", "params", "MACs", "published params", "published FLOPs", "top-1")
    lines = [head, *((preset.name, *cells(preset)) for preset in read_presets())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = (False, True, True, False, False, True)
    text = [
        "  ".join(cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in zip(line, widths, right, strict=True))
        for line in lines
    ]
    text += [
        "Counts at 224 px with 1000 classes. One multiply-add counts as one, as in the papers' FLOPs.",
        f"{MISFIT} the exact count does not round to the published figure; (no head): published without the classifier. See docs/networks.md.",
    ]
    return "\n".join(text) + "\n"
