"""`pick`: a winner for another budget, out of a finished search."""

from __future__ import annotations

from functools import partial

import click

from nas.commands.options import BUDGETS, SHARE, device_option, option, storage_option, target_option


@click.command(short_help="Take a winner for another budget out of a run's searches.")
@click.argument("run", metavar="RUN")
@option("--budget", "BUDGET", f"{BUDGETS}; may be repeated.", multiple=True, required=True)
@option(
    "--floor",
    "SHARE",
    "It uses at least this share of its tightest budget (default: 0.8).",
    type=SHARE,
    default=0.8,
)
@target_option
@device_option
@storage_option
def pick(run: str, budget: tuple[str, ...], floor: float, target: str | None, device: str, storage: str) -> int:
    """Take a winner for another budget out of what the searches of a run have found out; nothing is evaluated anew but latencies.

    RUN is the name or folder of a run. Networks trained alone count first, those that were trained for longest; without one the supernet's weights
    decide.
    """
    from nas.cost import cost
    from nas.cost.measured import measures
    from nas.cost.targets import Target
    from nas.machine import pasted
    from nas.networks.architecture import describe
    from nas.quantities import format_quantity, parse_budgets
    from nas.runs.folder import run_folder
    from nas.runs.records import Begun, write_architecture
    from nas.searching.pick import pick as picked_of
    from nas.searching.search import measured_values
    from nas.searching.story import read_story
    from nas.searching.targeted import Targeted, open_target
    from nas.training.setting import open_device

    budgets, story = parse_budgets(budget), read_story(run_folder(run), storage)
    folder = story.run.folder
    where = open_device(device)
    begun = story.told.record.supernet
    there = open_target(target, where, budgets, story.space, begun.space) if story.space and begun else Targeted(Target(str(where)))
    budgets, measure = there.bound(budgets), measures(there.target)
    found = picked_of(list(story.searches.values()), budgets, floor, partial(measured_values, budgets=budgets, measure=measure))
    texts = " and ".join(each.text for each in budgets)
    if going := [each.name for each in story.searches.values() if each.winner is None]:
        print(f"Unfinished: {', '.join(going)}. What was found so far is picked from.")
    search = pasted("search", "--run", story.run.name, *(word for each in budgets for word in ("--budget", each.text)))
    if found is None:
        known = sum(len(each.candidates) for each in story.searches.values())
        raise ValueError(
            f"--budget {texts}: none of the {known} networks that were looked at uses {floor:.0%} or more of it and obeys it: got none; accepted: a "
            f"budget of a network that was looked at. Lower --floor, or search: {search}"
        )
    counted = {**cost(found.architecture)._asdict(), **{name: float(value) for name, value in found.measured.items()}}
    path = folder / f"picked-{'-'.join(each.text for each in budgets)}.yaml"
    told = begun.model_dump(mode="json", exclude_none=True, include=set(Begun.model_fields)) if begun else {}
    picked = {"accuracy": round(found.accuracy, 4), "by": found.how, "origin": found.origin}
    entries = {"costs": counted, "budgets": [each.text for each in budgets], "picked": picked, **told, "run": story.run.name}
    with story.run.lock():
        write_architecture(path, found.architecture, entries, f"Picked for another budget. Retrain it: {pasted('retrain', path)}")
    print(
        f"Under {texts}: {found.accuracy:.2%} {found.how}, the best of {found.among} networks that use it; {found.usage:.0%} of the tightest budget"
    )
    for line in describe(found.architecture):
        print(f"  {line}")
    print(f"  {', '.join(format_quantity(name, value) for name, value in counted.items())}")
    print(f"Written to {path}")
    print(f"Next: {pasted('retrain', path)}")
    return 0
