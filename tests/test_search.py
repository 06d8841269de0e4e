"""The search loop, the budgets' arithmetic and the winner's rule, on a space small enough to enumerate."""

from __future__ import annotations

import functools
import itertools
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nas.networks.architecture import Architecture, Frame, Stage
from nas.pareto import front
from nas.quantities import Cost, parse_budgets
from nas.searching.search import (
    Asked,
    Stored,
    Trial,
    check_budgets,
    choose_winner,
    draw,
    draw_in_band,
    first_generation,
    largest_that_fits,
    search,
    standard_error,
    usage,
)

FRAME = Frame(32, 3, 10)
WEIGHT = {"conv": 3, "attention": 5, "mlp": 4}


class ToySpace:
    """Stands for a SearchSpace: two stages of width, depth and a mixer per block, with made-up costs."""

    name = "toy"
    fingerprint = "0123456789ab"

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64), depths: tuple[int, ...] = (1, 2, 3), stages: int = 2) -> None:
        self.stages = stages
        self.decisions: dict[str, tuple[Any, ...]] = {}
        for i in range(stages):
            self.decisions[f"s{i}.width"] = tuple(width * 2**i for width in widths)
            self.decisions[f"s{i}.depth"] = depths
            self.decisions[f"s{i}.cpe"] = (False, True)
            self.decisions |= {f"s{i}.b{j}.mixer": tuple(WEIGHT) for j in range(depths[-1])}
        self.mixer_decisions = {name: options for name, options in self.decisions.items() if name.endswith("mixer")}

    def decode(self, values: Any) -> Architecture:
        stages = []
        for i in range(self.stages):
            mixers = tuple(values[f"s{i}.b{j}.mixer"] for j in range(values[f"s{i}.depth"]))
            stages.append(Stage(values[f"s{i}.width"], mixers, 2.0, values[f"s{i}.cpe"]))
        return Architecture(FRAME, 4, tuple(stages))

    def encode(self, architecture: Architecture) -> dict[str, Any]:
        values = {name: options[0] for name, options in self.decisions.items()}
        for i, stage in enumerate(architecture.stages):
            values |= {f"s{i}.width": stage.width, f"s{i}.depth": stage.depth, f"s{i}.cpe": stage.cpe}
            values |= {f"s{i}.b{j}.mixer": mixer for j, mixer in enumerate(stage.mixers)}
        return values

    def random(self, rng: random.Random) -> dict[str, Any]:
        return {name: rng.choice(options) for name, options in self.decisions.items()}

    def smallest(self, measure: Any) -> Architecture:
        return self.decode({name: options[0] for name, options in self.decisions.items()})

    def largest(self, measure: Any) -> Architecture:
        top = {name: options[-1] for name, options in self.decisions.items()}
        return self.decode(top | dict.fromkeys(self.mixer_decisions, "attention"))

    def patterns(self) -> dict[str, dict[str, Any]]:
        return {mixer: dict.fromkeys(self.mixer_decisions, mixer) for mixer in WEIGHT}

    def all(self) -> list[Architecture]:
        """Every network once: the product of the distinct stages."""
        lists = []
        for i in range(self.stages):
            own = {name: options for name, options in self.decisions.items() if name.startswith(f"s{i}.")}
            base = {name: options[0] for name, options in self.decisions.items()}
            choices = (base | dict(zip(own, options, strict=True)) for options in itertools.product(*own.values()))
            lists.append(list(dict.fromkeys(self.decode(values).stages[i] for values in choices)))
        return [Architecture(FRAME, 4, stages) for stages in itertools.product(*lists)]


def cost_of(architecture: Architecture) -> Cost:
    macs = params = 0
    for i, stage in enumerate(architecture.stages):
        for mixer in stage.mixers:
            params += WEIGHT[mixer] * stage.width**2 + 9 * stage.width * stage.cpe
            macs += (WEIGHT[mixer] * stage.width**2 + 9 * stage.width * stage.cpe) * 256 // 4**i
    return Cost(macs, params, 0)


