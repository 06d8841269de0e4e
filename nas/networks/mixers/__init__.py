"""The token mixers, one per file. To add one: write its file, and add its line to `MIXERS`.

A mixer is an `nn.Module` class that keeps this contract (`tests/test_mixers.py` holds every entry of `MIXERS` to it):

- `__init__(width, grid, **options)`: `width` channels on a `grid` of (height, width) tokens, and the options that its line declares; a shape or an
  option that it cannot take is a `ValueError` that names it. No buffers: the supernet runs it with parameters of its choice, nothing else;
- `forward(x_BHWC)`: same shape and dtype out, the input not modified, samples independent of each other;
- `cost(width, grid, **options)`: a static method, multiply-adds, parameters and activations by arithmetic;
- a narrower mixer has the first entries of every dimension of a wider one's parameters. Where channels form groups and it has the first of each,
  `groups` says how many along each dimension, by the parameter's name; where it is neither, a method `own_slice(name, largest)` gives the part.

This file imports no torch, since what decides reads `MIXERS` too: a mixer's class is imported when it is first needed.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt

from nas.yaml_files import did_you_mean

Value = int | float | bool | str  # of an option, and of every other decision about a network
Count = Annotated[StrictInt, Field(ge=1, le=65536)]


@dataclass(frozen=True)
class Option:
    """An option of a mixer: a key of a stage, in architectures and in search spaces.

    Attributes:
        type: the values that are accepted, as a type for pydantic.
        default: the value in a space that does not say it.
        required: an architecture says it always; otherwise it leaves out the default.
        ascending: a larger value never costs less. Otherwise the values are kinds, in no order.
        instead_of: the option that says the same in another way: a stage gives one of the two, and their product is the width.
    """

    type: Any
    default: Value | None = None
    required: bool = False
    ascending: bool = True
    instead_of: str | None = None

    def canonical(self, value: Value | None) -> Value | None:
        """The value as an architecture holds it; None where it is left out."""
        if value is None or (value == self.default and not self.required):
            return None
        return float(value) if isinstance(self.default, float) else value  # 2 equals 2.0 but is written otherwise


@dataclass(frozen=True, eq=False)
class Mixer:
    """Where a mixer's class is ("package.module:Class", or ".module:Class" beside this file), and the options that it reads."""

    where: str
    options: Mapping[str, Option] = field(default_factory=dict)

    @functools.cached_property
    def layer(self) -> Any:
        """The class."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(module, __name__), name)


# In the order in which a search space lists them and a seed draws them.
MIXERS: dict[str, Mixer] = {
    "conv": Mixer(".conv:Conv", {"kernel": Option(Annotated[StrictInt, Field(ge=1, le=255)], 3, required=True)}),
    "attention": Mixer(
        ".attention:Attention", {"head_width": Option(Count, 32, required=True), "heads": Option(Count, instead_of="head_width")}
    ),
    "token_mlp": Mixer(".token_mlp:TokenMLP", {"token_hidden": Option(Literal["tokens", "channels"], "tokens", ascending=False)}),
    "token_linear": Mixer(".token_linear:TokenLinear"),
    "s2_shift": Mixer(".s2_shift:S2Shift"),
    "s2_shift_v2": Mixer(".s2_shift_v2:S2ShiftV2", {"split_pool": Option(Literal["mean", "sum"], "mean", ascending=False)}),
    "as_shift": Mixer(".as_shift:ASShift"),
    "permute": Mixer(".permute:Permute"),
}

NO_MIXER = "none"  # a block without a mixer's branch; with its position encoding it is SPACH's convolution block


def mixer_names() -> tuple[str, ...]:
    """What a block's mixer may be."""
    return NO_MIXER, *MIXERS


def check_mixer(name: str, place: str) -> None:
    """Refuses a name that no mixer has; `place` begins the message."""
    if name not in mixer_names():
        raise ValueError(f"{place}: unknown mixer {name!r}; known: {', '.join(mixer_names())}.{did_you_mean(name, mixer_names())}")


def options_of(mixer: str) -> Mapping[str, Option]:
    """The options that a mixer reads; a block without a mixer reads none."""
    return {} if mixer == NO_MIXER else MIXERS[mixer].options


def known_options() -> dict[str, Option]:
    """The options of all mixers, in the order of `MIXERS`."""
    return _options(tuple(MIXERS.values()))


@functools.cache
def _options(mixers: tuple[Mixer, ...]) -> dict[str, Option]:
    known: dict[str, Option] = {}
    for name, option in (pair for mixer in mixers for pair in mixer.options.items()):
        assert known.setdefault(name, option) == option, f"{name}: two mixers declare it in different ways"
    return known
