"""How much faster two processes train a supernet together than one does, with one thread each.

    python benchmarks/ranks.py --data path/to/cifar10 [--batch-sizes 64 256] [--steps 60] [--rounds 3] [--processes 2] [--json FILE]

Reference: one process with one thread, on the same batches, in turns. A figure is the median over the rounds of the mean seconds of a step, from
one step to the next, with all that belongs to it: images, passes, the sum of the gradients, the optimiser. How long the sum took of that is said
beside it; who comes first waits there for the others. What does not depend on the number of images (the optimiser, the average of the weights, the
calls of each layer) is done by every process, so small batches gain less. Target: two processes at least 1.7 times as fast at 256 images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
WARM = 5  # steps before those that are timed
TARGET = 1.7


def work(options: argparse.Namespace) -> None:
    """What each process does: a training of so many steps, timed."""
    sys.path.insert(0, str(REPOSITORY))
    import torch

    from nas.cost import cost
    from nas.data import open_data
    from nas.networks.architecture import Frame
    from nas.spaces.decisions import SearchSpace
    from nas.spaces.levels import Levels
    from nas.spaces.supernet import Supernet
    from nas.training.loop import Course, train_model
    from nas.training.paths import path_of_step
    from nas.training.ranks import Ranks, joined
    from nas.training.recipe import read_recipe
    from nas.training.watch import Watch

    times, summing = list[float](), list[float]()

    class Clock(Watch):
        def step(self, done: int, loss: float, lr: float) -> None:
            times.append(time.perf_counter())

    real = Ranks.sum

    def timed(self: Ranks, tensors: list[torch.Tensor]) -> None:
        begun = time.perf_counter()
        real(self, tensors)
        summing.append(time.perf_counter() - begun)

    Ranks.sum = timed  # type: ignore[method-assign, assignment]
    torch.set_num_threads(1)
    with joined() as ranks:
        source = open_data(options.data)
        recipe = read_recipe(REPOSITORY / "recipes/cifar_cpu.yaml").fitted(source.num_images["train"], mirrored=True)
        phase = recipe.supernet.model_copy(update={"batch_size": options.batch_sizes[0]})
        space = SearchSpace.read(REPOSITORY / f"search_spaces/{options.space}.yaml")
        space = space.at(Frame(space.frame.resolution, source.channels, len(source.classes)))
        levels, steps = Levels.whole(space, cost), WARM + options.steps
        torch.manual_seed(0)
        model = Supernet(space)
        images = source.load(space.frame.resolution, torch.device("cpu"), 1, part=ranks.part)
        batches = images.batches("fit", phase.batch_size, 0, phase.augmentation)
        course = Course(phase, steps, 0, ranks=ranks)
        train_model(model, batches, course, Clock(), lambda step: (path_of_step(space, levels, 0, step),))
        if ranks.first:
            taken = {"seconds": (times[-1] - times[WARM - 1]) / options.steps, "summing": sum(summing[WARM:]) / options.steps}
            print(json.dumps({**taken, "batch": phase.batch_size, "numbers": sum(each.numel() for each in model.parameters())}))


def run(processes: int, batch: int, given: list[str]) -> dict[str, float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--"] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, *given, "--work", "--batch-sizes", str(batch)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--space", default="cifar_small")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 256], help="images in a step of all processes together")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options)
    given = ["--data", options.data, "--space", options.space, "--steps", str(options.steps)]
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for batch in options.batch_sizes:
            for processes in (1, options.processes):
                figures = found.setdefault((batch, processes), [])
                figures.append(run(processes, batch, given))
                told = f"round {number + 1}, {batch} images, {processes} processes: {figures[-1]['seconds']:.3f} s a step"
                print(told, file=sys.stderr, flush=True)
    from timing import machine, write_figures

    rows = []
    print(f"{machine()}; one thread a process; {options.space}, {options.steps} steps, {options.rounds} rounds")
    print(
        f"{'images':>6} {'one: s a step':>14} {f'{options.processes} processes':>12} {'of it the sum':>14} {'images/s':>9} {'gained':>7}  target {TARGET} at 256"
    )
    for batch in options.batch_sizes:
        one, many = found[batch, 1], found[batch, options.processes]
        seconds = [statistics.median(each["seconds"] for each in figures) for figures in (one, many)]
        summing = statistics.median(each["summing"] for each in many)
        gained = statistics.median(alone["seconds"] / together["seconds"] for alone, together in zip(one, many, strict=True))
        print(f"{batch:6} {seconds[0]:14.3f} {seconds[1]:12.3f} {summing:14.3f} {batch / seconds[1]:9.0f} {gained:7.2f}")
        rows.append({"batch": batch, "processes": options.processes, "one": one, "together": many, "gained": round(gained, 3)})
    write_figures(options.json, "cpu", {"space": options.space, "steps": options.steps, "target": TARGET, "batches": rows})


if __name__ == "__main__":
    main()
