"""What choices are worth on their own: an additive model of accuracy, taught by few networks.

A choice's effect is a coefficient, whatever is chosen elsewhere. Ridge regression finds them; how strongly they are held near 0 is what
predicts each network best from the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.networks.architecture import Architecture, Stage
from nas.networks.mixers import known_options

_FIELDS = ("depth", *(name for name in Stage.__slots__ if name not in ("mixers", "options")), *known_options())
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def features(architecture: Architecture) -> dict[str, float]:
    """What a network is made of: its blocks, and for each stage the share of them that each mixer has, and 1 for each size that it has."""
    found = {"blocks": float(sum(stage.depth for stage in architecture.stages))}
    for number, stage in enumerate(architecture.stages):
        for mixer in stage.mixers:
            found[f"{number} {mixer}"] = found.get(f"{number} {mixer}", 0.0) + 1 / stage.depth
        found[f"{number} depth {stage.depth}"] = 1.0
        found |= {f"{number} {name} {value}": 1.0 for name, value in stage.to_dict().items() if name != "mixers"}
    return found


class AdditiveModel:
    """Fitted to networks and their accuracies; `scores` are numbers known of every network, such as a supernet's, which it may also use.

    Args:
        networks: at least two.
        accuracies: of each, what is to be predicted.
        scores: by name, a number for each network.
    """

    def __init__(
        self, networks: Sequence[Architecture], accuracies: Sequence[float], scores: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        rows = [features(each) for each in networks]
        self._names = sorted({name for row in rows for name in row})
        self._scores = {name: (float(np.mean(each)), float(np.std(each)) or 1.0) for name, each in (scores or {}).items()}
        matrix, wanted = self._matrix(rows, scores or {}), np.asarray(accuracies)
        self._middle, self._mean = matrix.mean(axis=0), float(wanted.mean())
        centred, left = matrix - self._middle, wanted - self._mean
        fits = [_ridge(centred, left, strength) for strength in STRENGTHS]
        self._weights, self.error = min(fits, key=lambda fit: fit[1])

    def predict(self, networks: Sequence[Architecture], scores: Mapping[str, Sequence[float]] | None = None) -> list[float]:
        """Accuracies; the same scores must be given as in the fit."""
        matrix = self._matrix([features(each) for each in networks], scores or {})
        return [float(value) for value in self._mean + (matrix - self._middle) @ self._weights]

    def unseen(self, networks: Sequence[Architecture]) -> list[int]:
        """How much each is made of that none of the networks had by which the model was taught: 1 for each such size, and each mixer of a stage.
        The model says nothing of it."""
        known = set(self._names)
        return [len(features(each).keys() - known) for each in networks]

    def spread(self, networks: Sequence[Architecture]) -> dict[str, float]:
        """How far each decision moves these networks apart, by name: the standard deviation of its part of the predicted accuracy. What a block more is
        worth belongs to the depths of the stages."""
        parts = (self._matrix([features(each) for each in networks], {}) - self._middle) * self._weights
        groups: dict[str, list[int]] = {}
        for column, name in enumerate(self._names):
            stage, _, rest = name.partition(" ")
            field = rest.partition(" ")[0] if rest.partition(" ")[0] in _FIELDS else "mixers"
            if rest:
                groups.setdefault(f"stage {stage}: {field}", []).append(column)
        moved = {group: parts[:, columns].sum(axis=1) for group, columns in groups.items()}
        for number, stages in enumerate(zip(*(each.stages for each in networks), strict=True)):
            moved[f"stage {number}: depth"] += self._weights[self._names.index("blocks")] * np.array([stage.depth for stage in stages])
        return {group: float(part.std()) for group, part in moved.items()}

    def _matrix(self, rows: Sequence[Mapping[str, float]], scores: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
        """[networks, names and scores]; what was never seen counts for nothing."""
        assert set(scores) == set(self._scores), f"{set(scores)} for {set(self._scores)}"
        columns = [[row.get(name, 0.0) for row in rows] for name in self._names]
        columns += [[(value - mean) / deviation for value in scores[name]] for name, (mean, deviation) in self._scores.items()]
        return np.array(columns, dtype=float).T.reshape(len(rows), len(columns))


def _ridge(matrix: NDArray[np.float64], wanted: NDArray[np.float64], strength: float) -> tuple[NDArray[np.float64], float]:
    """Coefficients, and the root mean square error of predicting each network from the others (mean and coefficients fitted
    without it, in closed form)."""
    gram = matrix @ matrix.T + strength * np.eye(len(matrix))
    hat = matrix @ matrix.T @ np.linalg.inv(gram) + 1 / len(matrix)
    left = (wanted - hat @ wanted) / np.maximum(1 - np.diag(hat), 1e-9)
    return matrix.T @ np.linalg.solve(gram, wanted), float(np.sqrt(np.mean(left**2)))
