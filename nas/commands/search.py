"""`search`: the best network under budgets, by the supernet of a run; trains the supernet first where the run has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import (
    BUDGETS,
    dry_run_option,
    option,
    ray_address_option,
    show_fixed,
    show_plan,
    space_option,
    storage_option,
    target_option,
    training_options,
)

if TYPE_CHECKING:
    from nas.quantities import Budget
    from nas.runs.records import SearchRecord
    from nas.searching.ray_cluster import Crew
    from nas.searching.search_run import SearchRun
    from nas.searching.supernet_run import SupernetRun
    from nas.searching.targeted import Targeted

SAMPLERS = ["evolution", "random", "nsga2", "tpe"]


@click.command(short_help="Search a network under a budget.")
@option("--budget", "BUDGET", f"{BUDGETS}; may be repeated.", multiple=True)
@option(
    "--winner", "BUDGET", "A winner under this budget too, on the same supernet, beside those of --budget; may be repeated.", multiple=True
)
@option("--floor", "SHARE", "A winner uses at least this share of its tightest budget (default: 0.8).", type=float, default=0.8)
@option("--start", "NETWORK", "An architecture file or a published network to begin with; may be repeated.", multiple=True)
@option(
    "--trials", "N", "Networks that the supernet scores (default: the recipe's; more continue a search; 0: no supernet, finalists alone).",
    type=click.IntRange(0),
)  # fmt: skip
@option(
    "--finalists",
    "N",
    "Networks to train alone before one is chosen, besides those drawn by hand (default: the recipe's; 0: none).",
    type=click.IntRange(0),
)
@option("--sampler", "SAMPLER", f"{', '.join(SAMPLERS)} (default: {SAMPLERS[0]}).", default=SAMPLERS[0], type=click.Choice(SAMPLERS))
@option("--workers", "N", "Ray actors that evaluate; 0: in this process (default: 0).", type=click.IntRange(0), default=0)
@ray_address_option
@storage_option
@target_option
@dry_run_option
@space_option
@training_options("the supernet's training")
def search(budget: tuple[str, ...], winner: tuple[str, ...], floor: float, dry_run: bool, **options: Any) -> int:
    """Search a network under a budget; train the supernet first where the run has none.

    With --run, what is not said is as the run was begun. Another budget, floor, start or sampler is another study on the same supernet. With
    --winner, given for each winner, one supernet is trained for all of them and searched for one after the other. With --storage the same command
    on other machines evaluates networks of the same study.
    """
    from nas.quantities import parse_budgets
    from nas.runs.interrupt import Interrupt
    from nas.searching.plan import search_plan
    from nas.searching.ray_cluster import check_nodes
    from nas.searching.search_run import WonElsewhere
    from nas.searching.shared_search import lead_or_help
    from nas.training.setting import look_at_images

    if not budget and not winner:
        raise click.UsageError(f"--budget: missing: accepted: {BUDGETS}.", click.get_current_context())
    searches = searches_of([parse_budgets([text, *budget]) for text in winner] or [parse_budgets(budget)], floor, options)
    opened, request, crew = searches[0].supernet, searches[0].request, searches[0].crew
    opened.check_begun()
    fresh = not all(each.goes_on() or each.done() for each in searches)
    if dry_run or fresh:
        look_at_images(opened.setting, opened.run, opened.setting.recipe.supernet.augmentation if request.trials else None, remember=False)
    for each in searches:
        each.check_measured()
    if request.trials <= request.population and request.sampler != SAMPLERS[0]:
        print(f"--sampler {request.sampler} has no part in this: the first {request.population} networks are drawn. Give more --trials.")
    if dry_run or fresh:
        show_plan(search_plan(searches), dry_run)
    if dry_run:
        return 0
    with Interrupt() as interrupt:

        def lead(helping: bool) -> None:
            with opened.run.lock():
                opened.check_begun()
                check_nodes(crew, opened.run.folder, *opened.setting.folders)
                for each in searches:
                    try:
                        _show(each, each.winner(lambda: interrupt.requested, helping))
                    except WonElsewhere as won:
                        print(won)

        lead_or_help(searches, lead, lambda: interrupt.requested)
    return 0


def searches_of(wanted: list[Sequence[Budget]], floor: float, options: Mapping[str, Any]) -> list[SearchRun]:
    """The searches under each of these budgets, on one supernet, by the options of the command line; nothing is begun."""
    from nas.searching.ray_cluster import Crew
    from nas.searching.supernet_run import middle, open_supernet_run
    from nas.searching.targeted import open_target
    from nas.training.given import Given

    wanted = list({tuple(each.text for each in budgets): budgets for budgets in wanted}.values())  # each once
    every = tuple({each.text: each for budgets in wanted for each in budgets}.values())
    if not 0 <= floor < 1:
        raise ValueError(f"--floor: out of range: got {floor}; accepted: 0 up to, not including, 1.")
    crew = Crew(options["workers"], options["ray_address"])
    crew.check()
    opened = open_supernet_run(
        Given.of(dict(options)), options["space"], options["run"], (options["epochs"], options["steps"]), every, floor
    )
    if not every:
        wanted = [(middle(opened.space),)]
    show_fixed(opened)
    there = open_target(options["target"], opened.setting.device, every, opened.space, opened.space_name)
    if there.note:
        print(there.note)
    return [_search_of(opened, there, budgets, floor, crew, options) for budgets in wanted]


def _search_of(
    opened: SupernetRun, there: Targeted, given: Sequence[Budget], floor: float, crew: Crew, options: Mapping[str, Any]
) -> SearchRun:
    """The search under some of the budgets that a supernet is for; says which of them are no limit."""
    from dataclasses import replace

    from nas.cost import cost
    from nas.quantities import format_quantity
    from nas.searching.known_networks import starting_networks
    from nas.searching.proposals import value_of
    from nas.searching.search import SearchRequest, check_budgets
    from nas.searching.search_run import SearchRun

    space, settings, trials = opened.space, opened.setting.recipe.search, options["trials"]
    binding, unlimited = check_budgets(space, cost, there.bound(given))
    for each in unlimited:
        value = partial(value_of, cost, each)
        most = format_quantity(each.quantity.name, value(space.largest(value)))
        print(f"--budget {each.text} is no limit: the largest network of {space.name} has {most}.")
    starts = starting_networks(space, binding, options["start"])
    number = settings.trials if trials is None else trials
    request = SearchRequest(binding, number, settings.population, options["sampler"], opened.setting.seed, floor, starts)
    finalists = settings.finalists if options["finalists"] is None else options["finalists"]
    if not finalists and not request.trials:
        raise ValueError("--trials: nobody would choose: got 0 with no finalists; accepted: 1 or more, or --finalists. Give one of them.")
    mine = replace(opened, budgets=binding, unlimited=unlimited)
    return SearchRun(mine, request, tuple(given), options["start"], there.target, there.digest, crew, finalists, options["storage"])


def _show(search: SearchRun, record: SearchRecord) -> None:
    """Copies the winner to where `retrain` looks for it, and prints it."""
    from nas.machine import pasted
    from nas.networks.architecture import describe
    from nas.quantities import format_quantity
    from nas.runs.folder import RUNS
    from nas.runs.records import winner_path
    from nas.searching.study_storage import address
    from nas.searching.trained_alone import trained_for
    from nas.yaml_files import write_atomically

    found, architecture, run = record.found, record.architecture, search.supernet.run
    for copy in (run.folder / "best.yaml", RUNS / "best.yaml"):
        write_atomically(copy, winner_path(run, search.study).read_bytes())
    accuracy, how = found.accuracy_supernet, "with the supernet's weights"
    if found.accuracy_alone is not None:
        accuracy, how = found.accuracy_alone, trained_for(found.epochs_alone)
    print(f"\nWinner: {accuracy:.2%} of {found.held_out_images} held-out images {how} (standard error {found.standard_error:.2%})")
    if found.latency_spread is not None:
        print(f"  timed on {search.target}: half of the passes within {found.latency_spread:.0%} of the median below")
    share = f"; it uses {found.usage:.0%} of the tightest budget (a winner uses {found.floor:.0%} or more)"
    print(f"  chosen as {found.reason}{share if found.usage else ''}")  # with no budget that binds there is nothing to use
    for line in describe(architecture):
        print(f"  {line}")
    costs = ", ".join(format_quantity(name, value) for name, value in record.costs.items())
    print(f"  {costs} at {architecture.frame.resolution} px, {architecture.frame.classes} classes")
    beside = f"baselines of the same budget in {run.folder / 'baselines' / search.study}/"
    print(f"Written to {run.folder / 'best.yaml'} and {RUNS / 'best.yaml'}; {beside}")
    weights = run.folder / f"{search.study}.safetensors"
    if found.accuracy_at_once is not None:
        print(f"To be used at once: {weights}, with the supernet's weights: {found.accuracy_at_once:.2%}")
    print(f"Why:  optuna-dashboard {address(search.place)}")
    print(f"Next: {pasted('retrain', RUNS / 'best.yaml')}")
