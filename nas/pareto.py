"""Pareto dominance, fronts, hypervolume and rank correlation. Plain numbers in, plain numbers out.

A point is a sequence of numbers, one per objective; `directions` says for each objective ``"maximize"`` or ``"minimize"``.
Points hold no NaN: a comparison with one has no answer.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

Point = Sequence[float]


def dominates(a: Point, b: Point, directions: Sequence[str]) -> bool:
    """Whether `a` is at least as good as `b` in every objective and better in one. Equal points do not dominate each other."""
    worse_a, worse_b = _to_minimize([a, b], directions)
    return worse_a != worse_b and all(x <= y for x, y in zip(worse_a, worse_b, strict=True))


def front(points: Sequence[Point], directions: Sequence[str]) -> list[int]:
    """The indices, ascending, of the points that no other dominates; of equal points all. No points: no front."""
    costs = _to_minimize(points, directions)
    # In lexicographic order whatever dominates a point comes before it, so a point is compared with the front alone.
    kept: list[tuple[float, ...]] = []
    members: list[int] = []
    for index in sorted(range(len(costs)), key=costs.__getitem__):
        cost = costs[index]
        if not any(other != cost and all(x <= y for x, y in zip(other, cost, strict=True)) for other in kept):
            members.append(index)
            if not kept or kept[-1] != cost:
                kept.append(cost)
    return sorted(members)


def hypervolume(points: Sequence[Point], reference: Point, directions: Sequence[str]) -> float:
    """The volume that the points dominate, as far as the reference point; larger is better.

    Exact in any number of objectives by slicing along the last; meant for two or three of them.

    Args:
        points: those not better than the reference in every objective add nothing; none give 0.
        reference: a point worse than all of interest.
        directions: per objective.
    """
    costs = _to_minimize([*points, reference], directions)
    limit = costs.pop()
    inside = {cost for cost in costs if all(x < y for x, y in zip(cost, limit, strict=True))}
    return _volume(sorted(inside, key=lambda cost: cost[-1]), limit)


def _volume(costs: list[tuple[float, ...]], limit: tuple[float, ...]) -> float:
    """The volume between the costs, sorted by the last objective and all below the limit, and the limit."""
    if len(limit) == 1:
        return limit[0] - costs[0][0] if costs else 0.0
    volume = 0.0
    for number, cost in enumerate(costs):
        top = costs[number + 1][-1] if number + 1 < len(costs) else limit[-1]
        if top > cost[-1]:  # in this slab of the last objective the points so far count, with what is left of them
            volume += (top - cost[-1]) * _volume(sorted((c[:-1] for c in costs[: number + 1]), key=lambda c: c[-1]), limit[:-1])
    return volume


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b of two lists: 1 the same order, -1 the opposite, ties in either list allowed for.

    Returns:
        NaN when one list is constant or shorter than two: there is no order to compare.

    Source: Knight, "A computer method for calculating Kendall's tau with ungrouped data", 1966; n log n comparisons.
    """
    assert len(x) == len(y), f"lists of {len(x)} and {len(y)}"
    pairs = sorted(zip(x, y, strict=True))
    # In this order a pair is discordant where y falls: ties in x stand in order of y and so never count.
    discordant, seen = 0, list[float]()
    for _, value in pairs:
        discordant += len(seen) - bisect_right(seen, value)
        insort(seen, value)
    total = math.comb(len(pairs), 2)
    tied_x, tied_y, tied_both = _ties(x), _ties(y), _ties(pairs)
    spread = (total - tied_x) * (total - tied_y)
    return (total - tied_x - tied_y + tied_both - 2 * discordant) / math.sqrt(spread) if spread else math.nan


def _ties(values: Iterable[Hashable]) -> int:
    """How many pairs are equal."""
    return sum(math.comb(count, 2) for count in Counter(values).values())


def _to_minimize(points: Sequence[Point], directions: Sequence[str]) -> list[tuple[float, ...]]:
    assert all(direction in ("maximize", "minimize") for direction in directions), directions
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    costs = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    assert not any(value != value for cost in costs for value in cost), "a point holds NaN"
    return costs
