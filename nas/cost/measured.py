"""The quantities that depend on a target, by name: what a whole network takes there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from nas.cost.latency import measure_latency, memory_errors
from nas.cost.memory import memory_bytes
from nas.cost.targets import Target
from nas.networks.architecture import Architecture
from nas.networks.network import Network


def measures(target: Target) -> dict[str, Callable[[Architecture], float]]:
    """By name of a measured quantity, how it is found out, in its unit; while nothing else of ours runs."""

    def of_an_image(architecture: Architecture) -> float:
        return measure_latency(architecture, target) / target.batch

    return {
        "latency_ms": partial(measure_latency, target=target),
        "image_ms": of_an_image,
        "memory_bytes": partial(measure_memory, target=target),
    }


def measure_memory(architecture: Architecture, target: Target) -> int:
    """Bytes of a forward pass: on a GPU the most that torch had allocated; on a CPU, where nobody counts, weights and tensors by arithmetic.

    Raises:
        MemoryError: the network or its activations do not fit.
    """
    if target.kind != "cuda" or target.runtime == "onnxruntime":
        return memory_bytes(architecture, target.batch, target.dtype)
    frame, device = architecture.frame, torch.device(target.device)
    with memory_errors():
        before = torch.cuda.memory_allocated(device)
        run = target.prepare(Network(architecture), torch.randn(target.batch, frame.channels, frame.resolution, frame.resolution))
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
