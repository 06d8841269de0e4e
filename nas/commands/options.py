"""Options that several commands have. Imports click alone, so that help comes at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nas.searching.supernet_run import SupernetRun

Command = Callable[..., Any]
COUNT = click.IntRange(1)


class Number(click.FloatRange):
    """A range of numbers that NaN is not in: it passes click's comparisons."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return found


SHARE = Number(0, 1, max_open=True)


def option(name: str, metavar: str, help: str, **more: Any) -> Callable[[Command], Command]:
    return click.option(name, metavar=metavar, help=help, **more)


BUDGETS = "4.5GFLOPs, 4.5GMACs, 300MMACs, 28Mparams, 8ms, 120img/s or 2GB"
DATA_SETS = """a folder with a folder of images per class, or with train and val or test, each such a folder, Parquet files or a tar file;
hfds/OWNER/NAME; with --data-root a torchvision data set's name."""
RESOLUTION = """Side of the images in training (default: the recipe's, else the images' own, rounded up to the space's stride, at most the
space's)."""


data_root_option = option("--data-root", "FOLDER", "Where torchvision's data set is; nothing is downloaded.")
device_option = option("--device", "DEVICE", "auto, cpu, cuda or cuda:N (default: auto).", default="auto")


def training_options(length_of: str) -> Callable[[Command], Command]:
    """The options of all commands that train; `length_of` is what --epochs and --steps are the length of."""
    options: list[Callable[[Command], Command]] = [
        option("--data", "DATA", f"digits (default); {DATA_SETS}"),
        data_root_option,
        option("--recipe", "RECIPE", "A name in recipes/ or a YAML file (default: chosen by images and device, and said)."),
        option("--resolution", "PX", RESOLUTION, type=COUNT),
        option("--run", "NAME", "A folder under runs/ (default: named after what is run)."),
        device_option,
        option("--loaders", "N", "Processes or threads that decode images (default: the cores).", type=click.IntRange(0, 1024)),
        option("--seed", "N", "Of everything random (default: 0).", type=click.IntRange(0)),
        click.option(
            "--flip/--no-flip", default=None, help="Mirror images at random, or not (default: the recipe's, but for writing and signs)."
        ),
        option("--batch-size", "N", f"Images in a step of {length_of}, instead of the recipe's.", type=click.IntRange(2)),
        option("--accumulate", "N", "Do a batch in N parts, where it does not fit; the same to rounding.", type=COUNT),
        click.option(
            "--recompute/--no-recompute", default=None, help="Run blocks twice instead of keeping what they computed: less memory."
        ),
        option("--lr", "RATE", "Its learning rate, for the batch as it is.", type=Number(0, min_open=True)),
        option("--epochs", "N", f"Length of {length_of}, instead of the recipe's.", type=float),
        option("--steps", "N", "The same in steps.", type=COUNT),
        click.option("--smoke", is_flag=True, help="A few steps and trials: seconds, for tests."),
    ]

    def add(command: Command) -> Command:
        for each in reversed(options):
            command = each(command)
        return command

    return add


dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done and how long it takes, and do nothing.")
ray_address_option = option(
    "--ray-address",
    "ADDRESS",
    "For the workers a Ray cluster that this machine is a node of: auto or HOST:PORT (default: Ray on this machine alone).",
    default="",
)
storage_option = option(
    "--storage",
    "URL",
    "Where studies are: postgresql://USER@HOST/DATABASE or mysql://... (default: in the run's folder, or where the run says).",
    default="",
)
batch_size_option = option("--batch-size", "N", "Images at a time (default: 64).", type=COUNT, default=64)
space_option = option(
    "--space", "SPACE", "Search space: a name in search_spaces/ or a YAML file (default: chosen by images and budgets, and said)."
)


target_option = option(
    "--target",
    "TARGET",
    "Where latencies are taken: DEVICE:RUNTIME, with eager, compile or onnxruntime, then ,batch=N,threads=N,dtype=NAME (default: --device:eager).",
)


def show_fixed(opened: SupernetRun) -> None:
    """Prints which decisions of its space a run does not make."""
    if opened.fixed:
        click.echo(f"Not searched, since no budget rewards it: {', '.join(f'{name} {value}' for name, value in opened.fixed.items())}.")


def show_plan(lines: list[str], dry_run: bool) -> None:
    """Prints what is to be done."""
    click.echo("\n".join(["What will be done:", *lines, *(["Nothing was begun: --dry-run."] * dry_run)]))