def accuracy_of(architecture: Architecture) -> float:
    """Grows with cost, with some taste in mixers and some noise fixed per architecture."""
    early, late = architecture.stages[0].mixers, architecture.stages[-1].mixers
    taste = 0.05 * early.count("conv") / len(early) + 0.05 * late.count("attention") / len(late)
    noise = int(architecture.key, 16) % 1000 / 1e5
    return 0.3 + 0.03 * math.log(cost_of(architecture).macs) / 3 + taste + noise


@dataclass
class Recorder:
    """An evaluator that remembers what it was given."""

    seen: list[str] = field(default_factory=list)

    def __call__(self, architectures: list[Architecture]) -> Iterator[float]:
        for architecture in architectures:
            self.seen.append(architecture.key)
            yield accuracy_of(architecture)


@dataclass
class RandomStudy:
    """The plainest thing that asks and remembers."""

    space: ToySpace
    stored: dict[int, Stored] = field(default_factory=dict)
    told: list[Trial] = field(default_factory=list)

    def ask(self, generation: int, proposals: Any, num: int) -> list[Asked]:
        rng, first = random.Random(generation), len(self.told)
        asked = [Asked(first + k, p.values, p.origin) for k, p in enumerate(proposals)]
        return asked + [Asked(first + k, self.space.random(rng), "") for k in range(len(asked), num)]

    def tell(self, trial: Trial) -> None:
        assert trial.number == len(self.told)
        self.told.append(trial)


def run(space: ToySpace, *texts: str, trials: int = 60, population: int = 20, study: Any = None, **options: Any) -> Any:
    budgets, _ = check_budgets(space, cost_of, parse_budgets(texts))
    recorder = Recorder()
    result = search(
        space, study or RandomStudy(space), cost_of, budgets, options.pop("evaluate", recorder),
        trials=trials, population=population, seed=0, **options,
    )  # fmt: skip
    return result, recorder, budgets


# ---- the loop ----------------------------------------------------------------------------------------------------------


def test_over_budget_is_never_evaluated_and_pruned_with_its_constraint() -> None:
    result, recorder, _ = run(ToySpace(), "4MMACs", trials=80)
    over = [trial for trial in result.trials if trial.cost.macs > 4e6]
    assert over and not {trial.architecture.key for trial in over} & set(recorder.seen)
    for trial in over:
        assert trial.accuracy is None and not trial.feasible
        assert trial.constraints["macs"] == pytest.approx(trial.cost.macs / 4e6 - 1) and trial.constraints["macs"] > 0


def test_nothing_is_evaluated_twice_and_repeats_get_the_known_value() -> None:
    result, recorder, _ = run(ToySpace((16, 32), (1, 2), 1), "1MMACs", trials=1000)
    assert len(recorder.seen) == len(set(recorder.seen)) == result.num_evaluated
    repeats = [trial for trial in result.trials if trial.repeat_of is not None]
    assert repeats
    for trial in repeats:
        first = result.trials[trial.repeat_of]
        assert first.number < trial.number and first.architecture == trial.architecture
        assert (first.accuracy, first.constraints, first.repeat_of) == (trial.accuracy, trial.constraints, None)


def test_trials_counts_distinct_evaluated_networks() -> None:
    result, recorder, _ = run(ToySpace(), "4MMACs", trials=33)
    assert result.ending == "trials" and result.num_evaluated == len(recorder.seen) == 33
    assert [trial.number for trial in result.trials] == list(range(len(result.trials)))


@pytest.mark.parametrize("texts", [("1MMACs",), (), ("1MMACs", "3kparams")])
def test_tiny_space_ends(texts: tuple[str, ...]) -> None:
    space = ToySpace((16, 32), (1,), 1)
    result, recorder, budgets = run(space, *texts, trials=10_000)
    assert result.ending == "exhausted"
    in_band = {a.key for a in space.all() if 0.8 <= usage(cost_of(a), budgets) <= 1}
    assert in_band <= set(recorder.seen)


