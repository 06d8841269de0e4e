"""One point of a search space: which network, written out in values, with no reference to the space it came from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, create_model

from nas.networks.mixers import MIXERS, Mixer, Value, known_options
from nas.yaml_files import read_yaml, validate

FORMAT = "architecture 1"
MAX_RESOLUTION = 4096
_NO_OTHER_KEYS = ConfigDict(extra="forbid")

# What the fields below may say; a search space offers the same values.
Names = tuple[str, ...]
Width = Annotated[StrictInt, Field(ge=1, le=65536)]
Patch = Annotated[StrictInt, Field(ge=1, le=256)]
Ratio = Annotated[StrictFloat, Field(gt=0, le=64, allow_inf_nan=False)]  # a whole number is one too
NormKind = Literal["layer_norm", "group_norm", "affine"]
OptionalNorm = Literal["none", "layer_norm", "group_norm", "affine"]
StemKind = Literal["patch", "conv4"]
MergeKind = Literal["conv", "conv_norm", "gather"]
Scaled = Literal["none", "mixer", "both"]
NormEps = Annotated[StrictFloat, Field(gt=0, le=0.1)]
ScaleInit = Annotated[StrictFloat, Field(gt=0, le=10, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a network is made for: the side of its square images in pixels, their channels, and the number of classes."""

    __pydantic_config__ = _NO_OTHER_KEYS
    resolution: Annotated[StrictInt, Field(ge=1, le=MAX_RESOLUTION)]
    channels: Annotated[StrictInt, Field(ge=1, le=1024)]
    classes: Annotated[StrictInt, Field(ge=1, le=10**6)]


@dataclass(frozen=True, slots=True, init=False)
class Stage:
    """Blocks of one width on one grid.

    `mixers` has one name per block, so its length is the depth; a block of mixer `none` has no mixer's branch, and with `cpe` it is SPACH's
    convolution block. `sharing`: one mixer serves all blocks of the stage, which then name the same one; norms, scales, conditional
    position encodings (`cpe`) and channel MLPs stay each block's own. `options` are what some mixers read besides, as `MIXERS` declares them:
    pairs in its order, without those at a default that files leave out. They may be given as keywords, where None takes one away:
    `Stage(32, ("conv",), 2.0, kernel=3)`.
    """

    width: Width
    mixers: Annotated[Names, Field(min_length=1, max_length=256)]
    mlp_ratio: Ratio
    cpe: StrictBool = False
    sharing: StrictBool = False
    options: tuple[tuple[str, Value], ...] = ()

    def __init__(
        self, width: int, mixers: Names, mlp_ratio: float, cpe: bool = False, sharing: bool = False, options: Any = (), **more: Any
    ) -> None:
        given, known = dict(options) | more, known_options()
        if unknown := given.keys() - known:
            raise TypeError(f"no mixer has these options: {', '.join(unknown)}; known: {', '.join(known)}")
        values = [(name, option.canonical(given[name])) for name, option in known.items() if name in given]
        pairs = tuple((name, value) for name, value in values if value is not None)
        # float: 2 equals 2.0 but is written otherwise, and their keys would differ
        for field, value in zip(self.__slots__, (width, mixers, float(mlp_ratio), cpe, sharing, pairs), strict=True):
            object.__setattr__(self, field, value)

    def option(self, name: str) -> Value | None:
        """The value of a mixer's option; None where it is not given and has no default."""
        option = known_options()[name]
        return dict(self.options).get(name, None if option.required else option.default)

    def to_dict(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "options"}
        return {**fields, "mixers": list(self.mixers), **dict(self.options)}

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

    The forms are the fields that have a default; files leave them out there. A form that has no effect (of merging in one stage, say) is set
    to its default, so that equal networks are equal.
    """

    frame: Frame
    patch: Patch
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

    @property
    def sides(self) -> list[int]:
        """Of each stage, how many tokens its grid has along a side."""
        return [self.frame.resolution // self.patch >> number for number in range(len(self.stages))]

    def at(self, frame: Frame) -> Architecture:
        """The same network for other images or classes."""
        return self if frame == self.frame else dataclasses.replace(self, frame=frame)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without options and forms at their defaults: what a YAML file holds."""
        forms = {name: getattr(self, name) for name, default in FORM_DEFAULTS.items() if getattr(self, name) != default}
        return {"frame": dataclasses.asdict(self.frame), "patch": self.patch, **forms, "stages": [stage.to_dict() for stage in self.stages]}

    @staticmethod
    def from_dict(data: object, place: str) -> Architecture:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a key or value is not an architecture's; `place` begins the message.
        """
        entry = validate(_entry(tuple(MIXERS.values())), {"architecture": data}, place).architecture  # type: ignore[attr-defined]
        fields = {name: getattr(entry, name) for name in type(entry).model_fields}
        return Architecture(**fields | {"stages": tuple(Stage(**stage.model_dump(exclude_none=True)) for stage in entry.stages)})


FORM_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Architecture) if field.default is not MISSING}


@functools.cache
def _entry(mixers: tuple[Mixer, ...]) -> type[BaseModel]:
    """What a file may say where there are these mixers: the fields of the classes above, and the mixers' options as keys of a stage."""

    def model(of: type, **changed: Any) -> Any:
        types = get_type_hints(of, include_extras=True)
        fields = {each.name: (types[each.name], ... if each.default is MISSING else each.default) for each in dataclasses.fields(of)}
        return create_model(of.__name__, __config__=_NO_OTHER_KEYS, **{name: field for name, field in (fields | changed).items() if field})

    options = {name: (option.type, None) for name, option in known_options().items()}
    stage = model(Stage, options=None, **options)
    stages: Any = (Annotated[tuple[stage, ...], Field(min_length=1, max_length=16)], ...)  # type: ignore[valid-type]
    return create_model("Entry", architecture=(model(Architecture, stages=stages), ...))


def describe(architecture: Architecture) -> Iterator[str]:
    """An architecture for people: a line for its forms where they are not the usual ones, and one line for each stage."""
    if forms := [f"{name} {value}" for name, value in architecture.to_dict().items() if name in FORM_DEFAULTS]:
        yield ", ".join(forms)
    for i, stage in enumerate(architecture.stages):
        runs = [(mixer, len(list(blocks))) for mixer, blocks in itertools.groupby(stage.mixers)]
        mixers = " ".join(mixer if count == 1 else f"{mixer} x{count}" for mixer, count in runs)
        extras = [f"mlp_ratio {stage.mlp_ratio:g}", *(f"{name} {value}" for name, value in stage.options)]
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
