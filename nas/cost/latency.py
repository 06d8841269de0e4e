"""Latency: the time of one forward pass of the whole network, measured on the target that it is for.

Multiply-adds do not rank latency inside a budget (Kendall tau -0.03 on a GPU and -0.06 on a CPU over 109 published networks of 4 to 5 GMACs), so it is
measured, not derived. A figure taken beside running work is worthless: callers measure while nothing else of theirs runs.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from nas.cost.targets import Target
from nas.networks.architecture import Architecture
from nas.networks.network import Network

M = TypeVar("M", bound=nn.Module)


class Milliseconds(float):
    """The median time of a pass; `spread` is half of the distance between the quartiles as a share of it."""

    spread: float = 0.0


def timed(run: Callable[[], object], warmup: int = 5, runs: int = 30) -> Milliseconds:
    """Of a function that runs a pass: so many measured ones after some that are not."""
    passes = _passes(run, warmup + runs)[warmup:]
    low, median, high = statistics.quantiles(passes, n=4) if len(passes) > 1 else passes * 3
    found = Milliseconds(round(1000 * median, 4))
    found.spread = round((high - low) / 2 / median, 4) if median else 0.0
    return found


Take = Callable[[Callable[[], object]], Milliseconds]  # a time of what runs a pass


def measure_latency(architecture: Architecture, target: Target, take: Take = timed) -> Milliseconds:
    """The time of a forward pass of the network in its own frame, in evaluation mode, with fresh weights.

    Args:
        architecture: timed at the resolution, channels and classes of its frame.
        target: where it must run.
        take: the time of a function that runs a pass.

    Raises:
        MemoryError: the network or its activations do not fit.
    """
    frame = architecture.frame
    with memory_errors():
        images = torch.randn(target.batch, frame.channels, frame.resolution, frame.resolution)
        return measure(Network(architecture), images, target, take)


def measure(module: nn.Module, inputs: Tensor, target: Target, take: Take = timed) -> Milliseconds:
    """The time of a pass of a module."""
    with pinned(target.threads):
        return take(target.prepare(module, inputs))


def _passes(run: Callable[[], object], passes: int) -> list[float]:
    """Seconds of each, by the clock."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return [_seconds(run) for _ in range(passes)]
    finally:
        if collecting:
            gc.enable()


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """So many CPU threads for torch, put back after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


@contextlib.contextmanager
def room_for_weights() -> Iterator[None]:
    """Raises a `MemoryError` that says what to do where weights have no room: fewer images at a time do not help them."""
    try:
        with memory_errors():
            yield
    except MemoryError as error:
        advice = "a narrower network (its file, or the widths of the space), with another --run NAME"
        raise MemoryError(f"out of memory for the weights alone: {str(error)[:200]}. Take {advice}.") from None


def built(make: Callable[[], M], device: torch.device) -> M:
    """A module with its weights, on a device.

    Raises:
        MemoryError: they have no room; says what to do.
    """
    with room_for_weights():
        return make().to(device)
