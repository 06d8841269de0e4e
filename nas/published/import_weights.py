"""Checkpoints of the original code, turned into weights of this project's networks.

Read are the files of timm's MlpMixer (MLP-Mixer, ResMLP), facebookresearch/deit (ResMLP), microsoft/SPACH, svip-lab/AS-MLP and
houqb/VisionPermutator. `NAMES` and `PLACES` say what each of them calls a parameter; shapes come from the network alone.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.networks.architecture import Architecture
from nas.networks.layers import layer_specs
from nas.networks.network import Network
from nas.yaml_files import did_you_mean

WRAPPERS = ("model", "state_dict", "model_ema", "state_dict_ema")  # where trainers put the weights; the first that is there counts
_SAVE = "torch.save(model.state_dict(), FILE)"


# ------------------------------------------------------------------------------------------------------- reading


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors or of `torch.save`, by its content, not its suffix; no code in it is run.

    What trainers save beside the weights (epoch, optimiser, arguments) is left out, and so is the `module.` of DataParallel.

    Raises:
        ValueError: one line: no such file, damaged, not a checkpoint, or it holds something else than tensors.
    """
    head = _first_bytes(path)
    is_text = min(head, default=0) >= 9  # no control characters
    if head[8:9] == b"{" and not is_text:  # after the length of the header, which may begin with any byte
        return _state_dict(_read_safetensors(path), path)
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip, or a bare pickle as before torch 1.6
        return _state_dict(_unpickle(path), path)
    what = ("text, such as an error page or a pointer instead of the file" if is_text else "of another format") if head else "empty"
    raise _error(f"{path}: not a checkpoint: it is {what}; accepted: .safetensors, .pth or .pt. Download it again, or name another file.")


def _first_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise _error(f"{path}: a folder; accepted: a checkpoint. Name the file in it.")
        if not path.exists():
            siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            raise _error(f"{path}: no such file; accepted: a checkpoint.{did_you_mean(path.name, siblings) or ' Check the path.'}")
        if not path.is_file():
            raise _error(f"{path}: not a regular file; accepted: a checkpoint.")
        with path.open("rb") as file:
            return file.read(512)
    except OSError as error:
        raise _error(f"{path}: cannot be read: {error.strerror}. Check the path and its permissions.") from None


def _read_safetensors(path: Path) -> object:
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from None


def _unpickle(path: Path) -> object:
    # What official trainers save beside the weights: arguments, and in AS-MLP's files yacs's configuration, which is a kind of dict.
    harmless: list[Any] = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]
    try:
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # about pickles of another protocol, which may be damaged ones
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise _damaged(path, f"its pickle is not as {_SAVE} writes it") from None
        what = f"holds more than tensors, numbers and text: got {found[1]}; it is not opened, since it could run code"
        raise _error(f"{path}: {what}. Save the weights alone: {_SAVE}.") from None
    except Exception as error:  # a damaged pickle may end in any kind
        raise _damaged(path, error) from None


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    advice = f"Save the weights alone: {_SAVE}."
    wrapped = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)] if isinstance(content, Mapping) else []
    state = wrapped[0] if wrapped else content
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        got = (_listed(state) or "nothing") if isinstance(state, Mapping) else type(state).__name__
        raise _error(f"{path}: no tensors in it: got {got}; accepted: a state dict, by itself or as {', '.join(WRAPPERS)}. {advice}")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise _error(f"{path}: {name}: not a tensor: got {type(value).__name__}; accepted: only tensors in a state dict. {advice}")
    prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
    return {str(name).removeprefix(prefix): value for name, value in state.items()}


# --------------------------------------------------------------------------------------------------- other names