def test_stop_is_polled_before_each_evaluation() -> None:
    asked = iter([False] * 7 + [True])
    result, recorder, _ = run(ToySpace(), "4MMACs", stop=lambda: next(asked))
    assert result.ending == "stopped" and len(recorder.seen) == 7


def test_report_counts_and_names_the_best() -> None:
    seen = []
    result, _, _ = run(ToySpace(), "4MMACs", trials=30, report=lambda trial, num, best: seen.append((trial.number, num, best)))
    assert [number for number, _, _ in seen] == list(range(len(result.trials)))
    assert seen[-1][1] == 30 and seen[-1][2].accuracy == max(t.accuracy for t in result.trials if t.feasible)


def test_two_budgets_hold_together() -> None:
    result, recorder, _ = run(ToySpace(), "4MMACs", "30kparams")
    for trial in result.trials:
        fits = trial.cost.macs <= 4e6 and trial.cost.params <= 30e3
        assert fits == trial.feasible == (trial.architecture.key in recorder.seen)
        assert set(trial.constraints) == {"macs", "params"}
        assert trial.usage == max(trial.cost.macs / 4e6, trial.cost.params / 30e3)


def test_time_outside_evaluation_is_told_apart() -> None:
    result, _, _ = run(ToySpace(), "4MMACs", trials=20)
    assert 0 <= result.evaluate_seconds < result.seconds


# ---- latency -----------------------------------------------------------------------------------------------------------


def latency_of(architecture: Architecture) -> float:
    return 1 + 3 * sum(stage.depth for stage in architecture.stages) + int(architecture.key, 16) % 7 / 10


def test_latency_is_measured_only_for_what_would_enter_the_front() -> None:
    timed: list[str] = []

    def measure(architecture: Architecture) -> float:
        timed.append(architecture.key)
        return latency_of(architecture)

    result, recorder, _ = run(ToySpace(), "4MMACs", "12ms", trials=60, measure_latency=measure)
    assert 0 < len(timed) < len(recorder.seen) and len(set(timed)) == len(timed)
    for position, trial in enumerate(result.trials):
        before = [t for t in result.trials[:position] if t.feasible and t.repeat_of is None]
        if trial.accuracy is None or trial.repeat_of is not None:
            continue
        points = [t.objectives for t in before] + [trial.objectives]
        assert (trial.latency_ms is not None) == (len(before) in front(points, ("maximize", "minimize")))
        assert trial.feasible == (trial.latency_ms is None or trial.latency_ms <= 12)


def test_only_a_latency_budget_searches_all_sizes() -> None:
    result, _, budgets = run(ToySpace(), "12ms", trials=40, measure_latency=latency_of)
    macs = [trial.cost.macs for trial in result.trials]
    assert max(macs) > 20 * min(macs)
    winner = choose_winner(result.trials, budgets, num_heldout=1000, measure_latency=latency_of)
    assert winner.latency_ms is not None and winner.latency_ms <= 12


# ---- what arithmetic proposes ------------------------------------------------------------------------------------------


def used_in(space: ToySpace, *texts: str) -> Any:
    budgets = parse_budgets(texts)
    return lambda values: usage(cost_of(space.decode(values)), budgets)


@functools.cache
def everything() -> list[tuple[set[str], Cost]]:
    """Mixers and cost of every network of the toy space."""
    return [({mixer for stage in a.stages for mixer in stage.mixers}, cost_of(a)) for a in ToySpace().all()]


