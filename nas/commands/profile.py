"""`profile`: what a network costs, part by part."""

from __future__ import annotations

import dataclasses
import json as json_format

import click


@click.command(short_help="Count a network's parameters and multiply-adds.")
@click.argument("file", metavar="FILE")
@click.option("--json", is_flag=True, help="Print one JSON object.")
def profile(file: str, json: bool) -> int:
    """Count parameters, multiply-adds and activations of a network.

    FILE is an architecture file, a published network's name, or the name or folder of a run, whose winner (or trained network) is counted.
    """
    import torch

    from nas.cost import cost, stage_costs
    from nas.networks.architecture import describe, read_architecture
    from nas.networks.network import Network
    from nas.published.presets import network_file
    from nas.runs.folder import RUNS

    path = network_file(file, RUNS)
    architecture, _ = read_architecture(path)
    with torch.device("meta"):
        Network(architecture)  # counts of a network that cannot be built would be worth nothing
    total, parts, frame = cost(architecture), stage_costs(architecture), architecture.frame
    if json:
        counted = {"key": architecture.key, "parts": {name: part._asdict() for name, part in parts.items()}}
        print(json_format.dumps({**total._asdict(), **dataclasses.asdict(frame), **counted}, indent=2))
        return 0
    print(f"{path}: architecture {architecture.key}, {frame.resolution} px, {frame.channels} channels, {frame.classes} classes")
    for line in describe(architecture):
        print(f"  {line}")
    print(f"{'part':12}{'params':>16}{'MACs':>18}{'activations':>16}")
    for name, part in [*parts.items(), ("total", total)]:
        print(f"{name:12}{part.params:>16,}{part.macs:>18,}{part.activations:>16,}")
    print("One multiply-add counts as one, as in the papers' FLOPs.")
    return 0