# What each of them calls the parts of a network: those of stem and head as they are, those of a block or of a merging within it. The longest
# of our names that fits counts; what follows it is the same.
_COMMON = {"branch.norm": "norm1", "mlp.norm": "norm2", "head.norm": "norm", "head.fc": "head"}
NAMES: dict[str, dict[str, str]] = {
    "MLP-Mixer": {"stem.patch_embed": "stem.proj", "mixer": "mlp_tokens", "mlp": "mlp_channels"},
    "ResMLP": {
        "stem.patch_embed": "stem.proj",
        "mixer.linear_tokens": "linear_tokens",
        "branch.scale": "ls1",
        "mlp": "mlp_channels",
        "mlp.scale": "ls2",
    },
    "ResMLP of deit": {
        "stem.patch_embed": "patch_embed.proj",
        "mixer.linear_tokens": "attn",
        "branch.scale": "gamma_1",
        "mlp": "mlp",
        "mlp.scale": "gamma_2",
    },
    "SPACH": {
        "stem.patch_embed": "stem.proj",
        "stem.norm": "norm1",
        "merge.reduction": "net.1.0",
        "merge.norm": "net.1.1",
        "mixer": "spatial_func",
        "branch.scale": "gamma_1",
        "cpe": "cpe_net.net.1",
        "mlp": "channel_func",
        "head.norm": "norm2",
    },
    "AS-MLP": {
        "stem.patch_embed": "patch_embed.proj",
        "stem.norm": "patch_embed.norm",
        "merge": "downsample",
        "mixer": "axial_shift",
        "mlp": "mlp",
    },
    "ViP": {
        "stem.patch_embed": "patch_embed.proj",
        "merge.reduction": "proj",
        "mixer": "attn",
        "mixer.reweight_fc1": "attn.reweight.fc1",
        "mixer.reweight_fc2": "attn.reweight.fc2",
        "mlp": "mlp",
    },
}
# SPACH's other stem is one list: convolution, norm and ReLU, three times, then the convolution over patches.
_CONV4 = {"stem.patch_embed": "stem.proj.9"}
for _n in range(3):
    _CONV4 |= {f"stem.conv{_n + 1}": f"stem.proj.{3 * _n}", f"stem.bn{_n + 1}": f"stem.proj.{3 * _n + 1}"}

Depths = tuple[int, ...]  # of the stages
# ViP's files have four groups of blocks. Here they are by the depths of the stages that they make up: S/14 (and S/16, of which there is no
# file), S/7, M/7, L/7.
VIP_GROUPS: dict[Depths, tuple[tuple[int, ...], ...]] = {
    (18,): ((4, 3, 8, 3),),
    (4, 14): ((4,), (3, 8, 3)),
    (7, 17): ((4, 3), (14, 3)),
    (8, 28): ((8,), (8, 16, 4)),
}


def _timm_place(depths: Depths, i: int, j: int | None) -> str:
    return f"blocks.{j}"


def _spach_place(depths: Depths, i: int, j: int | None) -> str:
    """One list of blocks, or for several stages a list each, which begins with the merging."""
    return f"blocks.{j}" if len(depths) == 1 else f"layer{i + 1}.{0 if j is None else j + (i > 0)}"


def _as_mlp_place(depths: Depths, i: int, j: int | None) -> str:
    """The merging ends the stage before it."""
    return f"layers.{i - 1}" if j is None else f"layers.{i}.blocks.{j}"


def _vip_place(depths: Depths, i: int, j: int | None) -> str:
    """One list of groups, with the merging among them."""
    stages = VIP_GROUPS[depths]
    entry = sum(len(groups) + 1 for groups in stages[:i])
    if j is None:
        return f"network.{entry - 1}"
    for depth in stages[i]:
        if j < depth:
            break
        entry, j = entry + 1, j - depth
    return f"network.{entry}.{j}"


# Where block j of stage i is, and for j None the merging before the stage.
PLACES: dict[str, Callable[[Depths, int, int | None], str]] = {
    "MLP-Mixer": _timm_place,
    "ResMLP": _timm_place,
    "SPACH": _spach_place,
    "AS-MLP": _as_mlp_place,
    "ViP": _vip_place,
}


# ---------------------------------------------------------------------------------------------------- conversion


