"""Networks that are known before a search: those it begins with, and those to hold its winner against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from nas.cost import cost
from nas.networks.architecture import Architecture, Frame, read_architecture
from nas.networks.network import Network
from nas.published.presets import architecture_file, read_presets
from nas.quantities import Budget
from nas.searching.proposals import drawn_by_hand, usage
from nas.spaces.decisions import SearchSpace
from nas.spaces.schema import Values


def starting_networks(space: SearchSpace, budgets: Sequence[Budget], asked: Iterable[str]) -> dict[str, Values]:
    """What the first generation is to have, by name: the networks asked for, and the published ones that the space contains within budget.

    Raises:
        ValueError: a network that was asked for is not in the space, or over budget.
    """
    starts: dict[str, Values] = {}
    for name in asked:
        architecture, _ = read_architecture(architecture_file(Path(name)))
        try:
            starts[name] = space.encode(architecture)
        except ValueError as error:
            raise ValueError(f"--start {name}: {error} Give one whose every choice the space offers, or widen the space.") from None
        used = _used(architecture.at(space.frame), budgets)
        if used > 1:
            raise ValueError(f"--start {name}: over budget: got {used:.3g} times the tightest limit; accepted: networks within it.")
    for preset in read_presets():
        with contextlib.suppress(ValueError):  # most are of another space
            values = space.encode(preset.architecture)
            if _used(space.decode(values), budgets) <= 1 and values not in starts.values():
                starts[preset.name] = values
    return starts


def _used(architecture: Architecture, budgets: Sequence[Budget]) -> float:
    return usage(architecture, cost(architecture), budgets)


class Baseline(NamedTuple):
    """A network to hold a winner against."""

    name: str
    architecture: Architecture
    found: dict[str, str]
    title: str


def baselines(space: SearchSpace, budgets: Sequence[Budget], floor: float, trained_at: Frame) -> Iterator[Baseline]:
    """A network of each pattern of mixers that fills the budgets, and the published ones that use as much of them as a winner does.

    Args:
        space: in the frame in which budgets are counted.
        budgets: those that bind.
        floor: share of the tightest budget that a winner uses at least.
        trained_at: what networks are trained for; published ones whose mixers cannot take its grid are left out.
    """
    for name, fixed in space.patterns().items():
        values = drawn_by_hand(space, fixed, lambda v: _used(space.decode(v), budgets) if budgets else 0.0)
        if values is not None:
            title = "A network of one pattern of mixers that fills the budget, to hold a winner against."
            yield Baseline(name, space.decode(values), {"pattern": name}, title)
    for preset in read_presets():
        with contextlib.suppress(ValueError):
            architecture = preset.architecture.at(space.frame)
            if max(floor, 1e-9) <= _used(architecture, budgets) <= 1:
                with torch.device("meta"):
                    Network(preset.architecture.at(trained_at))
                title = f"{preset.published.name}, a published network of the same budget, to hold a winner against."
                yield Baseline(preset.name, architecture, {"preset": preset.name}, title)
