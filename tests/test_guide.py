"""The guide is a path that can be walked: every command in it, in order, as it stands there, on a folder of photographs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from command_line import succeed
from PIL import Image

GUIDE = (Path(__file__).parents[1] / "docs/guide.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.S) for line in block.splitlines() if line.startswith("python launch.py ")
]
PYTHON = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
TRAINS = {"search", "train", "retrain", "fidelity", "compare"}
SHORTER = {
    "--trials 300": "--trials 6",
    "--budget 4.8MMACs": "--budget 4.8MMACs --floor 0",
    " --networks 30 --alone-epochs 20": "",
    "--seeds 3": "--seeds 1 --random 0",
    "cpu:onnxruntime,threads=2": "cpu:eager,threads=1",  # which takes seconds; the other a second for each of 129 parts
    "--budget 1ms": "--budget 3ms",
}
SIDE = 40


def photographs(folder: Path, classes: list[str], counts: dict[str, int]) -> None:
    """Coloured noise that is coarser for one class than for another."""
    draw = np.random.default_rng(0)
    for split, count in counts.items():
        for coarseness, name in enumerate(classes, 2):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                small = Image.fromarray(draw.integers(0, 256, (2 * coarseness, 2 * coarseness, 3), np.uint8))
                small.resize((SIDE, SIDE)).save(place / f"{number}.jpg")


def test_the_guide_has_a_command_for_each_step() -> None:
    named = {line.split()[2] for line in COMMANDS}
    assert (
        named
        >= {"search", "retrain", "predict", "evaluate", "fidelity", "compare", "import-weights", "presets", "profile", "measure", "export"}
        and len(PYTHON) == 2
    )


@pytest.mark.slow
def test_every_command_of_the_guide_runs(tmp_path: Path) -> None:
    """Those that train are shortened by --smoke, which changes neither their data nor what they write, and by fewer of everything."""
    photographs(tmp_path / "photos", ["boat", "cat", "dog"], {"train": 20, "test": 4})
    photographs(tmp_path / "others", ["leaf", "root"], {"train": 20, "test": 4})
    photographs(tmp_path / "more", ["leaf"], {"photos": 3})
    (tmp_path / "more/photos").rename(tmp_path / "more_photos")
    Image.new("RGB", (60, 50), (200, 30, 90)).save(tmp_path / "photo.png")
    (tmp_path / "my_space.yaml").write_text(next(iter(re.findall(r"```yaml\n(format: search space.*?)```", GUIDE, re.S))))
    torch.save(timm.create_model("mixer_s32_224").state_dict(), tmp_path / "mixer_s32_224.safetensors")
    said = {}
    for line in COMMANDS:
        words = line.split("  #")[0].removeprefix("python launch.py ")
        for long, shorter in SHORTER.items():
            words = words.replace(long, shorter)
        short = " --smoke --device cpu" if words.split()[0] in TRAINS else ""
        said[words] = succeed(words + short, tmp_path)
    assert "3 classes: 48 to train on, 12 held out" in said["search --data photos --budget 5MMACs --dry-run"]
    assert said["predict final photo.png more_photos"].count("%") == 3 * 4
    assert "Accuracy: " in said["evaluate final --data photos"] and (tmp_path / "runs/final/evaluation-photos-test.png").exists()
    assert "foretold by the table" in said["search --data photos --budget 5MMACs --budget 3ms --target cpu:eager,threads=1"]
    assert all(list((tmp_path / "runs/final").glob(name)) for name in ("*.onnx", "*.pt2", "*.onnx.md"))
    assert said["predict import-mixer_s_32 photo.png"].count("%") == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for block in PYTHON:
            exec(block, {})
