"""What is evaluated next where a search stays within its band: children that an additive model thinks best, or plain draws.

MACs rank nothing between the floor and the limit, so accuracy alone counts here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.searching.additive import AdditiveModel
from nas.searching.proposals import Band, Proposal, draw
from nas.spaces.levels import moved

if TYPE_CHECKING:  # the space itself comes with torch
    from nas.spaces.schema import Values

ALIVE = 50  # the youngest networks of the band, of which parents are taken
TOURNAMENT = 25
CHANGES = (1, 2)  # decisions that a child has changed
TRIES = 50  # for a child that is new
POOL = 300  # children that the model chooses from


@dataclass(frozen=True)
class History:
    """What a search knows: the networks of the band with their accuracies, oldest first; the keys of all that were evaluated."""

    networks: Sequence[tuple[Values, float]]
    seen: set[str]


def evolve(band: Band, history: History, num: int, rng: random.Random) -> list[Proposal]:
    """Of many children the ones that an additive model puts first: `num` new networks of the band, fewer where it seems to have no more."""
    return best_of(children(band, history, POOL, rng), band, history, num, rng)


def drawn(band: Band, history: History, num: int, rng: random.Random) -> list[Proposal]:
    """The same, drawn from the band whatever is known."""
    return draw(band, num, history.seen, rng)


# By name of a sampler. For the same arguments, with a generator in the same state, the answer is the same.
PROPOSERS: dict[str, Callable[[Band, History, int, random.Random], list[Proposal]]] = {"evolution": evolve, "random": drawn}


def children(band: Band, history: History, num: int, rng: random.Random) -> list[Proposal]:
    """Children of the winners of tournaments among the youngest (regularised evolution, Real et al., https://arxiv.org/abs/1802.01548): new, all
    different, in the band; draws where no more are found."""
    found: dict[str, Proposal] = {}
    for _ in range(num if history.networks else 0):
        for _ in range(TRIES):
            values = _child(band, history.networks[-ALIVE:], rng)
            key = band.space.decode(values).key
            if key not in history.seen and key not in found and band.floor <= band.used(values) <= 1:
                found[key] = Proposal(values, "child")
                break
        else:
            break  # what lies near the parents is known
    return [*found.values(), *draw(band, num - len(found), history.seen | set(found), rng)]


def _child(band: Band, alive: Sequence[tuple[Values, float]], rng: random.Random) -> Values:
    """A parent with one or two decisions changed; where that leaves the band, other sizes move it back to the nearer end."""
    space = band.space
    parent, _ = max(rng.sample(alive, min(TOURNAMENT, len(alive))), key=lambda pair: pair[1])
    changed = rng.sample(list(space.decisions), rng.choice(CHANGES))
    values = {**parent, **{name: rng.choice([each for each in space.decisions[name] if each != parent[name]]) for name in changed}}
    used = band.used(values)
    if band.floor <= used <= 1:
        return values
    sizes = [name for name in space.decisions if name not in space.mixer_decisions and name not in changed]
    level = band.floor + 0.01 if used < band.floor else 0.99
    return moved(space, values, level, band.used, sizes, rng)[0]


def best_of(pool: Sequence[Proposal], band: Band, history: History, num: int, rng: random.Random) -> list[Proposal]:
    """The networks of a pool that additive models put first, each model fitted to a resample of what is known (bootstrap), so that they differ."""
    if len(history.networks) < 2:
        return list(pool[:num])
    known = [(band.space.decode(values), accuracy) for values, accuracy in history.networks]
    architectures = [band.space.decode(each.values) for each in pool]
    left = dict(enumerate(pool))
    chosen: list[Proposal] = []
    while left and len(chosen) < num:
        networks, accuracies = zip(*rng.choices(known, k=len(known)), strict=True)
        predicted = AdditiveModel(networks, accuracies).predict(architectures)
        chosen.append(left.pop(max(left, key=predicted.__getitem__)))
    return chosen
