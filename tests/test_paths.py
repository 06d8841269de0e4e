"""What an update of the supernet trains: laws that a ranking relies on, whatever the scheme by which sizes are drawn."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import nas.training.paths as training
from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.networks.mixers import NO_MIXER
from nas.quantities import parse_budget, parse_budgets
from nas.spaces.decisions import SearchSpace
from nas.spaces.levels import Levels, unrewarded
from nas.spaces.schema import Values
from nas.training.paths import STRATA, path_of_step

HERE = Path(__file__).parent
SPACE_FILES = [*sorted((HERE.parent / "search_spaces").glob("*.yaml")), HERE / "spaces" / "conv4.yaml"]
STEPS = 504  # a multiple of 2, 3, 4, 7 and 8: whole cycles of every list of mixers


@cache
def read(path: Path) -> tuple[SearchSpace, Levels]:
    """A space as a budget in the middle of its costs has it, and the levels around that budget."""
    space = SearchSpace.read(path)
    whole = Levels.whole(space, cost).ends["macs"]
    budgets = [parse_budget(f"{(whole[0] * whole[1]) ** 0.5:.0f}MACs")]
    levels = Levels.around(budgets)
    assert levels
    return space.fixing(unrewarded(space, cost, budgets)), levels


@cache
def drawn(path: Path) -> list[tuple[Values, Architecture]]:
    """The paths of the first steps, each with all that was chosen for it: what a path's depth leaves out too."""
    space, levels = read(path)
    found, decode = [], space.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "decode", lambda values: asked.append(values) or decode(values))
        for step in range(STEPS):
            asked: list[Values] = []
            found.append((asked, path_of_step(space, levels, 0, step)))
    return [(asked[-1], architecture) for asked, architecture in found]


def paths(path: Path) -> list[Architecture]:
    return [architecture for _, architecture in drawn(path)]


by_space = pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)


def test_a_path_is_a_function_of_seed_and_step() -> None:
    space, levels = read(SPACE_FILES[0])
    found = [path_of_step(space, levels, seed, step).key for seed in range(4) for step in range(25)]
    assert found == [path_of_step(space, levels, seed, step).key for seed in range(4) for step in range(25)]
    assert len(set(found)) > 90  # other seeds and other steps have other paths


@by_space
def test_fairness_is_strict_over_every_cycle_of_updates(path: Path) -> None:
    """Of m mixers each is chosen once in m updates in a row, whatever it costs, and runs there in every path that is so deep."""
    space, _ = read(path)
    for name, options in space.mixer_decisions.items():
        stage, _, block = name.partition(".")
        number = int(block[1:].partition(".")[0]) if block != "mixer" else 0
        assert STEPS % len(options) == 0
        for values, architecture in drawn(path):
            mixers = architecture.stages[int(stage[1:])].mixers
            assert mixers[number : number + 1] == (str(values[name]),)[: len(mixers) - number], (name, values)
        chosen = [values[name] for values, _ in drawn(path)]
        for cycle in range(0, STEPS, len(options)):
            assert Counter(chosen[cycle : cycle + len(options)]) == Counter(options), (name, cycle)


