"""`import-weights`: a checkpoint of the original code as weights of a published network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click


@click.command("import-weights", short_help="Take over weights of the original code.")
@click.argument("preset", metavar="PRESET")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--run", metavar="NAME", help="A folder under runs/ (default: import-PRESET).")
def import_weights(preset: str, file: Path, run: str | None) -> int:
    """Turn a checkpoint of the original code into weights of a published network.

    PRESET is a name that the command `presets` prints; FILE is safetensors, or what torch.save wrote.
    """
    from nas.cost import cost
    from nas.networks.weight_files import save_weights
    from nas.published.import_weights import convert, read_checkpoint
    from nas.published.presets import read_preset
    from nas.runs.folder import Run, default_name, now
    from nas.runs.records import ImportRecord, read_record

    network = read_preset(preset)
    weights = convert(network.published.system, network.architecture, read_checkpoint(file), str(file))
    folder = Run(default_name("import", preset) if run is None else run)
    target = folder.folder / "weights.safetensors"
    source = ImportRecord(preset=preset, file=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    with folder.lock():
        begun = read_record(folder).imported
        if target.exists() and begun and begun.sha256 == source.sha256:
            print(f"This file was imported before ({begun.file}).")
        elif target.exists():
            accepted = begun.file if begun else "what was there"
            raise ValueError(f"{target}: weights of another file: got {file}; accepted: {accepted}. Give another --run.")
        else:
            folder.record(**{"import": source.model_dump()}, architecture=network.architecture.to_dict())
            save_weights(target, weights, {"architecture": json.dumps(network.architecture.to_dict())})
            folder.record(finished=now())
    params = cost(network.architecture).params
    print(f"{network.published.name}: {len(weights)} tensors, {params:,} parameters, from {file}")
    print(f"Weights: {target}")
    print(f'Load:    from nas import load_network; network = load_network("{target}")')
    return 0
