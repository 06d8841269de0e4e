"""One point of a search space: which network, written out in values, with no reference to the space it came from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from nas.yaml_files import read_yaml, validate

FORMAT = "architecture 1"
MAX_RESOLUTION = 4096
_NO_OTHER_KEYS = ConfigDict(extra="forbid")

# What the fields below may say; a search space offers the same values.
NormKind = Literal["layer_norm", "group_norm", "affine"]
OptionalNorm = Literal["none", "layer_norm", "group_norm", "affine"]
StemKind = Literal["patch", "conv4"]
MergeKind = Literal["conv", "conv_norm", "gather"]
Scaled = Literal["none", "mixer", "both"]
TokenHidden = Literal["tokens", "channels"]
SplitPool = Literal["mean", "sum"]
NormEps = Annotated[StrictFloat, Field(gt=0, le=0.1)]
ScaleInit = Annotated[StrictFloat, Field(gt=0, le=10, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a network is made for: the side of its square images in pixels, their channels, and the number of classes."""

    __pydantic_config__ = _NO_OTHER_KEYS
    resolution: Annotated[StrictInt, Field(ge=1, le=MAX_RESOLUTION)]
    channels: Annotated[StrictInt, Field(ge=1, le=1024)]
    classes: Annotated[StrictInt, Field(ge=1, le=10**6)]


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one width on one grid.

    `mixers` has one name per block, so its length is the depth; a block of mixer `none` has no mixer's branch, and with `cpe` it is SPACH's
    convolution block. `sharing`: one mixer serves all blocks of the stage, which then name the same one; norms, scales, conditional
    position encodings (`cpe`) and channel MLPs stay each block's own. What only some mixers read:

    - `kernel`: side of the convolution;
    - `head_width` or `heads`: channels of an attention head, or how many heads there are; in a supernet a narrower stage has fewer heads by the
      first, narrower ones by the second;
    - `token_hidden`: whether the hidden width of a token MLP is half the number of tokens (SPACH) or half the width (MLP-Mixer);
    - `split_pool`: whether the split attention of S2-MLPv2 takes the mean over positions, or the sum that its paper writes.
    """

    __pydantic_config__ = _NO_OTHER_KEYS
    width: Annotated[StrictInt, Field(ge=1, le=65536)]
    mixers: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    mlp_ratio: Annotated[StrictFloat, Field(gt=0, le=64, allow_inf_nan=False)]  # a whole number is one too
    cpe: StrictBool = False
    sharing: StrictBool = False
    kernel: Annotated[StrictInt, Field(ge=1, le=255)] | None = None
    head_width: Annotated[StrictInt, Field(ge=1, le=65536)] | None = None
    heads: Annotated[StrictInt, Field(ge=1, le=65536)] | None = None
    token_hidden: TokenHidden = "tokens"
    split_pool: SplitPool = "mean"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_ratio", float(self.mlp_ratio))  # 2 equals 2.0 but is written otherwise: their keys would differ

    @property
    def depth(self) -> int:
        return len(self.mixers)


@dataclass(frozen=True)
class Architecture:
    """A network in values: frame, side of the stem's patches, stages, and the form of what stands around the mixers.

    Each further stage halves the grid. The forms:

    - `stem`: `patch`, one convolution over patches, or `conv4`, SPACH's four convolutions with batch norm; then `stem_norm`;
    - `norm`: before each mixer and each channel MLP; `final_norm`: before the mean over positions. Either kind is `layer_norm` (with
      `norm_eps`), `group_norm` (one group, over positions and channels) or `affine` (a scale and a shift per channel, no statistics);
    - `layer_scale`: on the branch of the mixer, on `both` branches of a block, or on `none`; it begins at `layer_scale_init`;
    - `merge`, between stages: `conv` (2x2 with bias), `conv_norm` (2x2 without bias, then group norm), `gather` (four tokens to one,
      group norm, linear without bias).

    A field that has no effect (the form of merging in one stage, say) is set to its default, so that equal networks are equal.
    """

    __pydantic_config__ = _NO_OTHER_KEYS
    frame: Frame
    patch: Annotated[StrictInt, Field(ge=1, le=256)]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16)]
    stem: StemKind = "patch"
    stem_norm: OptionalNorm = "layer_norm"
    norm: NormKind = "layer_norm"
    norm_eps: NormEps = 1e-6
    layer_scale: Scaled = "mixer"
    layer_scale_init: ScaleInit = 0.1  # smaller ones (1e-4, 1e-6 in the papers, for 300 epochs) do not grow in a short run
    merge: MergeKind = "conv"
    final_norm: OptionalNorm = "layer_norm"

    def __post_init__(self) -> None:
        for name in ("norm_eps", "layer_scale_init"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if "layer_norm" not in (self.stem_norm, self.norm, self.final_norm):
            object.__setattr__(self, "norm_eps", FORM_DEFAULTS["norm_eps"])
        if self.layer_scale == "none":
            object.__setattr__(self, "layer_scale_init", FORM_DEFAULTS["layer_scale_init"])
        if len(self.stages) == 1:
            object.__setattr__(self, "merge", FORM_DEFAULTS["merge"])

    @functools.cached_property
    def key(self) -> str:
        """Twelve hexadecimal digits, equal for equal architectures: what every cache goes by."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def stride(self) -> int:
        """Pixels of the image per token of the last stage, along one side."""
        return self.patch * 2 ** (len(self.stages) - 1)

    def at(self, frame: Frame) -> Architecture:
        """The same network for other images or classes."""
        return self if frame == self.frame else dataclasses.replace(self, frame=frame)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without options and forms at their defaults: what a YAML file holds."""

        def plain(item: Frame | Stage) -> dict[str, Any]:
            pairs = ((field, getattr(item, field)) for field in item.__dataclass_fields__)
            return {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in pairs
                if name not in OPTION_DEFAULTS or value != OPTION_DEFAULTS[name]
            }

        forms = {name: getattr(self, name) for name, default in FORM_DEFAULTS.items() if getattr(self, name) != default}
        return {"frame": plain(self.frame), "patch": self.patch, **forms, "stages": [plain(stage) for stage in self.stages]}

    @staticmethod
    def from_dict(data: object, place: str) -> Architecture:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a key or value is not an architecture's; `place` begins the message.
        """
        return validate(_Entry, {"architecture": data}, place).architecture