def convert(system: str, architecture: Architecture, state: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """The state dict of `Network(architecture)`, in float32, from the original's. All of that is used, and all of the network is filled.

    Args:
        system: whose code wrote `state`: a key of `PLACES`.
        architecture: the network that `state` is of.
        state: what `read_checkpoint` gave.
        place: begins the error: the path of the file.

    Raises:
        ValueError: one line: no official code, or keys that are missing, left over, of another shape, or copies that differ.
    """
    if system not in PLACES:
        raise _error(f"{place}: {system}: no official code was found, so no file has its weights; accepted: {', '.join(PLACES)}.")
    depths = tuple(stage.depth for stage in architecture.stages)
    if system == "ViP" and depths not in VIP_GROUPS:
        accepted = ", ".join("+".join(map(str, known)) for known in VIP_GROUPS)
        raise _error(f"{place}: ViP: no file groups its blocks so: got depths {'+'.join(map(str, depths))}; accepted: {accepted}.")
    layout = "ResMLP of deit" if system == "ResMLP" and "patch_embed.proj.weight" in state else system
    names = _COMMON | NAMES[layout] | (_CONV4 if architecture.stem == "conv4" else {})

    def original(name: str) -> str:
        """`stages.0.blocks.2.mixer.token_mlp.fc1.weight` -> `blocks.2.spatial_func.fc1.weight`."""
        found = re.fullmatch(r"stages\.(\d+)\.(?:blocks\.(\d+)\.|(?=merge))(.*)", name)
        where = PLACES[system](depths, int(found[1]), int(found[2]) if found[2] else None) + "." if found else ""
        part = re.sub(r"^(branch|mixer)\.\w+", r"\1", found[3] if found else name)
        ours = max((known for known in names if f"{part}.".startswith(f"{known}.")), key=len)
        return where + names[ours] + part.removeprefix(ours)

    with torch.device("meta"):
        network = Network(architecture)
    wanted = {}  # by the original's name: ours, and what it is to be like; a shared mixer has a copy in each block
    for spec in layer_specs(architecture):
        for name, like in network.get_submodule(spec.weights).state_dict().items():
            wanted[original(f"{spec.place}.{name}")] = (f"{spec.weights}.{name}", like)
    _check(system, {theirs: like for theirs, (_, like) in wanted.items()}, state, place)

    converted: dict[str, Tensor] = {}
    for theirs, (name, like) in wanted.items():
        tensor = state[theirs].reshape(like.shape).to(like.dtype)
        if not torch.equal(converted.setdefault(name, tensor), tensor):
            raise _error(f"{place}: {theirs}: not equal to the first block's, so no mixer is shared. Name the preset without sharing.")
    return converted


def _check(system: str, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str) -> None:
    """Axes of length one do not count: the originals have them where a linear is a 1x1 convolution, and where a scale is (1, 1, C)."""

    def fits(tensor: Tensor, like: Tensor) -> bool:
        shapes = ([size for size in each.shape if size != 1] for each in (tensor, like))
        return next(shapes) == next(shapes) and tensor.is_floating_point() == like.is_floating_point()

    def shown(tensor: Tensor) -> str:
        return ("x".join(map(str, tensor.shape)) or "one number") + ("" if tensor.is_floating_point() else f" of {tensor.dtype}")

    problems = {
        "missing": [name for name in wanted if name not in state],
        "left over": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} (got {shown(state[name])}; accepted {shown(like)})"
            for name, like in wanted.items()
            if name in state and not fits(state[name], like)
        ],
    }
    told = "; ".join(f"{what}: {_listed(names)}" for what, names in problems.items() if names)
    if told:
        advice = "It is probably of another network: name the preset that it was trained as."
        raise _error(f"{place}: not the weights of this {system} network: {told}. {advice}")


def _listed(names: Iterable[object], most: int = 6) -> str:
    every = [str(name)[:100] for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _damaged(path: Path, why: object) -> ValueError:
    return _error(f"{path}: damaged or cut short: {str(why)[:200].rstrip('. ')}. Download it again, or restore it from a copy.")


def _error(message: str) -> ValueError:
    return ValueError(" ".join(message.splitlines()))
