"""Dominance and rank correlation, against closed forms and against a twin as slow as possible."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from nas.pareto import dominates, kendall_tau

UP_DOWN = ("maximize", "minimize")


def test_dominance_is_as_good_everywhere_and_better_somewhere() -> None:
    assert dominates((0.9, 10), (0.8, 10), UP_DOWN)
    assert dominates((0.9, 9), (0.8, 10), UP_DOWN)
    assert not dominates((0.9, 11), (0.8, 10), UP_DOWN)
    assert not dominates((0.8, 10), (0.8, 10), UP_DOWN)
    assert not dominates((math.nan, 10), (0.8, 11), UP_DOWN) and not dominates((0.9, 10), (math.nan, 11), UP_DOWN)


def slow_tau(x: list[float], y: list[float]) -> float:
    """Pair by pair, as tau-b is defined: (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)."""
    signs = [((a > c) - (a < c), (b > d) - (b < d)) for (a, b), (c, d) in itertools.combinations(zip(x, y, strict=True), 2)]
    return sum(s * t for s, t in signs) / math.sqrt(sum(s * s for s, _ in signs) * sum(t * t for _, t in signs))


@pytest.mark.parametrize("seed", range(6))
def test_kendall_tau_is_that_of_all_pairs(seed: int) -> None:
    draw = random.Random(seed)
    levels = 4 if seed % 2 else 10**6
    x = [draw.randrange(levels) / 7 for _ in range(40)]
    y = [value + draw.randrange(levels) / 7 for value in x]
    assert kendall_tau(x, y) == pytest.approx(slow_tau(x, y), abs=1e-12)


def test_kendall_tau_at_its_ends() -> None:
    order = [3, 1, 4, 1.5, 9]
    assert kendall_tau(order, [math.exp(value) for value in order]) == pytest.approx(1)
    assert kendall_tau(order, [-value for value in order]) == pytest.approx(-1)
    assert math.isnan(kendall_tau([1, 1, 1], [1, 2, 3])) and math.isnan(kendall_tau([], [])) and math.isnan(kendall_tau([1], [2]))
