"""Files of other code: read by their content, without running any of it, and each that cannot be read refused in one line that says why."""

from __future__ import annotations

import argparse
import datetime
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from errors import refused
from torch import Tensor

from nas.published.checkpoint_files import read_checkpoint

STATE = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.tensor([1.0, 2.0])}


def assert_read(path: Path, expected: dict[str, Tensor] = STATE) -> None:
    got = read_checkpoint(path)
    assert list(got) == list(expected) and all(torch.equal(got[name], value) for name, value in expected.items())


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def test_files_are_read_by_their_content(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "named.pth")
    assert set(read_checkpoint(tmp_path / "named.pth")) == set(STATE)
    assert_read(saved(tmp_path / "named.safetensors", STATE))
    assert_read(saved(tmp_path / "old.pt", STATE, _use_new_zipfile_serialization=False))


class CfgNode(dict):  # type: ignore[type-arg]
    """As yacs's, it keeps something beside its items."""

    def __init__(self, *items: Any) -> None:
        super().__init__(*items)
        self.__dict__["__immutable__"] = True


def test_what_trainers_save_beside_the_weights_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordered, other = OrderedDict(STATE), {name: value + 1 for name, value in STATE.items()}
    arguments = argparse.Namespace(model="spach", lr=1e-3, betas=None)
    assert_read(saved(tmp_path / "deit.pth", {"model": ordered, "model_ema": other, "epoch": 3, "args": arguments}))
    assert_read(
        saved(tmp_path / "timm.pth", {"arch": "vip", "state_dict": STATE, "state_dict_ema": other, "args": arguments, "metric": 8.1})
    )
    assert_read(saved(tmp_path / "ema.pth", {"epoch": 3, "state_dict_ema": other}), other)
    assert_read(saved(tmp_path / "named.pth", {"model": "spach", "state_dict": STATE}))
    assert_read(saved(tmp_path / "parallel.pth", {"state_dict": {f"module.{name}": value for name, value in STATE.items()}}))
    # AS-MLP's trainer saves yacs's configuration, which need not be installed to read the file
    yacs = types.ModuleType("yacs.config")
    yacs.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setattr(CfgNode, "__module__", "yacs.config")
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", yacs)
    saved(tmp_path / "as_mlp.pth", {"model": STATE, "config": CfgNode({"MODEL": CfgNode({"TYPE": "AS_MLP"})}), "max_accuracy": 81.3})
    monkeypatch.undo()
    assert "yacs" not in sys.modules
    assert_read(tmp_path / "as_mlp.pth")


