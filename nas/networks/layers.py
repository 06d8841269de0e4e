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

from nas.networks.architecture import OPTION_DEFAULTS, Architecture, Stage
from nas.networks.blocks import Branch, ChannelMLP, Conv4Stem, GatherMerge, Head, Merge, NormedMerge, Stem
from nas.networks.mixers import MIXERS, NAMES, NO_MIXER, options_of
from nas.yaml_files import did_you_mean

CPE_KERNEL = 3

LAYERS: dict[str, type[nn.Module]] = {
    "stem": Stem,
    "stem_conv4": Conv4Stem,
    "merge": Merge,
    "merge_conv_norm": NormedMerge,
    "merge_gather": GatherMerge,
    "branch": Branch,
    "channel_mlp": ChannelMLP,
    "head": Head,
    **MIXERS,
}
STEMS = {"patch": "stem", "conv4": "stem_conv4"}
MERGES = {"conv": "merge", "conv_norm": "merge_conv_norm", "gather": "merge_gather"}


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

    @property
    def home(self) -> str:
        """Where a supernet keeps the weights: `weights`, and beside it one for each other form of stem and merging and for each other norm."""
        return _home(self.kind, self.settings, self.weights)

    def build(self) -> nn.Module:
        return LAYERS[self.kind](**dict(self.settings))


@functools.lru_cache(maxsize=100_000)
def _home(kind: str, settings: tuple[tuple[str, Any], ...], weights: str) -> str:
    form = kind.partition("_")[2] if kind in (*STEMS.values(), *MERGES.values()) else ""
    norm = dict(settings).get("norm")
    return "_".join([weights, *([form] if form else []), *([norm] if norm in ("group_norm", "affine") else [])])


class BlockSpecs(NamedTuple):
    """The layers of one block: the mixer's branch with the mixer and the position encoding in it, then the channel MLP.

    Without a mixer there is no branch: the position encoding is all that mixes tokens, if there is one.
    """

    branch: LayerSpec | None
    mixer: LayerSpec | None
    cpe: LayerSpec | None
    mlp: LayerSpec


Outline = tuple[LayerSpec | BlockSpecs, ...]


def _spec(kind: str, place: str, weights: str | None = None, **settings: Any) -> LayerSpec:
    return LayerSpec(kind, tuple(settings.items()), place, weights or place)


def hidden_width(width: int, mlp_ratio: float) -> int:
    """Hidden channels of a channel MLP; rounded to the nearest integer."""
    return max(1, round(width * mlp_ratio))


class _Dressing(NamedTuple):
    """What an architecture says of the branches of all its blocks."""

    norm: str
    eps: float
    mixer_scale: float | None  # where the layer scale begins
    mlp_scale: float | None


def _dressing(architecture: Architecture) -> _Dressing:
    scaled, init = architecture.layer_scale, architecture.layer_scale_init
    return _Dressing(
        architecture.norm, architecture.norm_eps, init if scaled in ("mixer", "both") else None, init if scaled == "both" else None
    )


@functools.lru_cache(maxsize=100_000)
def _block(
    i: int, j: int, mixer: str, settings: tuple[Any, ...], options: tuple[Any, ...], dressing: _Dressing, grid: tuple[int, int]
) -> BlockSpecs:
    """Block j of stage i. Cached, since a space has few distinct blocks and a search writes out many architectures."""
    width, mlp_ratio, has_cpe, sharing = settings
    if mixer not in NAMES:
        raise ValueError(f"stages[{i}].mixers[{j}]: unknown mixer {mixer!r}; known: {', '.join(NAMES)}.{did_you_mean(mixer, NAMES)}")
    place = f"stages.{i}.blocks.{j}"
    norm: dict[str, Any] = {"norm": dressing.norm, "eps": dressing.eps}
    branch = spec = None
    if mixer != NO_MIXER:
        of_stage = dict(zip(OPTION_DEFAULTS, options, strict=True))
        given = {name: of_stage[name] for name in options_of(mixer)}
        if given and all(value is None for value in given.values()):
            needed = " or ".join(f"'{name}'" for name in given)
            raise ValueError(f"stages[{i}]: {mixer} needs {needed}: got none. Add '{next(iter(given))}:' with a whole number to the stage.")
        own = {name: value for name, value in given.items() if value is not None}
        mixer_place = f"{place}.mixer.{mixer}"
        weights = f"stages.{i}.shared.{mixer}" if sharing else mixer_place
        branch = _spec("branch", f"{place}.branch.{mixer}", width=width, **norm, scale=dressing.mixer_scale)
        spec = _spec(mixer, mixer_place, weights, width=width, grid=grid, **own)
    return BlockSpecs(
        branch=branch,
        mixer=spec,
        # conditional position encoding is a depthwise convolution of the block's input: SPACH's conv mixer and its CPE are one module
        cpe=_spec("conv", f"{place}.cpe", width=width, grid=grid, kernel=CPE_KERNEL) if has_cpe else None,
        mlp=_spec(
            "channel_mlp",
            f"{place}.mlp",
            width=width,
            hidden=hidden_width(width, mlp_ratio),
            grid=grid,
            **norm,
            scale=dressing.mlp_scale,
        ),
    )


@functools.lru_cache(maxsize=100_000)
def _stem(kind: str, channels: int, width: int, patch: int, grid: tuple[int, int], norm: str, eps: float) -> LayerSpec:
    return _spec(STEMS[kind], "stem", channels=channels, width=width, patch=patch, grid=grid, norm=norm, eps=eps)


@functools.lru_cache(maxsize=100_000)
def _merge(kind: str, i: int, in_width: int, width: int, grid: tuple[int, int]) -> LayerSpec:
    return _spec(MERGES[kind], f"stages.{i}.merge", in_width=in_width, width=width, grid=grid)


@functools.lru_cache(maxsize=100_000)
def _head(width: int, classes: int, norm: str, eps: float) -> LayerSpec:
    return _spec("head", "head", width=width, classes=classes, norm=norm, eps=eps)


def _stage_layers(i: int, stage: Stage, dressing: _Dressing, grid: tuple[int, int]) -> Iterator[BlockSpecs]:
    if stage.sharing and len(set(stage.mixers)) > 1:
        raise ValueError(
            f"stages[{i}].sharing: one mixer serves all blocks: got {', '.join(stage.mixers)}. Name the same mixer for each block."
        )
    settings = (stage.width, stage.mlp_ratio, stage.cpe, stage.sharing)
    options = tuple(getattr(stage, name) for name in OPTION_DEFAULTS)
    for j, mixer in enumerate(stage.mixers):
        yield _block(i, j, mixer, settings, options, dressing, grid)


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
    dressing, eps = _dressing(architecture), architecture.norm_eps
    width = architecture.stages[0].width
    layers: list[LayerSpec | BlockSpecs] = []
    layers.append(_stem(architecture.stem, frame.channels, width, architecture.patch, (side, side), architecture.stem_norm, eps))
    for i, stage in enumerate(architecture.stages):
        grid = (side >> i, side >> i)
        if i:
            layers.append(_merge(architecture.merge, i, width, stage.width, grid))
        layers.extend(_stage_layers(i, stage, dressing, grid))
        width = stage.width
    layers.append(_head(width, frame.classes, architecture.final_norm, eps))
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
            cpe = partial(call, layer.cpe) if layer.cpe else None
            if layer.branch:
                x = call(layer.branch, x, partial(call, layer.mixer), cpe)
            elif cpe:
                x = x + cpe(x)
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
