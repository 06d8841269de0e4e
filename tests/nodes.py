"""A real Ray cluster of a few nodes on this machine, for tests: each node is a raylet of its own, which may be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.searching.ray_cluster import surroundings_kept

MEGABYTES = 80  # of each node's object store


@contextlib.contextmanager
def cluster(*cpus: int, gpus: int = 0) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` whose nodes have so many CPUs, and declare so many GPUs each; the first is the one that drivers connect to."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="nodes", dir="/tmp")  # sockets want short paths
    tests = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)  # nobody else's Ray is found, and ours by nobody else
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", f"{tests.parent}{os.pathsep}{tests}")  # what is installed on a node
        patch.setenv("RAY_health_check_period_ms", "500")  # a dead node is found dead within seconds
        patch.setenv("RAY_health_check_failure_threshold", "3")
        if gpus:
            patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # Ray takes it for all that there are
        first, *others = cpus
        with surroundings_kept("PATH"):  # signal handlers, above all
            nodes = Cluster(initialize_head=True, head_node_args=_settings(first, gpus))
        try:
            for each in others:
                new_node(nodes, each, gpus)
            yield nodes
        finally:
            nodes.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def new_node(nodes: Any, cpus: int = 1, gpus: int = 0) -> None:
    with surroundings_kept("PATH"):
        nodes.add_node(**_settings(cpus, gpus))


def _settings(cpus: int, gpus: int) -> dict[str, Any]:
    return {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": MEGABYTES * 2**20, "include_dashboard": False}


def kill(nodes: Any, node: Any) -> None:
    """Ends a node as a power cut does: its raylet is killed, and its workers with it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
    nodes.remove_node(node, allow_graceful=False)
