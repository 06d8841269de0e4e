"""Budgets bound to a target: what arithmetic foretells there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from nas.cost.memory import memory_bytes
from nas.cost.table import Table
from nas.cost.targets import Target
from nas.networks.architecture import Architecture
from nas.quantities import Budget


def bound(budgets: Sequence[Budget], target: Target, table: Table | None) -> tuple[Budget, ...]:
    """The same limits; memory is foretold by counting, and with a table so is time."""
    foretold = {"memory_bytes": partial(memory_bytes, batch=target.batch, dtype=target.dtype)}
    if table is not None:

        def of_an_image(architecture: Architecture) -> float:
            return table.latency_ms(architecture) / target.batch

        foretold |= {"latency_ms": table.latency_ms, "image_ms": of_an_image}
    return tuple(replace(each, foretell=foretold.get(each.quantity.name)) for each in budgets)
