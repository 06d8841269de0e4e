"""`compare`: the winner of a search beside its baselines, published networks and random ones, trained alike with several seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import COUNT, SHARE, dry_run_option, option, ray_address_option, show_plan, training_options

if TYPE_CHECKING:
    from nas.searching.comparison import Comparison
    from nas.searching.ray_cluster import Crew


@click.command(short_help="Train a winner beside networks drawn by hand.")
@click.argument("file", metavar="FILE")
@click.option(
    "--random", "num_random", metavar="N", help="Random networks of the same budget (default: 3).", type=click.IntRange(0), default=3
)
@click.option("--seeds", "num_seeds", metavar="N", help="Trainings of each network (default: 3).", type=COUNT, default=3)
@option("--workers", "N", "Trainings beside each other (default: 1).", type=COUNT, default=1)
@ray_address_option
@option("--floor", "SHARE", "Published and random networks use at least this share of the tightest budget (default: the search's).",
        type=SHARE)  # fmt: skip
@option("--also", "NETWORK", "An architecture file or a published network to be compared too; may be repeated.", multiple=True)
@option("--space", "SPACE", "Where the winner's search space is now (default: where it was).")
@dry_run_option
@training_options("each training")
def compare(
    file: str, num_random: int, num_seeds: int, workers: int, floor: float | None, also: tuple[str, ...], dry_run: bool, **options: Any
) -> int:
    """Train a search's winner and networks of the same budget alike, with several seeds, and say who is better by how much.

    FILE is what a search wrote, such as runs/best.yaml. Beside the winner: a network of each pattern of mixers that fills the budget, the
    published networks that fit, and random ones. All are trained on all training images and tested once. More seeds or networks continue a comparison.
    """
    from nas.runs.folder import Run, default_name
    from nas.runs.interrupt import Interrupt
    from nas.runs.records import read_record, same_as_begun
    from nas.searching.comparison import contestants, open_comparison, read_found, space_of
    from nas.searching.plan import trainings_plan
    from nas.searching.ray_cluster import Crew, check_nodes
    from nas.training.given import Given
    from nas.training.setting import look_at_images, open_as_found

    path, given = Path(file), Given.of(options, trains="retrain")
    crew = Crew(workers, options["ray_address"])
    crew.check(least=1)
    winner = read_found(path)
    space, budgets = space_of(winner, path, options["space"])
    given = given if given.seed is not None else replace(given, seed=winner.seed)
    setting = open_as_found(given, winner, winner.architecture, space.at_side)
    floor = winner.found.floor if floor is None else floor
    networks = contestants(winner, space, budgets, floor, setting.frame, (num_random, setting.seed), also)
    drawn = sum(name.startswith("random ") for each in networks for name in each.names)
    if drawn < num_random:
        print(f"--random {num_random}: the budget's networks that were found are fewer: {drawn} are compared.")
    parts: list[str | int] = [winner.architecture.key, setting.source.name, setting.recipe_name, setting.seed, *given.unusual()]
    run = Run(default_name("compare", *parts) if options["run"] is None else options["run"])
    begun = read_record(run).compare
    setting = setting.as_begun(begun, given, options["epochs"], options["steps"])
    wanted = setting.network_record(winner.architecture, path)
    same_as_begun(run, begun, wanted)
    comparison = open_comparison(setting, run, networks, num_seeds)
    if dry_run or (begun is None and comparison.left()):
        look_at_images(setting, run, None, remember=False)
        show_plan(trainings_plan(comparison.alone, comparison.jobs, workers), dry_run)
    if dry_run:
        return 0
    with run.lock(), Interrupt() as interrupt:
        begun = read_record(run).compare
        same_as_begun(run, begun, wanted)
        check_nodes(crew, run.folder, *setting.folders)
        if comparison.left():
            look_at_images(setting, run, None, lambda: interrupt.requested)
        run.record(compare=(begun or wanted).model_dump(mode="json", exclude_none=True))
        about = {
            "space": options["space"] or winner.space, "space_fingerprint": space.fingerprint,
            "budgets": winner.budgets, "floor": floor, **wanted.model_dump(mode="json", exclude_none=True),
        }  # fmt: skip
        _compare(comparison, about, crew, lambda: interrupt.requested)
    return 0


def _compare(comparison: Comparison, about: dict[str, Any], crew: Crew, stop: Callable[[], bool]) -> None:
    """Measures and trains what is not known yet, and reports."""
    import json

    from nas.reporting.comparisons import png, sentence, table
    from nas.runs.folder import now, provenance
    from nas.searching.winner import standard_error
    from nas.yaml_files import write_atomically

    alone, run, seeds = comparison.alone, comparison.run, comparison.seeds
    setting, images = alone.setting, alone.setting.images
    length = f"{alone.steps} steps of {alone.phase.batch_size}"
    print(
        f"Comparing {len(comparison.networks)} networks with {len(seeds)} seeds: {len(comparison.jobs)} trainings, {len(comparison.left())} of them "
        f"still to be done, each of {length} on {images.size(alone.fit)} images at {setting.resolution} px, on {setting.device}.",
        flush=True,
    )
    latencies = comparison.latencies(stop)
    comparison.train(crew, stop)
    networks, tested = comparison.entries(latencies), images.size(alone.judged_on)
    settings = {**provenance(), **about, "seeds": list(seeds), "steps": alone.steps, "test_images": tested, "device": str(setting.device)}
    written = json.dumps({"settings": settings, "networks": networks}, indent=1, allow_nan=False)
    write_atomically(run.folder / "comparison.json", written.encode())
    title = f"{setting.source.name} at {setting.resolution} px, {length}, {len(seeds)} seeds; budget {' and '.join(about['budgets'])}"
    write_atomically(run.folder / "comparison.png", png(networks, title))
    run.record(finished=now())
    print("\n".join(["", *table(networks, seeds), ""]))
    if means := [each["mean"] for each in networks if each["mean"] is not None]:
        error = standard_error(max(means), tested)
        print(
            f"Behind +- are the deviation from seed to seed, and the lead's standard error. {tested} test images tell an accuracy to {100 * error:.2f} points."
        )
    print(sentence(networks))
    print(f"Written to {run.folder / 'comparison.json'} and {run.folder / 'comparison.png'}.")
