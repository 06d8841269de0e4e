"""The architecture written out as layers: the only place that knows shapes.

`outline(architecture)` gives the layers in the order in which they run, and `run` runs them: a standalone network with its own modules, the
supernet with slices of its modules. The cost arithmetic starts from here too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nas.networks.architecture import Architecture, Stage
from nas.networks.blocks import Branch, ChannelMLP, Conv4Stem, GatherMerge, Head, Merge, Stem
from nas.networks.mixers import MIXERS, NO_MIXER, Value, check_mixer, options_of

CPE_KERNEL = 3

STEMS: dict[str, Any] = {"patch": Stem, "conv4": Conv4Stem}
MERGES: dict[str, tuple[Any, dict[str, bool]]] = {"conv": (Merge, {}), "conv_norm": (Merge, {"normed": True}), "gather": (GatherMerge, {})}
# A supernet keeps the weights of these forms of stem, merging and norm apart from those of the usual form at the same place.
KEPT_APART = {"conv4", "conv_norm", "gather", "group_norm", "affine"}

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer.

    Attributes:
        layer: its class, an `nn.Module` with a static method `cost`.
        settings: what the class is built with.
        place: its own position in the network.
        weights: whose parameters it uses: layers with equal `weights` are one module.
        home: where a supernet keeps these parameters: `weights`, and the names of the forms that are kept apart.
    """

    layer: Any
    settings: Settings
    place: str
    weights: str
    home: str

    @property
    def shape(self) -> tuple[Any, Settings]:
        """All that a module or its cost depends on: the key for caches."""
        return self.layer, self.settings

    def build(self) -> nn.Module:
        """The layer's module.

        Raises:
            ValueError: it cannot take its width, grid or options; the message begins with the place.
        """
        try:
            return self.layer(**dict(self.settings))
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from None


class BlockSpecs(NamedTuple):
    """The layers of one block: the mixer's branch with the mixer and the position encoding in it, then the channel MLP.

    Without a mixer there is no branch: the position encoding is all that mixes tokens, if there is one.
    """

    branch: LayerSpec | None
    mixer: LayerSpec | None
    cpe: LayerSpec | None
    mlp: LayerSpec


Outline = tuple[LayerSpec | BlockSpecs, ...]


@functools.lru_cache(maxsize=100_000)
def _spec(layer: Any, place: str, weights: str | None = None, forms: tuple[str, ...] = (), **settings: Any) -> LayerSpec:
    weights = weights or place
    return LayerSpec(layer, tuple(settings.items()), place, weights, "_".join([weights, *(form for form in forms if form in KEPT_APART)]))


@functools.lru_cache(maxsize=100_000)
def _block(
    i: int, j: int, mixer: str, settings: tuple[Any, ...], options: Settings, dressing: tuple[Any, ...], grid: tuple[int, int]
) -> BlockSpecs:
    """Block j of stage i. Cached, since a space has few distinct blocks and a search writes out many architectures."""
    (width, mlp_ratio, has_cpe, sharing), (kind, eps, mixer_scale, mlp_scale) = settings, dressing
    place, forms, norm = f"stages.{i}.blocks.{j}", (kind,), {"norm": kind, "eps": eps}
    branch = mixing = None
    if mixer != NO_MIXER:
        check_mixer(mixer, f"stages[{i}].mixers[{j}]")
        own: dict[str, Any] = _own_options(mixer, dict(options), f"stages[{i}]")
        branch = _spec(Branch, f"{place}.branch.{mixer}", forms=forms, width=width, **norm, scale=mixer_scale)
        weights = f"stages.{i}.shared.{mixer}" if sharing else None
        mixing = _spec(MIXERS[mixer].layer, f"{place}.mixer.{mixer}", weights, width=width, grid=grid, **own)
    # conditional position encoding is a depthwise convolution of the block's input: SPACH's conv mixer and its CPE are one module
    cpe = _spec(MIXERS["conv"].layer, f"{place}.cpe", width=width, grid=grid, kernel=CPE_KERNEL) if has_cpe else None
    hidden = max(1, round(width * mlp_ratio))
    mlp = _spec(ChannelMLP, f"{place}.mlp", forms=forms, width=width, hidden=hidden, grid=grid, **norm, scale=mlp_scale)
    return BlockSpecs(branch, mixing, cpe, mlp)


