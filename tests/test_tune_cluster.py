"""Networks trained alone on a real cluster of two nodes: what one loses another takes up, and who cannot see the run does nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from command_line import run, succeed
from errors import refused
from faults import happened
from nodes import MEGABYTES, cluster, kill, new_node
from processes import REPOSITORY
from recording import write_images

from nas.networks.architecture import Architecture
from nas.searching import tune
from nas.searching.ray_cluster import Crew, RaySession, check_nodes
from nas.searching.trained_alone import Alone, Trained
from nas.searching.tune import train_beside
from nas.yaml_files import read_yaml
from tests.finished import RECIPE, SPACE
from tests.test_tune import CLIMBERS, one_thread, opened, trained_steps  # noqa: F401

pytestmark = pytest.mark.slow
JOBS = CLIMBERS[:4]


class Slow(Alone):
    """Notes on which node it trains, a step in a quarter of a second."""

    def train(self, architecture: Architecture, seed: int, until: int | None = None, stop: Callable[[], bool] = lambda: False) -> Trained:
        (self.folder / f"on-{ray.get_runtime_context().get_node_id()}").touch()

        def slowly() -> bool:
            time.sleep(0.25)
            return stop()

        return super().train(architecture, seed, until, slowly)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with cluster(1, 1) as nodes:
        yield nodes


@pytest.fixture
def second(nodes: Any) -> Any:
    if not nodes.worker_nodes:
        new_node(nodes)
    return next(iter(nodes.worker_nodes))


def test_trainings_of_a_node_that_dies_go_on_elsewhere_from_their_checkpoints(
    nodes: Any, second: Any, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "cluster").mkdir()
    alone, given, killed = Slow(opened(images, tmp_path).setting, tmp_path / "cluster"), iter(JOBS), list[float]()

    def show() -> None:
        if not killed and (alone.folder / f"on-{second.node_id}").exists() and sum(len(trained_steps(alone, job)) for job in JOBS) > 12:
            killed.append(time.monotonic())
            kill(nodes, second)

    train_beside(alone, lambda: next(given, None), lambda job: None, crew=Crew(2, nodes.address), climb="all to the end", show=show)
    assert killed
    expected = opened(images, tmp_path / "here")
    for job in JOBS:
        here, there = expected.train(*job), alone.known(*job)
        assert (here.ended, here.rungs) == (there.ended, there.rungs) and here.ended
    assert not list(alone.folder.glob(".tune-*")), "nothing of Tune's is left in the run"
    happened("a node of Ray dies", "networks trained alone", "they go on elsewhere from their checkpoints")


def test_where_no_training_has_room_it_is_said_in_time(nodes: Any, second: Any, images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tune, "START_SECONDS", 3)
    with RaySession(Crew(2, nodes.address)) as session:
        session.start()
        hold = ray.remote(Holder).options(num_cpus=1)
        holders = [hold.remote() for _ in ray.nodes()]
        given = iter(JOBS)
        with refused("--workers", "none at work for 3 s"):
            train_beside(
                opened(images, tmp_path),
                lambda: next(given, None),
                lambda job: None,
                crew=Crew(2, nodes.address),
                climb="the best",
                ray=session,
            )
        del holders


class Holder:
    """Takes a CPU and does nothing."""


def test_a_node_that_does_not_see_the_run_is_refused_and_one_that_joins_later_does_nothing(
    nodes: Any, images: Path, tmp_path: Path
) -> None:
    """A node in a mount namespace of its own, where the folder of the run is empty."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    for node in list(nodes.worker_nodes):
        kill(nodes, node)
    ray_command = [str(Path(sys.executable).parent / "ray"), "start", f"--address={nodes.address}", "--num-cpus=1", "--block"]
    started = f"mount -t tmpfs none {hidden} && exec {' '.join(ray_command)} --object-store-memory={MEGABYTES * 2**20}"
    blind = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", started], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        crew = Crew(1, nodes.address)
        with RaySession(crew) as session:
            session.start()
            known = {each["NodeID"] for each in ray.nodes()}
            while not any(each["Alive"] and each["NodeID"] not in known for each in ray.nodes()):
                time.sleep(0.2)
        with refused("--ray-address", f"not the same {hidden}"):
            check_nodes(crew, hidden)
        check_nodes(crew, tmp_path)
        with RaySession(crew) as session:
            session.start()
            holder = ray.remote(Holder).options(
                scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(nodes.head_node.node_id, soft=False),
                num_cpus=1,
            )
            held = holder.remote()
            given = iter(JOBS)
            with refused("--ray-address", "is not as the others", f"not the same {hidden}"):
                train_beside(opened(images, hidden), lambda: next(given, None), lambda job: None, crew=crew, climb="the best", ray=session)
            del held
    finally:
        os.killpg(blind.pid, 15)
        blind.wait(30)
    happened("a node that does not see the run", "networks trained alone", "refused at the start, and does nothing where it joins later")


def test_a_whole_search_over_a_cluster_ends_as_one_here(nodes: Any, second: Any, tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        write_images(tmp_path / folder / "images")
        (tmp_path / folder / "tiny.yaml").write_text(SPACE)
        (tmp_path / folder / "plain.yaml").write_text(
            RECIPE.replace("batch_size: 12}", "batch_size: 12, finalist_epochs: 1, fine_tune: 2}")
        )
    line = "search --device cpu --data images --recipe plain.yaml --space tiny.yaml --budget 200kMACs --run a --finalists 2"
    alone = [
        sys.executable,
        REPOSITORY / "launch.py",
        *f"{line} --workers 1".split(),
    ]  # a Ray of its own, which would leave traces in this process
    subprocess.run(alone, cwd=tmp_path / "here", check=True, capture_output=True)
    succeed(f"{line} --workers 1 --ray-address {nodes.address}", tmp_path / "there")
    winners = [read_yaml(tmp_path / folder / "runs/a/200kMACs-evolution.yaml") for folder in ("here", "there")]
    here, there = ({name: said for name, said in winner.items() if name not in ("command", "written", "data")} for winner in winners)
    assert here == there and here["found"]["accuracy_alone"] is not None
    outcome = run(f"{line} --run b --workers 1 --ray-address 127.0.0.1:1", tmp_path / "there")
    assert outcome.status == 2 and "--ray-address" in outcome.err and len(outcome.err.splitlines()) == 1