@pytest.mark.parametrize("texts", [("1MMACs",), ("3MMACs",), ("10MMACs",), ("20kparams",), ("2MMACs", "20kparams")])
@pytest.mark.parametrize("mixer", [None, "conv", "attention", "mlp"])
def test_largest_that_fits_is_near_the_enumerated_largest(texts: tuple[str, ...], mixer: str | None) -> None:
    space = ToySpace()
    used, fixed = used_in(space, *texts), space.patterns()[mixer] if mixer else {}
    found = largest_that_fits(space, fixed, used)
    assert found == largest_that_fits(space, fixed, used)
    budgets = parse_budgets(texts)
    shares = [usage(cost, budgets) for kinds, cost in everything() if mixer is None or kinds == {mixer}]
    best = max((share for share in shares if share <= 1), default=None)
    assert (found is None) == (best is None)
    if found is not None:
        assert {name: found[name] for name in fixed} == fixed
        # 0.93: one step of a width is up to a third of this coarse space's cost.
        assert 0.96 * best <= used(found) <= 1


def test_largest_that_fits_is_none_where_nothing_does() -> None:
    space = ToySpace()
    assert largest_that_fits(space, {}, used_in(space, "1kMACs")) is None


def test_draws_lie_in_the_band_and_spread_over_it_and_over_the_mixers() -> None:
    space, rng = ToySpace(), random.Random(0)
    used = used_in(space, "10MMACs")
    drawn = [draw_in_band(space, used, 0.8, rng) for _ in range(200)]
    shares = [used(values) for values in drawn if values is not None]
    assert len(shares) == 200 and all(0.8 <= share <= 1 for share in shares)
    for low in (0.8, 0.85, 0.9, 0.95):
        assert sum(low <= share < low + 0.05 for share in shares) > 20
    for name, options in space.mixer_decisions.items():
        for option in options:
            assert 35 < sum(values[name] == option for values in drawn if values) < 100, (name, option)


def test_draw_gives_up_where_the_band_is_empty() -> None:
    space = ToySpace((16, 32), (1,), 1)
    assert draw(space, used_in(space, "10MMACs"), 0.8, random.Random(0), 10, set()) == []


def test_first_generation_is_distinct_in_budget_and_holds_the_seeds() -> None:
    space, budgets = ToySpace(), parse_budgets(["4MMACs"])
    used = used_in(space, "4MMACs")
    proposals = first_generation(space, cost_of, budgets, used, 0.8, {}, 50, random.Random(0))
    assert len({space.decode(p.values).key for p in proposals}) == len(proposals) == 50
    assert all(used(p.values) <= 1 for p in proposals)
    assert [p.origin for p in proposals[:5]] == ["smallest", "largest that fits", "conv", "attention", "mlp"]
    assert all(used(p.values) >= 0.8 for p in proposals if p.origin != "smallest")
    for proposal in proposals:
        if proposal.origin in WEIGHT:
            assert proposal.values == largest_that_fits(space, space.patterns()[proposal.origin], used)


def test_impossible_budget_is_refused_with_the_smallest_cost() -> None:
    space = ToySpace()
    with pytest.raises(ValueError, match=r"^--budget 1kMACs: .*got 1kMACs; accepted: .* kMACs, its smallest, or more\. Raise") as error:
        check_budgets(space, cost_of, parse_budgets(["1kMACs"]))
    assert "\n" not in str(error.value)
    # What is printed as accepted is accepted.
    printed = str(error.value).split("accepted: ")[1].split(",")[0].replace(" ", "")
    check_budgets(space, cost_of, parse_budgets([printed]))


def test_budgets_that_exclude_each_other_are_refused() -> None:
    space = ToySpace((16, 32, 48, 64), (1,))
    least = cost_of(space.smallest(None))
    check_budgets(space, cost_of, parse_budgets([f"{least.macs}MACs", f"{least.params}params"]))

    def cheap_macs_dear_params(architecture: Architecture) -> Cost:
        cost = cost_of(architecture)
        return Cost(cost.macs, 10**9 // cost.params, 0)

    everyone = space.all()
    space.smallest = lambda measure: min(everyone, key=measure)  # type: ignore[method-assign]
    space.largest = lambda measure: max(everyone, key=measure)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="within all at once"):
        check_budgets(space, cheap_macs_dear_params, parse_budgets(["1MMACs", "20kparams"]))


