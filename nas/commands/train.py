"""`train`: the supernet alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import dry_run_option, option, show_fixed, show_plan, space_option, training_options

if TYPE_CHECKING:
    from nas.training.ranks import Ranks


@click.command(short_help="Train the supernet alone.")
@option("--budget", "BUDGET", "What it is to be searched for; may be repeated (default: networks of every size).", multiple=True)
@dry_run_option
@space_option
@training_options("the supernet's training")
def train(budget: tuple[str, ...], dry_run: bool, **options: Any) -> int:
    """Train the supernet alone.

    Several GPUs or machines train it together where torchrun starts the command: torchrun --nproc-per-node 8 -- launch.py train ...
    """
    from nas.training.ranks import joined

    with joined() as ranks:
        return _train(budget, dry_run, options, ranks)


def _train(budget: tuple[str, ...], dry_run: bool, options: dict[str, Any], ranks: Ranks) -> int:
    from nas.machine import pasted
    from nas.quantities import parse_budget
    from nas.searching.plan import supernet_plan
    from nas.searching.supernet_run import middle, open_supernet_run
    from nas.training.given import Given
    from nas.training.setting import look_at_images

    budgets = [parse_budget(text) for text in budget]
    opened = open_supernet_run(
        Given.of(options, ranks=ranks), options["space"], options["run"], (options["epochs"], options["steps"]), budgets
    )
    show_fixed(opened)
    opened.check_begun()
    opened.setting.agree()
    if dry_run or opened.recorded().supernet is None:
        look_at_images(opened.setting, opened.run, opened.setting.recipe.supernet.augmentation, remember=False)
        show_plan(supernet_plan(opened), dry_run)
    if dry_run:
        return 0
    with ranks.holding(opened.run), ranks.interrupt() as stop:
        opened.check_begun()
        opened.trained(stop)
    next_one = budgets[-1] if budgets else middle(opened.space)
    print(f"The supernet is trained: {opened.checkpoint}")
    print(f"Next: {pasted('search', '--run', opened.run.name, '--budget', next_one.text)}")
    return 0
