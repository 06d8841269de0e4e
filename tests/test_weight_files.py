"""Weight files: what is written reads back the same, and what is not whole is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from errors import refused

from nas.networks.weight_files import load_weights, save_weights


def test_weights_come_back_with_their_metadata_shared_and_strided_ones_too(tmp_path: Path) -> None:
    shared = torch.nn.Parameter(torch.randn(4, 3))
    tensors = {"a": shared, "b": shared, "t": torch.randn(3, 5).t(), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_weights(tmp_path / "w.safetensors", tensors, {"architecture": "{}"})
    read, metadata = load_weights(tmp_path / "w.safetensors")
    assert metadata == {"architecture": "{}"}
    assert set(read) == set(tensors)
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)
    assert os.listdir(tmp_path) == ["w.safetensors"]


WRITES = """
import torch
from pathlib import Path
from nas.networks.weight_files import save_weights
tensors = {f"block.{n}": torch.full((n,), n / 7, dtype=(torch.float32, torch.bfloat16, torch.uint8)[n % 3]) for n in range(1, 9)}
save_weights(Path(file), tensors, {f"{n} Bär": "ü" * n for n in range(9)})
"""


@pytest.mark.whole
def test_the_same_weights_are_the_same_file_in_every_process(tmp_path: Path) -> None:
    """As safetensors itself reads them, and numpy by the format's own page: 8 bytes of length, a header, the data at a multiple of 8."""
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    exec(WRITES, {"file": files[0]})
    there = {**os.environ, "PYTHONHASHSEED": "1"}  # the seed of this process is random
    code = f"file = {str(files[1])!r}{WRITES}"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], env=there, check=True, timeout=120)
    content = files[0].read_bytes()
    assert content == files[1].read_bytes()

    begins = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begins])
    assert begins % 8 == 0 and header.pop("__metadata__") == {f"{n} Bär": "ü" * n for n in range(9)}
    read = safetensors.torch.load_file(files[0])
    assert read.keys() == header.keys() == {f"block.{n}" for n in range(1, 9)}
    for n in (3, 6):  # float32
        first, last = header[f"block.{n}"]["data_offsets"]
        assert np.array_equal(np.frombuffer(content[begins + first : begins + last], np.float32), read[f"block.{n}"].numpy())
        assert torch.equal(read[f"block.{n}"], torch.full((n,), n / 7))


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_truncated_weights_are_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": torch.zeros(100)}, {})
    os.truncate(path, keep % path.stat().st_size)
    with refused(path, "damaged"):
        load_weights(path)


def test_weights_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04.")
    for name, says in (("none.safetensors", "no such file"), ("pickle.pt", "not a safetensors file"), (".", "a folder")):
        with refused(tmp_path / name, says):
            load_weights(tmp_path / name)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with refused("No space left on device"):
        save_weights(tmp_path / "w.safetensors", {"w": torch.zeros(3)}, {})
    assert os.listdir(tmp_path) == []
