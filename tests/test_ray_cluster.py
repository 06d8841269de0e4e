"""A real cluster of two nodes, joined by its address: the same results as here, nodes that die and come, and what is refused at the start."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from errors import refused
from faults import happened
from nodes import cluster, kill, new_node
from toy_cluster_evaluators import factory
from toy_space import FRAME, accuracy_of

from nas.networks.architecture import Architecture, Stage
from nas.searching import ray_cluster, ray_workers
from nas.searching.ray_cluster import Crew, RaySession, Share, check_nodes, gpu_share
from nas.searching.ray_workers import Workers
from nas.searching.search import Evaluation
from tests.test_optuna_study import run, stored_trials

LONG, DEADLY = 7, 1  # widths: a second's work; ends its node, or where the driver is its worker
PAYLOAD = 30 * 2**20


def network(width: int) -> Architecture:
    return Architecture(FRAME, 4, (Stage(width, ("conv",), 2.0),))


def expected(architectures: list[Architecture]) -> list[Evaluation]:
    return [Evaluation(accuracy_of(architecture)) for architecture in architectures]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes, of one CPU and of two: three workers take one each."""
    with cluster(1, 2) as nodes:
        yield nodes


@pytest.fixture
def second(nodes: Any) -> Any:
    """The node where the driver is not; made anew where a test has ended it."""
    if not nodes.worker_nodes:
        new_node(nodes, 2)
    return next(iter(nodes.worker_nodes))


def workers_of(nodes: Any, folder: Path, num: int = 3, gpu: bool = False) -> Workers:
    told = {"folder": np.frombuffer(str(folder).encode(), dtype=np.uint8), "weights": np.ones(PAYLOAD, dtype=np.uint8)}
    return Workers(Crew(num, nodes.address), factory, told, gpu=gpu)


def seen_on(folder: Path) -> set[str]:
    """The nodes on which something was evaluated."""
    return {path.name.split("-")[1] for path in folder.glob("on-*")}


def shared_bytes(node: Any) -> int:
    """What a node's raylet has touched of the memory that its workers share, by the system."""
    status = Path(f"/proc/{node.all_processes['raylet'][0].process.pid}/status").read_text()
    return 1024 * int(re.search(r"RssShmem:\s+(\d+) kB", status)[1])  # type: ignore[index]


def await_both(workers: Workers, folder: Path) -> None:
    """Evaluates until both nodes have: a worker may be built later than the other."""
    time_out = time.monotonic() + 90
    while len(seen_on(folder)) < 2:
        assert time.monotonic() < time_out
        assert list(workers.evaluate([network(LONG)] * 3)) == expected([network(LONG)] * 3)


@pytest.mark.whole
def test_a_cluster_gives_the_study_that_this_process_gives_and_the_weights_go_to_each_node_once(
    nodes: Any, second: Any, tmp_path: Path
) -> None:
    with workers_of(nodes, tmp_path) as workers:
        await_both(workers, tmp_path)
        run(tmp_path / "cluster.db", trials=15, evaluate=workers.evaluate)
        kept = shared_bytes(second)
    run(tmp_path / "here.db", trials=15)
    assert stored_trials(tmp_path / "cluster.db") == stored_trials(tmp_path / "here.db")
    assert PAYLOAD <= kept < 1.5 * PAYLOAD, "two workers there have it once"


@pytest.mark.slow
def test_a_node_that_dies_loses_its_network_to_another_and_one_that_comes_works(nodes: Any, second: Any, tmp_path: Path) -> None:
    with workers_of(nodes, tmp_path) as workers:
        await_both(workers, tmp_path)
        architectures = [network(LONG)] * 4 + [network(width) for width in range(10, 40, 2)]
        results = workers.evaluate(architectures)
        found = [next(results)]
        before = seen_on(tmp_path)
        kill(nodes, second)
        found += list(results)
        assert found == expected(architectures), "none is lost, and none fails for a node's sake"
        new_node(nodes, 2)
        time_out = time.monotonic() + 90
        while not seen_on(tmp_path) - before:
            assert time.monotonic() < time_out, "who comes later works too"
            assert list(workers.evaluate([network(LONG)] * 3)) == expected([network(LONG)] * 3)
    happened("a node of Ray dies", "evaluations", "its networks are evaluated elsewhere; a node that comes later works")


@pytest.mark.slow
def test_who_ends_a_node_and_then_a_worker_has_failed_and_the_others_go_on(nodes: Any, second: Any, tmp_path: Path) -> None:
    (tmp_path / f"spare-{nodes.head_node.node_id}").touch()
    with workers_of(nodes, tmp_path) as workers:
        await_both(workers, tmp_path)
        architectures = [network(width) for width in (10, DEADLY, LONG, 12, LONG, 14)]
        results = expected(architectures)
        results[1] = Evaluation(failure="ended its worker twice")
        assert list(workers.evaluate(architectures)) == results
    nodes.remove_node(second, allow_graceful=False)
    happened(
        "a node and then a worker of Ray die of one network", "evaluations", "the network is recorded as failed; the others are evaluated"
    )


