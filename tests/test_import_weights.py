"""Original checkpoints into our networks: equal logits, every key used, and each file that is not one refused in one line."""

from __future__ import annotations

import argparse
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from errors import refused
from originals import ASMLP, Spach, ViP, randomised
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, checkpoint_filter_fn
from torch import Tensor, nn

from nas.networks.architecture import Architecture, Frame, Stage, read_architecture
from nas.networks.network import Network
from nas.published.import_weights import convert, read_checkpoint

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


def test_resmlp_files_of_deit_have_other_names() -> None:
    _, architecture = TINY["resmlp"]
    model = randomised(original("ResMLP", architecture))
    theirs = {
        "stem.": "patch_embed.",
        "linear_tokens.": "attn.",
        "mlp_channels.": "mlp.",
        "ls1": "gamma_1",
        "ls2": "gamma_2",
    }
    state = {}
    for name, value in model.state_dict().items():
        for ours, other in theirs.items():
            name = name.replace(ours, other)
        state[name] = value.flatten() if name.endswith(("alpha", "beta")) else value
    model.load_state_dict(checkpoint_filter_fn(dict(state), model))  # timm, too, takes them for this network
    assert {"patch_embed.proj.weight", "blocks.0.norm1.alpha", "blocks.0.attn.weight", "blocks.0.gamma_1"} < set(state)
    assert_equal_logits(model, architecture, convert("ResMLP", architecture, state, "file"), 1e-10)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
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
    assert "left over" not in refused_mixer(state, "missing: blocks.1.mlp_tokens.fc2.bias.", "another network", "name the preset")


def test_a_key_too_many_is_named() -> None:
    message = refused_mixer(mixer_state() | {"pos_embed": torch.zeros(1, 16, 24)}, "left over: pos_embed.", "another network")
    assert "missing" not in message


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
    refused_mixer(state, "head.weight (got 7x24; accepted 5x24)", "head.bias (got 7; accepted 5)")
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


def test_other_precisions_become_float32() -> None:
    state = {name: value.to(torch.bfloat16) for name, value in mixer_state().items()}
    converted = convert(*TINY["mixer"], state, "file")
    assert all(value.dtype == torch.float32 for value in converted.values())
    assert torch.equal(converted["head.fc.weight"], state["head.weight"].float())


def test_vip_of_unknown_depths_is_refused() -> None:
    with refused("file: ViP", "3+5", "4+14"):
        convert("ViP", vip(16, 3, 5), {}, "file")


# --------------------------------------------------------------------------------------------------------- files

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
    assert not (tmp_path / "written").exists()


def cut(content: bytes) -> list[bytes]:
    return [content[:size] for size in (1, 2, 5, 9, 20, 60, len(content) // 2, len(content) - 70, len(content) - 1)]


def test_files_that_were_cut_short_are_refused(tmp_path: Path) -> None:
    weights = {"blocks.0.weight": torch.randn(40, 40), "blocks.1.weight": torch.randn(40, 40)}
    safetensors.torch.save_file(weights, tmp_path / "whole.safetensors")
    saved(tmp_path / "whole.pth", weights)
    saved(tmp_path / "old.pth", weights, _use_new_zipfile_serialization=False)
    for whole in sorted(tmp_path.iterdir()):
        for number, part in enumerate(cut(whole.read_bytes())):
            path = tmp_path / f"{number}{whole.suffix}"
            path.write_bytes(part)
            with refused(f"{path}: damaged"):
                read_checkpoint(path)


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
    "content",
    [
        b"",
        b"<!DOCTYPE html>\n<html><body>Not found</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "{'model': 'größer'}".encode(),
        b"eight by{ and more text",  # a brace where safetensors have one
        b"\x00\x01\x02\x03 not a checkpoint \x00",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
        b"PK\x03\x04 another zip",
        pickle.dumps([1, 2, 3], protocol=4),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "resmlp_12.pth"
    path.write_bytes(content)
    with refused(f"{path}: damaged"):
        read_checkpoint(path)


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


def test_from_a_file_to_a_network(tmp_path: Path) -> None:
    system, architecture = TINY["spach ms conv4"]
    model = randomised(original(system, architecture))
    path = saved(tmp_path / "spach.pth", {"model": model.state_dict(), "epoch": 300})
    assert_equal_logits(model, architecture, convert(system, architecture, read_checkpoint(path), str(path)), 1e-9)
