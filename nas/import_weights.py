"""Checkpoints of the original code, turned into weights of this project's networks.

Read are the files of timm's MlpMixer (MLP-Mixer, ResMLP), facebookresearch/deit (ResMLP), microsoft/SPACH, svip-lab/AS-MLP and
houqb/VisionPermutator. `NAMES` and the `_places` of a system say how each of them calls a parameter; shapes come from the network alone.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.layers import layer_specs
from nas.network import Network
from nas.yaml_io import did_you_mean

WRAPPERS = ("model", "state_dict", "model_ema", "state_dict_ema")  # where trainers put the weights; an average of them only if it is alone
_ADVICE = "Save the weights alone: torch.save(model.state_dict(), FILE)."
_MOST_NAMES = 6  # in a message


# ------------------------------------------------------------------------------------------------------- reading


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors or of `torch.save`, by its content, not its suffix; no code in it is run.

    What trainers save beside the weights (epoch, optimiser, arguments) is left out, and so is the `module.` of DataParallel.

    Raises:
        ValueError: one line: no such file, damaged, not a checkpoint, or it holds something else than tensors.
    """
    head = _first_bytes(path)
    if head[8:9] == b"{" and min(head) < 9:
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip, or the bare pickle of before torch 1.6
        return _state_dict(_unpickle(path), path)
    what = (
        "empty" if not head else "text, perhaps an error page or a pointer instead of the file" if min(head) >= 9 else "of another format"
    )
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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        return _state_dict(safetensors.torch.load_file(path), path)
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from None


def _unpickle(path: Path) -> object:
    # What official trainers save beside the weights: arguments, and in AS-MLP's files yacs's configuration, which is a kind of dict.
    harmless: list[Any] = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]
    try:
        with torch.serialization.safe_globals(harmless):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise _damaged(path, "its pickle cannot be read as tensors, numbers and text") from None
        what = f"holds more than tensors, numbers and text: got {found[1]}; it is not opened, since it could run code"
        raise _error(f"{path}: {what}. {_ADVICE}") from None
    except Exception as error:  # of a damaged pickle any kind may come
        raise _damaged(path, error) from None


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    inner = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)] if isinstance(content, Mapping) else []
    state = inner[0] if inner else content
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        got = _listed(state) if isinstance(state, Mapping) and state else "nothing" if state == {} else type(state).__name__
        raise _error(f"{path}: no tensors in it: got {got}; accepted: a state dict, by itself or as {', '.join(WRAPPERS)}. {_ADVICE}")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise _error(f"{path}: {name}: not a tensor: got {type(value).__name__}; accepted: only tensors in a state dict. {_ADVICE}")
    prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
    return {str(name).removeprefix(prefix): value for name, value in state.items()}


# ---------------------------------------------------------------------------------------------------- conversion

Depths = tuple[int, ...]


def _plain_places(depths: Depths) -> dict[str, str]:
    return {f"stages.0.blocks.{j}": f"blocks.{j}" for j in range(depths[0])}


def _spach_places(depths: Depths) -> dict[str, str]:
    """One stage: a list of blocks. Several: a list each, which begins with the merging."""
    if len(depths) == 1:
        return _plain_places(depths)
    merges = {f"stages.{i}.merge": f"layer{i + 1}.0" for i in range(1, len(depths))}
    blocks = {f"stages.{i}.blocks.{j}": f"layer{i + 1}.{j + (i > 0)}" for i, depth in enumerate(depths) for j in range(depth)}
    return merges | blocks


def _as_mlp_places(depths: Depths) -> dict[str, str]:
    """The merging ends the stage before it."""
    merges = {f"stages.{i}.merge": f"layers.{i - 1}.downsample" for i in range(1, len(depths))}
    return merges | {f"stages.{i}.blocks.{j}": f"layers.{i}.blocks.{j}" for i, depth in enumerate(depths) for j in range(depth)}