@pytest.mark.whole
def test_a_study_on_a_cluster_records_who_fails_and_goes_on(nodes: Any, second: Any, tmp_path: Path) -> None:
    """As Optuna's FAIL with its reason."""

    def deadly(architectures: Any) -> Iterator[Evaluation]:
        return workers.evaluate(network(DEADLY) if number == 3 else each for number, each in enumerate(architectures))

    for node in (nodes.head_node, second):
        (tmp_path / f"spare-{node.node_id}").touch()
    with workers_of(nodes, tmp_path) as workers:
        run(tmp_path / "a.db", trials=6, evaluate=deadly)
    failed = [(state.name, told.get("failure")) for _, state, _, _, _, told, _ in stored_trials(tmp_path / "a.db") if "failure" in told]
    assert failed == [("FAIL", "ended its worker twice")]
    happened("a worker of Ray dies twice of one network", "search", "Optuna has it as FAIL with its reason; the search goes on")


# ---- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.whole
def test_more_workers_than_have_room_say_so_and_begin_with_those_that_have(
    nodes: Any, second: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with workers_of(nodes, tmp_path, num=7) as workers:
        assert list(workers.evaluate([network(10)])) == expected([network(10)])
    assert "Of 7 workers 3 have room" in capsys.readouterr().out


@pytest.mark.slow
def test_ray_gives_each_worker_the_gpu_or_the_part_of_one_that_it_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that declare GPUs, though there are none: what Ray itself makes of shares. Two thirds each would leave the third worker waiting."""

    def at_work(workers: Workers, wanted: int) -> None:
        time_out = time.monotonic() + 90
        while len(workers._actors) < wanted:
            assert time.monotonic() < time_out
            assert list(workers.evaluate([network(LONG)] * 3)) == expected([network(LONG)] * 3)

    with cluster(4, gpus=2) as nodes:
        with workers_of(nodes, tmp_path, gpu=True) as workers:
            at_work(workers, 2)
            assert len(workers._building) == 1, "the third waits for a GPU"
            assert "Of 3 workers 2 have room" in capsys.readouterr().out
            new_node(nodes, 2, gpus=1)
            at_work(workers, 3)
        nodes.remove_node(next(iter(nodes.worker_nodes)))
        for part, wanted in ((gpu_share(3, 2), 3), (0.6666, 2)):
            monkeypatch.setattr(ray_cluster, "share_of", lambda *_, part=part, **__: Share(1, part))
            with workers_of(nodes, tmp_path, gpu=True) as workers:
                at_work(workers, wanted)
                assert len(workers._building) == 3 - wanted


@pytest.mark.slow
def test_where_no_worker_has_room_it_is_said_in_time(nodes: Any, second: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with workers_of(nodes, tmp_path) as taken:
        while taken._building:
            taken._await_one()
        monkeypatch.setattr(ray_workers, "START_SECONDS", 1)
        later = Workers(Crew(1, nodes.address), factory, taken._payload)
        later._ray = taken._ray
        later._share = taken._share
        later._begin()
        with refused("--workers", "not ready within 1 s"):
            later._await_one()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.whole
def test_what_is_no_cluster_is_refused_in_time(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as port:
        monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 3.0)
        for address in ("127.0.0.1:1", f"127.0.0.1:{port}", "no.such.host:6379", "nonsense"):
            begun = time.monotonic()
            with refused("--ray-address", address, "ray start --address"), RaySession(Crew(1, address)) as session:
                session.start()
            assert time.monotonic() - begun < 60 and not ray.is_initialized(), address


@pytest.mark.parametrize(
    ("crew", "words"), [(Crew(1, "ray://host:10001"), ("ray://host:10001", "ray start")), (Crew(0, "auto"), ("--workers",))]
)
def test_a_crew_that_cannot_be_is_refused_at_once(crew: Crew, words: tuple[str, ...]) -> None:
    with refused("--ray-address", *words):
        crew.check()


@pytest.mark.slow
def test_nodes_with_another_program_or_without_the_images_are_refused(
    nodes: Any, second: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Crew(2, nodes.address)
    check_nodes(crew, tmp_path, Path(__file__).parent)
    with refused("--ray-address", f"no {tmp_path / 'images'}", second.node_ip_address):
        check_nodes(crew, tmp_path, tmp_path / "images")
    monkeypatch.setattr(ray_cluster, "program_digest", lambda: "another")
    with refused("--ray-address", "another version of this program"):
        check_nodes(crew, tmp_path)
    assert not list(tmp_path.iterdir()), "what it looks at is removed again"


@pytest.mark.whole
def test_auto_is_what_the_surroundings_say(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    check_nodes(Crew(1, "auto"), tmp_path)
    with RaySession(Crew(1, "auto")) as session:
        session.start()
        assert {each["NodeID"] for each in ray.nodes()} >= {nodes.head_node.node_id}
