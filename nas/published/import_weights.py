"""Checkpoints of the original code, turned into weights of this project's networks.

Read are the files of timm's MlpMixer (MLP-Mixer, ResMLP), facebookresearch/deit (ResMLP), microsoft/SPACH, svip-lab/AS-MLP and
houqb/VisionPermutator. `NAMES` and `PLACES` say what each of them calls a parameter; shapes come from the network alone.
"""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.networks.architecture import Architecture
from nas.networks.layers import layer_specs
from nas.networks.network import Network
from nas.networks.weight_files import load_weights
from nas.yaml_files import one_line_error, open_file

WRAPPERS = ("model", "state_dict", "model_ema", "state_dict_ema")  # where trainers put the weights; the first that is there counts
_ADVICE = "Save the weights alone: torch.save(model.state_dict(), FILE)."


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of safetensors or of `torch.save`, by its content, not its suffix; no code in it is run.

    What trainers save beside the weights (epoch, optimiser, arguments) is left out, and so is the `module.` of DataParallel.

    Raises:
        ValueError: one line: no such file, damaged, not a checkpoint, or it holds something else than tensors.
    """
    with open_file(path, "a checkpoint (.safetensors, .pth, .pt)") as file:
        is_safetensors = file.read(9)[8:] == b"{"  # behind the length of the header
    content = load_weights(path)[0] if is_safetensors else _unpickle(path)
    wrapped = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)] if isinstance(content, Mapping) else []
    state: Any = wrapped[0] if wrapped else content
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        mapping = isinstance(state, Mapping)
        others = {name: value for name, value in state.items() if not isinstance(value, Tensor)} if mapping else {"it": state}
        got = _listed(f"{name} is {type(value).__name__}" for name, value in others.items()) or "nothing"
        accepted = f"tensors by name, by themselves or as {', '.join(WRAPPERS)}"
        raise one_line_error(f"{path}: not a state dict: got: {got}; accepted: {accepted}. {_ADVICE}")
    prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
    return {str(name).removeprefix(prefix): value for name, value in state.items()}


def _unpickle(path: Path) -> Any:
    # What official trainers save beside the weights: arguments, and in AS-MLP's files yacs's configuration, which is a kind of dict.
    harmless: list[Any] = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():  # torch.load does not look at checksums
                    raise ValueError("the checksum of a record does not match")
        # Of a path torch.load believes the suffix .safetensors.
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # about pickles of another protocol, which may be damaged ones
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what is damaged, or no checkpoint at all, may end in any kind
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            what = f"holds more than tensors, numbers and text: got {foreign[1]}; it is not opened, since it could run code"
            raise one_line_error(f"{path}: {what}. {_ADVICE}") from None
        why = str(error)[:200].rstrip(". ")
        what = "damaged, cut short, or not a checkpoint at all (a web page, a pointer of git-lfs)"
        raise one_line_error(f"{path}: {what}: {why}. Download it again, or name another file.") from None


def _listed(names: Iterable[object], most: int = 6) -> str:
    every = [str(name)[:100] for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


# What each of them calls the parts of a network: those of stem and head as they are, those of a block or of a merging within it. The longest
# of our names that fits counts; what follows it is the same.
_COMMON = {"branch.norm": "norm1", "mlp.norm": "norm2", "head.norm": "norm", "head.fc": "head"}
_EMBED = _COMMON | {"stem.patch_embed": "patch_embed.proj", "stem.norm": "patch_embed.norm", "mlp": "mlp"}
_TIMM = _COMMON | {"stem.patch_embed": "stem.proj", "mlp": "mlp_channels"}
NAMES: dict[str, dict[str, str]] = {
    "MLP-Mixer": _TIMM | {"mixer": "mlp_tokens"},
    "ResMLP": _TIMM | {"mixer.linear_tokens": "linear_tokens", "branch.scale": "ls1", "mlp.scale": "ls2"},
    "ResMLP of deit": _EMBED | {"mixer.linear_tokens": "attn", "branch.scale": "gamma_1", "mlp.scale": "gamma_2"},
    "SPACH": _COMMON
    | {"stem.patch_embed": "stem.proj", "stem.norm": "norm1", "merge.reduction": "net.1.0", "merge.norm": "net.1.1", "head.norm": "norm2"}
    | {"mixer": "spatial_func", "branch.scale": "gamma_1", "cpe": "cpe_net.net.1", "mlp": "channel_func"},
    "AS-MLP": _EMBED | {"merge": "downsample", "mixer": "axial_shift"},
    "ViP": _EMBED
    | {"merge.reduction": "proj", "mixer": "attn", "mixer.reweight_fc1": "attn.reweight.fc1", "mixer.reweight_fc2": "attn.reweight.fc2"},
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


def _spach_place(depths: Depths, i: int, j: int | None) -> str:
    """One list of blocks, or for several stages a list each, which begins with the merging."""
    return f"blocks.{j}" if len(depths) == 1 else f"layer{i + 1}.{0 if j is None else j + (i > 0)}"


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
    "MLP-Mixer": lambda depths, i, j: f"blocks.{j}",
    "ResMLP": lambda depths, i, j: f"blocks.{j}",
    "SPACH": _spach_place,
    "AS-MLP": lambda depths, i, j: f"layers.{i - 1}" if j is None else f"layers.{i}.blocks.{j}",  # the merging ends the stage before
    "ViP": _vip_place,
}


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
        raise one_line_error(f"{place}: {system}: no official code was found, so no file has its weights; accepted: {', '.join(PLACES)}.")
    depths = tuple(stage.depth for stage in architecture.stages)
    if system == "ViP" and depths not in VIP_GROUPS:
        accepted = ", ".join("+".join(map(str, known)) for known in VIP_GROUPS)
        raise one_line_error(f"{place}: ViP: no file groups its blocks so: got depths {'+'.join(map(str, depths))}; accepted: {accepted}.")
    layout = "ResMLP of deit" if system == "ResMLP" and "patch_embed.proj.weight" in state else system
    names = NAMES[layout] | (_CONV4 if architecture.stem == "conv4" else {})

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
            raise one_line_error(f"{place}: {theirs}: not equal to the first block's: no mixer is shared. Name the preset without sharing.")
    return converted


def _check(system: str, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], place: str) -> None:
    """Axes of length one do not count: the originals have them where a linear is a 1x1 convolution, and where a scale is (1, 1, C)."""

    def like(tensor: Tensor) -> tuple[list[int], bool]:
        return [size for size in tensor.shape if size != 1], tensor.is_floating_point()

    def shown(tensor: Tensor) -> str:
        return ("x".join(map(str, tensor.shape)) or "one number") + ("" if tensor.is_floating_point() else f" of {tensor.dtype}")

    both = {name: (state[name], tensor) for name, tensor in wanted.items() if name in state}
    problems = {
        "missing": [name for name in wanted if name not in state],
        "left over": [name for name in state if name not in wanted],
        "of another shape": [f"{name} (got {shown(a)}; accepted {shown(b)})" for name, (a, b) in both.items() if like(a) != like(b)],
    }
    found = "; ".join(f"{what}: {_listed(names)}" for what, names in problems.items() if names)
    if found:
        advice = "It is probably of another network: name the preset that it was trained as."
        raise one_line_error(f"{place}: not the weights of this {system} network: {found}. {advice}")
