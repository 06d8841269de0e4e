"""The additive model of accuracy: its error by refitting, and how well it finds an additive truth again."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import kendalltau

from nas.networks.architecture import Architecture, Frame, Stage
from nas.searching.additive import STRENGTHS, AdditiveModel, features

MIXERS = {"conv": 0.02, "attention": -0.03, "token_mlp": 0.0, "s2_shift": 0.01}
WIDTHS = {16: 0.0, 32: 0.04, 48: 0.05}


def drawn(num: int, seed: int) -> list[Architecture]:
    rng = random.Random(seed)
    stages = [
        tuple(
            Stage(rng.choice(list(WIDTHS)), tuple(rng.choices(list(MIXERS), k=rng.choice([1, 2, 4]))), 2.0, head_width=16) for _ in range(2)
        )
        for _ in range(num)
    ]
    return [Architecture(Frame(32, 3, 10), 4, each) for each in stages]


def truth(network: Architecture) -> float:
    """The first stage counts twice: an effect belongs to its stage."""
    return 0.6 + sum(
        weight * (WIDTHS[stage.width] + float(np.mean([MIXERS[mixer] for mixer in stage.mixers])))
        for weight, stage in zip((2, 1), network.stages, strict=True)
    )


def noisy(networks: list[Architecture], seed: int) -> list[float]:
    noise = np.random.default_rng(seed).normal(0, 0.005, len(networks))
    return [truth(each) + float(one) for each, one in zip(networks, noise, strict=True)]


def refitted(matrix: np.ndarray, wanted: np.ndarray, strength: float) -> float:
    """What predicts each network from the others: a row of ones whose coefficient is free, the other coefficients held near 0."""
    errors = []
    for left_out in range(len(matrix)):
        kept = [i for i in range(len(matrix)) if i != left_out]
        with_ones = np.column_stack([np.ones(len(kept)), matrix[kept]])
        penalty = strength * np.diag([0.0, *np.ones(matrix.shape[1])])
        found = np.linalg.solve(with_ones.T @ with_ones + penalty, with_ones.T @ wanted[kept])
        errors.append(wanted[left_out] - found @ np.array([1.0, *matrix[left_out]]))
    return float(np.sqrt(np.mean(np.square(errors))))


def test_the_error_is_that_of_models_refitted_without_each_network() -> None:
    networks = drawn(14, 1)
    accuracies = noisy(networks, 1)
    rows = [features(each) for each in networks]
    names = sorted({name for row in rows for name in row})
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    errors = {strength: refitted(matrix, np.array(accuracies), strength) for strength in STRENGTHS}
    model = AdditiveModel(networks, accuracies)
    assert model.error == pytest.approx(min(errors.values()), rel=1e-6)
    assert max(errors.values()) > 1.1 * model.error, "the strengths differ here"
    # ... and the model is the one of that strength, fitted to all
    best = min(errors, key=errors.__getitem__)
    centred = matrix - matrix.mean(0)
    weights = np.linalg.solve(centred.T @ centred + best * np.eye(len(names)), centred.T @ (np.array(accuracies) - np.mean(accuracies)))
    assert model.predict(networks) == pytest.approx(list(np.mean(accuracies) + centred @ weights), rel=1e-6)


def test_it_ranks_unseen_networks_where_the_truth_is_additive() -> None:
    taught, unseen = drawn(60, 2), drawn(80, 3)
    predicted = AdditiveModel(taught, noisy(taught, 2)).predict(unseen)
    assert kendalltau(predicted, [truth(each) for each in unseen]).statistic > 0.8


def test_a_score_of_every_network_is_used_where_it_says_something() -> None:
    """Here the truth is not in the choices. A score's unit does not matter; one that is the same for all says nothing and does no harm."""
    taught, unseen = drawn(30, 4), drawn(80, 5)
    accuracies, true = (list(np.random.default_rng(len(each)).uniform(0.5, 0.9, len(each))) for each in (taught, unseen))
    plain = AdditiveModel(taught, accuracies).predict(unseen)
    with_score = AdditiveModel(taught, accuracies, {"score": accuracies}).predict(unseen, {"score": true})
    assert kendalltau(plain, true).statistic < 0.3 < 0.8 < kendalltau(with_score, true).statistic
    tiny = [[1e-4 * value - 3 for value in each] for each in (accuracies, true)]
    assert AdditiveModel(taught, accuracies, {"score": tiny[0]}).predict(unseen, {"score": tiny[1]}) == pytest.approx(with_score)
    assert AdditiveModel(taught, accuracies, {"same": [7.0] * 30}).predict(unseen, {"same": [7.0] * 80}) == pytest.approx(plain)


def test_the_order_of_networks_means_nothing() -> None:
    networks, unseen = drawn(20, 6), drawn(5, 7)
    accuracies = noisy(networks, 6)
    predicted = AdditiveModel(networks, accuracies).predict(unseen)
    assert AdditiveModel(networks[::-1], accuracies[::-1]).predict(unseen) == pytest.approx(predicted, abs=1e-9)
    assert AdditiveModel(networks, accuracies).predict(unseen[::-1]) == pytest.approx(predicted[::-1], abs=1e-9)


def test_what_a_network_is_made_of() -> None:
    (network,) = drawn(1, 8)
    stage = Stage(16, ("conv", "conv", "attention", "conv"), 2.0, head_width=16)
    found = features(Architecture(network.frame, 4, (stage, Stage(32, ("conv",), 1.0))))
    assert found["0 conv"] == 0.75 and found["0 attention"] == 0.25 and found["1 conv"] == 1.0
    assert found["0 depth 4"] == found["1 depth 1"] == found["0 width 16"] == found["1 width 32"] == 1.0