def _own_options(mixer: str, given: Mapping[str, Value], place: str) -> dict[str, Value]:
    """What a mixer is built with, besides width and grid: of what its stage gives, the options that it reads, and defaults."""
    own = options_of(mixer)
    for name, option in own.items():
        ways = [name, *(other for other, its in own.items() if its.instead_of == name)]
        if option.required and not any(way in given for way in ways):
            raise ValueError(f"{place}: {mixer} needs {' or '.join(map(repr, ways))}: got none. Add '{name}:' to the stage.")
    values = {name: given.get(name, None if option.required else option.default) for name, option in own.items()}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, eq=False, slots=True)
class Section:
    """A part of a network: 'stem', 'stages.0', ... (patch merging belongs to the stage it opens) or 'head'. Equal ones are the same object, as
    long as the cache holds."""

    name: str
    layers: Outline


def sections(architecture: Architecture) -> tuple[Section, ...]:
    """A network's parts in running order.

    Raises:
        ValueError: the stride does not divide the resolution, or a stage's mixers or options cannot be; the message begins with the place.
    """
    frame, patch, stride, eps = architecture.frame, architecture.patch, architecture.stride, architecture.norm_eps
    if frame.resolution % stride:
        raise ValueError(
            f"resolution {frame.resolution}: not a multiple of the network's stride {stride} "
            f"(patches of {patch}, {len(architecture.stages)} stages). Take {-(-frame.resolution // stride) * stride}."
        )
    scaled, init = architecture.layer_scale, architecture.layer_scale_init
    # of the branches of all blocks: their norm, its eps, and where the scales of the mixer's and the MLP's begin; None: there is no scale
    dressing = (architecture.norm, eps, init if scaled != "none" else None, init if scaled == "both" else None)
    side, stages = frame.resolution // patch, architecture.stages
    widths = [stages[0].width, *(stage.width for stage in stages)]  # before each stage
    return (
        _stem(architecture.stem, architecture.stem_norm, eps, frame.channels, widths[0], patch, side),
        *(_stage(i, stage, widths[i], side >> i, dressing, architecture.merge) for i, stage in enumerate(stages)),
        _head(architecture.final_norm, eps, widths[-1], frame.classes),
    )


@functools.lru_cache(maxsize=10_000)
def _stem(stem: str, norm: str, eps: float, channels: int, width: int, patch: int, side: int) -> Section:
    shape = {"channels": channels, "width": width, "patch": patch, "grid": (side, side)}
    return Section("stem", (_spec(STEMS[stem], "stem", forms=(stem, norm), **shape, norm=norm, eps=eps),))


@functools.lru_cache(maxsize=100_000)
def _stage(i: int, stage: Stage, in_width: int, side: int, dressing: tuple[Any, ...], merge: str) -> Section:
    grid, layers = (side, side), list[LayerSpec | BlockSpecs]()
    if i:
        layer, normed = MERGES[merge]
        layers.append(_spec(layer, f"stages.{i}.merge", forms=(merge,), in_width=in_width, width=stage.width, grid=grid, **normed))
    if stage.sharing and len(set(stage.mixers)) > 1:
        got = ", ".join(stage.mixers)
        raise ValueError(f"stages[{i}].sharing: one mixer serves all blocks: got {got}. Name the same mixer for each block.")
    settings = (stage.width, stage.mlp_ratio, stage.cpe, stage.sharing)
    layers.extend(_block(i, j, mixer, settings, stage.options, dressing, grid) for j, mixer in enumerate(stage.mixers))
    return Section(f"stages.{i}", tuple(layers))


