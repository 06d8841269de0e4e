"""`profile`: what a network costs, part by part, and what it takes on a target."""

from __future__ import annotations

import dataclasses
import json as json_format
from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import target_option

if TYPE_CHECKING:
    from nas.cost.targets import Target
    from nas.networks.architecture import Architecture


@click.command(short_help="Count a network's parameters and multiply-adds.")
@click.argument("file", metavar="FILE")
@target_option
@click.option("--json", is_flag=True, help="Print one JSON object.")
def profile(file: str, target: str | None, json: bool) -> int:
    """Count parameters, multiply-adds and activations of a network; with --target, time it there.

    FILE is an architecture file, a published network's name, or the name or folder of a run, whose winner (or trained network) is counted.
    """
    import torch

    from nas.cost import cost, stage_costs
    from nas.cost.targets import check_target, parse_target
    from nas.machine import DISTURBED
    from nas.networks.architecture import describe, read_architecture
    from nas.networks.network import Network
    from nas.published.presets import network_file
    from nas.quantities import format_quantity
    from nas.runs.folder import RUNS

    where = parse_target(target) if target else None
    if where:
        check_target(where)
    path = network_file(file, RUNS)
    architecture, _ = read_architecture(path)
    with torch.device("meta"):
        Network(architecture)  # counts of a network that cannot be built would be worth nothing
    taken = _taken(architecture, where) if where else {}
    total, parts, frame = cost(architecture), stage_costs(architecture), architecture.frame
    if json:
        counted = {"key": architecture.key, "parts": {name: part._asdict() for name, part in parts.items()}}
        print(json_format.dumps({**total._asdict(), **dataclasses.asdict(frame), **counted, **taken}, indent=2))
        return 0
    print(f"{path}: architecture {architecture.key}, {frame.resolution} px, {frame.channels} channels, {frame.classes} classes")
    for line in describe(architecture):
        print(f"  {line}")
    print(f"{'part':12}{'params':>16}{'MACs':>18}{'activations':>16}")
    for name, part in [*parts.items(), ("total", total)]:
        print(f"{name:12}{part.params:>16,}{part.macs:>18,}{part.activations:>16,}")
    print("One multiply-add counts as one, as in the papers' FLOPs.")
    if where:
        of = f" of {where.batch} images" if where.batch > 1 else ""
        told = [format_quantity(name, taken[name]) for name in ("latency_ms", "image_ms", "memory_bytes")]
        print(
            f"On {where}: {told[0]} a pass{of} (half of the passes within {taken['spread']:.0%} of it), {told[1]}, {told[2]} of memory at once"
        )
        if taken["busy_cores"] and taken["busy_cores"] > DISTURBED:
            print(f"Other processes kept {taken['busy_cores']:.1f} cores busy meanwhile: this time is too long.")
    return 0


def _taken(architecture: Architecture, target: Target) -> dict[str, Any]:
    """What a pass takes on a target."""
    from nas.cost.latency import measure_latency
    from nas.cost.measured import measure_memory
    from nas.machine import OtherLoad

    load = OtherLoad()
    ms = measure_latency(architecture, target)
    memory = measure_memory(architecture, target)
    found = {"latency_ms": ms, "image_ms": ms / target.batch, "memory_bytes": memory, "spread": ms.spread}
    return {"target": str(target), **found, "busy_cores": load.cores()}
