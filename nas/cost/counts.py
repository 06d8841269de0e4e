"""What a network costs: multiply-adds, parameters and activations by arithmetic over its layers.

Counted as the papers count "FLOPs": one multiply-add of a convolution or matrix product is one; biases, norms, activations,
softmax, pooling and shifts are free. Activations are the output elements of convolutions, linears and of attention's product with the values.
All for one image. The formulas stand beside the modules (`cost` of each class); latency, which has to be measured, is in `latency.py`.
"""

from __future__ import annotations

import functools
from typing import Any

from nas.networks.architecture import Architecture
from nas.networks.layers import LayerSpec, Section, Settings, flat, sections
from nas.quantities import Cost


def layer_cost(spec: LayerSpec) -> Cost:
    """Of one layer, whether or not it has its weights to itself."""
    return _cost(spec.layer, spec.settings)


@functools.lru_cache(maxsize=100_000)
def _cost(layer: Any, settings: Settings) -> Cost:
    return layer.cost(**dict(settings))


@functools.lru_cache(maxsize=100_000)
def _section_cost(section: Section) -> Cost:
    layers = flat(section.layers)
    own = {spec.weights: layer_cost(spec).params for spec in layers}
    costs = [layer_cost(spec) for spec in layers]
    return Cost(sum(each.macs for each in costs), sum(own.values()), sum(each.activations for each in costs))


def cost(architecture: Architecture) -> Cost:
    """Multiply-adds, parameters and activations of one image. Weights that blocks share count once as parameters, each time as work."""
    return Cost(*map(sum, zip(*map(_section_cost, sections(architecture)), strict=True)))


def stage_costs(architecture: Architecture) -> dict[str, Cost]:
    """The same per part: 'stem', 'stages.0', ... (patch merging belongs to the stage it opens), 'head'; they add up to `cost`."""
    return {section.name: _section_cost(section) for section in sections(architecture)}
