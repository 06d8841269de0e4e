"""The samplers and the stored study: what is asked, what is written, and that an interrupted study goes on as if never interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from faults import happened
from optuna_dashboard import _serializer
from processes import another_process
from studies import stored
from toy_space import MEASURE, MEASURED_BUDGETS, Recorder, ToySpace, accuracy_of, cost_of, reason_of

import nas.searching.evolution as evolution
from nas.networks.architecture import Architecture
from nas.quantities import parse_budgets
from nas.searching.evolution import PROPOSERS
from nas.searching.optuna_study import SAMPLERS, OptunaStudy, open_study
from nas.searching.search import DIRECTIONS, Evaluation, Instruments, Result, SearchRequest, check_budgets, search
from nas.searching.study_storage import Place

SMALL = ToySpace(stages=1)  # writing a trial takes time by the number of its parameters
POPULATION, TRIALS = 6, 14  # some generations, the last of them cut short
FACTS = {"space": "toy", "fingerprint": ToySpace.fingerprint}


@pytest.fixture(scope="module", autouse=True)
def few_children() -> Iterator[None]:
    """A tenth of those that the model chooses from: what becomes of proposals is looked at here, not how good they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evolution, "POOL", evolution.POOL // 10)
        yield


def run(
    path: Place | None,
    *,
    trials: int = TRIALS,
    population: int = POPULATION,
    sampler: str = "nsga2",
    seed: int = 0,
    space: ToySpace = SMALL,
    **options: Any,
) -> Result:
    """A search that leaves a study in the file; without one, in memory, five times as fast."""
    budgets, _ = check_budgets(space, cost_of, parse_budgets(options.pop("budgets", ["4MMACs"])))  # type: ignore[arg-type]
    request = SearchRequest(budgets, trials, population, sampler, seed, **options.pop("request", {}))
    instruments = Instruments(cost_of, options.pop("evaluate", Recorder()), options.pop("measure", {}))
    opened: Any = contextlib.nullcontext(
        OptunaStudy("memory", optuna.create_study(directions=list(DIRECTIONS)), space.decisions, request, {})
    )
    if path:
        opened = open_study(path, "4MMACs", space.decisions, request, options.pop("facts", FACTS))
    beside = options.pop("beside", lambda evaluate: evaluate)
    with opened as study:
        return search(space, study, request, dataclasses.replace(instruments, evaluate=beside(instruments.evaluate)), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Result]:
    """Puts the study of a search that has ended into a file, as `run` writes it: one is made, and copied."""
    folder = tmp_path_factory.mktemp("ended")
    found = run(folder / "a.db")

    def put(path: Path) -> Result:
        shutil.copy(folder / "a.db", path)
        return found

    return put


def stored_trials(path: Path | str, name: str = "4MMACs") -> list[Any]:
    """What another program reads of a study, times and ids apart."""
    with stored(path, name) as study:
        return [
            (
                t.number,
                t.state,
                t.values,
                t.params,
                t.distributions,
                t.user_attrs,
                {k: v for k, v in t.system_attrs.items() if k != "fixed_params"},
            )
            for t in study.get_trials()
        ]


@pytest.mark.whole
@pytest.mark.parametrize("sampler", [*PROPOSERS, *SAMPLERS])
def test_stopped_and_continued_equals_uninterrupted(sampler: str, tmp_path: Path) -> None:
    run(tmp_path / "a.db", sampler=sampler)
    seen: list[str] = []
    # Within the first generation, at its end, within the second, and in what is then the last.
    for trials in (3, POPULATION, 8, TRIALS):
        recorder = Recorder()
        run(tmp_path / "b.db", sampler=sampler, trials=trials, evaluate=recorder)
        seen += recorder.seen
    assert stored_trials(tmp_path / "a.db") == stored_trials(tmp_path / "b.db")
    assert len(seen) == len(set(seen)) == TRIALS  # what was known was not evaluated again