def test_a_budget_above_the_largest_is_no_limit() -> None:
    binding, unlimited = check_budgets(ToySpace(), cost_of, parse_budgets(["4MMACs", "1Tparams", "8ms"]))
    assert [b.text for b in binding] == ["4MMACs", "8ms"] and [b.text for b in unlimited] == ["1Tparams"]


# ---- the winner --------------------------------------------------------------------------------------------------------


def trial(number: int, accuracy: float | None, macs: int, **changes: Any) -> Trial:
    network = Architecture(FRAME, 4, (Stage(16 + number, ("conv",), 2.0),))
    given = {"constraints": {"macs": macs / 100 - 1}, "usage": macs / 100}
    return Trial(number, {}, network, Cost(macs, macs, 0), accuracy, **{**given, **changes})


LIMIT = parse_budgets(["100MACs"])


def test_winner_is_the_most_accurate_in_the_band() -> None:
    trials = [trial(0, 0.95, 70), trial(1, 0.80, 85), trial(2, 0.70, 99), trial(3, None, 120)]
    winner = choose_winner(trials, LIMIT, num_heldout=10_000)
    assert winner.trial.number == 1 and winner.reason.startswith("the most accurate between 80%")


def test_larger_wins_within_one_standard_error() -> None:
    error = standard_error(0.8, 1000)
    assert error == pytest.approx(0.012649, abs=1e-6)
    trials = [trial(0, 0.80, 85), trial(1, 0.80 - 0.9 * error, 95), trial(2, 0.80 - 1.1 * error, 99)]
    winner = choose_winner(trials, LIMIT, num_heldout=1000)
    assert winner.trial.number == 1 and "one standard error" in winner.reason
    assert choose_winner(trials, LIMIT, num_heldout=100_000).trial.number == 0


def test_outside_the_band_the_most_accurate_wins_and_it_is_said() -> None:
    winner = choose_winner([trial(0, 0.80, 20), trial(1, 0.799, 60)], LIMIT, num_heldout=100)
    assert winner.trial.number == 0 and winner.reason.startswith("no network evaluated lies between 80%")


def test_winner_obeys_latency_as_measured_now_or_the_next_one_wins() -> None:
    budgets = parse_budgets(["100MACs", "8ms"])
    trials = [trial(0, 0.9, 90, latency_ms=7.0), trial(1, 0.8, 90), trial(2, 0.7, 90, latency_ms=5.0)]
    now = {trials[0].architecture: 9.0, trials[1].architecture: 8.5, trials[2].architecture: 6.0}
    winner = choose_winner(trials, budgets, num_heldout=10**6, measure_latency=now.__getitem__)
    assert (winner.trial.number, winner.latency_ms, winner.usage) == (2, 6.0, 0.9)
    with pytest.raises(ValueError, match="no network evaluated obeys it"):
        choose_winner(trials, budgets, num_heldout=10**6, measure_latency=lambda architecture: 9.0)


def test_repeats_and_violators_never_win() -> None:
    trials = [trial(0, 0.9, 90, constraints={"latency_ms": 0.1}), trial(1, 0.5, 85), trial(2, 0.5, 85, repeat_of=1)]
    assert choose_winner(trials, LIMIT, num_heldout=10**6).trial.number == 1


def test_usage_is_of_the_tightest_budget_that_arithmetic_knows() -> None:
    cost = Cost(macs=60, params=30, activations=0)
    assert usage(cost, parse_budgets(["100MACs", "40params", "8ms"])) == 0.75
    assert usage(cost, parse_budgets(["8ms"])) == usage(cost, []) == 0


def test_without_a_binding_budget_every_network_is_in_the_band() -> None:
    trials = [trial(0, 0.80, 85, usage=0.0, constraints={}), trial(1, 0.90, 5, usage=0.0, constraints={})]
    assert choose_winner(trials, [], num_heldout=10**6).trial.number == 1


def test_search_imports_neither_torch_nor_optuna_nor_ray() -> None:
    code = "import sys, nas.searching.search; sys.exit(bool({'torch', 'optuna', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
