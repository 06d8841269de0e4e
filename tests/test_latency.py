"""Latency: what is timed, how often, with how many threads, and what is left behind."""

from __future__ import annotations

import gc
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from nas.cost import latency
from nas.cost.latency import measure_latency, memory_errors, timed
from nas.cost.targets import Target
from nas.networks.architecture import Architecture, Frame, Stage

NETWORK = Architecture(Frame(16, 2, 5), 4, (Stage(8, ("conv",), 2.0, kernel=3),))
CPU = Target()


class Fake(nn.Module):
    """Stands for the network: notes how each pass is run, and takes as long on a made-up clock as it is told."""

    clock = 0.0

    def __init__(self, architecture: Architecture, seconds: list[float]) -> None:
        super().__init__()
        self.architecture, self.seconds = architecture, seconds
        self.passes: list[tuple[object, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        gradients, automatic = torch.is_inference_mode_enabled(), gc.isenabled()
        self.passes.append((tuple(images.shape), images.dtype, self.training, gradients, automatic, torch.get_num_threads()))
        Fake.clock += self.seconds[len(self.passes) - 1]
        return images


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Networks are fakes that take `made.seconds`, and the clock is theirs."""
    made = SimpleNamespace(seconds=[0.0] * 100, networks=[])

    def make(architecture: Architecture) -> Fake:
        made.networks.append(Fake(architecture, made.seconds))
        return made.networks[-1]

    monkeypatch.setattr(latency, "Network", make)
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: Fake.clock))
    return made


def test_it_is_the_median_in_milliseconds_of_the_passes_after_the_warm_up(made: SimpleNamespace) -> None:
    made.seconds = [9.0, 9.0, 9.0, 0.004, 0.001, 0.010, 0.002, 0.003]
    assert measure_latency(NETWORK, CPU, partial(timed, warmup=3, runs=5)) == pytest.approx(3.0)
    assert len(made.networks[0].passes) == 8


def test_every_pass_is_of_the_network_in_its_frame_with_pinned_threads(made: SimpleNamespace) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measure_latency(NETWORK, Target(batch=3))
        measure_latency(NETWORK, Target(threads=3))
        assert torch.get_num_threads() == 2 and gc.isenabled()
    finally:
        torch.set_num_threads(before)
    first, second = made.networks
    assert first.architecture == NETWORK
    assert set(first.passes) == {((3, 2, 16, 16), torch.float32, False, True, False, 1)}
    assert set(second.passes) == {((1, 2, 16, 16), torch.float32, False, True, False, 3)}
    assert len(first.passes) >= 20  # a median of few would be noise


def test_an_error_leaves_threads_and_collection_as_they_were(made: SimpleNamespace) -> None:
    before = torch.get_num_threads()
    made.seconds = []
    with pytest.raises(IndexError):
        measure_latency(NETWORK, Target(threads=before + 1))
    assert torch.get_num_threads() == before and gc.isenabled()


def test_a_real_network_takes_time_and_a_larger_one_more() -> None:
    large = Architecture(Frame(64, 2, 5), 4, (Stage(128, ("conv",) * 4, 4.0, kernel=3),))
    assert 0 < measure_latency(NETWORK, CPU) < measure_latency(large, CPU)


def test_what_does_not_fit_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        measure_latency(NETWORK, Target(batch=10**14))  # more than any address space
    for error in (torch.OutOfMemoryError("CUDA"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")):
        with pytest.raises(MemoryError), memory_errors():
            raise error
    with pytest.raises(RuntimeError, match="a bug"), memory_errors():
        raise RuntimeError("a bug")
