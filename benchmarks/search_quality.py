"""Which sampler finds the best network at equal numbers of evaluations, on one trained supernet and one band.

    python benchmarks/search_quality.py --data PATH --space FILE --weights SUPERNET.pt --budget 5MMACs [--budget ...] [--json FILE] [--picture FILE]

`--weights` is the `supernet.pt` of a run (with that run's space and budgets), or a dictionary of a supernet's weights under "ema" or "model". Every
sampler goes through the search loop of `search`, from the same first generation for each seed. Accuracies are those of the first
`--images` held-out images; a search's winner and its best five are then measured on all the others, which no sampler saw. Each network is evaluated once: `--cache` keeps
accuracies between samplers, seeds and calls, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.progress import Progress
from nas.quantities import parse_budgets
from nas.searching.evolution import POOL, PROPOSERS, History, best_of, children
from nas.searching.optuna_study import OptunaStudy
from nas.searching.proposals import Band, Proposal, draw
from nas.searching.search import DIRECTIONS, Evaluation, Instruments, Result, SearchRequest, Trial, check_budgets, search
from nas.spaces.decisions import SearchSpace
from nas.spaces.levels import unrewarded
from nas.spaces.supernet import Supernet
from nas.training.given import Given
from nas.training.loop import evaluate
from nas.training.setting import open_setting

POINTS = (25, 50, 75, 100, 150, 200, 250, 300)
BATCH = 250
FINALISTS = 5


class WithFloor(OptunaStudy):
    """What uses too little to win is told to the sampler as a violation."""

    def tell(self, trial: Trial) -> None:
        self._open[trial.number][0].set_constraint("floor", self._request.floor - trial.usage)
        super().tell(trial)


class AccuracyAlone(OptunaStudy):
    """One objective; the budget and the floor bind."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._memory = optuna.create_study(direction="maximize")

    def tell(self, trial: Trial) -> None:
        ours, _ = self._open.pop(trial.number)
        for name, violation in {**trial.constraints, "floor": self._request.floor - trial.usage}.items():
            ours.set_constraint(name, violation)
        if trial.accuracy is None:
            self._memory.tell(ours, state=TrialState.PRUNED)
        else:
            self._memory.tell(ours, trial.accuracy)


def of_draws(band: Band, history: History, num: int, rng: random.Random) -> list[Proposal]:
    """What an additive model puts first of many draws."""
    return best_of(draw(band, POOL, history.seen, rng), band, history, num, rng)


PROPOSERS.update({"children": children, "of draws": of_draws})
VARIANTS: dict[str, tuple[str, type[OptunaStudy]]] = {  # name -> sampler, study
    "random": ("random", OptunaStudy),
    "evolution, no model": ("children", OptunaStudy),
    "model, of draws": ("of draws", OptunaStudy),
    "evolution": ("evolution", OptunaStudy),
    "nsga2": ("nsga2", OptunaStudy),
    "nsga2, floor": ("nsga2", WithFloor),
    "tpe": ("tpe", OptunaStudy),
    "tpe, floor": ("tpe", WithFloor),
    "tpe, floor, accuracy alone": ("tpe", AccuracyAlone),
}


