"""Dominance and the figures of a ranking, against closed forms and against twins as slow as possible."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from nas.pareto import (
    dominates,
    foretold_from_others,
    kendall_tau,
    mean_rank_residuals,
    rank_figures,
    sparse_tau,
    spearman,
    tau_ceiling,
    top_precision,
    top_regret,
)

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


def accuracies(seed: int, count: int = 30) -> tuple[list[float], list[float]]:
    """Scores, and a truth that goes with them; some of each are equal."""
    draw = random.Random(seed)
    scores = [draw.randrange(40) / 40 for _ in range(count)]
    return scores, [round(0.6 + 0.1 * score + draw.gauss(0, 0.03), 3) for score in scores]


@pytest.mark.parametrize("seed", range(4))
def test_spearman_is_the_correlation_of_mean_ranks(seed: int) -> None:
    def ranks(values: list[float]) -> list[float]:
        return [sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values]

    (a, b), n = map(ranks, accuracies(seed)), 30
    covariance = sum((x - (n + 1) / 2) * (y - (n + 1) / 2) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - (n + 1) / 2) ** 2 for x in a) * sum((y - (n + 1) / 2) ** 2 for y in b))
    assert spearman(*accuracies(seed)) == pytest.approx(covariance / spread, abs=1e-12)


def test_sparse_tau_sees_no_order_within_a_tenth_of_a_point() -> None:
    scores, truth = accuracies(0)
    assert sparse_tau(scores, truth) == pytest.approx(slow_tau(scores, truth)), "these are whole tenths of a point"
    assert sparse_tau(scores, [value + random.Random(1).uniform(-4e-4, 4e-4) for value in truth]) == sparse_tau(scores, truth)
    assert math.isnan(sparse_tau([1, 2, 3], [0.7001, 0.7002, 0.7003]))


@pytest.mark.parametrize("seed", range(4))
def test_the_top_five_are_those_of_the_highest_scores(seed: int) -> None:
    draw = random.Random(seed)
    scores, truth = [draw.random() for _ in range(30)], [draw.random() for _ in range(30)]
    chosen = sorted(zip(scores, truth, strict=True), reverse=True)[:5]
    best = sorted(truth, reverse=True)[:5]
    assert top_regret(scores, truth) == max(truth) - max(accuracy for _, accuracy in chosen) >= 0
    assert top_precision(scores, truth) == sum(accuracy in best for _, accuracy in chosen) / 5
    assert (top_regret(truth, truth), top_precision(truth, truth)) == (0, 1)


def test_intervals_hold_what_they_should() -> None:
    """A perfect order is certain; an order by chance has the spread that tau has by chance, sqrt(2 (2 n + 5) / (9 n (n - 1)))."""
    draw = random.Random(5)
    truth = [draw.random() for _ in range(40)]
    found = rank_figures({"perfect": truth, "chance": [draw.random() for _ in truth]}, truth, resamples=400)
    assert found["perfect"]["tau"] == pytest.approx((1, 1, 1)) and found["perfect"]["regret_5"] == (0, 0, 0)
    tau, expected = found["chance"]["tau"], math.sqrt(2 * (2 * 40 + 5) / (9 * 40 * 39))
    assert tau.low < tau.value < tau.high and (tau.high - tau.low) / (2 * 1.96) == pytest.approx(expected, rel=0.35)
    between = found["perfect - chance"]["tau"]
    assert between.value == pytest.approx(1 - tau.value) and between.low == pytest.approx(1 - tau.high) and between.low > 0


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    scores, truth = accuracies(3)
    found = rank_figures({"score": scores}, truth, resamples=1000)["score"]["tau"]
    theirs = scipy.stats.bootstrap(
        (scores, truth), kendall_tau, paired=True, vectorized=False, n_resamples=1000, method="percentile", random_state=1
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.025)


@pytest.mark.parametrize("blocks", [[2, 3, 4, 2, 5, 6, 3, 2, 4, 4, 5, 3], [4] * 12], ids=["several depths", "one"])
def test_each_network_is_foretold_from_the_others_alone(blocks: list[int]) -> None:
    scores, truth = accuracies(5, count=12)
    x = np.column_stack([scores, blocks])
    expected = cross_val_predict(LinearRegression(), x, truth, cv=LeaveOneOut())
    assert foretold_from_others([scores, blocks], truth) == pytest.approx(list(expected))


@pytest.mark.parametrize("noise", [0.2, 1.0])
@pytest.mark.parametrize("both", [1.0, 0.4])
def test_the_ceiling_of_tau_is_what_a_score_without_error_has(noise: float, both: float) -> None:
    """Of 3,000 networks of normal worth; of a part of them there are two trainings, whose mean is less noisy."""
    draw = random.Random(0)
    worth = [draw.gauss(0.7, 0.01) for _ in range(3000)]
    trained = [[draw.gauss(each, 0.01 * noise) for _ in range(2 if draw.random() < both else 1)] for each in worth]
    assert tau_ceiling(trained) == pytest.approx(kendall_tau(worth, [statistics.fmean(each) for each in trained]), abs=0.03)


def test_the_ceiling_of_tau_at_its_ends() -> None:
    assert tau_ceiling([[0.1, 0.1], [0.2, 0.2], [0.4]]) == pytest.approx(1)
    assert tau_ceiling([[0.1, 0.3], [0.3, 0.1], [0.2, 0.2]]) == 0 and tau_ceiling([[0.2, 0.2], [0.2, 0.2]]) == 0


def test_a_correlation_wants_ten_networks() -> None:
    with pytest.raises(ValueError, match=r"got 9; accepted: 10 or more"):
        rank_figures({"score": range(9)}, range(9))


def test_what_is_overrated_has_a_positive_residual() -> None:
    truth = [0.1 * place for place in range(10)]
    scores = [value + (0.35 if place in (2, 5) else 0.0) for place, value in enumerate(truth)]
    shares = [{"conv": 0.5, "shift": 0.5} if place in (2, 5) else {"conv": 1.0} for place in range(10)]
    bias = mean_rank_residuals(scores, truth, shares)
    assert bias["shift"] == pytest.approx(2.5 / 9) and bias["conv"] < 0  # the two rise by two and by three places
    assert mean_rank_residuals(truth, truth, shares) == {"conv": 0, "shift": 0}