@functools.lru_cache(maxsize=10_000)
def _head(norm: str, eps: float, width: int, classes: int) -> Section:
    return Section("head", (_spec(Head, "head", forms=(norm,), width=width, classes=classes, norm=norm, eps=eps),))


def outline(architecture: Architecture) -> Outline:
    """The layers of an architecture in running order: stem, blocks, merging and blocks for each further stage, head.

    Raises:
        ValueError: as `sections`.
    """
    return tuple(layer for section in sections(architecture) for layer in section.layers)


def flat(layers: Outline) -> tuple[LayerSpec, ...]:
    """One entry per layer."""
    return tuple(spec for layer in layers for spec in (layer if isinstance(layer, BlockSpecs) else (layer,)) if spec is not None)


def layer_specs(architecture: Architecture) -> tuple[LayerSpec, ...]:
    """The layers of an architecture, one entry each."""
    return flat(outline(architecture))


def check_layers(architecture: Architecture) -> None:
    """Builds each distinct layer on the meta device.

    Raises:
        ValueError: as `sections` and `LayerSpec.build`.
    """
    distinct = dict[Any, LayerSpec]()
    for spec in layer_specs(architecture):
        distinct.setdefault(spec.shape, spec)
    with torch.device("meta"):
        for spec in distinct.values():
            spec.build()


def run(layers: Outline, call: Callable[..., Tensor], images_BCHW: Tensor, recompute: bool = False) -> Tensor:
    """Images [B, C, H, W] to logits [B, classes]; `call(spec, x, ...)` runs one layer.

    With `recompute` a backward pass finds of each block its input alone, and runs the block a second time: less memory, a third more time, the
    same gradients.
    """
    x = images_BCHW
    for layer in layers:
        if not isinstance(layer, BlockSpecs):
            x = call(layer, x)
        elif recompute:
            x = checkpoint(_run_block, layer, call, x, use_reentrant=False)  # type: ignore[assignment]  # which it leaves open
        else:
            x = mix_tokens(layer, call, x)  # a step of its own, so that what it began with is let go
            x = call(layer.mlp, x)
    return x


def _run_block(block: BlockSpecs, call: Callable[..., Tensor], x_BHWC: Tensor) -> Tensor:
    return call(block.mlp, mix_tokens(block, call, x_BHWC))


def mix_tokens(block: BlockSpecs, call: Callable[..., Tensor], x_BHWC: Tensor) -> Tensor:
    """The first half of a block, up to its channel MLP."""
    cpe = partial(call, block.cpe) if block.cpe else None
    if block.branch:
        return call(block.branch, x_BHWC, partial(call, block.mixer), cpe)
    return x_BHWC + cpe(x_BHWC) if cpe else x_BHWC


def own_slice(module: nn.Module, name: str, largest: Tensor) -> Tensor:
    """The part of `largest` that is `module`'s parameter `name`, where `largest` is that parameter of the largest module of its place.

    The first entries of every group along every dimension, by the module's `groups` (one group where it says nothing), or what its method of
    the same name gives.

    Raises:
        ValueError: the module's channels do not lie within the largest's.
    """
    shape = module.get_parameter(name).shape
    if shape == largest.shape:
        return largest
    if hasattr(module, "own_slice"):
        own = module.own_slice(name, largest)  # type: ignore[operator]
    elif groups := getattr(module, "groups", {}).get(name):
        split = [part for size, number in zip(largest.shape, groups, strict=True) for part in (number, size // number)]
        first = [part for size, number in zip(shape, groups, strict=True) for part in (slice(None), slice(size // number))]
        own = largest.reshape(split)[tuple(first)].reshape(shape)
    else:
        own = largest[tuple(map(slice, shape))]
    assert own.shape == shape, (type(module).__name__, name, tuple(own.shape), tuple(shape))
    return own