@by_space
def test_the_order_within_a_cycle_is_drawn_anew_and_apart_for_each_place(path: Path) -> None:
    space, _ = read(path)
    found = {}
    for name, options in space.mixer_decisions.items():
        stage, _, block = name.partition(".")
        if block in ("b0.mixer", "mixer") and len(options) > 3:
            ran = [each.stages[int(stage[1:])].mixers[0] for each in paths(path)]
            found[name] = tuple(ran)
            cycles = {tuple(ran[k : k + len(options)]) for k in range(0, STEPS, len(options))}
            assert len(cycles) > 10, name
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("steps", [60, 150, 399])
def test_what_was_drawn_is_counted_path_by_path_of_at_most_so_many(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = SPACE_FILES[0]
    monkeypatch.setattr(training, "COUNTED", 100)
    space, levels = read(path)
    found = training.drawn(space, levels, 0, steps)
    counted = paths(path)[: steps : found["every"]]
    assert 50 < len(counted) <= 100
    for i, stage in enumerate(space.largest(lambda architecture: cost(architecture).macs).stages):
        for block in range(stage.depth):
            ran = Counter((*each.stages[i].mixers, *["none"] * stage.depth)[block] for each in counted)
            assert found["mixers"].pop(f"stage {i} block {block}") == ran
    assert not found["mixers"]
    tenths = [levels.low ** (1 - k / 10) for k in range(1, 10)]
    reached = [sum(tenth <= levels.of(cost(each)) for tenth in tenths) for each in counted]
    assert found["costs"] == [reached.count(k) for k in range(10)] and sum(count > 0 for count in found["costs"]) > 5


@pytest.mark.parametrize("path", SPACE_FILES[:-1], ids=lambda path: path.stem)  # the last has too few sizes to be even in anything
def test_costs_lie_in_the_range_and_even_in_its_logarithm(path: Path) -> None:
    _, levels = read(path)
    reached = [levels.of(cost(each)) for each in paths(path)]
    inside = [each for each in reached if levels.low - 0.02 <= each <= 1.02]
    assert len(inside) > 0.9 * STEPS, "where mixers fit in at no size, a path is the nearest"
    parts = Counter(min(3, int(4 * (1 - each_log))) for each_log in (_log_share(each, levels.low) for each in inside))
    assert all(0.13 < parts[part] / len(inside) < 0.4 for part in range(4)), parts


def _log_share(level: float, low: float) -> float:
    """0 at the lower end of the range, 1 at the upper."""
    import math

    return max(0.0, min(1.0, 1 - math.log(level) / math.log(low)))


def test_levels_in_a_row_are_in_different_parts_of_the_range() -> None:
    """So that both ends are trained as often as the middle, within every few updates."""
    path = HERE.parent / "search_spaces" / "hybrid.yaml"
    _, levels = read(path)
    for start in range(0, 160, STRATA):
        reached = [levels.of(cost(each)) for each in paths(path)[start : start + STRATA]]
        assert min(reached) < levels.low**0.7 and max(reached) > levels.low**0.3, reached


@by_space
def test_every_option_of_every_decision_is_trained(path: Path) -> None:
    """A size that no path trained would be judged by weights that never were its own: each is in at least a twentieth of the paths."""
    space, _ = read(path)
    seen: Counter[tuple[str, object]] = Counter()
    for each in paths(path):
        seen.update(space.encode(each).items())
    for name, options in space.decisions.items():
        if name not in space.mixer_decisions or name.endswith((".b0.mixer", "s0.mixer", "s1.mixer")):
            assert all(seen[name, option] >= STEPS / 40 for option in options if option != NO_MIXER), (name, seen)


# ---- ranges ------------------------------------------------------------------------------------------------------------


def test_a_range_goes_from_half_of_the_smallest_limit_to_a_fifth_above_the_largest() -> None:
    levels = Levels.around([parse_budget("4MMACs"), parse_budget("10MMACs"), parse_budget("1Mparams"), parse_budget("8ms")])
    assert levels and levels.ends == {"macs": (2e6, 12e6), "params": (0.5e6, 1.2e6)}
    assert Levels.around([parse_budget("8ms")]) is None
    assert levels.covers(parse_budgets(["4MMACs"]), 0.8) and levels.covers(parse_budgets(["12MMACs", "1Mparams", "1ms"]), 0.8)
    for outside in (["2MMACs"], ["13MMACs"], ["5MMACs", "0.5Mparams"], ["5Mactivations"]):
        assert not levels.covers(parse_budgets(outside), 0.8), outside


def test_sharing_is_rewarded_by_a_limit_on_parameters_alone() -> None:
    space = SearchSpace.read(HERE.parent / "search_spaces" / "cifar.yaml")
    shared = {f"s{i}.sharing": False for i in range(3)}
    for budgets, fixed in (
        (["10MMACs"], shared),
        (["10MMACs", "8ms"], shared),
        (["0.5Mparams"], {}),
        (["10MMACs", "1Mparams"], {}),
        (["8ms"], {}),
    ):
        assert unrewarded(space, cost, parse_budgets(budgets)) == fixed, budgets
    rest = space.fixing(shared)
    assert set(space.decisions) - set(rest.decisions) == set(shared) and rest.fingerprint != space.fingerprint
    assert all(not stage.sharing for stage in rest.decode({name: options[0] for name, options in rest.decisions.items()}).stages)
    assert space.fixing({}) is space
