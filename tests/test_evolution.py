"""What stays within the band: where parents are from, how far children are from them, what an additive model picks."""

from __future__ import annotations

import random
from typing import Any

import pytest
from toy_space import Recorder, ToySpace, cost_of, reason_of

from nas.networks.architecture import Architecture
from nas.quantities import parse_budgets
from nas.searching.evolution import ALIVE, PROPOSERS, TOURNAMENT, History, best_of, children
from nas.searching.proposals import Band, Proposal, draw
from tests.test_search import run as searched

SPACE, LIMIT = ToySpace(stages=3), 12e6
BAND = Band(SPACE, cost_of, parse_budgets(["12MMACs"]), 0.8)  # type: ignore[arg-type]


def drawn(num: int) -> list[Any]:
    return [each.values for each in draw(BAND, num, set(), random.Random(0))]


def changes(values: Any, parent: Any) -> int:
    return sum(values[name] != parent[name] for name in SPACE.decisions)


@pytest.mark.parametrize("name", PROPOSERS)
@pytest.mark.parametrize("known", [0, 1, 30])
def test_proposals_lie_in_the_band_and_are_new_and_distinct(name: str, known: int) -> None:
    networks = drawn(known)
    seen = {SPACE.decode(values).key for values in networks}
    history = History([(values, 0.5 + number / 100) for number, values in enumerate(networks)], seen)
    proposals = PROPOSERS[name](BAND, history, 20, random.Random(0))
    architectures = [SPACE.decode(each.values) for each in proposals]
    assert len({each.key for each in architectures} - seen) == len(proposals) == 20
    assert all(0.8 * LIMIT <= cost_of(each).macs <= LIMIT for each in architectures)
    again = PROPOSERS[name](BAND, history, 20, random.Random(0))
    assert proposals == again != PROPOSERS[name](BAND, history, 20, random.Random(1))


def test_children_are_near_a_parent_among_the_youngest_and_tournaments_choose_it() -> None:
    """The best of all is the oldest, and dead; the best that lives is in a tournament with chance TOURNAMENT / ALIVE."""
    networks = drawn(ALIVE + 1)
    accuracies = [0.99, *(0.5 + number / 1000 for number in range(ALIVE - 1)), 0.9]
    history = History(list(zip(networks, accuracies, strict=True)), set())
    born = [each.values for each in children(BAND, history, 120, random.Random(0))]
    parents = [min(range(len(networks)), key=lambda number: changes(values, networks[number])) for values in born]
    # Draws differ from each other in 14 of 18 decisions on average: whose child it is can be read off.
    steps = [changes(values, networks[parent]) for values, parent in zip(born, parents, strict=True)]
    assert sum(steps) / len(steps) < 3.5 and min(steps) == 1
    assert not parents.count(0)
    assert parents.count(ALIVE) / len(born) == pytest.approx(TOURNAMENT / ALIVE, abs=0.12)


def test_the_model_picks_what_is_best_where_choices_add_up() -> None:
    def accuracy(architecture: Architecture) -> float:
        return 0.5 + sum(stage.mixers.count("attention") / len(stage.mixers) for stage in architecture.stages) / 10

    networks = drawn(60)
    history = History([(values, accuracy(SPACE.decode(values))) for values in networks], set())
    picked = best_of([Proposal(values, "") for values in drawn(200)[60:]], BAND, history, 10, random.Random(0))
    ordered = sorted(accuracy(SPACE.decode(values)) for values in drawn(300))
    assert min(accuracy(SPACE.decode(each.values)) for each in picked) > ordered[-60]  # each in the best fifth


@pytest.mark.parametrize("sampler", PROPOSERS)
def test_a_small_band_is_found_whole(sampler: str) -> None:
    space = ToySpace((16, 32), (1, 2), 1)
    result, recorder, _ = searched(space, "1MMACs", trials=10_000, request={"sampler": sampler})
    assert result.ending == "exhausted"
    assert {a.key for a in space.all() if 0.8e6 <= cost_of(a).macs <= 1e6} <= set(recorder.seen)


@pytest.mark.slow
def test_evolution_beats_draws() -> None:
    """By the best accuracy in the band, over two seeds."""
    best = {}
    for sampler in ("random", "evolution"):
        runs = (searched(SPACE, "12MMACs", trials=60, population=30, request={"sampler": sampler, "seed": seed}) for seed in range(2))
        best[sampler] = sum(max(t.accuracy for t in result.trials if t.feasible and t.usage >= 0.8) for result, *_ in runs)
    assert best["random"] < best["evolution"], best


def test_a_proposer_is_told_the_networks_of_the_band_and_asked_for_a_fifth_of_a_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[History, int]] = []

    def propose(band: Band, history: History, num: int, rng: random.Random) -> list[Proposal]:
        told.append((history, num))
        return draw(band, num, history.seen, rng)

    monkeypatch.setitem(PROPOSERS, "evolution", propose)
    recorder = Recorder(lambda each: reason_of(each) if each.stages[0].depth > 1 else None)
    result, *_ = searched(SPACE, "12MMACs", trials=40, recorder=recorder, request={"sampler": "evolution"})
    assert len(told) == 5 and {num for _, num in told} == {4}  # 20 networks, then 4 at a time
    inside = [t for t in result.trials[:36] if t.accuracy is not None and 0.8 * LIMIT <= t.cost.macs <= LIMIT]
    assert told[-1][0] == History([(t.values, t.accuracy) for t in inside], set(recorder.seen[:36]))
    assert any(t.accuracy is None for t in result.trials[:36])
    assert any(t.feasible and t.cost.macs < 0.8 * LIMIT for t in result.trials[:36])  # the smallest, at least
