"""What a network costs: multiply-adds, parameters and activations by arithmetic over its layers.

Counted as the papers count "FLOPs": one multiply-add of a convolution or matrix product is one; biases, norms, activations,
softmax, pooling and shifts are free. Activations are the output elements of convolutions, linears and of attention's product with the values.
All for one image. The formulas stand beside the modules (`cost` of each class); latency, which has to be measured, is in `latency.py`.
"""

from __future__ import annotations

import functools
from typing import Any

from nas.networks.architecture import Architecture
from nas.networks.layers import LayerSpec, Settings, layer_specs
from nas.quantities import Cost


def layer_cost(spec: LayerSpec) -> Cost:
    """Of one layer, whether or not it has its weights to itself."""
    return _cost(spec.layer, spec.settings)


@functools.lru_cache(maxsize=100_000)
def _cost(layer: Any, settings: Settings) -> Cost:
    return layer.cost(**dict(settings))


@functools.lru_cache(maxsize=5_000)
def cost(architecture: Architecture) -> Cost:
    """Multiply-adds, parameters and activations of one image. Weights that blocks share count once as parameters, each time as work."""
    macs = params = activations = 0
    seen = set()
    for spec in layer_specs(architecture):
        layer = layer_cost(spec)
        macs += layer.macs
        activations += layer.activations
        if spec.weights not in seen:
            seen.add(spec.weights)
            params += layer.params
    return Cost(macs, params, activations)


def stage_costs(architecture: Architecture) -> dict[str, Cost]:
    """The same per part: 'stem', 'stages.0', ... (patch merging belongs to the stage it opens), 'head'; they add up to `cost`."""
    parts: dict[str, list[int]] = {}
    seen = set()
    for spec in layer_specs(architecture):
        part = ".".join(spec.place.split(".")[:2])
        layer = layer_cost(spec)
        total = parts.setdefault(part, [0, 0, 0])
        total[0] += layer.macs
        total[1] += 0 if spec.weights in seen else layer.params
        total[2] += layer.activations
        seen.add(spec.weights)
    return {part: Cost(*total) for part, total in parts.items()}
