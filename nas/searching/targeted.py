"""Budgets bound to a target: which target is meant, whether a latency table is at hand for it, and what arithmetic foretells there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from nas.cost.memory import memory_bytes
from nas.cost.table import Table
from nas.cost.targets import Target, check_target, parse_target
from nas.machine import pasted
from nas.networks.architecture import Architecture
from nas.quantities import Budget
from nas.searching.latency_table import TableRun
from nas.spaces.decisions import SearchSpace

TIMES = ("latency_ms", "image_ms")


@dataclass(frozen=True)
class Targeted:
    """Where latency and memory are limited, and the latency table of it; without one networks are timed when they are worth it."""

    target: Target
    table: Table | None = None
    note: str = ""  # what to say of it

    @property
    def digest(self) -> str:
        """Of the table; "" without one."""
        return self.table.digest if self.table else ""

    def bound(self, budgets: Sequence[Budget]) -> tuple[Budget, ...]:
        """The same limits; memory is foretold by counting, and with a table so is time."""
        target, table = self.target, self.table
        foretold: dict[str, Callable[[Architecture], float]] = {
            "memory_bytes": partial(memory_bytes, batch=target.batch, dtype=target.dtype)
        }
        if table is not None:

            def of_an_image(architecture: Architecture) -> float:
                return table.latency_ms(architecture) / target.batch

            foretold |= {"latency_ms": table.latency_ms, "image_ms": of_an_image}
        return tuple(replace(each, foretell=foretold.get(each.quantity.name)) for each in budgets)


def open_target(text: str | None, device: torch.device, budgets: Sequence[Budget], space: SearchSpace, called: str) -> Targeted:
    """The target of a command line, with its latency table where a time is limited.

    Args:
        text: what the user wrote; None: PyTorch on `device`.
        device: that of the command.
        budgets: all of the command line.
        space: whose networks are to be foretold.
        called: how that was named, for the command that makes a table: a path, or a name in search_spaces/.

    Raises:
        ValueError: the target is not at hand, or its table is another machine's, another version's or another space's.
    """
    target = parse_target(text) if text else Target(str(device))
    if text:
        check_target(target)
    if not any(each.quantity.name in TIMES for each in budgets):
        return Targeted(target)
    opened = TableRun(target)
    if not opened.run.recorded():
        make = pasted("measure", "--space", called, "--target", target)
        return Targeted(target, note=f"No latency table of {target}: networks are timed as they enter the front. `{make}` makes one.")
    table = opened.table_for(space, called)
    return Targeted(target, table, f"Latencies are foretold by the table in {opened.run.folder}; finalists and winners are timed.")
