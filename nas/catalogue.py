"""The commands that train nothing, as functions: count an architecture, list the published networks, take over their weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json as json_format
from pathlib import Path

import torch

from nas.cost import cost, stage_costs
from nas.networks.architecture import describe, read_architecture
from nas.networks.network import Network
from nas.networks.weight_files import save_weights
from nas.published.import_weights import convert, read_checkpoint
from nas.published.presets import as_markdown, as_table, read_preset, rows
from nas.runs.folder import now
from nas.setting import RUNS, architecture_file, open_run


def profile(*, file: Path, json: bool) -> int:
    """Parameters, multiply-adds and activations of an architecture file, of a published network, or of the winner in a run's folder."""
    if file.is_dir():
        path = file / "best.yaml"
    elif (RUNS / file / "best.yaml").exists():
        path = RUNS / file / "best.yaml"
    else:
        path = architecture_file(file)
    architecture, _ = read_architecture(path)
    with torch.device("meta"):
        Network(architecture)  # counts of a network that cannot be built would be worth nothing
    total, parts = cost(architecture), stage_costs(architecture)
    if json:
        print(
            json_format.dumps(
                {
                    **total._asdict(),
                    **dataclasses.asdict(architecture.frame),
                    "key": architecture.key,
                    "parts": {name: part._asdict() for name, part in parts.items()},
                },
                indent=2,
            )
        )
        return 0
    print(
        f"{path}: architecture {architecture.key}, {architecture.frame.resolution} px, {architecture.frame.channels} channels, {architecture.frame.classes} classes"
    )
    for line in describe(architecture):
        print(f"  {line}")
    table: list[tuple[str, ...]] = [("part", "params", "MACs", "activations")]
    table += [
        (name, *(f"{number:,}" for number in (part.params, part.macs, part.activations)))
        for name, part in [*parts.items(), ("total", total)]
    ]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)), sep="  ")
    print("One multiply-add counts as one, as in the papers' FLOPs.")
    return 0


def presets(*, json: bool, markdown: bool) -> int:
    """The published networks: their counts, and the figures that their papers print."""
    if json:
        print(json_format.dumps(rows(), indent=2))
    else:
        print(as_markdown() if markdown else as_table(), end="")
    return 0


def import_weights(*, preset: str, file: Path, run: str | None) -> int:
    """Turns a checkpoint of the original code into weights of a published network, in a run's folder."""
    network = read_preset(preset)
    weights = convert(network.published.system, network.architecture, read_checkpoint(file), str(file))
    folder = open_run(run, ["import", preset], None, smoke=False)
    target = folder.folder / "weights.safetensors"
    source = {"preset": preset, "file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    with folder.lock():
        begun = folder.recorded().get("import", {})
        if target.exists() and begun.get("sha256") == source["sha256"]:
            print(f"This file was imported before ({begun['file']}).")
        elif target.exists():
            raise ValueError(
                f"{target}: weights of another file: got {file}; accepted: {begun.get('file', 'what was there')}. Give another --run."
            )
        else:
            folder.record(**{"import": source}, architecture=network.architecture.to_dict())
            save_weights(target, weights, {"architecture": json_format.dumps(network.architecture.to_dict())})
            folder.record(finished=now())
    total = cost(network.architecture)
    print(f"{network.published.name}: {len(weights)} tensors, {total.params:,} parameters, from {file}")
    print(f"Weights: {target}")
    print(f'Load:    from nas.networks.network import load_network; network = load_network("{target}")')
    return 0
