"""One point of a search space: which network, written out in values, with no reference to the space it came from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from nas.yaml_io import read_yaml, validate

FORMAT = "architecture 1"
MAX_RESOLUTION = 4096
_NO_OTHER_KEYS = ConfigDict(extra="forbid")


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

    `mixers` has one name per block, so its length is the depth. `kernel` (side of the convolution) and `head_width`
    (channels of an attention head) are None where no mixer of the stage reads them. `sharing`: one mixer serves all blocks of the stage,
    which then name the same one; norms, scales, conditional position encodings (`cpe`) and channel MLPs stay each block's own.
    """

    __pydantic_config__ = _NO_OTHER_KEYS
    width: Annotated[StrictInt, Field(ge=1, le=65536)]
    mixers: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    mlp_ratio: Annotated[StrictFloat, Field(gt=0, le=64, allow_inf_nan=False)]  # a whole number is one too
    cpe: StrictBool = False
    sharing: StrictBool = False
    kernel: Annotated[StrictInt, Field(ge=1, le=255)] | None = None
    head_width: Annotated[StrictInt, Field(ge=1, le=65536)] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_ratio", float(self.mlp_ratio))  # 2 equals 2.0 but is written otherwise: their keys would differ

    @property
    def depth(self) -> int:
        return len(self.mixers)


@dataclass(frozen=True)
class Architecture:
    """A network in values: frame, side of the stem's patches, stages. Each further stage halves the grid."""

    __pydantic_config__ = _NO_OTHER_KEYS
    frame: Frame
    patch: Annotated[StrictInt, Field(ge=1, le=256)]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16)]

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
        """Plain values, without what is None: what a YAML file holds."""

        def plain(item: Frame | Stage) -> dict[str, Any]:
            pairs = ((field, getattr(item, field)) for field in item.__dataclass_fields__)
            return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs if value is not None}

        return {"frame": plain(self.frame), "patch": self.patch, "stages": [plain(stage) for stage in self.stages]}

    @staticmethod
    def from_dict(data: object, place: str) -> Architecture:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a key or value is not an architecture's; `place` begins the message.
        """
        return validate(_Entry, {"architecture": data}, place).architecture


class _Entry(BaseModel):
    """Where a file has its architecture."""

    architecture: Architecture


def read_architecture(path: Path) -> tuple[Architecture, dict[str, Any]]:
    """The architecture of a YAML file and the file's other entries (costs, data, recipe and so on of a winner).

    Raises:
        ValueError: the file is missing, no YAML, of another format, or its architecture has an error.
    """
    data = read_yaml(path, format=FORMAT)
    if "architecture" not in data:
        raise ValueError(f"{path}: no key 'architecture': got {', '.join(data)}. Put the stages under 'architecture:'.")
    return Architecture.from_dict(data["architecture"], str(path)), data
