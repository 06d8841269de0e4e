"""The architecture written out as layers: the only place that knows shapes.

`outline(architecture)` gives the layers in the order in which they run; `run` runs such an outline with whatever is to run each
layer. The standalone network, the supernet and the cost arithmetic all start from here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from nas.architecture import Architecture, Stage
from nas.blocks import Branch, ChannelMLP, Head, Merge, Stem
from nas.mixers import MIXERS
from nas.yaml_io import did_you_mean

CPE_KERNEL = 3

LAYERS: dict[str, type[nn.Module]] = {
    "stem": Stem,
    "merge": Merge,
    "branch": Branch,
    "channel_mlp": ChannelMLP,
    "head": Head,
    **MIXERS,
}


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer: what it is (`kind`, `settings`), where it stands (`place`), and whose weights it uses (`weights`).

    Layers with equal `weights` are one module with one set of parameters; `place` is a layer's own.
    """

    kind: str
    settings: tuple[tuple[str, Any], ...]
    place: str
    weights: str

    @property
    def shape(self) -> tuple[str, tuple[tuple[str, Any], ...]]:
        """All that a module or its cost depends on: the key for caches."""
        return self.kind, self.settings

    def build(self) -> nn.Module:
        return LAYERS[self.kind](**dict(self.settings))


class BlockSpecs(NamedTuple):
    """The layers of one block: the mixer's branch with the mixer and the position encoding in it, then the channel MLP."""

    branch: LayerSpec
    mixer: LayerSpec
    cpe: LayerSpec | None
    mlp: LayerSpec


Outline = tuple[LayerSpec | BlockSpecs, ...]


def _spec(kind: str, place: str, weights: str | None = None, **settings: Any) -> LayerSpec:
    return LayerSpec(kind, tuple(settings.items()), place, weights or place)


def hidden_width(width: int, mlp_ratio: float) -> int:
    """Hidden channels of a channel MLP; rounded to the nearest integer."""
    return max(1, round(width * mlp_ratio))


@functools.lru_cache(maxsize=100_000)
def _block(i: int, j: int, mixer: str, shared: bool, stage_settings: tuple[Any, ...], grid: tuple[int, int]) -> BlockSpecs:
    """Block j of stage i. Cached, since a space has few distinct blocks and a search writes out many architectures."""
    width, mlp_ratio, cpe, kernel, head_width = stage_settings
    if mixer not in MIXERS:
        raise ValueError(f"stages[{i}].mixers[{j}]: unknown mixer {mixer!r}; known: {', '.join(MIXERS)}.{did_you_mean(mixer, MIXERS)}")
    place, given = f"stages.{i}.blocks.{j}", {"kernel": kernel, "head_width": head_width}
    options = {name: given[name] for name in MIXERS[mixer].options}  # type: ignore[attr-defined]
    for name, value in options.items():
        if value is None:
            raise ValueError(f"stages[{i}]: {mixer} needs {name!r}: got none. Add '{name}:' with a whole number to the stage.")
    mixer_place = f"{place}.mixer.{mixer}"
    weights = f"stages.{i}.shared.{mixer}" if shared else mixer_place
    return BlockSpecs(
        branch=_spec("branch", f"{place}.branch.{mixer}", width=width),
        mixer=_spec(mixer, mixer_place, weights, width=width, grid=grid, **options),
        # conditional position encoding is a depthwise convolution of the block's input: SPACH's conv mixer and its CPE are one module
        cpe=_spec("conv", f"{place}.cpe", width=width, grid=grid, kernel=CPE_KERNEL) if cpe else None,
        mlp=_spec("channel_mlp", f"{place}.mlp", width=width, hidden=hidden_width(width, mlp_ratio), grid=grid),
    )


@functools.lru_cache(maxsize=100_000)
def _between(i: int, in_width: int, width: int, patch: int, grid: tuple[int, int]) -> LayerSpec:
    if i == 0:
        return _spec("stem", "stem", channels=in_width, width=width, patch=patch, grid=grid)
    return _spec("merge", f"stages.{i}.merge", in_width=in_width, width=width, grid=grid)


def _stage_layers(i: int, stage: Stage, grid: tuple[int, int]) -> Iterator[BlockSpecs]:
    if stage.sharing and len(set(stage.mixers)) > 1:
        raise ValueError(
            f"stages[{i}].sharing: one mixer serves all blocks: got {', '.join(stage.mixers)}. Name the same mixer for each block."
        )
    settings = (stage.width, stage.mlp_ratio, stage.cpe, stage.kernel, stage.head_width)
    for j, mixer in enumerate(stage.mixers):
        yield _block(i, j, mixer, stage.sharing, settings, grid)


def outline(architecture: Architecture) -> Outline:
    """The layers of an architecture in running order: stem, blocks, merging and blocks for each further stage, head.

    Raises:
        ValueError: the stride does not divide the resolution, or the architecture names an unknown mixer.
    """
    frame, side = architecture.frame, architecture.frame.resolution // architecture.patch
    if frame.resolution % architecture.stride:
        raise ValueError(
            f"resolution {frame.resolution}: not a multiple of the network's stride {architecture.stride} "
            f"(patches of {architecture.patch}, {len(architecture.stages)} stages). Take {-(-frame.resolution // architecture.stride) * architecture.stride}."
        )
    layers: list[LayerSpec | BlockSpecs] = []
    in_width = frame.channels
    for i, stage in enumerate(architecture.stages):
        grid = (side >> i, side >> i)
        layers.append(_between(i, in_width, stage.width, architecture.patch, grid))
        layers.extend(_stage_layers(i, stage, grid))
        in_width = stage.width
    layers.append(_spec("head", "head", width=in_width, classes=frame.classes))
    return tuple(layers)


def layer_specs(architecture: Architecture) -> tuple[LayerSpec, ...]:
    """The same, flat: one entry per layer."""
    flat: list[LayerSpec] = []
    for layer in outline(architecture):
        flat.extend(spec for spec in layer if spec is not None) if isinstance(layer, BlockSpecs) else flat.append(layer)
    return tuple(flat)


def run(layers: Outline, call: Callable[..., Tensor], images_BCHW: Tensor) -> Tensor:
    """Images [B, C, H, W] to logits [B, classes]; `call(spec, x, ...)` runs one layer."""
    x = images_BCHW
    for layer in layers:
        if isinstance(layer, BlockSpecs):
            x = call(layer.branch, x, partial(call, layer.mixer), partial(call, layer.cpe) if layer.cpe else None)
            x = call(layer.mlp, x)
        else:
            x = call(layer, x)
    return x


def own_part(module: nn.Module, name: str, shared: Tensor) -> Tensor:
    """The part of `shared` that is `module`'s parameter `name`, where `shared` is that parameter of the largest module of its place.

    Modules whose channels are not interchangeable say which part (`take`); elsewhere it is the first entries of every dimension.
    """
    shape = module.get_parameter(name).shape
    if shape == shared.shape:
        return shared
    if hasattr(module, "take"):
        part = module.take(name, shared)  # type: ignore[operator]
        assert part.shape == shape, (type(module).__name__, name, tuple(part.shape), tuple(shape))
        return part
    return shared[tuple(slice(size) for size in shape)]
