"""Evaluations a second with and without Ray's workers, and what a supernet takes in memory and on the disk beside its largest network.

    python benchmarks/evaluations.py --data path/to/cifar10 [--space cifar_small] [--networks 24] [--rounds 3] [--workers 0 1 2] [--json FILE]

Reference: this process alone, with all cores, on the same networks, in turns; each round begins once all workers are there. The supernet has fresh
weights: what a pass costs does not depend on them. Memory of a training step by arithmetic and steps of a few images (`plan` says the same).
A checkpoint is that of a supernet's training with averaged weights; it is written at most once a minute, and takes at most a fiftieth of the time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from timing import machine, write_figures

from nas.cost import cost
from nas.machine import cores
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.searching.evaluating import open_evaluator
from nas.searching.ray_cluster import Crew
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training.given import Given
from nas.training.loop import CHECKPOINT_SECONDS, Course, _State
from nas.training.plan import training_bytes
from nas.training.setting import Setting, open_setting

ROOT = Path(__file__).resolve().parent.parent


def rate(supernet: Supernet, setting: Setting, workers: int, networks: list[Architecture]) -> float:
    """Evaluations a second."""
    held_out = setting.images.kept("held_out", setting.recipe.search.batch_size)
    with open_evaluator(supernet, held_out, setting.recipe, setting.device, Crew(workers)) as evaluator:
        list(evaluator.evaluate(networks[: max(1, workers)]))
        begun = time.perf_counter()
        assert all(each.failure is None for each in evaluator.evaluate(networks))
        return len(networks) / (time.perf_counter() - begun)


def checkpoint(supernet: Supernet, setting: Setting, folder: Path) -> tuple[int, float]:
    """Bytes of a supernet's checkpoint, and the seconds that writing it takes."""
    phase, seconds = setting.recipe.supernet.model_copy(update={"ema": True}), []
    state = _State(supernet, Course(phase, 1000, 0, checkpoint=folder / "supernet.pt"))
    for parameter in supernet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()  # which makes its moments
    for _ in range(5):
        begun = time.perf_counter()
        state.save()
        seconds.append(time.perf_counter() - begun)
    return (folder / "supernet.pt").stat().st_size, statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--space", default="cifar_small")
    parser.add_argument("--recipe", default="cifar_cpu")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    space = SearchSpace.read(ROOT / f"search_spaces/{options.space}.yaml")
    setting = open_setting(Given(data=options.data, recipe=options.recipe, device="cpu"), space.stride, space.frame.resolution)
    torch.manual_seed(0)
    supernet, draw = Supernet(space.at(setting.frame)).eval(), random.Random(0)
    networks = [space.decode(space.random(draw)) for _ in range(options.networks)]
    found = dict[int, list[float]]()
    for number in range(options.rounds):
        for workers in options.workers:
            found.setdefault(workers, []).append(rate(supernet, setting, workers, networks))
            print(f"round {number + 1}, {workers} workers: {found[workers][-1]:.3f} evaluations/s", file=sys.stderr, flush=True)
    print(f"{machine()}; {cores()} cores; {space.name}, {setting.images.size('held_out')} held-out images, {options.networks} networks")
    for workers, rates in found.items():
        ratio = statistics.median(each / alone for each, alone in zip(rates, found[options.workers[0]], strict=True))
        print(f"{workers} workers: {statistics.median(rates):.2f} evaluations/s, {ratio:.2f} of {options.workers[0]} workers")
    largest = space.largest(lambda architecture: cost(architecture).macs)
    network, phase = Network(largest.at(setting.frame)), setting.recipe.supernet
    taken: dict[str, Any] = {}
    for name, model, path in (("supernet", supernet, (largest.at(setting.frame),)), ("largest network", network, ())):
        weights = sum(each.nbytes for each in model.parameters())
        step = training_bytes(model, setting, phase, phase.batch_size, path)
        taken[name] = {"weights": weights, "step": round(step)}
        print(f"{name}: weights {weights / 2**20:.1f} MB, a training step of {phase.batch_size} images {step / 2**20:.0f} MB")
    with tempfile.TemporaryDirectory() as folder:
        size, seconds = checkpoint(supernet, setting, Path(folder))
    share = seconds / max(CHECKPOINT_SECONDS, 50 * seconds)
    print(f"checkpoint: {size / 2**20:.0f} MB in {seconds:.2f} s, {share:.1%} of the time")
    rates_told = {str(workers): [round(each, 4) for each in rates] for workers, rates in found.items()}
    write_figures(
        options.json,
        "cpu",
        {
            "space": space.name,
            "evaluations_per_second": rates_told,
            "memory": taken,
            "checkpoint": {"bytes": size, "seconds": round(seconds, 4)},
        },
    )


if __name__ == "__main__":
    main()
