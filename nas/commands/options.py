"""Options that several commands have. Imports click alone, so that help comes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nas.runs.interrupt import Interrupt

Command = Callable[..., Any]
COUNT = click.IntRange(1)


def training_options(length_of: str) -> Callable[[Command], Command]:
    """The options of all commands that train; `length_of` is what --epochs and --steps are the length of."""
    options = [
        click.option(
            "--data",
            metavar="DATA",
            help="digits (default); a folder with train/ and val/ or test/, a folder of images per class in each; a folder of Parquet files; "
            "with --data-root a torchvision data set's name.",
        ),
        click.option("--data-root", metavar="FOLDER", help="Where torchvision's data set is; nothing is downloaded."),
        click.option(
            "--recipe",
            metavar="RECIPE",
            help="A name in recipes/ or a YAML file (default: digits for digits, cifar up to 64 px, else imagenet).",
        ),
        click.option(
            "--resolution",
            metavar="PX",
            type=COUNT,
            help="Side of the images in training (default: the recipe's, else the images' own, rounded up to the space's stride, at most the space's).",
        ),
        click.option("--run", metavar="NAME", help="A folder under runs/ (default: named after what is run)."),
        click.option("--device", metavar="DEVICE", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)."),
        click.option(
            "--loaders", metavar="N", type=click.IntRange(0, 1024), help="Processes or threads that decode images (default: the cores)."
        ),
        click.option("--seed", metavar="N", type=click.IntRange(0), help="Of everything random (default: 0)."),
        click.option("--epochs", metavar="N", type=float, help=f"Length of {length_of}, instead of the recipe's."),
        click.option("--steps", metavar="N", type=COUNT, help="The same in steps."),
        click.option("--smoke", is_flag=True, help="A few steps and trials: seconds, for tests."),
    ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def space_option(command: Command) -> Command:
    return click.option("--space", metavar="SPACE", help="Search space: a name in search_spaces/ or a YAML file (default: hybrid).")(
        command
    )


def stopped(what: BaseException, interrupt: Interrupt) -> int:
    """Says that a command was interrupted; its exit status."""
    print(f"{str(what)[0].upper()}{str(what)[1:]}; the same command continues.", flush=True)
    return interrupt.exit_status or 130
