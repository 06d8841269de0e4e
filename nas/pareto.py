"""Pareto dominance, and how well scores rank. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Scores = Sequence[float]
LEAST = 10  # networks that a correlation wants: with fewer, chance alone gives any figure
SPARSE = 1e-3  # accuracies, as shares, that are so near count as equal in the sparse tau
TOP = 5


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[str]) -> bool:
    """Whether `a` is at least as good as `b` in every objective and better in one; equal points do not dominate each other.

    `directions` says for each objective "maximize" or "minimize". A NaN is neither better nor as good.
    """
    signs = [{"maximize": 1, "minimize": -1}[direction] for direction in directions]
    pairs = [(sign * x, sign * y) for sign, x, y in zip(signs, a, b, strict=True)]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


# ---- of scores, the larger the better, against the truth: accuracies as shares --------------------------------------------


def kendall_tau(x: Scores, y: Scores) -> float:
    """Kendall's tau-b of two lists: 1 the same order, -1 the opposite, ties in either list allowed for.

    Returns:
        NaN when one list is constant or shorter than two: there is no order to compare.
    """
    from scipy.stats import kendalltau  # half a second, for what few commands need

    assert len(x) == len(y), f"lists of {len(x)} and {len(y)}"
    return float(kendalltau(x, y).statistic) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan


def spearman(x: Scores, y: Scores) -> float:
    """Spearman's rho: the correlation of the ranks, ties at their mean rank; NaN where there is no order."""
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan


def sparse_tau(scores: Scores, truth: Scores) -> float:
    """Kendall's tau with the truth rounded to a tenth of a point, below which an order is noise (Yu et al., https://arxiv.org/abs/2003.04276)."""
    return kendall_tau(scores, [round(value / SPARSE) for value in truth])


def _best(values: Scores) -> list[int]:
    """The places of the `TOP` largest values; of equal ones the first."""
    return sorted(range(len(values)), key=lambda place: (-values[place], place))[:TOP]


def top_regret(scores: Scores, truth: Scores) -> float:
    """What is lost, as a share, by training the five networks of the highest scores alone and taking the best of them."""
    return max(truth) - max(truth[place] for place in _best(scores))


def top_precision(scores: Scores, truth: Scores) -> float:
    """The share of the five highest scores that are among the five best networks."""
    return len({*_best(scores)} & {*_best(truth)}) / min(TOP, len(truth))


FIGURES: dict[str, Callable[[Scores, Scores], float]] = {
    "tau": kendall_tau,
    "sparse_tau": sparse_tau,
    "rho": spearman,
    "regret_5": top_regret,
    "precision_5": top_precision,
}


class Estimate(NamedTuple):
    """A figure, and the interval that holds 95% of its values over networks drawn anew (bootstrap, percentiles)."""

    value: float
    low: float
    high: float


def rank_figures(
    scores: Mapping[str, Scores], truth: Scores, resamples: int = 1000, compared: Sequence[str] | None = None
) -> dict[str, dict[str, Estimate]]:
    """Every figure of every list of scores against the truth; all lists are resampled alike, so that they can be compared.

    Args:
        scores: by name, one number for each network, the larger the better.
        truth: the networks' accuracies as shares.
        resamples: draws of as many networks, with replacement.
        compared: names of the lists that each other one is held against; None: the first.

    Returns:
        By name of the scores, then of the figure; the entry "A - B" is the difference of a compared list and another one. A figure that a
        constant list does not have is NaN; resamples without it do not count in its interval.

    Raises:
        ValueError: fewer than ten networks.
    """
    import numpy as np

    if len(truth) < LEAST:
        raise ValueError(
            f"ranking: too few networks: got {len(truth)}; accepted: {LEAST} or more, since chance alone gives any figure to fewer."
        )
    draws = np.random.default_rng(0).integers(len(truth), size=(resamples, len(truth))).tolist()
    compared = list(scores)[:1] if compared is None else compared

    def figures(places: Sequence[int]) -> dict[tuple[str, str], float]:
        drawn = [truth[place] for place in places]
        found = {
            (name, figure): of([each[place] for place in places], drawn) for name, each in scores.items() for figure, of in FIGURES.items()
        }
        pairs = [(one, other) for one in compared for other in scores if other != one]
        found |= {(f"{one} - {other}", figure): found[one, figure] - found[other, figure] for one, other in pairs for figure in FIGURES}
        return found

    whole, resampled = figures(range(len(truth))), [figures(places) for places in draws]
    estimates: dict[str, dict[str, Estimate]] = {}
    for (name, figure), value in whole.items():
        known = [each[name, figure] for each in resampled if not math.isnan(each[name, figure])]
        low, high = np.percentile(known, [2.5, 97.5]) if known else (math.nan, math.nan)
        estimates.setdefault(name, {})[figure] = Estimate(value, float(low), float(high))
    return estimates


def foretold_from_others(columns: Sequence[Scores], truth: Scores) -> list[float]:
    """Of each network the truth that a linear fit (least squares) to all the others foretells from its columns: nobody helps to foretell itself.

    Args:
        columns: each with a number for each network.
        truth: of each network.
    """
    import numpy as np

    x, y = np.column_stack([np.ones(len(truth)), *columns]), np.array(truth)
    others = [np.arange(len(y)) != place for place in range(len(y))]
    return [float(x[place] @ np.linalg.lstsq(x[those], y[those])[0]) for place, those in enumerate(others)]


def tau_ceiling(trained: Sequence[Scores]) -> float:
    """Kendall's tau that a score without any error would have against accuracies that have the noise of their trainings.

    The variance of the noise is that between two seeds, over the networks that have both; the rest of the variance of all networks' means is that of
    their worth. For normal worth and normal noise of correlation r, tau is 2/pi asin(r) (Greiner's relation; Kruskal,
    https://doi.org/10.1080/01621459.1958.10501481).

    Args:
        trained: of each network its accuracies with one seed or more, two or more networks with two.

    Returns:
        From 0, where all that they differ by is noise, to 1.
    """
    pairs = [each[0] - each[1] for each in trained if len(each) > 1]
    noise = statistics.variance(pairs) / 2 * statistics.fmean(1 / len(each) for each in trained)
    spread = statistics.variance(statistics.fmean(each) for each in trained)
    return 2 / math.pi * math.asin(math.sqrt(max(0.0, 1 - noise / spread))) if spread else 0.0


def mean_rank_residuals(scores: Scores, truth: Scores, groups: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How far scores put each group too high, in ranks of 0 to 1: the mean over networks of (rank by score - rank by truth), weighted by
    the group's share of a network. Positive: overrated.

    Args:
        groups: of each network the shares of what it is made of, such as its mixers.
    """
    from scipy.stats import rankdata

    most = max(1, len(truth) - 1)
    residuals = [(by_score - by_truth) / most for by_score, by_truth in zip(rankdata(scores), rankdata(truth), strict=True)]
    names = {name for shares in groups for name in shares}
    weights = {name: [shares.get(name, 0.0) for shares in groups] for name in sorted(names)}
    return {name: sum(w * r for w, r in zip(each, residuals, strict=True)) / sum(each) for name, each in weights.items() if sum(each)}
