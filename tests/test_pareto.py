"""Fronts, hypervolumes and rank correlations, against closed forms and against twins as slow as possible."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from nas.pareto import dominates, front, hypervolume, kendall_tau

UP_DOWN = ("maximize", "minimize")


def draw_points(seed: int, count: int, size: int) -> list[tuple[float, ...]]:
    draw = random.Random(seed)
    return [tuple(float(draw.randint(0, 6)) for _ in range(size)) for _ in range(count)]  # few values: many ties


def test_dominance_is_as_good_everywhere_and_better_somewhere() -> None:
    assert dominates((0.9, 10), (0.8, 10), UP_DOWN)
    assert dominates((0.9, 9), (0.8, 10), UP_DOWN)
    assert not dominates((0.9, 11), (0.8, 10), UP_DOWN)
    assert not dominates((0.8, 10), (0.8, 10), UP_DOWN)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(20))
def test_front_is_what_nothing_dominates(seed: int, size: int) -> None:
    points = draw_points(seed, 30, size)
    directions = [random.Random(seed + n).choice(UP_DOWN) for n in range(size)]
    slow = [i for i, point in enumerate(points) if not any(dominates(other, point, directions) for other in points)]
    assert front(points, directions) == slow


def test_front_keeps_all_of_equal_points_and_the_order_of_the_input() -> None:
    assert front([(1, 5), (3, 9), (1, 5), (0, 9)], UP_DOWN) == [0, 1, 2]
    assert front([], UP_DOWN) == []


def test_hypervolume_of_a_staircase() -> None:
    assert hypervolume([(1, 3), (2, 2), (3, 1)], (4, 4), ("minimize", "minimize")) == 6
    assert hypervolume([(0.9, 2)], (0.5, 10), UP_DOWN) == pytest.approx(0.4 * 8)
    assert hypervolume([(2, 2, 2)], (4, 5, 6), ("minimize",) * 3) == 2 * 3 * 4
    assert hypervolume([(3,), (1,)], (5,), ("minimize",)) == 4


def test_points_outside_the_reference_and_dominated_points_add_nothing() -> None:
    both_down = ("minimize", "minimize")
    assert hypervolume([], (4, 4), both_down) == 0
    assert hypervolume([(4, 0), (5, 1)], (4, 4), both_down) == 0
    assert hypervolume([(1, 1), (2, 2), (1, 1), (0, 9)], (4, 4), both_down) == 9


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_is_the_number_of_dominated_unit_cells(seed: int, size: int) -> None:
    points = draw_points(seed, 8, size)
    cells = [()]
    for _ in range(size):
        cells = [(*cell, edge) for cell in cells for edge in range(7)]
    dominated = sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)
    assert hypervolume(points, (7,) * size, ("minimize",) * size) == dominated
    mirrored = [tuple(-value for value in point) for point in points]
    assert hypervolume(mirrored, (-7,) * size, ("maximize",) * size) == dominated


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
