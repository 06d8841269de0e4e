"""`import-weights`: a checkpoint of the original code as weights of a published network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click


@click.command("import-weights", short_help="Take over weights of the original code.")
@click.argument("preset", metavar="PRESET")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--run", metavar="NAME", help="A folder under runs/ (default: import-PRESET).")
def import_weights(preset: str, file: Path, run: str | None) -> int:
    """Turn a checkpoint of the original code into weights of a published network.

    PRESET is a name that the command `presets` prints; FILE is safetensors, what torch.save wrote, or Google's .npz of an MLP-Mixer.
    """
    from nas.cost import cost
    from nas.machine import pasted
    from nas.networks.trained import load_network, save_network
    from nas.published.checkpoint_files import read_checkpoint
    from nas.published.import_weights import class_names, convert, preprocessing
    from nas.published.presets import read_preset
    from nas.runs.folder import WEIGHTS, Run, default_name, now
    from nas.runs.records import ImportRecord, read_record

    network = read_preset(preset)
    architecture, state = network.architecture, read_checkpoint(file)
    weights, how = convert(network.published.system, architecture, state, str(file)), preprocessing(network, state, str(file))
    folder = Run(default_name("import", preset) if run is None else run)
    target = folder.folder / WEIGHTS
    source = ImportRecord(preset=preset, file=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    with folder.lock():
        begun = read_record(folder).imported
        if target.exists() and not (begun and begun.sha256 == source.sha256):
            accepted = begun.file if begun else "what was there"
            raise ValueError(f"{target}: weights of another file: got {file}; accepted: {accepted}. Give another --run.")
        if target.exists() and begun and (kept := load_network(target).preprocess):  # which earlier versions did not write
            print(f"This file was imported before ({begun.file}).")
            how = kept
        else:
            folder.record(**{"import": source.model_dump()}, architecture=architecture.to_dict())
            save_network(target, weights, architecture, class_names(architecture.frame.classes), how)
            folder.record(finished=now())
    params = cost(architecture).params
    print(f"{network.published.name}: {len(weights)} tensors, {params:,} parameters, from {file}")
    mean, deviation = (" ".join(map(str, values)) for values in (how.mean, how.std))
    print(f"Images:  {how.resolution} px, the middle {how.crop:.1%}, {how.interpolation}, mean {mean}, deviation {deviation}")
    print(f"Weights: {target}")
    print(f'Load:    from nas import load_network; network = load_network("{target}")')
    print(f"Next: {pasted('predict', target, 'IMAGE')}")
    return 0
