"""Original checkpoints into our networks: equal logits, every key used, and each file that is not one refused in one line."""

from __future__ import annotations

import argparse
import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from errors import refused
from often import ONE_OF_EACH, often
from originals import ASMLP, Spach, ViP, randomised
from PIL import Image
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, checkpoint_filter_fn
from torch import Tensor, nn
from torchvision import transforms

from nas.networks.architecture import Architecture, Frame, Stage, read_architecture
from nas.networks.network import Network
from nas.published.checkpoint_files import read_checkpoint
from nas.published.dialects import wanted
from nas.published.import_weights import class_names, convert, preprocessing
from nas.published.presets import Preset, read_preset

PRESETS = sorted((Path(__file__).parents[1] / "search_spaces" / "presets").glob("*.yaml"))
CLASSES = 5

# What the systems' networks have in common; of ViP's, by the depths of the stages, the groups and the number of the one that a downsample follows.
FORMS: dict[str, dict[str, Any]] = {
    "MLP-Mixer": {"stem_norm": "none", "layer_scale": "none"},
    "ResMLP": {"stem_norm": "none", "norm": "affine", "final_norm": "affine", "layer_scale": "both"},
    "SPACH": {"merge": "conv_norm"},
    "AS-MLP": {"stem_norm": "group_norm", "norm": "group_norm", "final_norm": "group_norm", "layer_scale": "none", "merge": "gather"},
    "ViP": {"stem_norm": "none", "layer_scale": "none", "norm_eps": 1e-5},
}
GROUPS = {(18,): ([4, 3, 8, 3], None), (4, 14): ([4, 3, 8, 3], 0), (7, 17): ([4, 3, 14, 3], 1), (8, 28): ([8, 8, 16, 4], 0)}
FUNCTIONS = {"none": "pass", "attention": "attn", "token_mlp": "mlp"}


def network(system: str, resolution: int, patch: int, *stages: Stage, **forms: Any) -> Architecture:
    return Architecture(Frame(resolution, 3, CLASSES), patch, stages, **FORMS[system] | forms)


def spach(*stages: tuple[str, ...], width: int = 8, sharing: bool = False, **forms: Any) -> Architecture:
    """Widths 8, 16 and so on; two heads of a growing width; what is shared, in all stages but the first of several."""
    several = len(stages) > 1
    parts = [
        Stage(width * 2**i, mixers, 2, cpe=True, heads=2, sharing=sharing and (i > 0 or not several)) for i, mixers in enumerate(stages)
    ]
    return network("SPACH", 32, 4, *parts, **forms)


def vip(width: int, *depths: int) -> Architecture:
    return network("ViP", 16, 2, *(Stage(width * 2**i, ("permute",) * depth, 3) for i, depth in enumerate(depths)))


def original(system: str, architecture: Architecture) -> nn.Module:
    """The original's network, without values."""
    frame, stages, patch = architecture.frame, architecture.stages, architecture.patch
    width, depths, classes = stages[0].width, [stage.depth for stage in stages], frame.classes
    with torch.device("meta"):
        if system in ("MLP-Mixer", "ResMLP"):
            form = {"block_layer": ResBlock, "norm_layer": Affine, "mlp_ratio": 4} if system == "ResMLP" else {}
            return MlpMixer(classes, frame.resolution, 3, patch, depths[0], width, **form)
        if system == "SPACH":
            functions = [[FUNCTIONS[mixer] for mixer in stage.mixers] for stage in stages]
            heads = next((stage.option("heads") for stage in stages if "attention" in stage.mixers), 1)
            options = {"shared": stages[-1].sharing, "conv4": architecture.stem == "conv4", "classes": classes}
            return Spach(frame.resolution, patch, width, functions, heads, stages[0].mlp_ratio, **options)
        if system == "AS-MLP":
            return ASMLP(patch, width, depths, classes)
        return ViP(frame.resolution, patch, width, *GROUPS[tuple(depths)], classes=classes)


def assert_equal_logits(model: nn.Module, architecture: Architecture, converted: dict[str, Tensor], tolerance: float) -> None:
    with torch.device("meta"):
        ours = Network(architecture)
    assert {name: value.dtype for name, value in converted.items()} == {name: value.dtype for name, value in ours.state_dict().items()}
    ours.load_state_dict(converted, assign=True)
    frame = architecture.frame
    images = torch.randn(2, 3, frame.resolution, frame.resolution, generator=torch.Generator().manual_seed(1)).double()
    images[1] = 3 * images[1] + 1  # at 224 px the noise alone averages out
    with torch.no_grad():
        expected, got = model.double()(images), ours.double().eval()(images)
    assert (expected[0] - expected[1]).abs().max() > 1e-3  # the images count, so this is no comparison of two biases
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)


# ------------------------------------------------------------------------------------------------------ equality

TINY = {
    "mixer": ("MLP-Mixer", network("MLP-Mixer", 32, 8, Stage(24, ("token_mlp",) * 3, 4, token_hidden="channels"))),
    "resmlp": ("ResMLP", network("ResMLP", 32, 8, Stage(24, ("token_linear",) * 3, 4))),
    "spach conv": ("SPACH", spach(("none",) * 3)),
    "spach mlp": ("SPACH", spach(("token_mlp",) * 3)),
    "spach attention": ("SPACH", spach(("attention",) * 3)),
    "spach shared": ("SPACH", spach(("token_mlp",) * 3, sharing=True)),
    "spach ms conv": ("SPACH", spach(("none",) * 2, ("none",), ("none",) * 2, ("none",))),
    "spach ms mlp": ("SPACH", spach(("none",), ("token_mlp",) * 2, ("token_mlp",), ("token_mlp",) * 2)),
    "spach ms attention": ("SPACH", spach(("none",), ("attention",) * 2, ("attention",), ("attention",) * 2)),
    "spach ms hybrid": ("SPACH", spach(("none",), ("none", "attention"), ("none", "attention", "attention"), ("none", "attention"))),
    "spach ms shared": ("SPACH", spach(("none",) * 2, ("token_mlp",) * 2, ("token_mlp",) * 3, ("token_mlp",), sharing=True)),
    "spach ms conv4": ("SPACH", spach(("none",), ("none", "attention"), ("attention",), ("attention",), stem="conv4")),
    "as_mlp": ("AS-MLP", network("AS-MLP", 32, 2, *(Stage(20 * 2**i, ("as_shift",) * depth, 4) for i, depth in enumerate((1, 2, 3, 1))))),
    "vip s14": ("ViP", vip(16, 18)),
    "vip s7": ("ViP", vip(16, 4, 14)),
    "vip m7": ("ViP", vip(16, 7, 17)),
    "vip l7": ("ViP", vip(16, 8, 28)),
}


@pytest.mark.parametrize("name", TINY)
def test_converted_network_equals_the_original(name: str) -> None:
    system, architecture = TINY[name]
    model = randomised(original(system, architecture))
    converted = convert(system, architecture, model.state_dict(), "file")
    assert_equal_logits(model, architecture, converted, 1e-9)


REAL = ["spach_conv_ms_xxs", "spach_mlp_ms_xxs_shared", "spach_trans_ms_xxs", "spach_hybrid_ms_xs_", "spach_mlp_xxs_shared"]
REAL += ["as_mlp_mobile", "as_mlp_t", "vip_small_16", "vip_small_14", "vip_small_7"]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_checkpoint_of_real_size_gives_the_originals_logits(name: str, tmp_path: Path) -> None:
    """Through a file as the official trainers write it, arguments and all."""
    architecture, data = read_architecture(next(path for path in PRESETS if path.stem == name))
    system = data["published"]["system"]
    model = randomised(original(system, architecture))
    torch.save({"model": model.state_dict(), "epoch": 3, "args": argparse.Namespace(lr=0.1)}, tmp_path / "original.pth")
    converted = convert(system, architecture, read_checkpoint(tmp_path / "original.pth"), "original.pth")
    assert_equal_logits(model, architecture, converted, 1e-9)


