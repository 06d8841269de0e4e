"""How long draws that hit a budget take: distinct architectures within 2% below it, at points of the range of a space's multiply-adds.

    python benchmarks/draws.py [--count 1000] [--spaces cifar hybrid] [--points 0.01 0.5 0.99] [--json FILE]

Seconds are the process's own, of its one thread, whatever else runs; draws begin with empty caches. "of uniform draws" is the share of networks
drawn uniformly that the same 2% hold: what rejection would find. Target: a second for 1,000.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from timing import machine, write_figures

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.quantities import QUANTITIES, Budget, format_quantity
from nas.searching.proposals import Band, draw
from nas.spaces.decisions import SearchSpace

SPACES = Path(__file__).resolve().parent.parent / "search_spaces"
FLOOR = 0.98  # of the budget
UNIFORM = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spaces", nargs="+", default=["cifar", "hybrid"])
    parser.add_argument("--points", nargs="+", type=float, default=[0.01, 0.5, 0.99])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def macs(architecture: Architecture) -> int:
        return cost(architecture).macs

    figures = []
    print(machine())
    print(f"{'space':8} {'point':>6} {'budget':>11} {'drawn':>6} {'seconds':>8} {'a draw':>9} {'of uniform draws':>16}")
    for name in options.spaces:
        for point in options.points:
            space = SearchSpace.read(SPACES / f"{name}.yaml")
            least, most = macs(space.smallest(macs)), macs(space.largest(macs))
            budget = Budget(QUANTITIES["macs"], least + point * (most - least), "")
            begun = time.process_time()
            drawn = draw(Band(space, cost, [budget], FLOOR), options.count, set(), random.Random(0))
            seconds = time.process_time() - begun
            assert all(FLOOR * budget.limit <= macs(space.decode(each.values)) <= budget.limit for each in drawn)
            rng = random.Random(1)
            uniform = sum(FLOOR * budget.limit <= macs(space.decode(space.random(rng))) <= budget.limit for _ in range(UNIFORM)) / UNIFORM
            figure = {
                "space": name,
                "point": point,
                "macs": budget.limit,
                "drawn": len(drawn),
                "seconds": round(seconds, 3),
                "uniform": uniform,
            }
            figures.append(figure)
            print(
                f"{name:8} {point:6.0%} {format_quantity('macs', budget.limit):>11} {len(drawn):6,} {seconds:8.2f} "
                f"{1000 * seconds / max(1, len(drawn)):6.2f} ms {uniform:16.2%}",
                flush=True,
            )
    write_figures(options.json, "cpu", {"count": options.count, "floor": FLOOR, "draws": figures})


if __name__ == "__main__":
    main()
