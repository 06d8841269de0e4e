"""Ray workers: the same study as without them, and what happens when one dies. One Ray for the whole file: a start takes 5 s."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from errors import refused
from faults import happened
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.actor import ActorHandle
from toy_evaluators import factory
from toy_space import FRAME, accuracy_of

from nas.machine import cores
from nas.networks.architecture import Architecture, Stage
from nas.searching import ray_cluster, ray_workers
from nas.searching.ray_cluster import Crew, RaySession, Share, gpu_share, room, share_of
from nas.searching.ray_workers import Workers
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
    with Workers(Crew(NUM), factory, payload) as started:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        started.folder = folder  # type: ignore[attr-defined]
        yield started
    left = [each for each in gc.get_objects() if type(each) is ActorHandle]  # isinstance asks torch, which warns
    assert not left, "collected later they would end actors of the next Ray, which have the same numbers"


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
    happened("a Ray worker dies", "evaluations", "its network is evaluated again")
    happened("a Ray worker dies twice of one network", "evaluations", "the network is recorded as failed; the others are evaluated")


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
        pytest.raises(ValueError, match=rf"^--workers: one core each is needed: got {num}; accepted: 1 to {cores()} "),
        Workers(Crew(num), factory, None),
    ):
        pass


def test_workers_that_can_never_start_are_refused_after_a_time(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    list(workers.evaluate([]))
    while workers._building:  # who replaces a worker of an earlier test
        workers._await_one()
    monkeypatch.setattr(ray_workers, "START_SECONDS", 1)
    workers._begin()  # every core is taken
    try:
        with refused("--workers", "not ready within 1 s", NUM):
            workers._await_one()
    finally:
        ((_, waiting),) = workers._building.values()
        workers._building.clear()
        ray.kill(waiting)


def test_every_worker_finds_room_on_one_gpu() -> None:
    """Ray rounds shares to four decimals, and a worker stands on one GPU."""
    for gpus in range(1, 9):
        for num in range(1, 65):
            share = gpu_share(num, gpus)
            on_each = int(1 / round(share, 4) + 1e-9)
            assert 0 < share <= 1 and on_each * gpus >= num
            assert (on_each - 1) * gpus < num, "a share is as large as may be"
    assert gpu_share(3, 2) == 0.5


@settings(max_examples=300, deadline=None)
@given(nodes=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4)), min_size=1, max_size=4), num=st.integers(1, 20), gpu=st.booleans())
def test_shares_are_whole_fit_the_nodes_and_are_as_large_as_may_be(nodes: list[tuple[int, int]], num: int, gpu: bool) -> None:
    """Held against placing workers one by one, which is right since all take the same."""
    gpus = sum(each for _, each in nodes)
    if gpu and not gpus:
        return
    share = share_of(num, nodes, gpu)
    assert share.gpus == (gpu_share(num, gpus) if gpu else 0)

    def placed(cpus: int) -> int:
        found = 0
        for there, cards in nodes:
            cards_left, there_left = [1.0] * cards, there
            while there_left >= cpus and (not gpu or any(each >= share.gpus - 1e-9 for each in cards_left)):
                there_left -= cpus
                found += 1
                if gpu:
                    card = next(i for i, each in enumerate(cards_left) if each >= share.gpus - 1e-9)
                    cards_left[card] -= share.gpus
        return found

    assert room(nodes, share) == placed(share.cpus)
    assert placed(share.cpus) >= num or share.cpus == 1, "all have room, if they have any"
    assert placed(share.cpus + 1) < num, "a share is as large as may be"


def test_in_a_cluster_workers_take_whole_gpus_and_the_others_wait_for_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who waits for room is what Ray's autoscaler starts nodes for: with parts of the GPUs that are there all would have room on the first node."""
    monkeypatch.setattr(ray_cluster, "_nodes", lambda: {"driver": (8.0, 0.0), "first": (48.0, 4.0)})
    assert RaySession(Crew(16, "auto")).share(gpu=True) == Share(12, 1.0)
    assert "Of 16 workers 4 have room in the cluster now. Others join when it grows." in capsys.readouterr().out
    assert RaySession(Crew(2, "auto")).share(gpu=True) == Share(24, 1.0)
    assert RaySession(Crew(16)).share(gpu=True).gpus == gpu_share(16, 4), "this machine does not grow"


def test_on_this_machine_each_worker_has_its_part_of_the_cores() -> None:
    for there in range(1, 65):
        for num in range(1, there + 1):
            assert share_of(num, [(there, 0)], gpu=False) == Share(there // num, 0)


@pytest.mark.whole
def test_what_ray_starts_never_hears_the_signals_that_stop_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go to every process of a batch system's job: Ray would be gone before trainings have written their checkpoints."""
    blocked, before = list[set[int]](), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(ray, "init", lambda **_: blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    RaySession(Crew(1)).start()
    assert {signal.SIGTERM, signal.SIGUSR1} <= blocked[0] and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.whole
def test_ray_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, nas.searching.ray_workers, nas.searching.ray_cluster; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
