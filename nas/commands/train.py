"""`train`: the supernet alone."""

from __future__ import annotations

import math
from typing import Any

import click

from nas.commands.options import space_option, training_options


@click.command(short_help="Train the supernet alone.")
@space_option
@training_options("the supernet's training")
def train(**options: Any) -> int:
    """Train the supernet alone."""
    from nas.cost import cost
    from nas.machine import pasted
    from nas.quantities import parse_budgets
    from nas.runs.interrupt import Interrupt
    from nas.searching.supernet_run import open_supernet_run
    from nas.training.setting import Given

    opened = open_supernet_run(Given.of(options), *(options[name] for name in ("space", "run", "epochs", "steps")))
    with opened.run.lock(), Interrupt() as interrupt:
        opened.check_begun()
        opened.trained(lambda: interrupt.requested)
    ends = [cost(end(lambda architecture: cost(architecture).macs)).macs for end in (opened.space.smallest, opened.space.largest)]
    (middle,) = parse_budgets([f"{math.sqrt(ends[0] * ends[1]):.1e}MACs"])
    print(f"The supernet is trained: {opened.checkpoint}")
    print(f"Next: {pasted('search', '--run', opened.run.name, '--budget', middle.text)}")
    return 0
