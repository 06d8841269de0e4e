"""A space with made-up costs and accuracies, small enough to enumerate, and an evaluator that remembers: for tests of searches without torch."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nas.networks.architecture import Architecture, Frame, Stage
from nas.quantities import Cost
from nas.searching.search import Evaluation

FRAME = Frame(32, 3, 10)
WEIGHT = {"conv": 3, "attention": 5, "mlp": 4}


class ToySpace:
    """Stands for a SearchSpace: two stages of width, depth and a mixer per block, with made-up costs."""

    name = "toy"
    fingerprint = "0123456789ab"

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64), depths: tuple[int, ...] = (1, 2, 3), stages: int = 2) -> None:
        self.stages = stages
        self.decisions: dict[str, tuple[Any, ...]] = {}
        for i in range(stages):
            self.decisions[f"s{i}.width"] = tuple(width * 2**i for width in widths)
            self.decisions[f"s{i}.depth"] = depths
            self.decisions[f"s{i}.cpe"] = (False, True)
            self.decisions |= {f"s{i}.b{j}.mixer": tuple(WEIGHT) for j in range(depths[-1])}
        self.mixer_decisions = {name: options for name, options in self.decisions.items() if name.endswith("mixer")}
        self.sizes = [name for name in self.decisions if name not in self.mixer_decisions]
        self.depths = [f"s{i}.depth" for i in range(stages)]
        self._decoded = functools.cache(self._decode)

    def decode(self, values: Any) -> Architecture:
        return self._decoded(tuple(values[name] for name in self.decisions))

    def _decode(self, options: tuple[Any, ...]) -> Architecture:
        stages, values = [], dict(zip(self.decisions, options, strict=True))
        for i in range(self.stages):
            mixers = tuple(values[f"s{i}.b{j}.mixer"] for j in range(values[f"s{i}.depth"]))
            stages.append(Stage(values[f"s{i}.width"], mixers, 2.0, values[f"s{i}.cpe"]))
        return Architecture(FRAME, 4, tuple(stages))

    def encode(self, architecture: Architecture) -> dict[str, Any]:
        values = {name: options[0] for name, options in self.decisions.items()}
        for i, stage in enumerate(architecture.stages):
            values |= {f"s{i}.width": stage.width, f"s{i}.depth": stage.depth, f"s{i}.cpe": stage.cpe}
            values |= {f"s{i}.b{j}.mixer": mixer for j, mixer in enumerate(stage.mixers)}
        return values

    def random(self, rng: random.Random) -> dict[str, Any]:
        return {name: rng.choice(options) for name, options in self.decisions.items()}

    def smallest(self, measure: Any) -> Architecture:
        return self.decode({name: options[0] for name, options in self.decisions.items()})

    def largest(self, measure: Any) -> Architecture:
        top = {name: options[-1] for name, options in self.decisions.items()}
        return self.decode(top | dict.fromkeys(self.mixer_decisions, "attention"))

    def patterns(self) -> dict[str, dict[str, Any]]:
        return {mixer: dict.fromkeys(self.mixer_decisions, mixer) for mixer in WEIGHT}

    def all(self) -> list[Architecture]:
        """Every network once: the product of the distinct stages."""
        lists = []
        for i in range(self.stages):
            own = {name: options for name, options in self.decisions.items() if name.startswith(f"s{i}.")}
            base = {name: options[0] for name, options in self.decisions.items()}
            choices = (base | dict(zip(own, options, strict=True)) for options in itertools.product(*own.values()))
            lists.append(list(dict.fromkeys(self.decode(values).stages[i] for values in choices)))
        return [Architecture(FRAME, 4, stages) for stages in itertools.product(*lists)]


@functools.cache
def cost_of(architecture: Architecture) -> Cost:
    macs = params = 0
    for i, stage in enumerate(architecture.stages):
        for mixer in stage.mixers:
            params += WEIGHT[mixer] * stage.width**2 + 9 * stage.width * stage.cpe
            macs += (WEIGHT[mixer] * stage.width**2 + 9 * stage.width * stage.cpe) * 256 // 4**i
    return Cost(macs, params, 0)


def accuracy_of(architecture: Architecture) -> float:
    """Grows with cost, with some taste in mixers and some noise fixed per architecture."""
    early, late = architecture.stages[0].mixers, architecture.stages[-1].mixers
    taste = 0.05 * early.count("conv") / len(early) + 0.05 * late.count("attention") / len(late)
    noise = int(architecture.key, 16) % 1000 / 1e5
    return 0.3 + 0.03 * math.log(cost_of(architecture).macs) / 3 + taste + noise


@dataclass
class Recorder:
    """An evaluator that remembers what it was given; `failing` says which networks fail, and why."""

    failing: Callable[[Architecture], str | None] = lambda architecture: None
    given: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def __call__(self, architectures: list[Architecture]) -> Iterator[Evaluation]:
        self.given += [architecture.key for architecture in architectures]
        for architecture in architectures:
            self.seen.append(architecture.key)
            failure = self.failing(architecture)
            yield Evaluation(failure=failure) if failure else Evaluation(accuracy_of(architecture))


def reason_of(architecture: Architecture) -> str | None:
    """Two networks in five fail, for one of two reasons."""
    return {0: "out of memory", 1: "not finite"}.get(int(architecture.key, 16) % 5)


def latency_of(architecture: Architecture) -> float:
    return 1 + 3 * sum(stage.depth for stage in architecture.stages) + int(architecture.key, 16) % 7 / 10


def memory_of(architecture: Architecture) -> float:
    return 1e6 * (6 + 5 * (int(architecture.key, 16) % 3)) + cost_of(architecture).params


MEASURE = {"latency_ms": latency_of, "memory_bytes": memory_of}
MEASURED_BUDGETS = ("4MMACs", "12ms", "14MB")