BAGGAGE = {
    "metric": np.float64(81.5),
    "best": {"epoch": np.int64(3), "done": np.bool_(True)},
    "curve": np.arange(3.0),
    "rng_state": np.random.RandomState(0).get_state(),
    "output": Path("runs"),
    "begun": datetime.datetime(2021, 6, 22),
    "took": datetime.timedelta(hours=30),
    "torch": torch.__version__,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", BAGGAGE)
def test_objects_beside_the_weights_are_passed_over(tmp_path: Path, name: str, zipped: bool) -> None:
    assert_read(saved(tmp_path / "model.pth", {"model": STATE, name: BAGGAGE[name]}, _use_new_zipfile_serialization=zipped))


def test_numbers_of_an_earlier_numpy_are_passed_over(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pth", {"model": STATE, "metric": np.float64(81.5)}, _use_new_zipfile_serialization=False)
    before = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(before)
    assert b"numpy.core.multiarray" in before
    assert_read(path)


def test_arrays_in_the_place_of_weights_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pth", {"model": {**STATE, "scale": np.ones(3), "epoch": np.int64(3)}})
    with refused(f"{path}: ", "scale is numpy.ndarray, epoch is numpy.generic", "torch.save(model.state_dict()"):
        read_checkpoint(path)


def test_what_wraps_a_network_is_taken_off_most_names(tmp_path: Path) -> None:
    """Also where one name is wrong, so that this one alone is told later; not where names would fall together."""
    compiled = {f"_orig_mod.module.{name}": value for name, value in STATE.items()}
    assert_read(saved(tmp_path / "compiled.pth", compiled))
    weights = {f"module.blocks.{i}.weight": torch.zeros(1) for i in range(3)}
    assert set(read_checkpoint(saved(tmp_path / "one.pth", weights | {"head": torch.zeros(1)}))) == {
        "blocks.0.weight", "blocks.1.weight", "blocks.2.weight", "head",
    }  # fmt: skip
    twice = weights | {"blocks.0.weight": torch.zeros(1)}
    assert set(read_checkpoint(saved(tmp_path / "twice.pth", twice))) == set(twice)


UNUSUAL = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "device 'meta'": lambda: torch.empty(3, device="meta"),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch calls half of these experimental or outdated
@pytest.mark.parametrize("kind", UNUSUAL)
def test_tensors_that_are_no_dense_real_numbers_are_told(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "model.pth", {"model": {**STATE, "blocks.3.weight": UNUSUAL[kind]()}})
    with refused(f"{path}: blocks.3.weight: ", kind.split()[0], "accepted: dense tensors of real numbers"):
        read_checkpoint(path)


class Foreign:
    """Not to be opened."""


class Evil:
    """Would write a file, if it was opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "ran")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_anything_else_is_not_opened(tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, Foreign.__module__, types.SimpleNamespace(Foreign=Foreign))
    path = saved(tmp_path / "model.pth", {"model": STATE, "net": Foreign()}, _use_new_zipfile_serialization=zipped)
    with refused(f"{path}: ", f"{Foreign.__module__}.Foreign", "torch.save(model.state_dict()"):
        read_checkpoint(path)
    evil = saved(tmp_path / "evil.pth", {"model": Evil(tmp_path / "written")}, _use_new_zipfile_serialization=zipped)
    with refused(f"{evil}: ", "could run code", "torch.save(model.state_dict()"):
        read_checkpoint(evil)
    hidden = {"model": STATE, "metric": np.array([Evil(tmp_path / "written")], dtype=object)}
    with refused("could run code"):
        read_checkpoint(saved(evil, hidden, _use_new_zipfile_serialization=zipped))
    assert not (tmp_path / "written").exists()


def test_torchscript_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("script/data.pkl", "script/code/__torch__.py", "script/constants.pkl"):
            archive.writestr(name, b"")
    with refused("script.pt: got a TorchScript archive", "torch.save(model.state_dict()"):
        read_checkpoint(tmp_path / "script.pt")


def cut(content: bytes) -> list[bytes]:
    return [content[:size] for size in (1, 2, 5, 9, 20, 60, len(content) // 2, len(content) - 70, len(content) - 1)]


def assert_told_in_one_sentence(error: ValueError) -> str:
    """torch's own messages go on for paragraphs, with the advice to run what is in the file."""
    message = str(error)
    assert not any(each in message for each in ("weights_only", "PytorchStreamReader", "Errno", "miniz", "might be", "PyTorch 2.6")), (
        message
    )
    return message


def test_files_that_were_cut_short_are_refused_with_a_whole_reason(tmp_path: Path) -> None:
    weights = {"blocks.0.weight": torch.randn(40, 40), "blocks.1.weight": torch.randn(40, 40)}
    safetensors.torch.save_file(weights, tmp_path / "whole.safetensors")
    saved(tmp_path / "whole.pth", weights)
    saved(tmp_path / "old.pt", weights, _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "whole.npz", **{name: value.numpy() for name, value in weights.items()})
    for whole in sorted(tmp_path.iterdir()):
        for number, part in enumerate(cut(whole.read_bytes())):
            path = tmp_path / f"{number}{whole.suffix}"
            path.write_bytes(part)
            with refused(f"{path}: ") as raised:
                read_checkpoint(path)
            message = assert_told_in_one_sentence(raised.value)
            assert whole.suffix not in (".pth", ".npz") or len(part) == 1 or "cut short: its end" in message, message


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_pickles_are_refused_or_read(tmp_path: Path, zipped: bool) -> None:
    """In an old file, without checksums, a wrong byte may hit a number or a name, which nothing can tell."""
    path = tmp_path / "model.pth"
    whole = saved(path, STATE, _use_new_zipfile_serialization=zipped).read_bytes()
    num_refused = 0
    for position in range(0, len(whole), 23):
        path.write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        try:
            state = read_checkpoint(path)
            assert all(isinstance(value, Tensor) for value in state.values())
            assert not zipped or all(torch.equal(state[name], value) for name, value in STATE.items())
        except ValueError as error:
            num_refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert num_refused > 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html>\n<html><body>Not found</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        ("{'model': 'größer'}".encode(), "begins with b\"{'model'"),
        (b"eight by{ and more text", "header too large"),  # a brace where safetensors have one
        (b"\x00\x01\x02\x03 not a checkpoint \x00", "begins with b'\\x00"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}", "NUMPY"),
        (b"PK\x03\x04 another zip", "cut short"),
        (pickle.dumps([1, 2, 3], protocol=4), "not a checkpoint at all"),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "resmlp_12.pth"
    path.write_bytes(content)
    with refused(f"{path}: ", words) as raised:
        read_checkpoint(path)
    assert_told_in_one_sentence(raised.value)


def test_another_archive_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "thesis.pth", "w") as archive:
        archive.writestr("word/document.xml", b"")
    with refused("thesis.pth: not a checkpoint: got an archive of word/document.xml"):
        read_checkpoint(tmp_path / "thesis.pth")


# ------------------------------------------------------------------------------------------------------ numpy's archives


def test_arrays_are_read_in_torchs_order_of_axes(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    dense, convolution, bias = draw.normal(size=(3, 5)), draw.normal(size=(7, 6, 3, 5)).astype(np.float32), draw.normal(size=5)
    arrays = {"a/kernel": dense.astype(np.float16), "b/kernel": convolution, "a/bias": bias.astype(">f8"), "a/scale": bias.astype("<f8")}
    np.savez_compressed(tmp_path / "mixer.npz", **arrays)
    state = read_checkpoint(tmp_path / "mixer.npz")
    assert {value.dtype for value in state.values()} == {torch.float32}
    x = torch.from_numpy(draw.normal(size=(2, 3))).float()
    torch.testing.assert_close(x @ torch.from_numpy(dense).float(), torch.nn.functional.linear(x, state["a/kernel"]), atol=0.01, rtol=0)
    assert state["b/kernel"].shape == (5, 3, 7, 6) and state["b/kernel"][4, 2, 6, 1] == convolution[6, 1, 2, 4]
    assert torch.equal(state["a/bias"], state["a/scale"]) and torch.equal(state["a/bias"], torch.from_numpy(bias).float())


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{}]), "Object arrays cannot be loaded"),
        (np.array(["text"]), "numpy.str_"),
        (np.zeros(3, "V2"), "numpy.void"),  # bfloat16, which numpy does not know
        (np.zeros(3, np.complex64), "complex"),
    ],
)
def test_arrays_that_are_no_numbers_are_told(tmp_path: Path, array: Any, words: str) -> None:
    np.savez(tmp_path / "mixer.npz", **{"stem/bias": np.zeros(3), "head/bias": array})
    with refused(f"{tmp_path / 'mixer.npz'}: head/bias: ", words):
        read_checkpoint(tmp_path / "mixer.npz")


