"""Pareto dominance and rank correlation. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[str]) -> bool:
    """Whether `a` is at least as good as `b` in every objective and better in one; equal points do not dominate each other.

    `directions` says for each objective "maximize" or "minimize". A NaN is neither better nor as good.
    """
    signs = [{"maximize": 1, "minimize": -1}[direction] for direction in directions]
    pairs = [(sign * x, sign * y) for sign, x, y in zip(signs, a, b, strict=True)]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b of two lists: 1 the same order, -1 the opposite, ties in either list allowed for.

    Returns:
        NaN when one list is constant or shorter than two: there is no order to compare.
    """
    from scipy.stats import kendalltau  # half a second, for what few commands need

    assert len(x) == len(y), f"lists of {len(x)} and {len(y)}"
    return float(kendalltau(x, y).statistic) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan
