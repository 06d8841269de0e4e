"""What other code calls the parameters of a published network, and how it makes the images of the test.

A dialect is a system, or "system of whose code" where there are several: timm's MlpMixer (MLP-Mixer, ResMLP), google-research/vision_transformer
(MLP-Mixer), facebookresearch/deit (ResMLP), microsoft/SPACH, svip-lab/AS-MLP and houqb/VisionPermutator. Shapes come from the network alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nas.networks.architecture import Architecture
from nas.networks.layers import layer_specs
from nas.networks.network import Network
from nas.yaml_files import one_line_error

# What each of them calls the parts of a network: those of stem and head as they are, those of a block or of a merging within it. The longest
# of our names that fits counts; what follows it is the same.
_COMMON = {"branch.norm": "norm1", "mlp.norm": "norm2", "head.norm": "norm", "head.fc": "head"}
_EMBED = _COMMON | {"stem.patch_embed": "patch_embed.proj", "stem.norm": "patch_embed.norm", "mlp": "mlp"}
_TIMM = _COMMON | {"stem.patch_embed": "stem.proj", "mlp": "mlp_channels"}
_DENSE = {"stem.patch_embed": "stem", "mixer.fc1": "token_mixing/Dense_0", "mixer.fc2": "token_mixing/Dense_1"} | {
    "mlp.fc1": "channel_mixing/Dense_0", "mlp.fc2": "channel_mixing/Dense_1", "head.fc": "head",
}  # fmt: skip
_NORMS = {"branch.norm": "LayerNorm_0", "mlp.norm": "LayerNorm_1", "head.norm": "pre_head_layer_norm"}
NAMES: dict[str, dict[str, str]] = {
    "MLP-Mixer of timm": _TIMM | {"mixer": "mlp_tokens"},
    # flax's parameters. Its GELU is the tanh approximation; here as in timm, which took over the same weights, it is the exact one.
    "MLP-Mixer of Google": {f"{ours}.weight": f"{theirs}/kernel" for ours, theirs in _DENSE.items()}
    | {f"{ours}.weight": f"{theirs}/scale" for ours, theirs in _NORMS.items()}
    | {f"{ours}.bias": f"{theirs}/bias" for ours, theirs in (_DENSE | _NORMS).items()},
    "ResMLP of timm": _TIMM | {"mixer.linear_tokens": "linear_tokens", "branch.scale": "ls1", "mlp.scale": "ls2"},
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
    return f"blocks.{j}." if len(depths) == 1 else f"layer{i + 1}.{0 if j is None else j + (i > 0)}."


def _vip_place(depths: Depths, i: int, j: int | None) -> str:
    """One list of groups, with the merging among them."""
    stages = VIP_GROUPS[depths]
    entry = sum(len(groups) + 1 for groups in stages[:i])
    if j is None:
        return f"network.{entry - 1}."
    for depth in stages[i]:
        if j < depth:
            break
        entry, j = entry + 1, j - depth
    return f"network.{entry}.{j}."


# Where block j of stage i is, and for j None the merging before the stage: what the names there begin with.
PLACES: dict[str, Callable[[Depths, int, int | None], str]] = {
    "MLP-Mixer of timm": lambda depths, i, j: f"blocks.{j}.",
    "MLP-Mixer of Google": lambda depths, i, j: f"MixerBlock_{j}/",
    "ResMLP of timm": lambda depths, i, j: f"blocks.{j}.",
    "ResMLP of deit": lambda depths, i, j: f"blocks.{j}.",
    "SPACH": _spach_place,
    "AS-MLP": lambda depths, i, j: f"layers.{i - 1}." if j is None else f"layers.{i}.blocks.{j}.",  # the merging ends the stage before
    "ViP": _vip_place,
}

Images = tuple[tuple[float, float, float], tuple[float, float, float], float, str]  # mean, deviation, crop, interpolation
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# How each makes the images of its test, by dialect, or by the network's name where that has its own. From the code, on its main branch:
TESTED: dict[str, Images] = {
    # timm 1.0.31, timm/models/mlp_mixer.py: default_cfgs; those of MIIL are mixer_b16_224.miil_in21k_ft_in1k
    "MLP-Mixer of timm": (*_HALF, 0.875, "bicubic"),
    "MLP-Mixer of MIIL": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.875, "bilinear"),
    "ResMLP of timm": (*_IMAGENET, 0.875, "bicubic"),
    # vit_jax/input_pipeline.py: (pixel - 127.5) / 127.5. It squeezes the whole image into a square, which no square from its middle can be:
    # the crop is timm's for the same weights.
    "MLP-Mixer of Google": (*_HALF, 0.875, "bicubic"),
    # README_resmlp.md, "Evaluation transforms": scaled to int(224 / 0.9)
    "ResMLP of deit": (*_IMAGENET, 224 / 248, "bicubic"),
    # datasets.py: build_transform: scaled to 256
    "SPACH": (*_IMAGENET, 0.875, "bicubic"),
    # data/build.py: build_transform, with config.py: DATA.INTERPOLATION and TEST.CROP
    "AS-MLP": (*_IMAGENET, 0.875, "bicubic"),
    # models/vip.py: default_cfgs, which validate.py takes: crop_pct 0.9, as above
    "ViP": (*_IMAGENET, 224 / 248, "bicubic"),
    "ViP-Large/7": (*_IMAGENET, 0.875, "bicubic"),
}


def wanted(dialect: str, architecture: Architecture) -> dict[str, tuple[str, Tensor]]:
    """All names that a file of the network has: for each ours, and a tensor on the meta device of our shape and type.

    Blocks that share a mixer have one name of ours, and one each of theirs.
    """
    depths = tuple(stage.depth for stage in architecture.stages)
    names = NAMES[dialect] | (_CONV4 if architecture.stem == "conv4" else {})

    def original(name: str) -> str:
        """`stages.0.blocks.2.mixer.token_mlp.fc1.weight` -> `blocks.2.spatial_func.fc1.weight`."""
        found = re.fullmatch(r"stages\.(\d+)\.(?:blocks\.(\d+)\.|(?=merge))(.*)", name)
        where = PLACES[dialect](depths, int(found[1]), int(found[2]) if found[2] else None) if found else ""
        part = re.sub(r"^(branch|mixer)\.\w+", r"\1", found[3] if found else name)
        ours = max((known for known in names if f"{part}.".startswith(f"{known}.")), key=len)
        return where + names[ours] + part.removeprefix(ours)

    with torch.device("meta"):
        network = Network(architecture)
    return {
        original(f"{spec.place}.{name}"): (f"{spec.weights}.{name}", like)
        for spec in layer_specs(architecture)
        for name, like in network.get_submodule(spec.weights).state_dict().items()
    }


def dialect_of(system: str, architecture: Architecture, given: Iterable[str], place: str) -> str:
    """Of a system's dialects the one that most of the given names belong to.

    Args:
        system: whose network it is, as presets name it.
        architecture: the network.
        given: the names in its file.
        place: begins the error: the path of the file.

    Raises:
        ValueError: one line: no official code, or a ViP that no file has.
    """
    known = [each for each in NAMES if each.partition(" of ")[0] == system]
    if not known:
        accepted = ", ".join(dict.fromkeys(each.partition(" of ")[0] for each in NAMES))
        raise one_line_error(f"{place}: {system}: no official code was found, so no file has its weights; accepted: {accepted}.")
    depths = tuple(stage.depth for stage in architecture.stages)
    if system == "ViP" and depths not in VIP_GROUPS:
        accepted = ", ".join("+".join(map(str, groups)) for groups in VIP_GROUPS)
        raise one_line_error(f"{place}: ViP: no file groups its blocks so: got depths {'+'.join(map(str, depths))}; accepted: {accepted}.")
    return max(known, key=lambda each: len(wanted(each, architecture).keys() & set(given))) if len(known) > 1 else known[0]