# -------------------------------------------------------------------------------------------------------- other mistakes


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "resmlp_12.pth", STATE)
    with refused(f"{tmp_path / 'resmlp12.pth'}: no such file", "'resmlp_12.pth'"):
        read_checkpoint(tmp_path / "resmlp12.pth")
    with refused(f"{tmp_path / 'no' / 'file.pth'}: no such file", "Check the path"):
        read_checkpoint(tmp_path / "no" / "file.pth")
    with refused(f"{tmp_path}: a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "got: nothing"),
        ({"model": {}}, "got: nothing"),
        ({"net": STATE, "epoch": 3}, "got: net is dict, epoch is int"),
        ([STATE], "list"),
        (STATE["head.bias"], "Tensor"),
        ({"model": {**STATE, "epoch": 3}}, "got: epoch is int"),
        ({**STATE, "optimizer": {}}, "got: optimizer is dict"),
    ],
)
def test_checkpoints_without_a_state_dict_are_refused(tmp_path: Path, content: object, words: str) -> None:
    path = saved(tmp_path / "model.pth", content)
    with refused(f"{path}: ", words, "torch.save(model.state_dict()"):
        read_checkpoint(path)


def test_a_safetensors_file_without_tensors_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({}, tmp_path / "none.safetensors")
    with refused(str(tmp_path), "got: nothing"):
        read_checkpoint(tmp_path / "none.safetensors")
