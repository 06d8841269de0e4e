"""Which networks and layers of a space are smallest and largest, and whether every layer can be cut out of the largest at its place.

A space is given by its decisions, by `decode` (values to an architecture), and by its patterns (values of the mixer decisions).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from nas.cost import cost, layer_cost
from nas.networks.architecture import Architecture
from nas.networks.layers import LayerSpec, layer_specs, own_slice
from nas.networks.mixers import options_of
from nas.spaces.schema import Decision, Values

Decode = Callable[[Values], Architecture]
Decisions = Mapping[str, Decision]
Patterns = Mapping[str, Values]


def extreme(decisions: Decisions, decode: Decode, measure: Callable[[Architecture], float], sign: int) -> Architecture:
    """The architecture with the smallest measure (sign 1) or the largest (sign -1).

    One decision at a time is changed until none improves. Exact for costs: sizes are monotone whatever the mixers, and at given sizes the mixers'
    costs add up (tests compare with enumeration).
    """
    values = {name: decision.options[0 if sign == 1 else -1] for name, decision in decisions.items()}
    best, improved = sign * measure(decode(values)), True
    while improved:
        improved = False
        for name, decision in decisions.items():
            for option in decision.options:
                score = sign * measure(decode({**values, name: option}))
                if score < best:
                    best, values[name], improved = score, option, True
    return decode(values)


def _last_options(decisions: Decisions) -> dict[str, Any]:
    return {name: decision.options[-1] for name, decision in decisions.items()}


def largest_layers(decisions: Decisions, decode: Decode, patterns: Patterns) -> dict[str, LayerSpec]:
    """The layer with most parameters of every place, by `home`: what a supernet holds."""
    layers: dict[str, LayerSpec] = {}
    shared = {name: decision.options[0] for name, decision in decisions.items() if decision.field == "sharing"}
    kinds = [name for name, decision in decisions.items() if not decision.ascending and decision.field != "mixer"]
    choices = [{}, *({name: option} for name in kinds for option in decisions[name].options)]
    for pattern, sharing, choice in itertools.product(patterns.values(), ({}, shared), choices):
        for spec in layer_specs(decode({**_last_options(decisions), **pattern, **sharing, **choice})):
            known = layers.get(spec.home)
            if known is None or layer_cost(spec).params > layer_cost(known).params:
                layers[spec.home] = spec
    return layers


def check(decisions: Decisions, decode: Decode, patterns: Patterns, largest: Mapping[str, LayerSpec]) -> None:
    """Builds each distinct layer on the meta device, and cuts it out of the largest of its place.

    Raises:
        ValueError: a mixer cannot take a width or grid, or its channels do not lie within the largest's; the message begins with the place.
    """
    with torch.device("meta"):
        whole = {home: dict(spec.build().named_parameters()) for home, spec in largest.items()}
        distinct: dict[Any, LayerSpec] = {}
        for spec in _layers(decisions, decode, patterns):
            distinct.setdefault((spec.shape, largest[spec.home].shape), spec)
        for spec in distinct.values():
            module = spec.build()
            try:
                for name, _ in module.named_parameters():
                    own_slice(module, name, whole[spec.home][name])
            except ValueError as error:
                raise ValueError(f"{spec.place}: {error}") from None
    _check_order(decisions, decode, patterns)


def _layers(decisions: Decisions, decode: Decode, patterns: Patterns) -> Iterator[LayerSpec]:
    """Layers of every shape that any architecture has at any place, most of them several times."""
    for architecture in covering(decisions, decode, patterns):
        yield from layer_specs(architecture)


def covering(decisions: Decisions, decode: Decode, patterns: Patterns, beside: tuple[str, ...] = ()) -> Iterator[Architecture]:
    """Architectures that have, together, layers of every shape at every place; `beside` names fields whose every option is to meet each of them."""
    base = _last_options(decisions)
    for name, decision in decisions.items():
        if decision.field == "depth":  # two blocks show all that twelve would; one could not share
            base[name] = next((depth for depth in decision.options if int(depth) > 1), base[name])
    forms = [(name,) for name, decision in decisions.items() if decision.stage is None]
    for i in sorted({decision.stage for decision in decisions.values() if decision.stage is not None}):
        mixers = {
            mixer for decision in decisions.values() if (decision.stage, decision.field) == (i, "mixer") for mixer in decision.options
        }
        # A layer depends on its stage's width and on few other decisions: their whole product would take a wide space half a minute.
        fields = {("mlp_ratio",), *((*options_of(str(mixer)), *beside) for mixer in mixers)}
        groups = [(f"s{i - 1}.width",), *forms, *(tuple(f"s{i}.{field}" for field in group) for group in sorted(fields))]
        for pattern, group in itertools.product(patterns.values(), groups):
            names = [name for name in (f"s{i}.width", f"s{i}.sharing", *group) if name in decisions]
            for choice in itertools.product(*(decisions[name].options for name in names)):
                yield decode({**base, **pattern, **dict(zip(names, choice, strict=True))})


def _check_order(decisions: Decisions, decode: Decode, patterns: Patterns) -> None:
    """Smallest and largest networks, and the search within a budget, rely on sizes that ascend in cost."""
    for pattern, (name, decision) in itertools.product(patterns.values(), decisions.items()):
        values = {**_last_options(decisions), **pattern}
        costs = [cost(decode({**values, name: option})) for option in decision.options] if decision.ascending else []
        for (option, less), (following, more) in itertools.pairwise(zip(decision.options, costs, strict=False)):
            fits = all(a <= b for a, b in zip(less, more, strict=True))
            assert fits, f"{name}: declared to ascend in cost: got {less} for {option} and {more} for {following}"