@pytest.mark.parametrize(
    ("name", "preset"),
    [("mixer_s32_224", "mixer_s_32"), pytest.param("mixer_b16_224", "mixer_b_16", marks=pytest.mark.slow), ("resmlp_12_224", "resmlp_s12")],
)
def test_converted_network_equals_timm(name: str, preset: str) -> None:
    width, depth, patch, mixer = {
        "mixer_s_32": (512, 8, 32, "token_mlp"),
        "mixer_b_16": (768, 12, 16, "token_mlp"),
        "resmlp_s12": (384, 12, 16, "token_linear"),
    }[preset]
    system = "ResMLP" if preset == "resmlp_s12" else "MLP-Mixer"
    hidden = {"token_hidden": "channels"} if system == "MLP-Mixer" else {}
    architecture = network(system, 224, patch, Stage(width, (mixer,) * depth, 4, **hidden)).at(Frame(224, 3, 1000))
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    converted = convert(system, architecture, randomised(model).state_dict(), "file")
    assert_equal_logits(model, architecture, converted, 1e-10)


def as_deit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's ResMLP under the names of facebookresearch/deit."""
    theirs = {"stem.": "patch_embed.", "linear_tokens.": "attn.", "mlp_channels.": "mlp.", "ls1": "gamma_1", "ls2": "gamma_2"}
    renamed = {}
    for name, value in state.items():
        for ours, other in theirs.items():
            name = name.replace(ours, other)
        renamed[name] = value.flatten() if name.endswith(("alpha", "beta")) else value
    return renamed


def test_resmlp_files_of_deit_have_other_names() -> None:
    _, architecture = TINY["resmlp"]
    model = randomised(original("ResMLP", architecture))
    state = as_deit(model.state_dict())
    model.load_state_dict(checkpoint_filter_fn(dict(state), model))  # timm, too, takes them for this network
    assert {"patch_embed.proj.weight", "blocks.0.norm1.alpha", "blocks.0.attn.weight", "blocks.0.gamma_1"} < set(state)
    assert_equal_logits(model, architecture, convert("ResMLP", architecture, state, "file"), 1e-10)


def as_google(state: dict[str, Tensor]) -> dict[str, Any]:
    """timm's MLP-Mixer as arrays under the names of google-research/vision_transformer, inputs before outputs."""
    theirs = {"mlp_tokens": "token_mixing", "mlp_channels": "channel_mixing", "fc1": "Dense_0", "fc2": "Dense_1", "stem.proj": "stem"}
    theirs |= {"norm1": "LayerNorm_0", "norm2": "LayerNorm_1"}
    arrays = {}
    for name, value in state.items():
        name = re.sub(r"^blocks\.(\d+)", r"MixerBlock_\1", re.sub("^norm", "pre_head_layer_norm", name))
        for ours, other in theirs.items():
            name = name.replace(ours, other)
        if name.endswith("weight"):
            name = name.replace("weight", "scale" if value.dim() == 1 else "kernel")
        order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[value.dim()]
        arrays[name.replace(".", "/")] = value.numpy().transpose(order)
    return arrays


