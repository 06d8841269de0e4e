"""Pareto dominance, fronts, hypervolume and rank correlation. Plain numbers in, plain numbers out.

A point is a sequence of numbers, one per objective; `directions` says for each objective ``"maximize"`` or ``"minimize"``.
Points hold no NaN: a comparison with one has no answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Point = Sequence[float]


def dominates(a: Point, b: Point, directions: Sequence[str]) -> bool:
    """Whether `a` is at least as good as `b` in every objective and better in one. Equal points do not dominate each other."""
    cost_a, cost_b = _to_minimize([a, b], directions)
    return cost_a != cost_b and all(x <= y for x, y in zip(cost_a, cost_b, strict=True))


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
    return _volume([cost for cost in costs if all(x < y for x, y in zip(cost, limit, strict=True))], limit)


def _volume(costs: Sequence[tuple[float, ...]], limit: tuple[float, ...]) -> float:
    """The volume between the limit and the costs, which are all below it; of no objectives 1 if there is a cost."""
    if not (costs and limit):
        return float(bool(costs))
    edges = sorted({cost[-1] for cost in costs})
    return sum(
        (top - bottom) * _volume([cost[:-1] for cost in costs if cost[-1] <= bottom], limit[:-1])
        for bottom, top in itertools.pairwise([*edges, limit[-1]])
    )


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b of two lists: 1 the same order, -1 the opposite, ties in either list allowed for.

    Returns:
        NaN when one list is constant or shorter than two: there is no order to compare.
    """
    from scipy.stats import kendalltau  # half a second, for what few commands need

    assert len(x) == len(y), f"lists of {len(x)} and {len(y)}"
    return float(kendalltau(x, y).statistic) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan


def _to_minimize(points: Sequence[Point], directions: Sequence[str]) -> list[tuple[float, ...]]:
    assert all(direction in ("maximize", "minimize") for direction in directions), directions
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    costs = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    assert not any(value != value for cost in costs for value in cost), "a point holds NaN"
    return costs
