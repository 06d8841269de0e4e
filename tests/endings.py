"""A small search and retraining, and all that commands leave in `runs/`, to be compared with what others left: everything but times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from studies import stored

from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import Run
from nas.yaml_files import read_yaml

SPACE = """
format: search space 1
frame: {resolution: 16, channels: 1, classes: 4}
patch: 4
stages: [{width: [16, 20, 24, 28, 32], depth: [1, 2, 3], mixer: [conv, s2_shift], mlp_ratio: [1, 2, 3]}]
"""
RECIPE = """
format: recipe 1
bf16: never
supernet: {steps: 30, batch_size: 8, lr: 1.0e-3, ema: true}
search: {trials: 12, population: 6, batch_size: 12, fine_tune: 2, finalist_epochs: 2}
retrain: {steps: 30, batch_size: 8, lr: 1.0e-3, augmentation: {flip: true, mixup: 0.2}, drop_path: 0.1, ema: true}
"""
BUDGET = "200kMACs"

TIMES = {
    "started",
    "finished",
    "written",
    "seconds",
    "time",
    "invocations",
    "command",
    "evaluate_seconds",
    "supernet_finished",
    "crc",
    "latency_ms",
}
OF_TIMES = {"winner"}  # the digest of a file with a time in it


def timeless(entries: Any) -> Any:
    if isinstance(entries, dict):
        return {name: timeless(value) for name, value in entries.items() if name not in TIMES | OF_TIMES}
    return [timeless(each) for each in entries] if isinstance(entries, list) else entries


def studies(path: Path) -> dict[str, Any]:
    """Every trial of every study, without times."""
    found = {}
    for name in optuna.get_all_study_names(f"sqlite:///{path}"):
        with stored(path, name) as study:
            trials = [
                (each.number, each.state, each.params, each.values, each.intermediate_values, each.user_attrs, each.system_attrs)
                for each in study.trials
            ]
            found[name] = study.user_attrs, trials
    return found


def log(path: Path) -> list[str]:
    """The lines that a run reads, without times, each once: steps that are done again log the same again. One that was being written when a disk was
    full, or a process killed, may be torn, and is nobody's."""
    lines = Run(path.parent.name, path.parent.parent).metrics()
    return sorted({json.dumps(timeless(line), sort_keys=True) for line in lines if line["kind"] != "sitting"})


def flat(state: Any) -> Any:
    """Of a checkpoint, with tensors as bytes."""
    if isinstance(state, torch.Tensor):
        return str(state.dtype), tuple(state.shape), state.numpy().tobytes()
    if isinstance(state, dict):
        return {name: flat(value) for name, value in state.items()}
    return [flat(each) for each in state] if isinstance(state, list) else state


READERS: dict[str, Callable[[Path], Any]] = {
    ".pt": lambda path: flat(load_checkpoint(path)), ".safetensors": Path.read_bytes, ".db": studies, ".jsonl": log, ".png": lambda path: None,
    ".yaml": lambda path: timeless(read_yaml(path)), ".json": lambda path: timeless(json.loads(path.read_text())),
}  # fmt: skip


def end(folder: Path) -> dict[str, Any]:
    """All that is in the runs of a folder, by file. The checkpoint before the last is of a moment that the clock chose, as are event files."""
    files = (path for path in folder.glob("runs/**/*") if path.is_file() and path.suffix in READERS)
    return {str(path.relative_to(folder)): READERS[path.suffix](path) for path in files}