def google_mixer(arrays: dict[str, Any], images_BCHW: Tensor, depth: int) -> Tensor:
    """What flax's Conv, Dense and LayerNorm make of them, in float64, written out; but with the exact GELU."""
    a = {name: torch.from_numpy(array).double() for name, array in arrays.items()}

    def dense(name: str, x: Tensor) -> Tensor:
        return torch.einsum("...i,io->...o", x, a[f"{name}/kernel"]) + a[f"{name}/bias"]

    def mlp(name: str, x: Tensor) -> Tensor:
        return dense(f"{name}/Dense_1", torch.nn.functional.gelu(dense(f"{name}/Dense_0", x)))

    def norm(name: str, x: Tensor) -> Tensor:
        deviation = (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return (x - x.mean(dim=-1, keepdim=True)) / deviation * a[f"{name}/scale"] + a[f"{name}/bias"]

    patch = a["stem/kernel"].shape[0]
    B, C, H, W = images_BCHW.shape
    cells = images_BCHW.reshape(B, C, H // patch, patch, W // patch, patch)
    x_BNC = torch.einsum("bchpwq,pqco->bhwo", cells, a["stem/kernel"]).flatten(1, 2) + a["stem/bias"]
    for block in (f"MixerBlock_{i}" for i in range(depth)):
        x_BNC = x_BNC + mlp(f"{block}/token_mixing", norm(f"{block}/LayerNorm_0", x_BNC).mT).mT
        x_BNC = x_BNC + mlp(f"{block}/channel_mixing", norm(f"{block}/LayerNorm_1", x_BNC))
    return dense("head", norm("pre_head_layer_norm", x_BNC).mean(dim=1))


def test_googles_arrays_give_timms_logits(tmp_path: Path) -> None:
    system, architecture = TINY["mixer"]
    model = randomised(original(system, architecture))
    arrays = as_google(model.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        torch.testing.assert_close(google_mixer(arrays, images, depth=3), copy.deepcopy(model).double()(images))  # they are in flax's order
    np.savez(tmp_path / "Mixer-B_16.npz", **arrays)
    converted = convert(system, architecture, read_checkpoint(tmp_path / "Mixer-B_16.npz"), "Mixer-B_16.npz")
    assert_equal_logits(model, architecture, converted, 1e-10)


@pytest.mark.parametrize("path", often(PRESETS, lambda path: path.stem in ONE_OF_EACH), ids=lambda path: path.stem)
def test_every_preset_takes_its_originals_keys_and_shapes(path: Path) -> None:
    architecture, entries = read_architecture(path)
    system = entries["published"]["system"]
    if system in ("S2-MLP", "S2-MLPv2"):
        with refused("file", "no official code", "ViP"):
            convert(system, architecture, {}, "file")
        return
    model = original(system, architecture)
    state = {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in model.state_dict().items()}
    converted = convert(system, architecture, state, "file")  # would refuse any other key or shape
    assert sum(value.numel() for value in converted.values()) == sum(value.numel() for value in (*model.parameters(), *model.buffers()))


# ---------------------------------------------------------------------------------------------- published names


def pairs(text: str) -> set[str]:
    return {f"{name}.{part}" for name in text.split() for part in ("weight", "bias")}


PUBLISHED = {
    # microsoft/SPACH: models/spach/spach.py, spach_ms.py, misc.py, layers/
    "spach of one stage": (
        lambda: Spach(32, 8, 8, [["mlp"]]),
        pairs(
            "stem.proj norm1 norm2 head blocks.0.norm1 blocks.0.norm2 blocks.0.spatial_func.fc1 blocks.0.spatial_func.fc2 "
            "blocks.0.channel_func.fc1 blocks.0.channel_func.fc2 blocks.0.cpe_net.net.1"
        )
        | {"blocks.0.gamma_1"},
    ),
    "spach of several": (
        lambda: Spach(32, 4, 8, [["pass"], ["attn"]]),
        pairs(
            "stem.proj norm1 norm2 head layer1.0.norm2 layer1.0.channel_func.fc1 layer1.0.channel_func.fc2 layer1.0.cpe_net.net.1 "
            "layer2.0.net.1.1 layer2.1.norm1 layer2.1.norm2 layer2.1.spatial_func.qkv layer2.1.spatial_func.proj "
            "layer2.1.channel_func.fc1 layer2.1.channel_func.fc2 layer2.1.cpe_net.net.1"
        )
        | {"layer2.0.net.1.0.weight", "layer2.1.gamma_1"},
    ),
    # svip-lab/AS-MLP: models/as_mlp.py
    "as_mlp": (
        lambda: ASMLP(4, 10, [1, 1]),
        pairs("patch_embed.proj patch_embed.norm norm head layers.0.downsample.norm")
        | {"layers.0.downsample.reduction.weight"}
        | {
            f"layers.{i}.blocks.0.{name}"
            for i in range(2)
            for name in pairs(
                "norm1 norm2 mlp.fc1 mlp.fc2 axial_shift.conv1 axial_shift.conv2_1 axial_shift.conv2_2 axial_shift.conv3 "
                "axial_shift.norm1 axial_shift.norm2"
            )
        },
    ),
    # houqb/VisionPermutator: models/vip.py
    "vip": (
        lambda: ViP(16, 4, 16, [1, 1], 0),
        pairs("patch_embed.proj network.1.proj norm head")
        | {
            f"network.{i}.0.{name}"
            for i in (0, 2)
            for name in pairs("norm1 norm2 mlp.fc1 mlp.fc2 attn.proj attn.reweight.fc1 attn.reweight.fc2")
            | {"attn.mlp_c.weight", "attn.mlp_h.weight", "attn.mlp_w.weight"}
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rebuilt_originals_have_the_published_names(name: str) -> None:
    build, keys = PUBLISHED[name]
    assert set(build().state_dict()) == keys


def test_the_conv4_stem_has_the_published_names() -> None:
    keys = {key for key in Spach(32, 4, 8, [["pass"], ["pass"]], conv4=True).state_dict() if key.startswith("stem.")}
    norms = {
        f"stem.proj.{i}.{part}" for i in (1, 4, 7) for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert keys == {f"stem.proj.{i}.weight" for i in (0, 3, 6)} | norms | {"stem.proj.9.weight", "stem.proj.9.bias"}


def test_a_shared_function_is_in_the_file_once_for_each_block() -> None:
    model = randomised(original(*TINY["spach shared"]))
    state = model.state_dict()
    assert {f"blocks.{j}.spatial_func.fc1.weight" for j in range(3)} < set(state)
    assert len(list(model.parameters())) < len(state)


# ------------------------------------------------------------------------------------------- what is not accepted


def mixer_state() -> dict[str, Tensor]:
    return dict(randomised(original(*TINY["mixer"])).state_dict())


def refused_mixer(state: dict[str, Tensor], *words: str) -> str:
    with refused("a/file.pth: ", *words) as raised:
        convert(*TINY["mixer"], state, "a/file.pth")
    return str(raised.value)


def test_a_missing_key_is_named() -> None:
    state = mixer_state()
    del state["blocks.1.mlp_tokens.fc2.bias"]
    assert "left over" not in refused_mixer(
        state, "missing: blocks.1.mlp_tokens.fc2.bias.", f"The other {len(state)} fit", "as it was published"
    )


def test_a_key_too_many_is_named() -> None:
    message = refused_mixer(mixer_state() | {"pos_embed": torch.zeros(1, 16, 24)}, "left over: pos_embed.", "The other 42 fit")
    assert "missing" not in message


DIALECTS = {
    "MLP-Mixer of timm": ("mixer", lambda state: state, ["stem.proj.weight", "blocks.1.mlp_tokens.fc1.bias"]),
    "MLP-Mixer of Google": (
        "mixer",
        lambda state: dict(zip(as_google(state), state.values(), strict=True)),
        ["stem/kernel", "MixerBlock_1/token_mixing/Dense_0/bias"],
    ),
    "ResMLP of timm": ("resmlp", lambda state: state, ["stem.proj.weight", "blocks.2.ls1", "blocks.0.linear_tokens.weight"]),
    "ResMLP of deit": ("resmlp", lambda state: as_deit(state), ["patch_embed.proj.weight", "blocks.2.gamma_1", "blocks.0.attn.weight"]),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_renamed_key_is_named_and_no_other(dialect: str) -> None:
    """Whichever it is: the dialect is the one that most names belong to."""
    name, change, keys = DIALECTS[dialect]
    system, architecture = TINY[name]
    for key in keys:
        state = change(dict(randomised(original(system, architecture)).state_dict()))
        state["renamed"] = state.pop(key)
        with refused(f"file: not this network's weights, by their names in {dialect}: missing: {key}; left over: renamed. The other"):
            convert(system, architecture, state, "file")


def test_a_deeper_network_is_told_by_the_first_keys_and_their_number() -> None:
    deeper = network("MLP-Mixer", 32, 8, Stage(24, ("token_mlp",) * 5, 4, token_hidden="channels"))
    state = original("MLP-Mixer", deeper).state_dict()
    refused_mixer(state, "left over: blocks.3.norm1.weight, blocks.3.norm1.bias, ", " and 18 more")
    with refused("file: ", "missing: blocks.3.norm1.weight", " and 18 more"):
        convert("MLP-Mixer", deeper, mixer_state(), "file")


def test_another_systems_file_is_told_by_both() -> None:
    message = refused_mixer(original(*TINY["resmlp"]).state_dict(), "missing: ", "blocks.0.mlp_tokens.fc1.weight", "left over: ")
    assert "blocks.0.ls1" in message


@pytest.mark.parametrize("name", ["as_mlp", "vip s7", "spach ms mlp"])
def test_no_systems_file_is_taken_for_another(name: str) -> None:
    state = original(*TINY[name]).state_dict()
    for other, (system, architecture) in TINY.items():
        if other != name:
            with refused("file: ", "preset"):
                convert(system, architecture, state, "file")


def test_another_shape_is_told() -> None:
    state = mixer_state() | {"head.weight": torch.zeros(7, 24), "head.bias": torch.zeros(7)}
    refused_mixer(
        state,
        "head.weight (got 7x24; accepted 5x24)",
        "head.bias (got 7; accepted 5)",
        "Its head is made for 7 classes: take the file that was published for 5.",
    )
    numbers = {name: torch.zeros(mixer_state()[name].shape, dtype=torch.int8) for name in ("head.weight", "head.bias")}
    assert "head is made" not in refused_mixer(mixer_state() | numbers, "head.bias (got 5 of torch.int8; accepted 5)")
    assert "head is made" not in refused_mixer(state | {"renamed": torch.zeros(5)}, "left over: renamed")
    turned = mixer_state()
    turned["blocks.0.mlp_channels.fc1.weight"] = turned["blocks.0.mlp_channels.fc1.weight"].T
    refused_mixer(turned, "blocks.0.mlp_channels.fc1.weight (got 24x96; accepted 96x24)")
    refused_mixer(mixer_state() | {"head.bias": torch.zeros(5, dtype=torch.int8)}, "head.bias (got 5 of torch.int8; accepted 5)")


def test_copies_of_a_shared_mixer_that_differ_are_refused() -> None:
    system, architecture = TINY["spach shared"]
    state = dict(randomised(original(system, architecture)).state_dict())
    state["blocks.2.spatial_func.fc1.bias"] = state["blocks.2.spatial_func.fc1.bias"] + 1e-3
    with refused("file: blocks.2.spatial_func.fc1.bias: ", "without sharing"):
        convert(system, architecture, state, "file")


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "float32"), (float("-inf"), "bfloat16"), (1e300, "float64")])
@pytest.mark.parametrize("name", ["mixer", "spach shared"])
def test_numbers_that_are_none_are_told_by_their_tensor(name: str, value: float, dtype: str) -> None:
    """1e300 is infinite in float32. Of a shared mixer it would be unequal to itself."""
    system, architecture = TINY[name]
    state = dict(randomised(original(system, architecture)).state_dict())
    key = "blocks.1.spatial_func.fc1.weight" if system == "SPACH" else "blocks.1.mlp_tokens.fc1.weight"
    state[key] = state[key].to(getattr(torch, dtype), copy=True)
    state[key][3, 2] = value
    with refused(f"file: NaN or infinite values: got them in {key}; accepted: finite numbers") as raised:
        convert(system, architecture, state, "file")
    assert "first block" not in str(raised.value)


def test_other_precisions_become_float32() -> None:
    state = {name: value.to(torch.bfloat16) for name, value in mixer_state().items()}
    converted = convert(*TINY["mixer"], state, "file")
    assert all(value.dtype == torch.float32 for value in converted.values())
    assert torch.equal(converted["head.fc.weight"], state["head.weight"].float())


def test_vip_of_unknown_depths_is_refused() -> None:
    with refused("file: ViP", "3+5", "4+14"):
        convert("ViP", vip(16, 3, 5), {}, "file")


def test_from_a_file_to_a_network(tmp_path: Path) -> None:
    system, architecture = TINY["spach ms conv4"]
    model = randomised(original(system, architecture))
    path = tmp_path / "spach.pth"
    torch.save({"model": model.state_dict(), "epoch": 300}, path)
    assert_equal_logits(model, architecture, convert(system, architecture, read_checkpoint(path), str(path)), 1e-9)


# ------------------------------------------------------------------------------------------------ images and classes


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Oblong and with fine structure, so that another crop or interpolation shows; all sizes that it is scaled to are whole pixels."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (40, 50, 3), np.uint8)).resize((500, 400), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse).astype(np.int64) + draw.integers(-20, 21, (400, 500, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def assert_alike(ours: Tensor, theirs: Tensor, std: tuple[float, ...]) -> None:
    """To a mean of a hundredth of the 256 levels: theirs scale the whole image, then crop; ours scale the crop."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    levels = (ours - theirs).abs().mean(dim=(1, 2)) * torch.tensor(std) * 255
    assert levels.max() < 0.01, levels


def files_names(dialect: str, preset: Preset) -> set[str]:
    return set(wanted(dialect, preset.architecture))


@pytest.mark.parametrize(
    ("tag", "preset", "file"),
    [
        ("mixer_b16_224.goog_in21k_ft_in1k", "mixer_b_16", "jx_mixer_b16_224-76587d61.pth"),
        ("mixer_l16_224.goog_in21k_ft_in1k", "mixer_l_16", "model.safetensors"),
        ("mixer_b16_224.miil_in21k_ft_in1k", "mixer_b_16", "mixer_b16_224_miil-9229a591.pth"),
        ("mixer_b16_224.miil_in21k_ft_in1k", "mixer_b_16", "models--timm--mixer_b16_224.miil_in21k_ft_in1k/model.safetensors"),
        ("resmlp_12_224.fb_in1k", "resmlp_s12", "model.safetensors"),
        ("resmlp_big_24_224.fb_in22k_ft_in1k", "resmlp_b24_8", "model.safetensors"),
    ],
)
def test_images_are_made_as_timm_makes_them(tag: str, preset: str, file: str, picture: Image.Image) -> None:
    how = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(tag).to_dict())
    network = read_preset(preset)
    ours = preprocessing(network, files_names(f"{network.published.system} of timm", network), file)
    assert_alike(ours(picture), timm.data.create_transform(**how)(picture), how["std"])


@pytest.mark.parametrize(
    ("preset", "dialect", "scaled_to"),
    [
        ("resmlp_s12", "ResMLP of deit", int(224 / 0.9)),
        ("spach_hybrid_ms_s", "SPACH", 256),
        ("as_mlp_t", "AS-MLP", 256),
        ("vip_small_7", "ViP", int(224 / 0.9)),
        ("vip_medium_7", "ViP", int(224 / 0.9)),
        ("vip_large_7", "ViP", int(224 / 0.875)),
    ],
)
def test_images_are_made_as_the_authors_make_them(preset: str, dialect: str, scaled_to: int, picture: Image.Image) -> None:
    """Written out from their test transforms."""
    network = read_preset(preset)
    std = (0.229, 0.224, 0.225)
    theirs = transforms.Compose(
        [
            transforms.Resize(scaled_to, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), std),
        ]
    )
    assert_alike(preprocessing(network, files_names(dialect, network), "file")(picture), theirs(picture), std)


def test_googles_images_are_those_of_timms_file_of_the_same_weights() -> None:
    network = read_preset("mixer_b_16")
    google, of_timm = (preprocessing(network, files_names(f"MLP-Mixer of {whose}", network), "file") for whose in ("Google", "timm"))
    assert google == of_timm and google.mean == google.std == (0.5, 0.5, 0.5)


def test_classes_are_those_of_imagenet_each_once() -> None:
    names = class_names(1000)
    assert len(set(names)) == 1000
    assert (names[0], names[207], names[999]) == ("tench, Tinca tinca", "golden retriever", "toilet tissue, toilet paper, bathroom tissue")
    assert names[134].startswith("crane: ") and "bird" in names[134] and names[517].startswith("crane: ")
    assert class_names(10) == []
