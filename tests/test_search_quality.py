"""What the benchmark of samplers tells of a search, against the same told in the slowest way."""

from __future__ import annotations

import importlib
import random
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nas.quantities import Cost
from nas.searching.search import Evaluation, Result, SearchRequest, Trial

NUM, POPULATION, FLOOR = 150, 10, 0.8


def searched(rng: random.Random) -> Result:
    """A search that also met networks above the budget, below the floor and out of memory, and some a second time."""
    trials = list[Trial]()
    for number in range(NUM):
        usage = rng.uniform(0.6, 1.1)
        evaluation = rng.choice([Evaluation(rng.random()), Evaluation(rng.random()), Evaluation(failure="out of memory"), None])
        over = {"macs": usage - 1}
        repeat_of = rng.randrange(number) if number and rng.random() < 0.3 else None
        architecture: Any = f"network {number}"
        trials.append(Trial(number, {}, architecture, Cost(1, 1, 1), over, evaluation=evaluation, repeat_of=repeat_of))
    return Result(trials, "trials", NUM, 7.0, 4.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_of_a_search_are_of_the_networks_that_it_evaluated_in_the_band(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    quality, result = importlib.import_module("search_quality"), searched(random.Random(seed))
    elsewhere = {f"network {number}": random.Random(number).random() for number in range(NUM)}
    table = SimpleNamespace(accuracy=lambda architecture, *, others: elsewhere[architecture] if others else None)
    found = quality.figures_of(result, SearchRequest((), NUM, POPULATION, floor=FLOOR), table)

    evaluated = [each for each in result.trials if each.evaluation is not None and each.repeat_of is None]
    winners = [each for each in evaluated if each.accuracy is not None and FLOOR <= each.usage <= 1]
    assert len(evaluated) > len(winners) > 5
    for count in range(1, len(evaluated) + 1):
        so_far = [each.accuracy for each in winners if each in evaluated[:count]]
        assert found["best"][count - 1] == max(so_far, default=0)
    assert len(found["best"]) == len(evaluated)
    late = evaluated[POPULATION:]
    assert found["in_band"] == pytest.approx(sum(each in winners for each in late) / len(late))
    ordered = sorted(winners, key=lambda each: each.accuracy or 0, reverse=True)
    assert found["winner_on_others"] == elsewhere[str(ordered[0].architecture)]
    assert found["finalists_on_others"] == pytest.approx(statistics.fmean(elsewhere[str(each.architecture)] for each in ordered[:5]))
    assert found["ms"] == pytest.approx(3000 / len(evaluated))


def test_a_search_that_met_no_network_of_the_band_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    quality, result = importlib.import_module("search_quality"), searched(random.Random(0))
    with pytest.raises(SystemExit, match="--evaluations: nothing to compare in the band"):
        quality.figures_of(result, SearchRequest((), NUM, POPULATION, floor=1.2), None)
