"""How the benchmarks measure: candidates and reference in turns, so that what else the machine does meets all of them, and medians."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.networks.precision import autocast


def in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 3) -> dict[str, list[float]]:
    """Milliseconds of every call, `repeats` times, one call after the other in each round; on a GPU until its work is done."""
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + repeats):
        for name, call in calls.items():
            _wait()
            begun = time.perf_counter()
            call()
            _wait()
            if number >= warmup:
                milliseconds[name].append(1000 * (time.perf_counter() - begun))
    return milliseconds


def training_step(model: nn.Module, images: Tensor, labels: Tensor, *path: Any, bf16: str, update: bool) -> Callable[[], None]:
    """Forward and backward, and the optimiser's step where it is wanted.

    Args:
        path: what the model is called with beside the images: a supernet's network.
        bf16: one of `BF16`, as in a recipe.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True) if update else None

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(bf16, images.device):
            loss = F.cross_entropy(model(images, *path), labels)
        loss.backward()
        if optimizer is not None:
            optimizer.step()

    return step


def ratio(milliseconds: Mapping[str, list[float]], name: str, reference: str) -> float:
    """The median, over the rounds, of one time over the reference's in the same round."""
    return statistics.median(one / other for one, other in zip(milliseconds[name], milliseconds[reference], strict=True))


def machine(device: str = "cpu") -> str:
    """Processor, threads, torch, and the GPU where one is used."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    gpu = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    return f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}{gpu}"


def write_figures(path: Path | None, device: str, figures: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps({"machine": machine(device), **figures}, indent=2) + "\n")


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
