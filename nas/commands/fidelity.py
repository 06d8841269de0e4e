"""`fidelity`: how far the ranking of a run's supernet can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import (
    COUNT,
    Number,
    dry_run_option,
    option,
    ray_address_option,
    show_fixed,
    show_plan,
    space_option,
    training_options,
)

if TYPE_CHECKING:
    from nas.runs.folder import Run


@click.command(short_help="Tell how far a supernet's ranking can be trusted.")
@option("--budget", "BUDGET", "Networks within 10% of it are compared: 4.5GMACs, 28Mparams; may be repeated.", multiple=True, required=True)
@option("--networks", "N", "To be compared, 10 or more (default: 30; with --smoke 10).", type=COUNT)
@option("--seeds", "N", "With how many each network is trained alone; from two on the noise is known (default: 1).", type=COUNT, default=1)
@option(
    "--alone-epochs", "N", "For how long each network is trained alone, instead of the recipe's finalist_epochs.",
    type=Number(0, 1e6, min_open=True, max_open=True),  # as `Epochs` of nas/training/recipe.py, which help would wait for
)  # fmt: skip
@option(
    "--workers",
    "N",
    "Processes that score and train beside each other (default: score in this one, train in one).",
    type=click.IntRange(0),
    default=0,
)
@ray_address_option
@dry_run_option
@space_option
@training_options("the supernet's training")
def fidelity(
    budget: tuple[str, ...], networks: int | None, seeds: int, alone_epochs: float | None, workers: int, dry_run: bool, **options: Any
) -> int:
    """Tell how far a supernet's ranking can be trusted.

    Networks of one budget are scored with the supernet's weights, by other means, and by training each alone. Trains the supernet first where
    the run has none. What was trained is kept: the same command continues, and more --networks or --seeds add to it.
    """
    from nas.pareto import LEAST
    from nas.quantities import parse_budgets
    from nas.runs.folder import TRAINED_ALONE
    from nas.runs.interrupt import Interrupt
    from nas.searching.fidelity import Fidelity, networks_around
    from nas.searching.plan import trainings_plan
    from nas.searching.proposals import LOWEST
    from nas.searching.ray_cluster import Crew, check_nodes
    from nas.searching.supernet_run import open_supernet_run
    from nas.searching.trained_alone import Alone
    from nas.training.given import Given
    from nas.training.setting import look_at_images

    budgets = parse_budgets(budget)
    crew = Crew(workers, options["ray_address"])
    crew.check()
    opened = open_supernet_run(Given.of(options), options["space"], options["run"], (options["epochs"], options["steps"]), budgets, LOWEST)
    show_fixed(opened)
    drawn = networks_around(opened, networks or (LEAST if options["smoke"] else 30))
    setting, run = opened.setting, opened.run
    alone = Alone.on_held_out(setting, run.folder / TRAINED_ALONE, alone_epochs or setting.recipe.search.finalist_epochs)
    compared = Fidelity(opened, budgets, drawn, alone, seeds, crew)
    opened.check_begun()
    if dry_run or not any(alone.steps_done(*job) for job in compared.jobs):
        look_at_images(setting, run, setting.recipe.supernet.augmentation, remember=False)
        show_plan(trainings_plan(alone, compared.jobs, max(1, workers), opened), dry_run)
    if dry_run:
        return 0
    with run.lock(), Interrupt() as interrupt:
        opened.check_begun()
        check_nodes(crew, run.folder, *setting.folders)
        _show(compared.entries(lambda: interrupt.requested), run, setting.recipe.search.finalist_epochs)
    return 0


def _show(found: dict[str, Any], run: Run, usual: float) -> None:
    """Writes the file and its picture, and prints what they say. Trainings of another length than the `usual` epochs have a file of their own."""
    import json

    from nas.reporting.rankings import as_table, draw
    from nas.yaml_files import write_atomically

    budgets, epochs = "-".join(found["settings"]["budgets"]), found["settings"]["epochs"]
    path = run.folder / f"fidelity-{budgets}{'' if epochs == usual else f'-{epochs:g}-epochs'}.json"
    picture = path.with_suffix(".png")
    write_atomically(path, json.dumps(found, indent=1).encode())
    write_atomically(picture, draw(found))
    print()
    for line in as_table(found):
        print(line)
    print(f"Written to {path} and {picture}")
