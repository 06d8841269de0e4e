"""A latency table: what each distinct part of a network takes on a target, and what the whole takes by it.

A network is a line of parts (`parts`): stem, the token mixing of each block, its channel MLP, patch merging, head. Their times add up to nearly the
time of the whole; what a sum does not see (starting a pass, one operator fused into the next, weights that have left the cache) is learnt
from a few whole networks as `Correction`, where that helps.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from nas.networks.architecture import Architecture
from nas.networks.layers import BlockSpecs, LayerSpec, Settings, mix_tokens, outline


class Part(NamedTuple):
    """What is timed as one: a layer, or of a block all that comes before its channel MLP.

    Attributes:
        layer: the layer, or the block.
        shape: of its input, without the batch.
    """

    layer: LayerSpec | BlockSpecs
    shape: tuple[int, ...]

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        if isinstance(self.layer, LayerSpec):
            return (self.layer,)
        return tuple(each for each in (self.layer.branch, self.layer.mixer, self.layer.cpe) if each)

    @property
    def key(self) -> str:
        """The same for parts that take the same time: ``Branch(width=48, ...) Conv(...) of 48x8x8``."""
        return _key(tuple(each.shape for each in self.layers), self.shape)


@functools.lru_cache(maxsize=100_000)
def _key(shapes: tuple[tuple[Any, Settings], ...], shape: tuple[int, ...]) -> str:
    layers = (f"{layer.__name__}({', '.join(f'{name}={value}' for name, value in settings)})" for layer, settings in shapes)
    return f"{' '.join(layers)} of {'x'.join(map(str, shape))}"


def parts(architecture: Architecture) -> Iterator[Part]:
    """The parts of a network, in running order; blocks without a mixer and a position encoding begin with their channel MLP."""
    frame = architecture.frame
    shape: tuple[int, ...] = (frame.channels, frame.resolution, frame.resolution)
    for layer in outline(architecture):
        if isinstance(layer, BlockSpecs):
            if layer.branch or layer.cpe:
                yield Part(layer, shape)
            yield Part(layer.mlp, shape)
            continue
        yield Part(layer, shape)
        settings = dict(layer.settings)
        if "grid" in settings:  # the head has none, and nothing comes after it
            shape = (*settings["grid"], settings["width"])


class PartModule(nn.Module):
    """A part by itself, with fresh weights."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part
        self.modules_of_layers = nn.ModuleList(each.build() for each in part.layers)
        self._of = dict(zip(part.layers, self.modules_of_layers, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        def call(spec: LayerSpec, *given: Any) -> Tensor:
            return self._of[spec](*given)

        layer = self.part.layer
        return mix_tokens(layer, call, x) if isinstance(layer, BlockSpecs) else call(layer, x)


@dataclass(frozen=True)
class Correction:
    """Milliseconds of a whole network by its parts: `scale` times their sum, and `each` for every part, and `start`."""

    scale: float = 1.0
    each: float = 0.0
    start: float = 0.0

    def __call__(self, total: float, num: int) -> float:
        return self.scale * total + self.each * num + self.start


@dataclass(frozen=True)
class Table:
    """Milliseconds of parts on one target, by their key."""

    times: Mapping[str, float]
    correction: Correction = field(default_factory=Correction)

    @functools.cached_property
    def digest(self) -> str:
        """Of all its figures."""
        figures = json.dumps([sorted(self.times.items()), vars(self.correction)])
        return hashlib.sha256(figures.encode()).hexdigest()[:8]

    def latency_ms(self, architecture: Architecture) -> float:
        """Of a network, foretold.

        Raises:
            ValueError: a part was not timed.
        """
        return self.correction(*self.total(architecture))

    def total(self, architecture: Architecture) -> tuple[float, int]:
        """The sum over the parts, uncorrected, and their number."""
        try:
            found = [self.times[part.key] for part in parts(architecture)]
        except KeyError as missing:
            raise ValueError(f"architecture {architecture.key}: a part is not in the latency table: got {missing.args[0]}.") from None
        return sum(found), len(found)


class Error(NamedTuple):
    """How far foretold times are from measured ones: the median of |foretold / measured - 1|, and the shares of networks within 5% and 10%."""

    median: float
    within_5: float
    within_10: float


def error(foretold: Sequence[float], measured: Sequence[float]) -> Error:
    """Of some networks."""
    off = [abs(one / other - 1) for one, other in zip(foretold, measured, strict=True)]
    return Error(statistics.median(off), *(sum(each <= limit for each in off) / len(off) for limit in (0.05, 0.10)))


def fit(totals: Sequence[tuple[float, int]], measured: Sequence[float]) -> Correction:
    """What whole networks teach about the sums of their parts (`Table.total`), by least squares of the relative error. `each` may be negative:
    a runtime's start is in the time of every part, and once in that of the whole.

    Of no correction, one factor, a factor and one of the others, and all three numbers, the one is taken by which networks that are left out in turn are
    foretold best; a later one has to be better by a twentieth.
    """
    forms: list[tuple[int, ...]] = [(), (0,), (0, 1), (0, 2), (0, 1, 2)]
    best, least = Correction(), math.inf
    for columns in forms:
        left_out = []
        for i in range(len(measured)):
            others = [j for j in range(len(measured)) if j != i]
            found = _solve([totals[j] for j in others], [measured[j] for j in others], columns)
            left_out.append(abs(found(*totals[i]) / measured[i] - 1))
        if statistics.fmean(left_out) < 0.95 * least:
            best, least = _solve(totals, measured, columns), statistics.fmean(left_out)
    return best


def _solve(totals: Sequence[tuple[float, int]], measured: Sequence[float], columns: Sequence[int]) -> Correction:
    import numpy as np

    if not columns:
        return Correction()
    rows = np.array([[total, num, 1.0] for total, num in totals])[:, list(columns)] / np.array(measured)[:, None]
    found, *_ = np.linalg.lstsq(rows, np.ones(len(measured)))
    numbers = dict(zip(columns, map(float, found), strict=True))
    return Correction(numbers[0], numbers.get(1, 0.0), numbers.get(2, 0.0))
