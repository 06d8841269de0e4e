"""What bfloat16 gains in training: a step in float32 over the same step in bfloat16 autocast, for networks of one mixer and for a supernet's.

    python benchmarks/precision.py [--space cifar_small] [--budget 10MMACs] [--batch-size 64] [--device cpu] [--repeats 15] [--json FILE]

Forward, backward and the optimiser's step of what one would draw by hand for the budget, and of the same within the space's supernet, on images that
are made up; in turns, in as many threads as `OMP_NUM_THREADS` says. Medians.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import in_turns, machine, ratio, training_step, write_figures

from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.quantities import parse_budgets
from nas.searching.known_networks import baselines
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet

SPACES = Path(__file__).resolve().parent.parent / "search_spaces"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="cifar_small")
    parser.add_argument("--budget", default="10MMACs")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    space = SearchSpace.read(SPACES / f"{options.space}.yaml")
    frame, device = space.frame, torch.device(options.device)
    torch.manual_seed(0)
    x = torch.randn(options.batch_size, frame.channels, frame.resolution, frame.resolution, device=device)
    labels = torch.randint(frame.classes, (options.batch_size,), device=device)
    supernet, figures = Supernet(space).to(device), []
    print(f"{machine(options.device)}; {options.space}, {options.budget}, steps of {options.batch_size} images")
    print(f"{'network':20} {'float32 ms':>11} {'bf16 ms':>8} {'gain':>6} {'in supernet':>12}")
    for each in baselines(space, parse_budgets([options.budget]), 0.8, frame):
        calls = dict[str, Callable[[], None]]()
        for bf16 in ("never", "always"):
            calls[bf16] = training_step(Network(each.architecture).to(device), x, labels, bf16=bf16, update=True)
            calls[f"{bf16}, supernet"] = training_step(supernet, x, labels, each.architecture, bf16=bf16, update=True)
        figures.append(_figure(each.name, each.architecture, in_turns(calls, options.repeats)))
        print("{network:20} {float32_ms:11.1f} {bf16_ms:8.1f} {gain:6.2f} {gain_in_supernet:12.2f}".format(**figures[-1]), flush=True)
    told = {"space": options.space, "budget": options.budget, "batch_size": options.batch_size, "networks": figures}
    write_figures(options.json, options.device, told)


def _figure(name: str, architecture: Architecture, milliseconds: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "network": name, "key": architecture.key,
        "float32_ms": round(statistics.median(milliseconds["never"]), 1), "bf16_ms": round(statistics.median(milliseconds["always"]), 1),
        "gain": round(ratio(milliseconds, "never", "always"), 2),
        "gain_in_supernet": round(ratio(milliseconds, "never, supernet", "always, supernet"), 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
