"""`plan`: what a search and all that follows it need, before anything is spent; also for images that are not here."""

from __future__ import annotations

from typing import Any

import click

from nas.commands.options import BUDGETS, COUNT, option, show_plan, space_option, target_option, training_options


@click.command(short_help="Say what a search needs, before anything is spent.")
@option("--budget", "BUDGET", f"{BUDGETS}; may be repeated (default: the middle of the space).", multiple=True)
@option("--images", "N", "Training images of a set that is not here; made-up ones stand for them.", type=COUNT)
@option("--classes", "N", "Its classes (default: 1000).", type=COUNT)
@option("--devices", "N", "So many devices such as this one share the work (default: 1).", type=COUNT, default=1)
@option("--trials", "N", "Networks that the supernet scores (default: the recipe's).", type=click.IntRange(0))
@option("--finalists", "N", "Networks to train alone, besides those drawn by hand (default: the recipe's).", type=click.IntRange(0))
@target_option
@space_option
@training_options("the supernet's training")
def plan(budget: tuple[str, ...], devices: int, **options: Any) -> int:
    """Say what a search needs, before anything is spent: steps, images, memory, room on the disk and hours of the supernet, the search, the
    finalists and the retraining.

    Some steps are timed on this device, and the rest is arithmetic. With --images the data set need not be here:
    plan --space hybrid --images 1281167 --classes 1000 --budget 4.5GMACs --devices 8. What search --dry-run prints is a part of it.
    """
    from nas.commands.search import SAMPLERS, searches_of
    from nas.quantities import parse_budgets
    from nas.searching.needs import needs
    from nas.searching.plan import search_plan

    usual = {"start": (), "sampler": SAMPLERS[0], "workers": 0, "ray_address": "", "storage": ""}
    searches = searches_of([parse_budgets(budget)] if budget else [], 0.8, {**usual, **options})
    show_plan(search_plan(searches, devices, needs(searches, devices)), dry_run=False)
    return 0
