"""A search that has ended, for tests of what is told of runs."""

from __future__ import annotations

from pathlib import Path

from command_line import succeed
from recording import write_images

SPACE = """
format: search space 1
frame: {resolution: 16, channels: 1, classes: 4}
patch: 4
stages: [{width: [16, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2]}]
"""
RECIPE = """
format: recipe 1
bf16: never
supernet: {steps: 20, batch_size: 8, lr: 1.0e-3}
search: {trials: 8, population: 4, batch_size: 12}
retrain: {steps: 4, batch_size: 8, lr: 1.0e-3}
"""
WITH = "--device cpu --data images --recipe plain.yaml --space tiny.yaml"
STUDY = "200kMACs-evolution"


def finished_search(folder: Path) -> Path:
    """Writes images, space and recipe, and searches: `runs/found` has the study `STUDY`."""
    write_images(folder / "images")
    (folder / "tiny.yaml").write_text(SPACE)
    (folder / "plain.yaml").write_text(RECIPE)
    succeed(f"search {WITH} --budget 200kMACs --run found", folder)
    return folder
