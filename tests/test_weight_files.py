"""Weight files: what is written reads back the same, and what is not whole is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
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
