"""Options that several commands have, and what is common to opening a run. Imports click alone, so that help comes at once."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.commands.command_line import program

if TYPE_CHECKING:
    from nas.runs.folder import Run
    from nas.runs.interrupt import Interrupt

RUNS = Path("runs")
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


def length(epochs: float | None, steps: int | None) -> tuple[float | None, int | None]:
    """--epochs and --steps, of which at most one is given.

    Raises:
        ValueError: both, or not a length.
    """
    if epochs is not None and steps is not None:
        raise ValueError("--steps: not with --epochs: got both; accepted: one of them.")
    if epochs is not None and not 0 < epochs < 1e6:
        raise ValueError(f"--epochs: out of range: got {epochs}; accepted: more than 0.")
    return epochs, steps


def open_run(name: str | None, parts: list[str], resolution: int | None, smoke: bool) -> Run:
    """The run of that name, or the default one: named after what is run."""
    from nas.runs.folder import Run

    if name is None:
        name = "-".join([*parts, *([f"{resolution}px"] if resolution else []), *(["smoke"] if smoke else [])])
        plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name).lstrip("._-")
        # Cut, a name would lose its recipe and seed, and two runs would become one.
        name = plain if len(plain) <= 64 else f"{plain[:55]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Run(name, RUNS)


def short_name(name: str) -> str:
    """A space's, data set's or recipe's short name for the name of a run."""
    return Path(name).stem if Path(name).suffix in (".yaml", ".yml") else Path(name).name


def pasted(*words: object) -> str:
    """A command line of this program, to be pasted into a shell."""
    return f"{program()} {shlex.join(map(str, words))}"


def stopped(what: BaseException, interrupt: Interrupt) -> int:
    """Says that a command was interrupted; its exit status."""
    print(f"{str(what)[0].upper()}{str(what)[1:]}; the same command continues.", flush=True)
    return interrupt.exit_status or 130
