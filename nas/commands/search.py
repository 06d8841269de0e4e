"""`search`: the best network under budgets, by the supernet of a run; trains the supernet first where the run has none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import COUNT, RUNS, pasted, space_option, stopped, training_options

if TYPE_CHECKING:
    from nas.commands.supernet_run import SupernetRun
    from nas.networks.architecture import Architecture
    from nas.progress import Progress
    from nas.quantities import Budget
    from nas.runs.records import SearchRecord
    from nas.searching.search import Result, SearchRequest, Trial
    from nas.searching.winner import Winner

FLOOR = 0.8
STUDY_FILE = "study.db"


@dataclass(frozen=True)
class Job:
    """One search of a run's supernet.

    Attributes:
        request: with the budgets that bind.
        budgets: all that were given.
        study: its name in the run's study.db.
    """

    supernet: SupernetRun
    request: SearchRequest
    budgets: tuple[Budget, ...]
    study: str
    workers: int
    latency_batch: int


@click.command(short_help="Search a network under a budget.")
@click.option(
    "--budget", metavar="BUDGET", multiple=True, required=True, help="4.5GFLOPs, 4.5GMACs, 300MMACs, 28Mparams or 8ms; may be repeated."
)
@click.option(
    "--floor", metavar="SHARE", type=float, default=FLOOR, help="A winner uses at least this share of its tightest budget (default: 0.8)."
)
@click.option(
    "--start", metavar="NETWORK", multiple=True, help="An architecture file or a published network to begin with; may be repeated."
)
@click.option("--trials", metavar="N", type=COUNT, help="Networks to evaluate, instead of the recipe's number; more continue a search.")
@click.option(
    "--sampler",
    metavar="SAMPLER",
    default="nsga2",
    type=click.Choice(["nsga2", "tpe", "random"]),
    help="nsga2, tpe or random (default: nsga2).",
)
@click.option(
    "--workers", metavar="N", type=click.IntRange(0), default=0, help="Ray actors that evaluate; 0: in this process (default: 0)."
)
@click.option("--latency-batch", metavar="N", type=COUNT, default=1, help="Images in a timed pass (default: 1).")
@space_option
@training_options("the supernet's training")
def search(
    budget: tuple[str, ...], floor: float, start: tuple[str, ...], trials: int | None, sampler: str, workers: int, **options: Any
) -> int:
    """Search a network under a budget; train the supernet first where the run has none.

    With --run, what is not said is as the run was begun. Another budget, floor, start or sampler is another study on the same supernet.
    """
    from nas.commands.supernet_run import open_supernet_run
    from nas.cost import cost
    from nas.quantities import format_quantity, parse_budgets
    from nas.runs.interrupt import Interrupt
    from nas.searching.known_networks import starting_networks
    from nas.searching.ray_workers import check_workers
    from nas.searching.search import SearchRequest, check_budgets
    from nas.training.report import Stopped

    budgets = parse_budgets(budget)
    if not 0 <= floor < 1:
        raise ValueError(f"--floor: out of range: got {floor}; accepted: 0 up to, not including, 1.")
    check_workers(workers)
    opened = open_supernet_run(options)
    space, settings = opened.space, opened.setting.recipe.search
    binding, unlimited = check_budgets(space, cost, budgets)
    for each in unlimited:
        measure = partial(_counted, each.quantity.name)
        most = format_quantity(each.quantity.name, measure(space.largest(measure)))
        print(f"--budget {each.text} is no limit: the largest network of {space.name} has {most}.")
    starts = starting_networks(space, binding, start)
    request = SearchRequest(binding, trials or settings.trials, settings.population, sampler, opened.setting.seed, floor, starts)
    with opened.run.lock(), Interrupt() as interrupt:
        opened.check_begun()
        study = _study_name(opened, request, budgets, start, options["latency_batch"])
        try:
            return _finish(
                opened, *_searched(Job(opened, request, budgets, study, workers, options["latency_batch"]), lambda: interrupt.requested)
            )
        except Stopped as stop:
            return stopped(stop, interrupt)


def _counted(quantity: str, architecture: Architecture) -> float:
    from nas.cost import cost

    return getattr(cost(architecture), quantity)


def _study_name(
    opened: SupernetRun, request: SearchRequest, budgets: tuple[Budget, ...], asked: tuple[str, ...], latency_batch: int
) -> str:
    """Budgets and sampler; whatever else makes another study of it stands behind them as a few digits, where it is not the usual."""
    begun = (opened.recorded().supernet or opened.record()).recipe_content.get("search", {})
    now = opened.setting.recipe.search.model_dump(exclude={"trials"})
    usual = {"floor": FLOOR, "start": [], "search": {name: begun.get(name, value) for name, value in now.items()}, "latency_batch": 1}
    measured = any(each.quantity.measured for each in budgets)
    starts = sorted(opened.space.decode(request.starts[name]).key for name in asked)
    asked_for = {"floor": request.floor, "start": starts, "search": now, "latency_batch": latency_batch if measured else 1}
    unusual = {name: value for name, value in asked_for.items() if value != usual[name]}
    name = "-".join([*(each.text for each in budgets), request.sampler])
    return f"{name}-{hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()[:6]}" if unusual else name


def _searched(job: Job, stop: Callable[[], bool]) -> tuple[str, SearchRecord]:
    """The study's name and its winner, searched now as far as it was not.

    Raises:
        Stopped: interrupted; what was evaluated is stored.
    """
    from nas.cost import cost
    from nas.cost.latency import measure_latency
    from nas.progress import Progress
    from nas.runs.records import read_winner, winner_path
    from nas.searching.evaluating import alone, open_evaluator
    from nas.searching.optuna_study import open_study
    from nas.searching.search import Instruments, failures
    from nas.searching.search import search as search_loop
    from nas.searching.winner import choose_winner
    from nas.training.report import Stopped

    opened, request, setting, run, space = job.supernet, job.request, job.supernet.setting, job.supernet.run, job.supernet.space
    done = opened.recorded().searches.get(job.study)
    if done and done.trials == request.trials and opened.finished() and (winner := read_winner(run, job.study)):
        print(f"This search is done ({winner_path(run, job.study)}); its result again:")
        return job.study, winner
    if setting.data == "digits":
        print(
            "The data are scikit-learn's digits: this shows the machine working; a ranking on them means little. --data gives a real one."
        )
    supernet, held_out = opened.trained(stop), setting.images.size("held_out")
    with contextlib.ExitStack() as stack:
        batches = list(setting.images.evaluation_batches("held_out", setting.recipe.search.batch_size))
        evaluator = stack.enter_context(open_evaluator(supernet, batches, setting.recipe, setting.device, job.workers))
        latency = alone(evaluator, partial(measure_latency, device=setting.device, batch=job.latency_batch))
        instruments = Instruments(cost, evaluator.evaluate, {"latency_ms": latency})
        study = stack.enter_context(open_study(run.folder / STUDY_FILE, job.study, space.decisions, request, _facts(job)))
        budgets = " and ".join(each.text for each in job.budgets)
        print(
            f"Searching {space.name} for {budgets}: {request.trials} networks on {held_out} held-out training images, study {job.study}.",
            flush=True,
        )
        if request.starts:
            print(f"Starting with networks that the space contains: {', '.join(request.starts)}.")
        progress = stack.enter_context(Progress("search", request.trials, "evaluation"))
        result = search_loop(space, study, request, instruments, stop, partial(_show, progress))
        for reason, count in failures(result.trials).most_common():
            print(f"{count} of {result.num_evaluated} networks could not be evaluated: {reason}.")
        if result.ending == "stopped":
            raise Stopped(f"search stopped after {result.num_evaluated} of {request.trials} evaluations")
        if result.ending == "exhausted":
            print(f"The space has no more networks to offer within the budget: {result.num_evaluated} evaluated.")
        chosen = choose_winner(result.trials, request, num_heldout=held_out, measure=instruments.measure)
    seconds = {"seconds": result.seconds, "evaluate_seconds": result.evaluate_seconds}
    run.log("search", study=job.study, evaluations=result.num_evaluated, trials=len(result.trials), **seconds)
    return job.study, _write(job, result, chosen, held_out)


def _facts(job: Job) -> dict[str, Any]:
    """What has to be the same when the study is continued, besides the request."""
    facts: dict[str, Any] = {
        "space": job.supernet.space.fingerprint,
        "budgets": [each.text for each in job.budgets],
        "floor": job.request.floor,
    }
    facts |= {"weights": job.supernet.identity}
    facts["starts"] = {name: job.supernet.space.decode(values).key for name, values in job.request.starts.items()}
    if any(each.quantity.measured for each in job.budgets):
        facts["latency"] = f"{job.supernet.setting.device}, batch {job.latency_batch}"
    return facts


def _show(progress: Progress, trial: Trial, evaluated: int, best: Trial | None) -> None:
    if evaluated > progress.done:
        if progress.done == 0:
            progress.resume(evaluated - 1)
        progress.advance(evaluated - progress.done, f"best {best.objectives[0]:.2%}" if best else None)


def _write(job: Job, result: Result, winner: Winner, held_out: int) -> SearchRecord:
    """Writes the winner and the baselines."""
    from nas.cost import cost
    from nas.runs.folder import now
    from nas.runs.records import digest, read_search, winner_path, write_architecture
    from nas.searching.known_networks import baselines
    from nas.searching.search import failures

    opened, run, chosen = job.supernet, job.supernet.run, winner.trial
    found = {
        "accuracy_supernet": round(chosen.objectives[0], 4), "standard_error": round(winner.standard_error, 4), "held_out_images": held_out,
        "trial": chosen.number, "evaluations": result.num_evaluated, "failures": failures(result.trials).total(), "usage": round(winner.usage, 4),
        "floor": job.request.floor, "reason": winner.reason,
    }  # fmt: skip
    entries = {
        "budgets": [each.text for each in job.budgets], "found": found, "space": opened.space_name,
        "space_fingerprint": opened.space.fingerprint, **opened.setting.record(), "run": run.name, "study": job.study,
        "device": str(opened.setting.device),
    }  # fmt: skip
    folder = run.folder / "baselines" / job.study
    for each in baselines(opened.space, job.request.budgets, job.request.floor, opened.setting.frame):
        path, counted = folder / f"{each.name}.yaml", {"costs": cost(each.architecture)._asdict()}
        write_architecture(path, each.architecture, {**counted, **entries, "found": each.found}, _header(each.title, path))
    path = winner_path(run, job.study)
    costs = {**cost(chosen.architecture)._asdict(), **winner.measured}
    write_architecture(path, chosen.architecture, {"costs": costs, **entries}, _header("The winner of a search.", path))
    done = {name: record.model_dump() for name, record in opened.recorded().searches.items()}
    run.record(searches={**done, job.study: {"trials": job.request.trials, "finished": now(), "winner": digest(path)}})
    return read_search(path)


def _header(title: str, path: object) -> str:
    return f"{title} Retrain it: {pasted('retrain', path)}"


def _finish(opened: SupernetRun, study: str, record: SearchRecord) -> int:
    """Copies the winner to where `retrain` looks for it, and prints it."""
    from nas.networks.architecture import describe
    from nas.quantities import format_quantity
    from nas.runs.records import winner_path
    from nas.yaml_files import write_atomically

    found, architecture, folder = record.found, record.architecture, opened.run.folder
    for copy in (folder / "best.yaml", RUNS / "best.yaml"):
        write_atomically(copy, winner_path(opened.run, study).read_bytes())
    print(
        f"\nWinner: {found.accuracy_supernet:.2%} of {found.held_out_images} held-out images with the supernet's weights "
        f"(standard error {found.standard_error:.2%})"
    )
    share = f"; it uses {found.usage:.0%} of the tightest budget (a winner uses {found.floor:.0%} or more)"
    print(f"  chosen as {found.reason}{share if found.usage else ''}")  # with no budget that binds there is nothing to use
    for line in describe(architecture):
        print(f"  {line}")
    costs = ", ".join(format_quantity(name, value) for name, value in record.costs.items())
    print(f"  {costs} at {architecture.frame.resolution} px, {architecture.frame.classes} classes")
    print(f"Written to {folder / 'best.yaml'} and {RUNS / 'best.yaml'}; baselines of the same budget in {folder / 'baselines' / study}/")
    print(f"Why:  {shlex.join(['optuna-dashboard', f'sqlite:///{folder / STUDY_FILE}'])}")
    print(f"Next: {pasted('retrain', RUNS / 'best.yaml')}")
    return 0