@dataclass
class Table:
    """Accuracies of a supernet's networks on the first images, remembered in a file; and on the others."""

    supernet: Supernet
    batches: Sequence[Any]
    others: Sequence[Any]
    path: Path
    of: str  # what the accuracies are of
    known: dict[str, float]

    @staticmethod
    def open(supernet: Supernet, batches: Sequence[Any], images: int, path: Path, of: str) -> Table:
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        known = {line["key"]: line["accuracy"] for line in lines if line["of"] == of}
        return Table(supernet, batches[: images // BATCH], batches[images // BATCH :], path, of, known)

    def accuracy(self, architecture: Architecture, *, others: bool = False) -> float:
        key = architecture.key + " on the others" * others
        if key not in self.known:
            subnet = self.supernet.subnet(architecture.at(self.supernet.space.frame))
            self.known[key] = evaluate(subnet, self.others if others else self.batches)
            with self.path.open("a") as file:
                file.write(json.dumps({"of": self.of, "key": key, "accuracy": self.known[key]}) + "\n")
        return self.known[key]


def open_table(options: argparse.Namespace, space: SearchSpace, searched: SearchSpace) -> Table:
    """The supernet of `--weights`, which holds all of the space or what is searched of it, and its images."""
    setting = open_setting(Given(data=options.data, recipe=options.recipe, device="cpu", seed=0), space.stride, space.frame.resolution)
    content = torch.load(options.weights, map_location="cpu", weights_only=True)
    state = content["ema"] if "ema" in content else content["model"]
    supernets = (Supernet(each.at(setting.frame)) for each in (searched, space))
    supernet = next(each for each in supernets if each.state_dict().keys() == state.keys())
    supernet.load_state_dict(state)
    digest = hashlib.sha256(Path(options.weights).read_bytes()).hexdigest()[:12]
    batches = list(setting.images.evaluation_batches("held_out", BATCH))
    of = f"{space.fingerprint} {digest} {setting.source.fingerprint} {options.images}"
    return Table.open(supernet.eval(), batches, options.images, options.cache, of)


def searched_by(variant: str, space: SearchSpace, request: SearchRequest, evaluated: Any) -> Result:
    written = optuna.create_study(directions=list(DIRECTIONS))
    study = VARIANTS[variant][1]("memory", written, space.decisions, request, {})
    return search(space, study, request, Instruments(cost, evaluated))


def figures_of(result: Result, request: SearchRequest, table: Table) -> dict[str, Any]:
    """What is told of one search."""
    evaluated = [trial for trial in result.trials if trial.evaluation and trial.repeat_of is None]
    in_band = [trial.feasible and trial.usage >= request.floor for trial in evaluated]
    best: list[float] = []
    for trial, is_in in zip(evaluated, in_band, strict=True):
        best.append(max(best[-1] if best else 0.0, trial.objectives[0] if is_in else 0.0))
    inside = [trial for trial, is_in in zip(evaluated, in_band, strict=True) if is_in]
    if not inside:
        got = f"none of {len(evaluated)} evaluated networks"
        raise SystemExit(
            f"--evaluations: nothing to compare in the band: got {got}; accepted: one or more. Ask for more, or lower --floor."
        )
    finalists = sorted(inside, key=lambda trial: -trial.objectives[0])[:FINALISTS]
    later_accuracies = [table.accuracy(trial.architecture, others=True) for trial in finalists]
    later = in_band[request.population :]
    return {
        "best": best,
        "in_band": sum(later) / max(1, len(later)),
        "winner_on_others": later_accuracies[0],
        "finalists_on_others": statistics.mean(later_accuracies),
        "ms": 1000 * (result.seconds - result.evaluate_seconds) / len(evaluated),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--budget", action="append", required=True)
    parser.add_argument("--floor", type=float, default=SearchRequest.floor)
    parser.add_argument("--recipe", default="cifar_cpu")
    parser.add_argument("--images", type=int, default=1000, help=f"a multiple of {BATCH}")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--samplers", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--cache", type=Path, default=Path("search_quality.jsonl"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()

    torch.set_num_threads(1)
    space = SearchSpace.read(options.space)
    budgets, _ = check_budgets(space, cost, parse_budgets(options.budget))
    searched = space.fixing(unrewarded(space, cost, budgets))
    table = open_table(options, space, searched)
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in options.samplers}
    with Progress("search", len(options.seeds) * len(figures) * options.evaluations, "evaluation") as progress:

        def evaluated(architectures: list[Architecture]) -> Iterator[Evaluation]:
            for architecture in architectures:
                yield Evaluation(table.accuracy(architecture))
                progress.advance()

        for seed in options.seeds:
            for name in options.samplers:
                request = SearchRequest(budgets, options.evaluations, options.population, VARIANTS[name][0], seed, options.floor)
                figures[name].append(figures_of(searched_by(name, searched, request, evaluated), request, table))
            show(figures)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.picture:
        draw_curves(figures, options.picture)


def show(figures: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """A table in Markdown: mean and standard deviation over seeds, in percent."""
    last = max(len(each["best"]) for runs in figures.values() for each in runs)
    points = [point for point in POINTS if point <= last]
    print(
        f"\n| sampler ({len(next(iter(figures.values())))} seeds) | {' | '.join(map(str, points))} | winner, other images | best {FINALISTS}, other images | in the band | ms |"
    )
    print("|---" * (len(points) + 5) + "|")
    for name, runs in figures.items():
        cells = [spread([each["best"][min(point, len(each["best"])) - 1] for each in runs]) for point in points]
        cells += [spread([each[figure] for each in runs]) for figure in ("winner_on_others", "finalists_on_others")]
        cells.append(f"{statistics.mean(each['in_band'] for each in runs):.0%}")
        print(f"| {name} | {' | '.join(cells)} | {statistics.mean(each['ms'] for each in runs):.0f} |", flush=True)


def spread(shares: Sequence[float]) -> str:
    """``65.12 +- 0.31``."""
    return f"{100 * statistics.mean(shares):.2f} ± {100 * statistics.stdev(shares):.2f}" if len(shares) > 1 else f"{100 * shares[0]:.2f}"


def draw_curves(figures: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8, 5))
    axes = picture.subplots()
    for name, runs in figures.items():
        curve = [100 * statistics.mean(each) for each in zip(*(each["best"] for each in runs), strict=False)]
        axes.plot(range(POINTS[0], len(curve) + 1), curve[POINTS[0] - 1 :], label=name)
    axes.set(xlabel="networks evaluated", ylabel="best accuracy in the band, %")
    axes.legend()
    picture.savefig(path, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
