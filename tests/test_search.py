"""The search loop, the budgets' arithmetic and the winner's rule, on a space small enough to enumerate."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from toy_space import FRAME, MEASURE, MEASURED_BUDGETS, WEIGHT, Recorder, ToySpace, cost_of, latency_of, memory_of, reason_of

from nas.cost import cost
from nas.networks.architecture import Architecture, Stage
from nas.quantities import Cost, parse_budgets
from nas.runs.interrupt import Stopped
from nas.searching.known_networks import baselines
from nas.searching.proposals import Band, Proposal, draw, draw_in_band, drawn_by_hand, first_generation, largest_that_fits, usage
from nas.searching.search import (
    LOGITS,
    MEMORY,
    Evaluation,
    Instruments,
    SearchRequest,
    Stored,
    Trial,
    check_budgets,
    failures,
    search,
)
from nas.searching.winner import Winner, choose_winner
from nas.spaces.decisions import SearchSpace
from nas.spaces.schema import Values


@dataclass
class RandomStudy:
    """The plainest thing that suggests and remembers."""

    space: ToySpace
    stored: dict[int, Stored] = field(default_factory=dict)
    finished: list[Trial] = field(default_factory=list)
    generations: list[list[Proposal]] = field(default_factory=list)

    def ask(self, generation: int, proposals: Any, num: int) -> list[Proposal]:
        assert generation == len(self.generations)
        self.generations.append(list(proposals))
        rng = random.Random(generation)
        return [*proposals, *(Proposal(self.space.random(rng), "") for _ in range(num - len(proposals)))]

    def tell(self, trial: Trial) -> None:
        assert trial.number == len(self.finished)
        self.finished.append(trial)


def run(space: ToySpace, *texts: str, trials: int = 60, population: int = 20, study: Any = None, **options: Any) -> Any:
    budgets, _ = check_budgets(space, cost_of, parse_budgets(texts))
    recorder = options.pop("recorder", None) or Recorder()
    instruments = Instruments(cost_of, recorder, options.pop("measure", {}))
    # A sampler that the study knows: `RandomStudy` suggests what it likes, over the budget too.
    request = SearchRequest(budgets, trials, population, **{"sampler": "nsga2", **options.pop("request", {})})
    return search(space, study or RandomStudy(space), request, instruments, **options), recorder, request  # type: ignore[arg-type]


# ---- the loop ----------------------------------------------------------------------------------------------------------


def test_over_budget_is_never_evaluated_and_pruned_with_its_constraint() -> None:
    result, recorder, _ = run(ToySpace(), "4MMACs", trials=80)
    over = [trial for trial in result.trials if trial.cost.macs > 4e6]
    assert over and not {trial.architecture.key for trial in over} & set(recorder.seen)
    for trial in over:
        assert trial.evaluation is None and not trial.feasible
        assert trial.constraints["macs"] == pytest.approx(trial.cost.macs / 4e6 - 1) and trial.constraints["macs"] > 0


def test_nothing_is_evaluated_twice_and_repeats_get_the_known_value() -> None:
    result, recorder, _ = run(ToySpace((16, 32), (1, 2), 1), "1MMACs", trials=1000)
    assert len(recorder.seen) == len(set(recorder.seen)) == result.num_evaluated
    repeats = [trial for trial in result.trials if trial.repeat_of is not None]
    assert repeats
    for trial in repeats:
        first = result.trials[trial.repeat_of]
        assert first.number < trial.number and first.architecture == trial.architecture
        assert (first.evaluation, first.constraints, first.repeat_of) == (trial.evaluation, trial.constraints, None)


def test_trials_counts_distinct_evaluated_networks() -> None:
    result, recorder, _ = run(ToySpace(), "20MMACs", trials=22)
    assert result.ending == "trials" and result.num_evaluated == len(recorder.seen) == 22
    assert recorder.given == recorder.seen, "workers would evaluate what nobody asks for"
    assert [trial.number for trial in result.trials] == list(range(len(result.trials)))


@pytest.mark.parametrize("texts", [("1MMACs",), (), ("1MMACs", "3kparams")])
def test_tiny_space_ends(texts: tuple[str, ...]) -> None:
    space = ToySpace((16, 32), (1,), 1)
    result, recorder, request = run(space, *texts, trials=10_000)
    assert result.ending == "exhausted"
    in_band = {a.key for a in space.all() if 0.8 <= usage(a, cost_of(a), request.budgets) <= 1}
    assert in_band <= set(recorder.seen)


def test_where_the_sampler_finds_nothing_new_each_generation_draws_anew() -> None:
    class Stubborn(RandomStudy):
        def ask(self, generation: int, proposals: Any, num: int) -> list[Proposal]:
            smallest = {name: options[0] for name, options in self.space.decisions.items()}
            return [*proposals, *[Proposal(smallest, "")] * (num - len(proposals))]

    result, _, _ = run(ToySpace(), "4MMACs", trials=120, study=Stubborn(ToySpace()))
    assert (result.ending, result.num_evaluated) == ("trials", 120)


def test_stop_is_polled_before_each_evaluation() -> None:
    asked = iter([False] * 7 + [True])
    result, recorder, _ = run(ToySpace(), "4MMACs", stop=lambda: next(asked))
    assert result.ending == "stopped" and len(recorder.seen) == 7


def test_who_is_stopped_in_an_evaluation_leaves_the_trials_before_it() -> None:
    def stopped(architectures: list[Architecture]) -> Iterator[Evaluation]:
        yield from itertools.islice(Recorder()(architectures), 7)
        raise Stopped("evaluating stopped")

    study = RandomStudy(space := ToySpace())
    result, _, _ = run(space, "4MMACs", study=study, recorder=stopped)
    assert result.ending == "stopped" and result.num_evaluated == 7 and result.trials == study.finished


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
        assert trial.usage == pytest.approx(max(trial.cost.macs / 4e6, trial.cost.params / 30e3))


def test_time_outside_evaluation_is_told_apart() -> None:
    class Slow(Recorder):
        def __call__(self, architectures: list[Architecture]) -> Iterator[Evaluation]:
            for evaluation in super().__call__(architectures):
                time.sleep(0.005)
                yield evaluation

    result, _, _ = run(ToySpace(), "4MMACs", trials=20, recorder=Slow())
    assert 20 * 0.005 <= result.evaluate_seconds < result.seconds


# ---- failures ----------------------------------------------------------------------------------------------------------


def test_a_failure_is_recorded_once_counted_and_never_wins() -> None:
    study = RandomStudy(ToySpace((16, 32), (1, 2), 1))
    result, recorder, request = run(study.space, "1MMACs", trials=1000, study=study, recorder=Recorder(reason_of))
    assert len(recorder.seen) == len(set(recorder.seen)) == result.num_evaluated
    failed = {trial.architecture.key: trial.evaluation.failure for trial in result.trials if trial.evaluation and trial.evaluation.failure}
    assert failed == {key: reason for key in recorder.seen if (reason := reason_of(next(a for a in study.space.all() if a.key == key)))}
    assert failures(result.trials) == Counter(failed.values()) and len(set(failed.values())) == 2
    repeats = [trial for trial in result.trials if trial.repeat_of is not None and trial.accuracy is None]
    assert repeats and all(trial.evaluation == result.trials[trial.repeat_of].evaluation for trial in repeats)
    assert not any(trial.feasible for trial in result.trials if trial.architecture.key in failed)
    assert choose_winner(result.trials, request, num_heldout=1000, measure={}).trial.architecture.key not in failed


@pytest.mark.parametrize(
    ("reason", "advice"), [(MEMORY, "a smaller batch_size under search"), (LOGITS, "a lower --lr and another --run"), ("a bug", "another --budget or --floor")]
)  # fmt: skip
def test_a_search_in_which_all_fails_ends_and_says_the_commonest_reason_and_what_helps(reason: str, advice: str) -> None:
    recorder = Recorder(lambda architecture: reason_of(architecture) or reason)
    result, recorder, request = run(ToySpace(), "4MMACs", trials=30, recorder=recorder)
    assert result.ending == "trials" and len(recorder.seen) == 30
    with pytest.raises(ValueError, match=r"^search: every evaluation failed, .* of 30 .*") as error:
        choose_winner(result.trials, request, num_heldout=100, measure={})
    assert "\n" not in str(error.value) and f"got '{reason}'" in str(error.value) and advice in str(error.value)


def test_an_error_in_an_evaluation_is_no_failure_and_is_raised() -> None:
    def broken(architectures: list[Architecture]) -> Iterator[Evaluation]:
        raise KeyError("a bug")
        yield

    with pytest.raises(KeyError, match="a bug"):
        run(ToySpace(), "4MMACs", recorder=broken)


def test_an_evaluation_is_an_accuracy_or_a_failure() -> None:
    for accuracy, failure in ((None, None), (0.5, "out of memory"), (math.nan, None), (1.5, None)):
        with pytest.raises(AssertionError):
            Evaluation(accuracy, failure)


# ---- measured quantities -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("memory")
def test_all_that_is_measured_is_measured_only_for_what_would_enter_the_front_and_binds() -> None:
    calls: list[tuple[str, str]] = []

    def recorded(name: str) -> Callable[[Architecture], float]:
        return lambda architecture: (calls.append((name, architecture.key)), MEASURE[name](architecture))[1]

    result, recorder, request = run(ToySpace(), *MEASURED_BUDGETS, trials=60, measure={name: recorded(name) for name in MEASURE})
    assert 0 < len(calls) < 2 * len(recorder.seen) and len(set(calls)) == len(calls)
    verdicts = set()
    for position, trial in enumerate(result.trials):
        if trial.evaluation is None or trial.repeat_of is not None:
            continue
        before = [t for t in result.trials[:position] if t.feasible and t.repeat_of is None]
        accuracy, macs = trial.objectives
        better = [t for t in before if t.objectives[0] >= accuracy and t.objectives[1] <= macs and t.objectives != trial.objectives]
        enters = not better
        assert trial.measured == ({name: measure(trial.architecture) for name, measure in MEASURE.items()} if enters else {})
        if enters:
            within = latency_of(trial.architecture) <= 12, memory_of(trial.architecture) <= 14e6
            verdicts.add(within)
            assert trial.feasible == all(within)
            shares = (trial.cost.macs / 4e6, latency_of(trial.architecture) / 12, memory_of(trial.architecture) / 14e6)
            assert trial.usage == pytest.approx(max(shares))
            assert trial.constraints == pytest.approx(dict(zip(("macs", *MEASURE), (share - 1 for share in shares), strict=True)))
        else:
            assert trial.feasible
    assert verdicts >= {(True, True), (True, False), (False, True)}  # each forbids what the other allows
    winner = choose_winner(result.trials, request, num_heldout=1000, measure=MEASURE)
    assert winner.measured["latency_ms"] <= 12 and winner.measured["memory_bytes"] <= 14e6


def test_memory_that_runs_out_in_a_measurement_fails_the_network() -> None:
    def measure(architecture: Architecture) -> float:
        if reason_of(architecture):
            raise MemoryError("too large")
        return latency_of(architecture)

    result, _, request = run(ToySpace(), "4MMACs", "12ms", measure={"latency_ms": measure})
    assert failures(result.trials).total() > 0
    assert all(reason_of(t.architecture) for t in result.trials if t.evaluation and t.evaluation.failure)
    assert not reason_of(choose_winner(result.trials, request, num_heldout=100, measure={"latency_ms": measure}).trial.architecture)


def test_only_a_latency_budget_searches_all_sizes() -> None:
    result, _, request = run(ToySpace(), "12ms", trials=40, measure=MEASURE)
    macs = [trial.cost.macs for trial in result.trials if trial.origin == "drawn"]
    assert max(macs) > 5 * min(macs)
    assert choose_winner(result.trials, request, num_heldout=1000, measure=MEASURE).measured["latency_ms"] <= 12


# ---- what arithmetic proposes ------------------------------------------------------------------------------------------


def band_of(space: ToySpace, *texts: str) -> Band:
    return Band(space, cost_of, parse_budgets(texts), 0.8)  # type: ignore[arg-type]


@functools.cache
def everything() -> list[tuple[set[str], Cost]]:
    """Mixers and cost of every network of the toy space."""
    return [({mixer for stage in a.stages for mixer in stage.mixers}, cost_of(a)) for a in ToySpace().all()]


@pytest.mark.parametrize("texts", [("1MMACs",), ("3MMACs",), ("10MMACs",), ("20kparams",), ("2MMACs", "20kparams")])
@pytest.mark.parametrize("mixer", [None, "conv", "attention", "mlp"])
def test_largest_that_fits_is_near_the_enumerated_largest(texts: tuple[str, ...], mixer: str | None) -> None:
    space = ToySpace()
    used, fixed = band_of(space, *texts).used, space.patterns()[mixer] if mixer else {}
    found = largest_that_fits(space, fixed, used)
    assert found == largest_that_fits(space, fixed, used)
    budgets = parse_budgets(texts)
    shares = [
        max(getattr(cost, b.quantity.name) / b.limit for b in budgets) for kinds, cost in everything() if mixer is None or kinds == {mixer}
    ]
    best = max((share for share in shares if share <= 1), default=None)
    assert (found is None) == (best is None)
    if found is not None:
        assert {name: found[name] for name in fixed} == fixed
        # 0.93: one step of a width is up to a third of this coarse space's cost.
        assert 0.96 * best <= used(found) <= 1


def test_what_makes_no_difference_to_the_budget_takes_its_last_option() -> None:
    """Sharing saves parameters and no MACs: under a budget of MACs nothing is shared."""
    space = ToySpace()
    space.decisions["s0.sharing"] = (True, False)
    values = largest_that_fits(space, {}, band_of(space, "4MMACs").used)
    assert values is not None and values["s0.sharing"] is False


def test_largest_that_fits_is_none_where_nothing_does() -> None:
    space = ToySpace()
    assert largest_that_fits(space, {}, band_of(space, "1kMACs").used) is None


@pytest.mark.parametrize("mixer", ["conv", "token_mlp"])
def test_what_is_drawn_by_hand_is_deep_and_fills_the_budget(mixer: str) -> None:
    """Hardly less deep than the deepest network of its mixer that uses 90% of the budget, as enumerated; never shallower than the largest."""
    space = SearchSpace.read(Path(__file__).parents[1] / "search_spaces/cifar_small.yaml")
    fixed = space.patterns()[mixer] | {"s0.sharing": False, "s1.sharing": False}
    free = {name: options for name, options in space.decisions.items() if name not in fixed}
    every = [fixed | dict(zip(free, options, strict=True)) for options in itertools.product(*free.values())]
    macs = {space.decode(values): cost(space.decode(values)).macs / 1e6 for values in every}
    missing = []
    for megas in (3, 4, 5, 6, 8, 10, 15):

        def used(values: Values, megas: int = megas) -> float:
            return macs[space.decode(values)] / megas

        found, largest = drawn_by_hand(space, fixed, used), largest_that_fits(space, fixed, used)
        assert found is not None and largest is not None and {name: found[name] for name in fixed} == fixed
        assert 0.9 <= used(found) <= 1 and blocks(space.decode(found)) >= blocks(space.decode(largest))
        missing.append(max(blocks(each) for each in macs if 0.9 <= macs[each] / megas <= 1) - blocks(space.decode(found)))
    assert sum(missing) <= 0.5 * len(missing), missing


@pytest.mark.parametrize("kilo", [*range(100, 300, 20), *range(800, 6000, 200)])
def test_what_is_drawn_by_hand_fills_a_budget_of_coarse_steps_too(kilo: int) -> None:
    """Deep ways may end far below a budget that a wide network fills. Nothing is over it, or drawn where nothing fits."""
    space = ToySpace((16, 64), (1, 3), 1)
    used, fixed = band_of(space, f"{kilo}kMACs").used, space.patterns()["conv"]
    found, largest = drawn_by_hand(space, fixed, used), largest_that_fits(space, fixed, used)
    assert (found is None) == (largest is None)
    if found is not None and largest is not None:
        assert min(0.9, used(largest)) <= used(found) <= 1


def test_the_networks_to_hold_a_winner_against_are_those_drawn_by_hand() -> None:
    space = SearchSpace.read(Path(__file__).parents[1] / "search_spaces/cifar_small.yaml")
    budgets = parse_budgets(["10MMACs"])
    named = {each.name: each.architecture for each in baselines(space, budgets, 0.8, space.frame)}
    assert named.keys() == space.patterns().keys() and blocks(named["conv"]) == 6  # the largest one has three
    for name, mixers in space.patterns().items():
        values = drawn_by_hand(space, mixers, lambda values: cost(space.decode(values)).macs / 1e7)
        assert values is not None and named[name] == space.decode(values)


def blocks(architecture: Architecture) -> int:
    return sum(stage.depth for stage in architecture.stages)


def test_draws_lie_in_the_band_and_spread_over_it_and_over_the_mixers() -> None:
    space, rng = ToySpace(), random.Random(0)
    band = band_of(space, "10MMACs")
    drawn = [draw_in_band(band, rng) for _ in range(200)]
    shares = [band.used(values) for values in drawn if values is not None]
    assert len(shares) == 200 and all(0.8 <= share <= 1 for share in shares)
    for low in (0.8, 0.85, 0.9, 0.95):
        assert sum(low <= share < low + 0.05 for share in shares) > 20
    for name, options in space.mixer_decisions.items():
        for option in options:
            assert 35 < sum(values[name] == option for values in drawn if values) < 100, (name, option)


def test_draw_gives_up_where_the_band_is_empty() -> None:
    space = ToySpace((16, 32), (1,), 1)
    assert draw(band_of(space, "10MMACs"), 10, set(), random.Random(0)) == []


def test_first_generation_is_distinct_in_budget_and_holds_the_seeds() -> None:
    space = ToySpace()
    used = (band := band_of(space, "4MMACs")).used
    proposals = first_generation(band, {}, 50, random.Random(0))
    assert len({space.decode(p.values).key for p in proposals}) == len(proposals) == 50
    assert all(used(p.values) <= 1 for p in proposals)
    assert [p.origin for p in proposals[:5]] == ["smallest", "largest that fits", "conv", "attention", "mlp"]
    assert all(used(p.values) >= 0.8 for p in proposals if p.origin != "smallest")
    for proposal in proposals:
        if proposal.origin in WEIGHT:
            assert proposal.values == drawn_by_hand(space, space.patterns()[proposal.origin], used)


def test_a_search_begins_with_its_starts_and_draws_by_its_seed() -> None:
    space, drawn = ToySpace(), []
    values = [{name: options[k] for name, options in space.decisions.items()} for k in (0, -1)]
    values[0]["s0.cpe"] = True  # or it would be the smallest
    assert band_of(space, "4MMACs").used(values[0]) <= 1 < band_of(space, "4MMACs").used(values[1])
    for seed in (0, 0, 1):
        study = RandomStudy(space)
        run(space, "4MMACs", trials=3, study=study, request={"seed": seed, "starts": {"mine": values[0], "too large": values[1]}})
        assert study.generations[0][0] == Proposal(values[0], "mine")
        assert "too large" not in {proposal.origin for proposal in study.generations[0]}
        drawn.append([proposal.values for proposal in study.generations[0] if proposal.origin == "drawn"])
    assert drawn[0] == drawn[1] != drawn[2]


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
    largest = cost_of(ToySpace().largest(None)).macs
    assert not check_budgets(ToySpace(), cost_of, parse_budgets([f"{largest}MACs"]))[0]
    assert check_budgets(ToySpace(), cost_of, parse_budgets([f"{largest - 1}MACs"]))[0]


# ---- the winner --------------------------------------------------------------------------------------------------------


def trial(number: int, accuracy: float | None, macs: int, **changes: Any) -> Trial:
    network = Architecture(FRAME, 4, (Stage(16 + number, ("conv",), 2.0),))
    evaluation = None if accuracy is None else Evaluation(accuracy)
    given = {"constraints": {"macs": macs / 100 - 1}, "evaluation": evaluation}
    return Trial(number, {}, network, Cost(macs, macs, 0), **{**given, **changes})


def winner_of(trials: list[Trial], *texts: str, num_heldout: int = 10**6, measure: Any = None) -> Winner:
    return choose_winner(trials, SearchRequest(parse_budgets(texts), 100, 10), num_heldout=num_heldout, measure=measure or {})


def test_winner_is_the_most_accurate_in_the_band() -> None:
    trials = [trial(0, 0.95, 70), trial(1, 0.80, 85), trial(2, 0.70, 99), trial(3, None, 120)]
    winner = winner_of(trials, "100MACs", num_heldout=10_000)
    assert winner.trial.number == 1 and winner.reason.startswith("the most accurate between 80%")


def test_of_equally_accurate_ones_the_one_that_uses_more_wins_then_the_earlier() -> None:
    trials = [trial(0, 0.80, 85), trial(1, 0.80, 95), trial(2, 0.80, 95), trial(3, 0.7999, 99)]
    winner = winner_of(trials, "100MACs", num_heldout=1000)
    assert winner.trial.number == 1
    assert winner.standard_error == pytest.approx(0.012649, abs=1e-6)  # by hand, of 80% of 1,000 images


def test_outside_the_band_the_most_accurate_wins_and_it_is_said() -> None:
    winner = winner_of([trial(0, 0.80, 20), trial(1, 0.799, 60)], "100MACs", num_heldout=100)
    assert winner.trial.number == 0 and winner.reason.startswith("no network evaluated lies between 80%")


def test_winner_obeys_all_as_measured_now_or_the_next_one_wins(memory: None) -> None:
    trials = [trial(number, 0.9 - number / 10, 90, measured={"latency_ms": 7.0, "memory_bytes": 1e6}) for number in range(4)]
    latency = dict(zip((t.architecture for t in trials), (9.0, 7.0, 7.0, 6.0), strict=True))
    memory_now = dict(zip((t.architecture for t in trials), (1e6, 3e6, None, 1.9e6), strict=True))

    def measure_memory(architecture: Architecture) -> float:
        if memory_now[architecture] is None:
            raise MemoryError
        return memory_now[architecture]

    def measure_latency(architecture: Architecture) -> float:
        measured.append(architecture)
        return latency[architecture]

    measured: list[Architecture] = []
    texts, measure = ("100MACs", "8ms", "2MB"), {"latency_ms": measure_latency, "memory_bytes": measure_memory}
    winner = winner_of(trials, *texts, measure=measure)
    assert (winner.trial.number, winner.measured) == (3, {"latency_ms": 6.0, "memory_bytes": 1.9e6})
    assert winner.usage == pytest.approx(0.95)
    trials.append(dataclasses.replace(trials[0], number=4, repeat_of=0))
    latency[trials[3].architecture] = 8.1
    measured.clear()
    with pytest.raises(ValueError, match=r"^--budget 100MACs and 8ms and 2MB: no network evaluated obeys it"):
        winner_of(trials, *texts, measure=measure)
    assert len(measured) == len(set(measured)), "one network was given two chances"


def test_repeats_and_violators_never_win() -> None:
    trials = [trial(0, 0.9, 90, constraints={"macs": -0.1, "latency_ms": 0.1}), trial(1, 0.5, 85), trial(2, 0.5, 85, repeat_of=1)]
    with pytest.raises(ValueError, match="no network evaluated obeys it"):  # within the limit now, but not in the search
        failed = trial(3, None, 90, evaluation=Evaluation(failure="out of memory"))
        winner_of([trials[0], failed], "100MACs", "8ms", measure={"latency_ms": lambda architecture: 7.0})
    assert winner_of(trials, "100MACs", num_heldout=10**6).trial.number == 1


def test_usage_is_of_the_tightest_budget_that_arithmetic_knows() -> None:
    cost = Cost(macs=60, params=30, activations=0)
    assert usage(None, cost, parse_budgets(["100MACs", "40params", "8ms"])) == 0.75
    assert usage(None, cost, parse_budgets(["8ms"])) == usage(None, cost, []) == 0


def test_without_a_binding_budget_every_network_is_in_the_band() -> None:
    trials = [trial(0, 0.80, 85, constraints={}), trial(1, 0.90, 5, constraints={})]
    assert winner_of(trials).trial.number == 1
    assert "no budget binds" in winner_of(trials).reason


def test_search_imports_neither_torch_nor_optuna_nor_ray() -> None:
    code = "import sys, nas.searching.search; sys.exit(bool({'torch', 'optuna', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
