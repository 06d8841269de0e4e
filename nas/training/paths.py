"""Which architectures the supernet trains in a step.

Strict fairness (FairNAS, https://arxiv.org/abs/1907.01845) with a sandwich per operator pattern (BurgerFormer, ICML 2022): a
step draws one size and, per block, an order of its mixers; m paths of that size use every mixer of a block once, m being the longest list;
then the largest and the smallest size run with the pattern of one of the m paths, so that mixers are compared at both ends.
"""

from __future__ import annotations

import random

from nas.networks.architecture import Architecture
from nas.spaces.decisions import SearchSpace, Value


def paths_of_step(space: SearchSpace, seed: int, step: int) -> list[Architecture]:
    """The m + 2 architectures of a step, as a function of (seed, step)."""
    rng = random.Random(f"{seed}/{step}")
    size = {name: rng.choice(options) for name, options in space.decisions.items() if name not in space.mixer_decisions}
    smallest = {name: space.decisions[name][0] for name in size}
    largest = {name: space.decisions[name][-1] for name in size}
    patterns = _patterns(space, rng)
    chosen = rng.choice(patterns)
    return [space.decode({**size, **pattern}) for pattern in patterns] + [
        space.decode({**largest, **chosen}),
        space.decode({**smallest, **chosen}),
    ]


def _patterns(space: SearchSpace, rng: random.Random) -> list[dict[str, Value]]:
    """m choices for all mixer decisions; down the list each decision goes through orders of its mixers, a new one whenever one ends."""
    count = max((len(options) for options in space.mixer_decisions.values()), default=1)
    columns = {}
    for name, options in space.mixer_decisions.items():
        column: list[Value] = []
        while len(column) < count:
            column += rng.sample(options, len(options))
        columns[name] = column[:count]
    return [{name: column[k] for name, column in columns.items()} for k in range(count)]