def _defaults(of: type, after: str) -> dict[str, Any]:
    """The defaults of the fields that come after one."""
    fields = dataclasses.fields(of)
    names = [field.name for field in fields]
    return {field.name: field.default for field in fields[names.index(after) + 1 :]}


FORM_DEFAULTS = _defaults(Architecture, after="stages")
OPTION_DEFAULTS = _defaults(Stage, after="sharing")


class _Entry(BaseModel):
    """Where a file has its architecture."""

    architecture: Architecture


def describe(architecture: Architecture) -> Iterator[str]:
    """An architecture for people: a line for its forms where they are not the usual ones, and one line for each stage."""
    forms = [f"{name} {value}" for name, value in architecture.to_dict().items() if name in FORM_DEFAULTS]
    if forms:
        yield ", ".join(forms)
    for i, stage in enumerate(architecture.stages):
        runs = [(mixer, len(list(blocks))) for mixer, blocks in itertools.groupby(stage.mixers)]
        mixers = " ".join(mixer if count == 1 else f"{mixer} x{count}" for mixer, count in runs)
        options = ((name, getattr(stage, name)) for name, default in OPTION_DEFAULTS.items() if getattr(stage, name) != default)
        extras = [f"mlp_ratio {stage.mlp_ratio:g}", *(f"{name} {value}" for name, value in options)]
        extras += ["cpe"] * stage.cpe + ["one shared mixer"] * stage.sharing
        yield f"stage {i}: width {stage.width}, {mixers} ({', '.join(extras)})"


def read_architecture(path: Path) -> tuple[Architecture, dict[str, Any]]:
    """The architecture of a YAML file and the file's other entries (costs, data, recipe and so on of a winner).

    Raises:
        ValueError: the file is missing, no YAML, of another format, or its architecture has an error.
    """
    data = read_yaml(path, format=FORMAT)
    if "architecture" not in data:
        raise ValueError(f"{path}: no key 'architecture': got {', '.join(data)}. Put the stages under 'architecture:'.")
    return Architecture.from_dict(data["architecture"], str(path)), data