# Its networks are four groups of blocks. Here they are by the depths of the stages that they make up: S/14 (and S/16, of which there is no
# file), S/7, M/7, L/7.
VIP_GROUPS: dict[tuple[int, ...], tuple[tuple[int, ...], ...]] = {
    (18,): ((4, 3, 8, 3),),
    (4, 14): ((4,), (3, 8, 3)),
    (7, 17): ((4, 3), (14, 3)),
    (8, 28): ((8,), (8, 16, 4)),
}


def _vip_places(depths: Depths) -> dict[str, str]:
    """One list of groups, with the merging among them."""
    places, entry = {}, 0
    for i, groups in enumerate(VIP_GROUPS[depths]):
        if i:
            places[f"stages.{i}.merge"] = f"network.{entry}"
            entry += 1
        blocks = [f"network.{entry + group}.{k}" for group, depth in enumerate(groups) for k in range(depth)]
        places |= {f"stages.{i}.blocks.{j}": block for j, block in enumerate(blocks)}
        entry += len(groups)
    return places


# What each of them calls the parts of a network: of stem and head from the top, of a merging and of a block from its place. The longest of our
# names that fits counts; what follows it is equal.
_COMMON = {"branch.norm": "norm1", "mlp.norm": "norm2", "head.norm": "norm", "head.fc": "head"}
NAMES: dict[str, dict[str, str]] = {
    "MLP-Mixer": _COMMON | {"stem.patch_embed": "stem.proj", "mixer": "mlp_tokens", "mlp": "mlp_channels"},
    "ResMLP": _COMMON
    | {
        "stem.patch_embed": "stem.proj",
        "mixer.linear_tokens": "linear_tokens",
        "branch.scale": "ls1",
        "mlp": "mlp_channels",
        "mlp.scale": "ls2",
    },
    "ResMLP of deit": _COMMON
    | {
        "stem.patch_embed": "patch_embed.proj",
        "mixer.linear_tokens": "attn",
        "branch.scale": "gamma_1",
        "mlp": "mlp",
        "mlp.scale": "gamma_2",
    },
    "SPACH": _COMMON
    | {
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
    "AS-MLP": _COMMON
    | {
        "stem.patch_embed": "patch_embed.proj",
        "stem.norm": "patch_embed.norm",
        "merge.reduction": "reduction",
        "merge.norm": "norm",
        "mixer": "axial_shift",
        "mlp": "mlp",
    },
    "ViP": _COMMON
    | {
        "stem.patch_embed": "patch_embed.proj",
        "merge.reduction": "proj",
        "mixer": "attn",
        "mixer.reweight_fc1": "attn.reweight.fc1",
        "mixer.reweight_fc2": "attn.reweight.fc2",
        "mlp": "mlp",
    },
}
# SPACH's other stem is a list: convolution, norm, ReLU, three times, and the convolution over patches.
_CONV4 = {f"stem.conv{n + 1}": f"stem.proj.{3 * n}" for n in range(3)} | {f"stem.bn{n + 1}": f"stem.proj.{3 * n + 1}" for n in range(3)}
_CONV4 |= {"stem.patch_embed": "stem.proj.9"}
_PLACES: dict[str, Callable[[Depths], dict[str, str]]] = {
    "MLP-Mixer": _plain_places,
    "ResMLP": _plain_places,
    "SPACH": _spach_places,
    "AS-MLP": _as_mlp_places,
    "ViP": _vip_places,
}


def convert(system: str, architecture: Architecture, state: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """The state dict of `Network(architecture)`, in float32, from the original's. All of that is used, and all of the network is filled.

    Args:
        system: whose code wrote `state`: MLP-Mixer, ResMLP, SPACH, AS-MLP or ViP.
        architecture: the network that `state` is of.
        state: what `read_checkpoint` gave.
        place: begins the error: the path of the file.

    Raises:
        ValueError: one line: no official code, or keys that are missing, left over, of another shape, or copies that differ.
    """
    if system not in _PLACES:
        raise _error(f"{place}: {system}: no official code was found, so no file has its weights; accepted: {', '.join(_PLACES)}.")
    depths = tuple(stage.depth for stage in architecture.stages)
    if system == "ViP" and depths not in VIP_GROUPS:
        accepted = ", ".join("+".join(map(str, known)) for known in VIP_GROUPS)
        raise _error(
            f"{place}: ViP: groups of blocks known for none of its networks: got depths {'+'.join(map(str, depths))}; accepted: {accepted}."
        )
    names = NAMES["ResMLP of deit" if system == "ResMLP" and "patch_embed.proj.weight" in state else system]
    names = names | _CONV4 if architecture.stem == "conv4" else names
    places = _PLACES[system](depths)

    with torch.device("meta"):
        layers = Network(architecture).layers
    wanted = {}  # by the original's name: ours, and what it is to be like; a shared mixer's parameter has one for each block
    for spec in layer_specs(architecture):
        for name, like in layers[spec.weights].state_dict().items():
            wanted[_original(f"{spec.place}.{name}", names, places)] = (f"{spec.weights}.{name}", like)
    _check(system, {original: like for original, (_, like) in wanted.items()}, state, place)

    converted: dict[str, Tensor] = {}
    for original, (name, like) in wanted.items():
        tensor = state[original].reshape(like.shape).to(like.dtype)
        if not torch.equal(converted.setdefault(name, tensor), tensor):
            raise _error(f"{place}: {original}: differs from the block before: the blocks share no mixer. Name the preset without sharing.")
    return converted


def _original(name: str, names: Mapping[str, str], places: Mapping[str, str]) -> str:
    """`stages.0.blocks.2.mixer.token_mlp.fc1.weight` -> `blocks.2.spatial_func.fc1.weight`."""
    where, part = "", name.split(".")
    if part[0] == "stages":
        length = 3 if part[2] == "merge" else 4
        where = places[".".join(part[:length])] + "."
        part = part[2:] if part[2] == "merge" else part[4:]
    if part[0] in ("branch", "mixer"):
        del part[1]  # which mixer it is
    ours = ".".join(part)
    known = max((each for each in names if f"{ours}.".startswith(f"{each}.")), key=len)
    return where + names[known] + ours.removeprefix(known)


def _check(system: str, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str) -> None:
    """Axes of length one do not count: the originals have them where a linear is a 1x1 convolution and a scale is (1, 1, C)."""

    def form(tensor: Tensor) -> tuple[bool, list[int]]:
        return tensor.is_floating_point(), [size for size in tensor.shape if size != 1]

    def shown(tensor: Tensor) -> str:
        return ("x".join(map(str, tensor.shape)) or "one number") + ("" if tensor.is_floating_point() else f" of {tensor.dtype}")

    both = [name for name in wanted if name in state]
    problems = {
        "missing": [name for name in wanted if name not in state],
        "left over": [name for name in state if name not in wanted],
        "of another shape": [
            f"{name} (got {shown(state[name])}; accepted {shown(wanted[name])})" for name in both if form(state[name]) != form(wanted[name])
        ],
    }
    told = [f"{what}: {_listed(names)}" for what, names in problems.items() if names]
    if told:
        advice = "It is probably of another network: name the preset that it was trained as."
        raise _error(f"{place}: not the weights of this {system} network: {'; '.join(told)}. {advice}")


def _listed(names: Iterable[object]) -> str:
    all_names = [str(name)[:100] for name in names]
    more = f" and {len(all_names) - _MOST_NAMES} more" if len(all_names) > _MOST_NAMES else ""
    return ", ".join(all_names[:_MOST_NAMES]) + more


def _damaged(path: Path, why: object) -> ValueError:
    reason = str(why).split("\n")[0][:200].rstrip(". ")
    return _error(f"{path}: damaged or cut short: {reason or type(why).__name__}. Download it again, or restore it from a copy.")


def _error(message: str) -> ValueError:
    return ValueError(" ".join(message.splitlines()))
