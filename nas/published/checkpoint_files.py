"""Checkpoints that other code wrote, read without running any of it: safetensors, what `torch.save` wrote, and flax's parameters in a `.npz`."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.networks.weight_files import load_weights
from nas.yaml_files import listed, one_line_error, open_file

WRAPPERS = ("model", "state_dict", "model_ema", "state_dict_ema")  # where trainers put the weights; the first that is there counts
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
_ACCEPTED = "a checkpoint (.safetensors, .pth, .pt, .npz)"
_ADVICE = "Save the weights alone: torch.save(model.state_dict(), FILE)."


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, by its content, not its suffix; no code in it is run.

    What trainers save beside the weights (epoch, optimiser, arguments) is left out, and so are `PREFIXES` that most names have.

    Raises:
        ValueError: one line: no such file, damaged, not a checkpoint, or it holds something else than dense tensors of real numbers.
    """
    with open_file(path, _ACCEPTED) as file:
        start = file.read(64)
    content = load_weights(path)[0] if start[8:9] == b"{" else _unpack(path, start)  # safetensors begin with the length of the header
    wrapped = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)] if isinstance(content, Mapping) else []
    state: Any = wrapped[0] if wrapped else content
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        mapping = isinstance(state, Mapping)
        others = {name: value for name, value in state.items() if not isinstance(value, Tensor)} if mapping else {"it": state}
        got = listed(f"{name} is {type(value).__name__}" for name, value in others.items()) or "nothing"
        accepted = f"tensors by name, by themselves or as {', '.join(WRAPPERS)}"
        raise one_line_error(f"{path}: not a state dict: got: {got}; accepted: {accepted}. {_ADVICE}")
    state = {str(name): value for name, value in state.items()}
    for name, tensor in state.items():
        for kind, is_one, advice in _UNUSUAL:
            if is_one(tensor):
                raise one_line_error(f"{path}: {name}: got a tensor that is {kind}; accepted: dense tensors of real numbers. {advice}")
    for prefix in PREFIXES * 2:  # in either order
        shorter = {name.removeprefix(prefix): value for name, value in state.items()}
        if 2 * sum(name.startswith(prefix) for name in state) > len(state) == len(shorter):
            state = shorter
    return state


_UNUSUAL: tuple[tuple[str, Callable[[Tensor], bool], str], ...] = (
    ("on the device 'meta', a shape without values", lambda tensor: tensor.is_meta, "Save the network after its weights were loaded."),
    ("quantised", lambda tensor: tensor.is_quantized, "Save tensor.dequantize() in its place."),
    ("complex", lambda tensor: tensor.is_complex(), "No network here has such weights: name another file."),
    ("sparse or nested", lambda tensor: tensor.is_nested or tensor.layout != torch.strided, "Save tensor.to_dense() in its place."),
)


def _unpack(path: Path, start: bytes) -> Any:
    """The content of a file that is no safetensors, by how it begins."""
    others = {b"<": "a web page", b"version https://git-lfs": "a pointer of git-lfs, which `git lfs pull` replaces by the file"}
    for beginning, what in others.items():
        if start.lstrip().startswith(beginning):
            raise _unreadable(path, f"not a checkpoint: got {what}")
    if not start:
        raise _unreadable(path, "damaged: got an empty file")
    if start.startswith(b"PK"):
        return _unzip(path)
    if not start.startswith(b"\x80"):  # of every pickle that torch writes
        raise _unreadable(path, f"not a checkpoint: got a file that begins with {start[:16]!r}")
    return _unpickle(path)


def _unzip(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise _unreadable(path, "damaged: got an archive that was cut short: its end, which lists what is in it, is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            broken, members = archive.testzip(), archive.namelist()  # neither torch nor numpy looks at all checksums
    except Exception as error:  # what is damaged may end in any kind
        raise _unreadable(path, f"damaged: {_first_sentence(error)}") from None
    if broken:
        raise _unreadable(path, f"damaged: the checksum of {broken} in it does not match")
    if members and all(name.endswith(".npy") for name in members):
        return _read_arrays(path)
    parts = {name.rpartition("/")[2] for name in members}
    if "constants.pkl" in parts:
        raise one_line_error(f"{path}: got a TorchScript archive; it is not opened, since it could run code. {_ADVICE}")
    if "data.pkl" not in parts:
        raise _unreadable(path, f"not a checkpoint: got an archive of {listed(members, 3) or 'nothing'}")
    return _unpickle(path)


def _read_arrays(path: Path) -> dict[str, Tensor]:
    """flax's parameters; their kernels turned to torch's order of axes, from (..., in, out) to (out, in, ...)."""
    state = {}
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            try:
                array = arrays[name]
                tensor = torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)  # of any width and order of bytes
            except Exception as error:  # objects, text, damage
                why = f"not an array of numbers: {_first_sentence(error)}"
                raise one_line_error(f"{path}: {name}: {why}. Save arrays of float32 by numpy.savez.") from None
            kernel = name.rpartition("/")[2] == "kernel" and tensor.dim() > 1
            state[name] = tensor.movedim((-1, -2), (0, 1)) if kernel else tensor
    return state


class _PassedOver:
    """Stands in for an object that a trainer saved beside the weights: takes what the pickle says of it, and does nothing."""

    def __new__(cls, *_said: object) -> _PassedOver:
        return super().__new__(cls)

    def __init__(self, *_said: object) -> None:
        pass

    def __setstate__(self, _said: object) -> None:
        pass


_NUMPY = {"scalar": "numpy.generic", "_reconstruct": "numpy.ndarray"}
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath")
_OTHERS = ("numpy.ndarray", "numpy.dtype", "datetime.datetime", "datetime.timedelta", "torch.torch_version.TorchVersion")
_BAGGAGE = {  # what a pickle calls it: what it is
    **{
        f"numpy.{core}.multiarray.{name}": what for core in ("core", "_core") for name, what in _NUMPY.items()
    },  # before version 2, and since
    **{f"pathlib{module}.{name}": f"pathlib.{name}" for module in ("", "._local") for name in _PATHS},  # before Python 3.13, and since
    **{name: name for name in _OTHERS},
}
# What trainers save beside the weights: arguments, in AS-MLP's files yacs's configuration, which is a kind of dict, and what is not looked at.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    (OrderedDict, "yacs.config.CfgNode"),
    *((type(what, (_PassedOver,), {}), name) for name, what in _BAGGAGE.items()),
]


def _unpickle(path: Path) -> Any:
    try:
        # Of a path torch.load believes the suffix .safetensors.
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # about pickles of another protocol, which may be damaged ones
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what is damaged, or no checkpoint at all, may end in any kind
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            what = f"holds more than tensors, numbers and text: got {foreign[1]}; it is not opened, since it could run code"
            raise one_line_error(f"{path}: {what}. {_ADVICE}") from None
        raise _unreadable(path, f"damaged, cut short, or not a checkpoint at all: {_first_sentence(error)}") from None


def _unreadable(path: Path, what: str) -> ValueError:
    return one_line_error(f"{path}: {what}; accepted: {_ACCEPTED}. Download it again, or name another file.")


def _first_sentence(error: Exception) -> str:
    """Why, whole and without the advice that follows: torch's advice is to run what is in the file."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip() or "it ends too early"
    return re.split(r"[.!?;](?=\s|$)|\n", text)[0]
