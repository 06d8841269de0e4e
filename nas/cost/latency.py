"""Latency: the time of one forward pass of the whole network, measured on the device it is for.

Multiply-adds do not rank latency inside a budget (Kendall tau -0.03 on a GPU and -0.06 on a CPU over 109 published networks of 4 to 5 GMACs), so it is
measured, not derived. A figure taken beside running work is worthless: callers measure while nothing else of theirs runs.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Iterator

import torch

from nas.networks.architecture import Architecture
from nas.networks.network import Network


def measure_latency(
    architecture: Architecture, device: torch.device, *, batch: int = 1, threads: int = 1, warmup: int = 5, runs: int = 30
) -> float:
    """Median time in milliseconds of a forward pass of the network in its own frame, in evaluation mode and float32, with fresh weights.

    Args:
        architecture: timed at the resolution, channels and classes of its frame.
        device: where the network must run.
        batch: images in one pass.
        threads: CPU threads, pinned for the measurement and put back after it.
        warmup: passes before the measured ones.
        runs: measured passes.

    Raises:
        MemoryError: the network or its activations do not fit.
    """
    frame = architecture.frame
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.disable()
    try:
        with memory_errors(), torch.inference_mode():
            network = Network(architecture).eval().to(device)
            images = torch.randn(batch, frame.channels, frame.resolution, frame.resolution, device=device)
            seconds = [_seconds(network, images) for _ in range(warmup + runs)][warmup:]
    finally:
        torch.set_num_threads(threads_before)
        if collecting:
            gc.enable()
    return round(1000 * statistics.median(seconds), 4)


def _seconds(network: torch.nn.Module, images: torch.Tensor) -> float:
    started = time.perf_counter()
    network(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)  # a GPU's work is asynchronous: wait for its end
    return time.perf_counter() - started


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raises `MemoryError` for each of the ways in which torch says that memory ran out."""
    try:
        yield
    except RuntimeError as error:  # `OutOfMemoryError` is one too; torch's CPU allocator, cuBLAS and cuDNN raise plain ones
        signs = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")
        if isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs):
            raise MemoryError(str(error).splitlines()[0]) from None
        raise
