"""Ray workers: the same study as without them, and what happens when one dies. One Ray for the whole file: a start takes 5 s."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toy_evaluators import factory
from toy_space import FRAME, accuracy_of

from nas.machine import cores
from nas.networks.architecture import Architecture, Stage
from nas.searching import ray_workers
from nas.searching.ray_workers import Workers, gpu_share
from nas.searching.search import Evaluation
from tests.test_optuna_study import run, stored_trials

NUM = min(2, cores())


def network(width: int) -> Architecture:
    return Architecture(FRAME, 4, (Stage(width, ("conv",), 2.0),))


def expected(architectures: list[Architecture]) -> list[Evaluation]:
    return [Evaluation(accuracy_of(architecture)) for architecture in architectures]


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("workers")
    payload = {"folder": np.frombuffer(str(folder).encode(), dtype=np.uint8), "weights": np.zeros(10**6)}
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Workers(NUM, factory, payload) as started:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        started.folder = folder  # type: ignore[attr-defined]
        yield started


def test_study_with_workers_equals_study_without(workers: Workers, tmp_path: Path) -> None:
    run(tmp_path / "0.db", trials=15)
    run(tmp_path / "2.db", trials=15, evaluate=workers.evaluate)
    assert stored_trials(tmp_path / "0.db") == stored_trials(tmp_path / "2.db")


def test_results_come_in_order_and_none_twice(workers: Workers) -> None:
    architectures = [network(width) for width in range(10, 60, 2)]
    assert list(workers.evaluate(architectures)) == expected(architectures)
    assert list(workers.evaluate([])) == []


def test_who_ends_a_worker_is_tried_again_and_fails_the_second_time(workers: Workers) -> None:
    """Width 3 ends its worker once, width 1 always; what was queued behind them is none the worse."""
    architectures = [network(width) for width in (10, 3, 12, 14, 1, *range(16, 50, 2))]
    results = expected(architectures)
    results[4] = Evaluation(failure="ended its worker twice")
    assert list(workers.evaluate(architectures)) == results


def test_an_error_of_the_evaluator_arrives_as_it_was(workers: Workers) -> None:
    with pytest.raises(ValueError, match=r"^a broken image$"):
        list(workers.evaluate([network(10), network(5)]))
    assert list(workers.evaluate([network(10)])) == expected([network(10)])


def test_settle_waits_for_what_runs_and_begins_nothing(workers: Workers) -> None:
    results = workers.evaluate([network(10), *[network(7)] * (4 * NUM)])
    next(results)
    workers.settle()
    begun = len(list(workers.folder.glob("begun*")))  # type: ignore[attr-defined]
    assert 0 < begun == len(list(workers.folder.glob("ended*"))) <= 2 * NUM  # type: ignore[attr-defined]
    time.sleep(0.3)
    assert len(list(workers.folder.glob("begun*"))) == begun  # type: ignore[attr-defined]
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("num", [-1, 0, cores() + 1])
def test_more_workers_than_cores_are_refused_before_anything_starts(num: int) -> None:
    with (
        pytest.raises(ValueError, match=rf"^--workers: one core each is needed: got {num}; accepted: 0 to {cores()} "),
        Workers(num, factory, None),
    ):
        pass


def test_workers_that_can_never_start_are_refused_after_a_time(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "START_SECONDS", 1)
    with pytest.raises(ValueError, match=r"^--workers: not ready within 1 s: got ") as error:
        workers._build([workers._start()])  # every core is taken
    assert "\n" not in str(error.value)


def test_every_worker_finds_room_on_one_gpu() -> None:
    """Ray rounds shares to four decimals, and a worker stands on one GPU."""
    for gpus in range(1, 9):
        for num in range(1, 65):
            share = gpu_share(num, gpus)
            on_each = int(1 / round(share, 4) + 1e-9)
            assert 0 < share <= 1 and on_each * gpus >= num
            assert (on_each - 1) * gpus < num, "a share is as large as may be"
    assert gpu_share(3, 2) == 0.5


def test_ray_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, nas.searching.ray_workers; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
