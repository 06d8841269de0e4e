"""How many architectures a second one core turns into multiply-adds, parameters and activations.

    python benchmarks/cost_rate.py [--count 5000] [--repeats 5] [--json FILE]

Architectures are random and fresh: none is costed twice; what is cached are layers. Reference: tracing the network on the meta device with
torch's counter, in the same run. Seconds are the process's own, of its one thread, whatever else runs. Target: at least 5,000 a second for both spaces.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

import torch
from timing import machine, write_figures
from torch.utils.flop_counter import FlopCounterMode

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.spaces.decisions import SearchSpace

SPACES = Path(__file__).resolve().parent.parent / "search_spaces"
TARGET = 5000


def traced_macs(architecture: Architecture) -> int:
    frame = architecture.frame
    with torch.device("meta"):
        network, images = Network(architecture), torch.empty(1, frame.channels, frame.resolution, frame.resolution)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return counter.get_total_flops() // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spaces", nargs="+", default=["cifar", "hybrid"])
    parser.add_argument("--count", type=int, default=5000, help="architectures in a batch")
    parser.add_argument("--repeats", type=int, default=5, help="batches")
    parser.add_argument("--traced", type=int, default=10, help="architectures for the reference")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    figures = []
    print(machine())
    print(f"{'space':8} {'first batch/s':>13} {'median batch/s':>14} {'target':>6} {'tracing/s':>9} {'over tracing':>12}")
    for name in options.spaces:
        space = SearchSpace.read(SPACES / f"{name}.yaml")
        rng = random.Random(0)
        seen: set[Architecture] = set()
        rates, tracing = [], []
        for _ in range(options.repeats):
            batch: list[Architecture] = []
            while len(batch) < options.count:
                architecture = space.decode(space.random(rng))
                if architecture not in seen:
                    seen.add(architecture)
                    batch.append(architecture)
            begun = time.process_time()
            costs = [cost(architecture) for architecture in batch]
            rates.append(len(batch) / (time.process_time() - begun))
            for architecture, found in list(zip(batch, costs, strict=True))[: -(-options.traced // options.repeats)]:
                begun = time.process_time()
                assert traced_macs(architecture) == found.macs
                tracing.append(time.process_time() - begun)
        traced_rate = 1 / statistics.median(tracing)
        figure = {
            "space": name,
            "first_batch_per_second": round(rates[0]),
            "median_batch_per_second": round(statistics.median(rates)),
            "target": TARGET,
            "tracing_per_second": round(traced_rate, 1),
            "arithmetic_over_tracing": round(statistics.median(rates) / traced_rate),
        }
        figures.append(figure)
        print(
            f"{name:8} {figure['first_batch_per_second']:13,} {figure['median_batch_per_second']:14,} {TARGET:6,} {traced_rate:9.1f} "
            f"{figure['arithmetic_over_tracing']:12,}",
            flush=True,
        )
    write_figures(options.json, "cpu", {"batch": options.count, "spaces": figures})


if __name__ == "__main__":
    main()