KILLED = """
import os, signal, sys
from pathlib import Path
import tests.conftest, tests.test_optuna_study as t
print("ready", flush=True)
for position in (4, 2):  # in the first generation, and in the second
    def evaluate(architectures):
        for k, architecture in enumerate(architectures):
            if k == position:
                os.kill(os.getpid(), signal.SIGKILL)
            yield t.Evaluation(t.accuracy_of(architecture))
    if (child := os.fork()) == 0:
        t.run(Path(sys.argv[1]), evaluate=evaluate)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.whole
def test_killed_in_a_generation_and_continued_equals_uninterrupted(ended: Callable[[Path], Result], tmp_path: Path) -> None:
    with another_process(KILLED, tmp_path / "b.db") as process:
        statuses, _ = process.communicate(timeout=60)
    assert [int(status) for status in statuses.split()] == [-signal.SIGKILL] * 2
    assert (tmp_path / "b.db-wal").exists()
    begun = len(stored_trials(tmp_path / "b.db"))
    run(tmp_path / "b.db")
    ended(tmp_path / "a.db")
    assert POPULATION < begun < len(stored_trials(tmp_path / "a.db"))
    assert stored_trials(tmp_path / "a.db") == stored_trials(tmp_path / "b.db")
    assert len(stored_trials(tmp_path / "a.db")) >= TRIALS


def test_killed_while_the_file_is_made_leaves_one_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.touch()
    run(path, trials=3)
    assert len(stored_trials(path)) >= 3


def test_ctrl_c_in_an_evaluation_leaves_a_study_that_goes_on(ended: Callable[[Path], Result], tmp_path: Path) -> None:
    def interrupted(architectures: list[Architecture]) -> Iterator[Evaluation]:
        yield from Recorder()(architectures[:5])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b.db", evaluate=interrupted)
    assert len(stored_trials(tmp_path / "b.db")) == 5
    assert not (tmp_path / "b.db-wal").exists()  # folded into the file: a copy of study.db is whole
    run(tmp_path / "b.db")
    ended(tmp_path / "a.db")
    assert stored_trials(tmp_path / "a.db") == stored_trials(tmp_path / "b.db")


@pytest.mark.whole
@pytest.mark.usefixtures("memory")
def test_what_was_measured_or_failed_is_taken_from_the_study_when_continued(tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []
    measure = {name: functools.partial(lambda name, a: (calls.append((name, a.key)), MEASURE[name](a))[1], name) for name in MEASURE}
    recorder = Recorder(reason_of)
    given: dict[str, Any] = {
        "budgets": MEASURED_BUDGETS,
        "measure": measure,
        "evaluate": recorder,
        "space": ToySpace(),
        "trials": 24,
        "population": 10,
    }
    whole = run(tmp_path / "a.db", **given)
    once = [*calls], [*recorder.seen]
    calls.clear(), recorder.seen.clear()
    run(tmp_path / "b.db", **{**given, "trials": 14})
    parts = run(tmp_path / "b.db", **given)
    assert (calls, recorder.seen) == once and len(set(calls)) == len(calls)
    assert whole.trials == parts.trials
    assert stored_trials(tmp_path / "a.db") == stored_trials(tmp_path / "b.db")
    failed = [trial for trial in stored_trials(tmp_path / "a.db") if trial[1] == optuna.trial.TrialState.FAIL]
    assert {user["failure"] for *_, user, _ in failed} == {"out of memory", "not finite"}
    over = {name for trial in whole.trials for name, violation in trial.constraints.items() if violation > 0 and trial.evaluation}
    assert over == set(MEASURE)


def test_a_finished_study_is_repeated_without_evaluating(ended: Callable[[Path], Result], tmp_path: Path) -> None:
    first = ended(tmp_path / "a.db")

    def evaluate(architectures: list[Architecture]) -> Iterator[Evaluation]:
        assert not architectures
        return iter([])

    again = run(tmp_path / "a.db", evaluate=evaluate, stop=lambda: True, report=lambda *trial: pytest.fail("reported again"))
    assert again.trials == first.trials and again.ending == "trials"


# ---- what is asked -----------------------------------------------------------------------------------------------------


def test_each_generation_breeds_from_the_one_before_though_some_are_pruned(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    result = run(path, trials=30, population=10, space=ToySpace())
    trials = stored_trials(path)
    pruned = [t for t in trials if t[1] == optuna.trial.TrialState.PRUNED]
    assert 0 < len(pruned) < len(result.trials) / 2
    for number, _, _, _, _, user, system in trials:
        assert system["NSGAIISampler:generation"] == user["generation"] == number // 10
    # Proposals of the first generation are parents of the second like any other.
    first = {tuple(sorted(params.items())) for _, _, _, params, *_ in trials[:10]}
    names = list(ToySpace().decisions)
    bred = [params for _, _, _, params, *_ in trials[10:20]]
    shared = [max(sum(dict(parent)[name] == params[name] for name in names) for parent in first) / len(names) for params in bred]
    assert statistics.mean(shared) > 0.65  # a random network shares half with the nearest of 10


@pytest.mark.parametrize("sampler", [*PROPOSERS, *SAMPLERS])
def test_same_seed_same_study_and_another_seed_another(sampler: str) -> None:
    values = [[t.values for t in run(None, trials=24, population=10, sampler=sampler, seed=seed).trials] for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert values[0][10:20] != values[0][20:30]  # nor are generations alike


def best_within(points: list[tuple[float, float]], macs: float) -> float:
    """The best accuracy over 0.4 of all (accuracy, MACs) within so many MACs."""
    return max((accuracy - 0.4 for accuracy, cost in points if cost <= macs and accuracy > 0.4), default=0.0)


def test_nsga2_finds_a_better_front_than_draws_in_the_band() -> None:
    """Weakly: over two seeds, by the best accuracy within every smaller budget (the area that the feasible networks dominate)."""
    space = ToySpace(stages=3)
    volumes = {}
    for sampler in ("nsga2", "random"):
        volumes[sampler] = []
        for seed in range(2):
            result = run(None, sampler=sampler, seed=seed, trials=80, population=20, space=space, budgets=["12MMACs"])
            points = [t.objectives for t in result.trials if t.feasible]
            volumes[sampler].append(sum(best_within(points, macs) for macs in range(0, 12_000_000, 20_000)))
    assert sum(volumes["nsga2"]) > sum(volumes["random"])


# ---- what is written ---------------------------------------------------------------------------------------------------


def test_stored_study_tells_its_story(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    result = run(path)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = optuna.load_study(study_name="4MMACs", storage=storage)
    assert study.metric_names == ["accuracy, supernet's weights (0 to 1)", "multiply-adds"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    request = {"budgets": ["4MMACs"], "floor": 0.8, "starts": [], "sampler": "nsga2", "seed": 0, "population": POPULATION}
    assert study.user_attrs == {**FACTS, **request}
    for trial, written in zip(result.trials, study.trials, strict=True):
        assert written.params == trial.values
        assert list(written.params) == list(SMALL.decisions)
        assert written.user_attrs["arch_key"] == trial.architecture.key
        assert written.user_attrs["macs_m"] == pytest.approx(trial.cost.macs / 1e6, abs=1e-3)
        assert written.constraints["macs"] == trial.constraints["macs"]
        if trial.accuracy is None:
            assert written.state == optuna.trial.TrialState.PRUNED and written.values is None
        else:
            assert written.values == list(trial.objectives)
        assert written.user_attrs.get("repeat_of") == trial.repeat_of
    assert study.trials[0].user_attrs["origin"] == "smallest"
    assert result.trials[0].architecture == SMALL.smallest(None)  # what was proposed is what is made
    storage.remove_session()
    storage.engine.dispose()


def test_dashboard_shows_what_is_over_budget_as_infeasible_and_why_others_failed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    result = run(path, evaluate=Recorder(reason_of))
    with stored(path) as study:
        system = study._storage.get_study_system_attrs(study._study_id)
        shown = [_serializer.serialize_frozen_trial(study._study_id, t, system) for t in study.trials]
    for trial, item in zip(result.trials, shown, strict=True):
        assert item["constraints"] and any(v > 0 for v in item["constraints"]) == (trial.evaluation is None)
        attributes = {attribute["key"]: attribute["value"] for attribute in item["user_attrs"]}
        assert attributes.get("over_budget") == (None if trial.evaluation else f"macs by {trial.constraints['macs']:.1%}")
        assert attributes.get("failure") == (trial.evaluation.failure if trial.evaluation else None)
        assert item["state"] == ("Pruned" if not trial.evaluation else "Fail" if trial.evaluation.failure else "Complete")
    assert {item["state"] for item in shown} == {"Pruned", "Fail", "Complete"}


def test_dashboard_still_needs_the_list() -> None:
    """Fails when optuna-dashboard reads named constraints: then `OptunaStudy.tell` need not write the list any more."""
    trial = optuna.create_trial(values=[0.5, 1.0], constraints={"macs": 0.25})
    assert _serializer.serialize_frozen_trial(0, trial, {})["constraints"] == []


def test_several_studies_live_in_one_file(tmp_path: Path) -> None:
    space = ToySpace()
    for name in ("4MMACs", "8MMACs"):
        request = SearchRequest(parse_budgets([name]), trials=5, population=10)
        with open_study(tmp_path / "s.db", name, space.decisions, request, {}) as study:
            search(space, study, request, Instruments(cost_of, Recorder()))  # type: ignore[arg-type]
    assert all(len(stored_trials(tmp_path / "s.db", name)) >= 5 for name in ("4MMACs", "8MMACs"))


def test_a_reader_does_not_disturb_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def evaluate(architectures: list[Architecture]) -> Iterator[Evaluation]:
        for architecture in architectures:
            with contextlib.closing(sqlite3.connect(path, timeout=0)) as reader:
                reader.execute("begin")
                reader.execute("select count(*) from trials").fetchone()
                yield Evaluation(accuracy_of(architecture))

    run(path, evaluate=evaluate, trials=15)
    assert len(stored_trials(path)) >= 15


# ---- bad input ---------------------------------------------------------------------------------------------------------


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_study_of_something_else_is_refused_with_the_fact_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    smallest, largest = ({name: options[k] for name, options in SMALL.decisions.items()} for k in (0, -1))
    begun: dict[str, Any] = {"request": {"starts": {"mine": smallest}}}
    run(path, trials=5, **begun)
    before = stored_trials(path)
    for fact, change in {
        "fingerprint": {"facts": {**FACTS, "fingerprint": "other"}},
        "sampler": {"sampler": "tpe"},
        "seed": {"seed": 3},
        "population": {"population": 12},
        "budgets": {"budgets": ["4.1MMACs"]},
        "floor": {"request": {**begun["request"], "floor": 0.7}},
        "starts": {"request": {"starts": {"mine": largest}}},
    }.items():
        with pytest.raises(ValueError, match=f"begun with another {fact}") as error:
            run(path, **{**begun, **change})  # type: ignore[arg-type]
        assert str(path) in one_line(error) and "--run" not in one_line(error)
    assert stored_trials(path) == before
    assert run(path, trials=6, **begun).num_evaluated == 6  # more trials are the same study


def test_unknown_sampler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--sampler: unknown sampler: got 'nsga'; accepted: evolution, random, nsga2, tpe"):
        run(tmp_path / "a.db", sampler="nsga")
    assert not list(tmp_path.iterdir())


@pytest.mark.whole
@pytest.mark.parametrize("damage", ["text", "cut", "page"])
def test_a_damaged_study_is_named_and_left_as_it_is(damage: str, ended: Callable[[Path], Result], tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    ended(path)
    content = path.read_bytes()
    damaged = {
        "text": b"trials: 3\n" * 500,
        "cut": content[: len(content) // 2 // 4096 * 4096 + 100],
        "page": content[:4096] + b"\x07" * 8192 + content[12288:],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"a\.db: cannot be used: got .*begin anew \(") as error:
        run(path)
    one_line(error)
    assert path.read_bytes() == damaged[damage]
    subprocess.run(["bash", "-c", re.findall(r"begin anew \((.*?)\),", str(error.value))[0]], check=True)
    run(path)  # with what the damaged one has left beside it
    assert stored_trials(path) and Path(f"{path}.damaged").read_bytes() == damaged[damage]


def flipped_bits_are_named_or_mean_nothing(count: int, ended: Callable[[Path], Result], folder: Path) -> None:
    """Where the file holds something: what is not found out changes nothing but a time, or lies in a place that nothing reads."""
    whole, kept = ended(folder / "a.db"), stored_trials(folder / "a.db")
    content, rng, named = (folder / "a.db").read_bytes(), random.Random(count), 0
    places = [at for at in range(8, len(content)) if any(content[at - 8 : at + 8])]
    for at in rng.sample(places, count):
        path = folder / f"{at}.db"
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        try:
            again = run(path)
        except ValueError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1, error
            named += 1
        else:
            assert again.trials == whole.trials and stored_trials(path) == kept
        path.unlink()
    assert named > 0.7 * count
    happened("a flipped bit in study.db", "search", "named in one line, with what begins the study anew", named)
    happened("a flipped bit in study.db", "search", "changes nothing that is read", count - named)


def test_a_flipped_bit_is_named_or_means_nothing(ended: Callable[[Path], Result], tmp_path: Path) -> None:
    flipped_bits_are_named_or_mean_nothing(25, ended, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "trial_values set value = value + 1e-9",
        "trial_params set param_value = 0",
        "trial_params set distribution_json = replace(distribution_json, 'conv', 'conw')",
        "trial_user_attributes set value_json = '\"another\"' where key = 'origin'",
        "trial_user_attributes set value_json = '0.5' where key = 'usage'",
        "trial_system_attributes set value_json = '[0.5]' where key = 'constraints'",
        "trials set state = 'FAIL' where state = 'COMPLETE'",
    ],
)
def test_nothing_of_a_trial_is_changed_unnoticed(change: str, ended: Callable[[Path], Result], tmp_path: Path) -> None:
    ended(tmp_path / "a.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute(f"update {change}")
    with pytest.raises(ValueError, match="not what was written") as error:
        run(tmp_path / "a.db")
    one_line(error)


@pytest.mark.slow
def test_every_one_of_many_flipped_bits_is_named_or_means_nothing(ended: Callable[[Path], Result], tmp_path: Path) -> None:
    flipped_bits_are_named_or_mean_nothing(1000, ended, tmp_path)


def test_a_study_without_digests_goes_on(ended: Callable[[Path], Result], tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    whole = ended(tmp_path / "a.db")
    run(tmp_path / "b.db", trials=8)
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as connection, connection:
        connection.execute("DELETE FROM trial_system_attributes WHERE key = 'digest'")
    assert run(tmp_path / "b.db").trials == whole.trials


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.db").mkdir()
    with pytest.raises(ValueError, match=r"a\.db: cannot be used: got 'unable to open database file'") as error:
        run(tmp_path / "a.db")
    one_line(error)


def test_trials_changed_by_another_program_are_refused(ended: Callable[[Path], Result], tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    ended(path)
    shutil.copy(path, tmp_path / "b.db")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update trials set state = 'RUNNING' where number = 3")
    with pytest.raises(ValueError, match="trial 3 was changed by another program: got state RUNNING"):
        run(path)
    last = len(stored_trials(tmp_path / "b.db")) - 1
    assert (last + 1) % POPULATION, "the last generation has to be one that is asked again"
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as connection, connection:
        connection.execute(
            "update trial_params set param_value = 1 - (param_value > 0) where param_name = 's0.depth' "
            f"and trial_id = (select trial_id from trials where number = {last})"
        )
    with pytest.raises(ValueError, match=f"trial {last} is not what was written"):
        run(tmp_path / "b.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as connection, connection:  # as other versions suggested and wrote it
        connection.execute("delete from trial_system_attributes where key = 'digest'")
    with pytest.raises(ValueError, match=f"trial {last} is not what seed 0 gives now") as error:
        run(tmp_path / "b.db")
    one_line(error)
