"""What workers on the nodes of a cluster evaluate with in tests: in a file that imports little, since each worker reads it when it starts."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray
from toy_space import accuracy_of

from nas.networks.architecture import Architecture
from nas.searching.search import Evaluation


def factory(payload: dict[str, np.ndarray], threads: int) -> Callable[[Architecture], Evaluation]:
    """Evaluators that note their node; odd widths do something besides."""
    folder = Path(bytes(payload["folder"]).decode())
    weights = payload["weights"]
    node = ray.get_runtime_context().get_node_id()

    def evaluate(architecture: Architecture) -> Evaluation:
        width = architecture.stages[0].width
        assert weights[width] == 1
        (folder / f"on-{node}-{uuid.uuid4().hex[:8]}-{width}").touch()
        if width == 1:  # takes its node with it, or, where the driver is, its worker
            os.kill(os.getpid() if (folder / f"spare-{node}").exists() else os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if width == 7:
            time.sleep(1)
        return Evaluation(accuracy_of(architecture))

    return evaluate
