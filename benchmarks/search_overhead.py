"""How much of a search is not forward passes: sampling, arithmetic, cutting out sub-networks, writing the study.

    python benchmarks/search_overhead.py --data PATH_TO_CIFAR10 [--trials 300] [--device cpu] [--json FILE]

Reference: the seconds inside the sub-networks' forward passes, in the same run. Target on a CPU with 5,000 held-out images: at most 0.10 of the
whole search; on a GPU: at most 10 ms a trial. The supernet has fresh weights: what a forward pass costs does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from nas.cost import cost
from nas.data import open_data
from nas.networks.architecture import Architecture
from nas.progress import Progress
from nas.quantities import parse_budgets
from nas.searching.evaluating import ITSELF
from nas.searching.optuna_study import open_study
from nas.searching.search import Evaluation, Instruments, SearchRequest, search
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training.loop import evaluate

ROOT = Path(__file__).resolve().parent.parent


class Timed(torch.nn.Module):
    """A network that adds up the seconds of its forward passes."""

    def __init__(self, network: torch.nn.Module, spent: list[float]) -> None:
        super().__init__()
        self.network, self.spent = network, spent

    def forward(self, images: torch.Tensor, *path: Architecture) -> torch.Tensor:
        begun = time.perf_counter()
        logits = self.network(images, *path)
        if images.is_cuda:
            torch.cuda.synchronize()
        self.spent[0] += time.perf_counter() - begun
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--space", default="cifar")
    parser.add_argument("--budget", default="10MMACs")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    space = SearchSpace.read(ROOT / "search_spaces" / f"{options.space}.yaml")
    device = torch.device(options.device)
    data = open_data(options.data).load(space.frame.resolution, device)
    batches = data.kept("held_out", options.batch_size)
    torch.manual_seed(0)
    supernet = Supernet(space).to(device).eval()
    spent = [0.0]

    with tempfile.TemporaryDirectory() as folder, Progress("search", options.trials, "evaluation") as progress:

        def evaluated(architectures: list[Architecture]) -> Iterator[Evaluation]:
            for architecture in architectures:
                itself = device.type in ITSELF
                model = Timed(supernet if itself else supernet.subnet(architecture), spent)
                yield Evaluation(evaluate(model, batches, path=(architecture,) if itself else ()))
                progress.advance()

        begun = time.perf_counter()
        request = SearchRequest(parse_budgets([options.budget]), options.trials, population=50)
        with open_study(Path(folder) / "study.db", "overhead", space.decisions, request, {}) as study:
            result = search(space, study, request, Instruments(cost, evaluated))
        whole = time.perf_counter() - begun

    outside = whole - spent[0]
    figures = {
        "evaluations": result.num_evaluated,
        "trials": len(result.trials),
        "held_out_images": data.size("held_out"),
        "search_seconds": round(whole, 1),
        "forward_seconds": round(spent[0], 1),
        "outside_over_whole": round(outside / whole, 4),
        "outside_ms_per_evaluation": round(1000 * outside / result.num_evaluated, 2),
    }
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {device}, torch {torch.__version__}")
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
