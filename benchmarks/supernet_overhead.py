"""What weight sharing costs: forward and backward of a network inside the supernet over the same network taken out.

    python benchmarks/supernet_overhead.py [--device cuda] [--bf16] [--batch-size 64] [--repeats 15] [--json FILE]

Reference: the standalone network of the same architecture, in the same run, in turns. Networks are the smallest, the median and the largest in
multiply-adds (the median of 201 random ones, seed 0). Targets at batch 64: at most 1.10 for the median network of cifar.yaml and at most 1.25 for
that of hybrid.yaml at 32 px; the smallest and the largest are reported.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
from pathlib import Path

import torch
from timing import in_turns, machine, ratio, training_step, write_figures

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet

SPACES = Path(__file__).resolve().parent.parent / "search_spaces"
TARGETS = {("cifar", "median"): 1.10, ("hybrid", "median"): 1.25}


def macs(architecture: Architecture) -> int:
    return cost(architecture).macs


def chosen(space: SearchSpace) -> dict[str, Architecture]:
    rng = random.Random(0)
    drawn = sorted((space.decode(space.random(rng)) for _ in range(201)), key=macs)
    return {"smallest": space.smallest(macs), "median": drawn[100], "largest": space.largest(macs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spaces", nargs="+", default=["cifar", "hybrid"])
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    figures = []
    print(machine(options.device))
    bf16 = "always" if options.bf16 else "never"
    print(f"forward and backward, batch {options.batch_size}, {options.resolution} px, {'bf16 autocast' if options.bf16 else 'float32'}")
    print(f"{'space':8} {'network':9} {'MMACs':>8} {'standalone ms':>14} {'supernet ms':>12} {'ratio':>6} target")
    for name in options.spaces:
        space = SearchSpace.read(SPACES / f"{name}.yaml")
        space = space.at(dataclasses.replace(space.frame, resolution=options.resolution))
        torch.manual_seed(0)
        supernet = Supernet(space).to(options.device)
        images = torch.randn(options.batch_size, space.frame.channels, options.resolution, options.resolution, device=options.device)
        labels = torch.randint(space.frame.classes, (options.batch_size,), device=options.device)
        for size, architecture in chosen(space).items():
            calls = {
                "standalone": training_step(supernet.subnet(architecture), images, labels, bf16=bf16, update=False),
                "supernet": training_step(supernet, images, labels, architecture, bf16=bf16, update=False),
            }
            milliseconds = in_turns(calls, options.repeats)
            figure = {
                "space": name,
                "network": size,
                "key": architecture.key,
                "macs": macs(architecture),
                **{f"{call}_ms": round(statistics.median(times), 2) for call, times in milliseconds.items()},
                "supernet_over_standalone": round(ratio(milliseconds, "supernet", "standalone"), 3),
                "target": TARGETS.get((name, size)),
            }
            figures.append(figure)
            print(
                f"{name:8} {size:9} {figure['macs'] / 1e6:8.1f} {figure['standalone_ms']:14.2f} {figure['supernet_ms']:12.2f} "
                f"{figure['supernet_over_standalone']:6.3f} {figure['target'] or '-'}",
                flush=True,
            )
            supernet.zero_grad(set_to_none=True)
    write_figures(options.json, options.device, {"batch_size": options.batch_size, "bf16": options.bf16, "networks": figures})


if __name__ == "__main__":
    main()
