"""What learning wide depthwise filters costs on a CPU: as `conv` does it, over the convolution's own gradient.

    python benchmarks/depthwise.py [--batch-size 64] [--repeats 15] [--json FILE]

First forward and backward of one convolution, then a whole step of training (forward, backward and update) of the convolutional networks that one would
draw by hand; in float32 and in bfloat16 autocast, in turns, in as many threads as `OMP_NUM_THREADS` says. The gain is the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from timing import in_turns, machine, ratio, training_step, write_figures

from nas.networks.mixers import conv
from nas.networks.network import Network
from nas.networks.precision import autocast
from nas.quantities import parse_budgets
from nas.searching.known_networks import baselines
from nas.spaces.decisions import SearchSpace

SPACES = Path(__file__).resolve().parent.parent / "search_spaces"
LAYERS = [(3, 64, 8), (5, 32, 32), (5, 64, 16), (5, 96, 8), (5, 192, 4), (7, 112, 14), (7, 224, 7), (7, 32, 32)]  # kernel, width, side
STEPS = [("photos", "30MMACs", "conv"), ("photos", "30MMACs", "conv-then-attention")]


def own(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same with the convolution's own gradient."""

    def called() -> None:
        with mock.patch.object(conv, "_learns_slowly", lambda device: False):
            call()

    return called


def layer(kernel: int, width: int, side: int, batch: int, bf16: str) -> Callable[[], None]:
    mixer, x = conv.Conv(width, (side, side), kernel), torch.randn(batch, side, side, width, requires_grad=True)

    def forward_and_backward() -> None:
        with autocast(bf16, x.device):
            y = mixer(x)
        y.backward(torch.ones_like(y))

    return forward_and_backward


def step(space: SearchSpace, budget: str, name: str, batch: int, bf16: str) -> Callable[[], None]:
    frame = space.frame
    network = Network(next(each.architecture for each in baselines(space, parse_budgets([budget]), 0.8, frame) if each.name == name))
    x, labels = torch.randn(batch, frame.channels, frame.resolution, frame.resolution), torch.randint(frame.classes, (batch,))
    return training_step(network, x, labels, bf16=bf16, update=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    torch.manual_seed(0)
    print(f"{machine()}; {options.batch_size} images")
    print(f"{'':48} {'own ms':>8} {'ms':>8} {'gain':>6}")
    calls: dict[tuple[str, str], Callable[[], None]] = {}
    for bf16 in ("never", "always"):
        for kernel, width, side in LAYERS:
            calls[f"{kernel}x{kernel}, width {width}, grid {side}", bf16] = layer(kernel, width, side, options.batch_size, bf16)
        for space, budget, name in STEPS:
            read = SearchSpace.read(SPACES / f"{space}.yaml")
            calls[f"a step of {name}, {space}, {budget}", bf16] = step(read, budget, name, options.batch_size, bf16)
    figures = []
    for (what, bf16), call in calls.items():
        milliseconds = in_turns({"own": own(call), "conv": call}, options.repeats)
        old, new = (round(statistics.median(milliseconds[each]), 2) for each in ("own", "conv"))
        precision = "float32" if bf16 == "never" else "bfloat16"
        figures.append(
            {"what": what, "precision": precision, "own_ms": old, "ms": new, "gain": round(ratio(milliseconds, "own", "conv"), 2)}
        )
        print(f"{f'{what}, {precision}':48} {old:8.2f} {new:8.2f} {figures[-1]['gain']:6.2f}", flush=True)
    write_figures(options.json, "cpu", {"batch_size": options.batch_size, "figures": figures})


if __name__ == "__main__":
    main()
