"""Which network of the supernet each update trains.

An update trains one path on images of its own. Of each decision about a mixer, m updates in a row use each of its m options once, in an order
drawn anew for them: strict fairness (FairNAS, https://arxiv.org/abs/1907.01845) over a cycle of updates instead of within one. The cost of
the path is drawn first, evenly over the wanted range, and its sizes alone are moved there: uniform sizes would pile up in the middle of all
costs, and the mixers keep their shares whatever they cost.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.spaces.decisions import SearchSpace
from nas.spaces.levels import Levels, moved
from nas.spaces.schema import Values

TRIES = 5  # draws of sizes for a path whose mixers do not come into the range at once
COUNTED = 2000  # updates whose paths are counted
STRATA = 8  # levels in a row that lie in different parts of the range, its two ends among them


def path_of_step(space: SearchSpace, levels: Levels, seed: int, step: int) -> Architecture:
    """The architecture of an update, as a function of (seed, step).

    Args:
        space: in the frame in which costs are counted.
        levels: the range of costs. Where its mixers fit into it at no size, a path is the nearest that was found.
    """
    rng = random.Random(f"{seed}/{step}")
    mixers = {name: _in_turn(options, f"{seed}/{name}", step) for name, options in space.mixer_decisions.items()}
    sizes = [name for name in space.decisions if name not in mixers]
    part = (_in_turn(range(STRATA), f"{seed}/level", step) + rng.random()) / STRATA
    wanted = levels.low ** (1 - part)  # even in the logarithm
    found: list[tuple[float, Values]] = []
    while len(found) < TRIES and not (found and found[-1][0] == 0):
        start = {**space.random(rng), **mixers}
        values, reached = moved(space, start, wanted, lambda v: levels.of(cost(space.decode(v))), sizes, rng)
        found.append((max(levels.low - reached, reached - 1, 0.0), values))
    return space.decode(min(found, key=lambda each: each[0])[1])


def drawn(space: SearchSpace, levels: Levels, seed: int, steps: int) -> dict[str, Any]:
    """What a training drew, from at most 2,000 of its updates: by stage and block how often each mixer was trained there ("none" where the
    network ended before), and how many paths lay in each tenth of the range of costs, evenly in the logarithm."""
    every = math.ceil(steps / COUNTED)
    places: dict[str, Counter[str]] = {}
    costs: Counter[int] = Counter()
    deepest = [stage.depth for stage in space.largest(lambda architecture: cost(architecture).macs).stages]
    for step in range(0, steps, every):
        path = path_of_step(space, levels, seed, step)
        for i, stage in enumerate(path.stages):
            for block in range(deepest[i]):
                mixer = stage.mixers[block] if block < stage.depth else "none"
                places.setdefault(f"stage {i} block {block}", Counter())[mixer] += 1
        share = 1 - math.log(levels.of(cost(path))) / math.log(levels.low) if levels.low < 1 else 0.0
        costs[min(9, max(0, int(10 * share)))] += 1
    return {
        "every": every,
        "mixers": {place: dict(sorted(each.items())) for place, each in places.items()},
        "costs": [costs[i] for i in range(10)],
    }


def _in_turn(options: Sequence[Any], key: str, step: int) -> Any:
    """The option whose turn it is: so many steps in a row, from a multiple of their number on, take each option once."""
    cycle, place = divmod(step, len(options))
    return random.Random(f"{key}/{cycle}").sample(options, len(options))[place]
