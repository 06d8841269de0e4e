"""The networks as timm's models: its own functions build them, ask them for features, make their images and group their parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.optim import param_groups_layer_decay
from torch import nn

import nas.timm_models
from nas import load_network
from nas.cost import cost
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.networks.preprocessing import Preprocessing
from nas.networks.trained import save_network
from nas.published.presets import preset_names, read_preset
from nas.runs.records import write_architecture

# One of each system, the smallest that has several stages where there is one, and the side of an image that is enough for it.
FAMILIES = {
    "spach_hybrid_ms_xs_": 64, "mixer_s_32": 64, "resmlp_s12": 32, "s2_mlp_deep": 32, "s2_mlpv2_small_7": 28, "as_mlp_mobile": 64, "vip_small_7": 56,
}  # fmt: skip
STAGES = (Stage(8, ("conv", "attention"), 1.0, kernel=3, head_width=4), Stage(12, ("s2_shift", "s2_shift"), 1.0, sharing=True))
ARCHITECTURE = Architecture(Frame(16, 3, 3), 2, STAGES)
HOW = Preprocessing(16, 3, (0.3, 0.4, 0.5), (0.2, 0.25, 0.3), 0.8, "bilinear")
CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network's weights, and its architecture."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    save_network(folder / "trained.safetensors", Network(ARCHITECTURE).state_dict(), ARCHITECTURE, CLASSES, HOW)
    write_architecture(folder / "plain.yaml", ARCHITECTURE, {}, "")
    return folder


@pytest.fixture
def trained(files: Path) -> Any:
    return timm.create_model("hybrid_nas", weights=str(files / "trained.safetensors")).eval()


def images(side: int = 16, channels: int = 3, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(3))


# ---------------------------------------------------------------------------------------------------- published networks


@pytest.mark.whole
def test_timm_knows_every_published_network_and_makes_it_for_any_images_and_classes() -> None:
    assert set(timm.list_models(module="timm_models")) == {*preset_names(), "hybrid_nas"}
    for name in preset_names():
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=7, in_chans=1)
        whole = read_preset(name).architecture
        frame = Frame(whole.frame.resolution, 1, 7)
        assert sum(parameter.numel() for parameter in model.parameters()) == cost(whole.at(frame)).params, name
        assert model.num_classes == 7 and model.get_classifier().out_features == 7
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.input_size == (3, 224, 224) and cfg.num_classes == 1000 and len(cfg.mean) == len(cfg.std) == 3
        for layer in (cfg.first_conv, cfg.classifier):
            assert isinstance(model.get_submodule(layer), nn.Conv2d | nn.Linear), name


@pytest.mark.parametrize(("ours", "theirs"), [("mixer_b_16", "mixer_b16_224"), ("resmlp_s12", "resmlp_12_224")])
def test_images_of_networks_that_timm_has_too_are_made_as_timm_makes_them(ours: str, theirs: str) -> None:
    mine, its = timm.get_pretrained_cfg(ours), timm.get_pretrained_cfg(theirs)
    for field in ("input_size", "mean", "std", "crop_pct", "interpolation", "num_classes"):
        assert getattr(mine, field) == getattr(its, field), field


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Network, torch.Tensor]:
    """timm's model of a published network, the network itself with the same weights, and images."""
    side = FAMILIES[request.param]
    torch.manual_seed(0)
    model = timm.create_model(request.param, img_size=side, num_classes=5).eval()
    with torch.device("meta"):
        network = Network(read_preset(request.param).architecture.at(Frame(side, 3, 5))).eval()
    network.load_state_dict(model.state_dict(), assign=True)
    return model, network, images(side)


@pytest.mark.whole
@torch.no_grad()
def test_a_model_is_the_network(pair: Any) -> None:
    model, network, x = pair
    assert torch.equal(model(x), network(x))
    network.head.fc = nn.Identity()
    features = model.forward_features(x)
    assert features.shape[-1] == model.num_features == model.head_hidden_size
    assert torch.equal(model.forward_head(features, pre_logits=True), network(x))
    assert torch.equal(model.forward_head(features), model(x))


def watched(network: Network) -> list[torch.Tensor]:
    """Where the tokens go that come out of each stage's last layer, as [B, C, H, W]."""
    seen: list[torch.Tensor] = []
    for i, stage in enumerate(network.architecture.stages):
        last = network.get_submodule(f"stages.{i}.blocks.{stage.depth - 1}.mlp")
        last.register_forward_hook(lambda module, given, answer: seen.append(answer.permute(0, 3, 1, 2)))
    return seen


@torch.no_grad()
def test_features_are_what_each_stage_gives_at_the_strides_that_are_said(pair: Any) -> None:
    model, network, x = pair
    seen = watched(network)
    network(x)
    last, features = model.forward_intermediates(x)
    assert torch.equal(last, model.forward_features(x)) and len(features) == len(seen) == len(model.feature_info)
    for feature, expected, info in zip(features, seen, model.feature_info, strict=True):
        assert torch.equal(feature, expected)
        assert feature.shape == (2, info["num_chs"], x.shape[-1] // info["reduction"], x.shape[-1] // info["reduction"])


@torch.no_grad()
@pytest.mark.parametrize("taken", [(0, 1), (-1,), (0,)])
def test_features_only_keeps_what_its_stages_need(taken: tuple[int, ...], trained: Any, files: Path) -> None:
    only = timm.create_model("hybrid_nas", weights=files / "trained.safetensors", features_only=True, out_indices=taken).eval()
    seen = watched(trained)
    trained(images())
    assert list(zip(only.feature_info.channels(), only.feature_info.reduction(), strict=True)) == [((8, 2), (12, 4))[i] for i in taken]
    assert all(map(torch.equal, only(images()), [seen[i] for i in taken]))
    kept = {key.split(".")[2] for key, _ in only.named_parameters() if ".stages." in key}
    assert kept == ({"0"} if taken == (0,) else {"0", "1"}) and not any(".head." in key for key, _ in only.named_parameters())


# ------------------------------------------------------------------------------------------------------------ hybrid_nas


def test_hybrid_nas_is_the_network_of_a_file_with_all_that_is_known_of_its_images(trained: Any, files: Path) -> None:
    network = load_network(files / "trained.safetensors")
    with torch.no_grad():
        assert torch.equal(trained(images()), network(images()))
    assert trained.classes == CLASSES == trained.pretrained_cfg["label_names"]
    config = resolve_model_data_config(trained)
    assert (config["input_size"], config["mean"], config["std"], config["crop_pct"]) == ((3, 16, 16), HOW.mean, HOW.std, HOW.crop)
    # timm scales the whole image to 20 x 20 and cuts, this project scales the part that is left: the same where 20 pixels are 40
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    torch.testing.assert_close(create_transform(**config)(picture), network.preprocess(picture), atol=0.02, rtol=0)  # type: ignore[misc]


def test_other_classes_get_a_fresh_classifier_on_the_same_features(trained: Any, files: Path) -> None:
    other = timm.create_model("hybrid_nas", weights=files / "trained.safetensors", num_classes=9).eval()
    none = timm.create_model("hybrid_nas", weights=files / "trained.safetensors", num_classes=0).eval()
    with torch.no_grad():
        features = trained.forward_head(trained.forward_features(images()), pre_logits=True)
        assert other(images()).shape == (2, 9) and torch.equal(none(images()), features)
        assert torch.equal(other.forward_features(images()), trained.forward_features(images()))
    before = trained.get_classifier().weight
    trained.reset_classifier(3)
    assert not torch.equal(trained.get_classifier().weight, before), "fresh, though of the same size"
    trained.reset_classifier(4)
    assert trained(images()).shape == (2, 4) and trained.num_classes == 4 == trained.architecture.frame.classes and trained.classes == ()
    trained.reset_classifier(4, global_pool="")
    assert trained(images()).shape == (2, 4, 4, 4)


def test_a_weights_file_is_a_checkpoint_of_timm_and_grey_images_are_taken(trained: Any, files: Path) -> None:
    path = files / "trained.safetensors"
    model = timm.create_model("hybrid_nas", architecture=files / "plain.yaml", checkpoint_path=path).eval()
    grey = timm.create_model("hybrid_nas", weights=path, in_chans=1).eval()
    with torch.no_grad():
        assert torch.equal(model(images()), trained(images()))
        x = images(channels=1)
        torch.testing.assert_close(grey(x), trained(x.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ("'weights' or 'architecture'", "none")),
        ({"weights": "a", "architecture": "b"}, ("a and b",)),
        ({"architecture": "as_mlp_tt"}, ("Did you mean 'as_mlp_t'",)),
        ({"weights": "as_mlp_t"}, ("as_mlp_t", "no such file")),
        ({"weights": "none.safetensors"}, ("none.safetensors", "no such file")),
        ({"architecture": "as_mlp_t", "global_pool": "max"}, ("global_pool", "'max'", "'avg'")),
        ({"architecture": "as_mlp_t", "img_size": (32, 64)}, ("img_size", "(32, 64)")),
    ],
)
def test_a_mistake_is_named(given: dict[str, Any], words: tuple[str, ...]) -> None:
    with torch.device("meta"), pytest.raises(ValueError) as error:
        timm.create_model("hybrid_nas", **given)
    assert all(word in str(error.value) for word in words), error.value


def test_pretrained_weights_that_nobody_has_are_refused() -> None:
    with torch.device("meta"), pytest.raises(RuntimeError, match="No pretrained weights exist for as_mlp_mobile"):
        timm.create_model("as_mlp_mobile", pretrained=True)


def test_a_name_of_timms_own_stays_timms() -> None:
    with pytest.warns(UserWarning, match="nas_mixer_b16_224"):
        assert nas.timm_models._own_name("mixer_b16_224") == "nas_mixer_b16_224"
    assert nas.timm_models._own_name("as_mlp_t") == "as_mlp_t"


# -------------------------------------------------------------------------------------------------------------- training


def gradients(model: Any) -> list[torch.Tensor]:
    torch.manual_seed(5)  # of drop path and dropout
    model.zero_grad()
    model(images()).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_checkpointed_gradients_are_those_without(trained: Any) -> None:
    model = timm.create_model("hybrid_nas", architecture=ARCHITECTURE, drop_path_rate=0.5)
    usual, calls = gradients(model.train()), []
    model.stages.get_submodule("0.blocks.0.mlp").register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    assert all(map(torch.equal, usual, gradients(model)))
    assert len(calls) == 2, "computed again in the backward pass"


def test_rates_of_dropout_and_of_drop_path_arrive() -> None:
    model = timm.create_model("hybrid_nas", architecture=ARCHITECTURE, drop_rate=0.5, drop_path_rate=0.3).train()
    drop = timm.layers.DropPath
    assert max(module.drop_prob for module in model.modules() if isinstance(module, drop)) == pytest.approx(0.3)
    zeros = (model.forward_head(torch.ones(2, 4, 4, 12), pre_logits=True) == 0).float().mean()
    assert 0.1 < zeros < 0.9


def test_layer_decay_goes_by_depth(trained: Any) -> None:
    names = {id(parameter): name for name, parameter in trained.named_parameters()}
    scale = {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(trained, layer_decay=0.5)
        for parameter in group["params"]
    }
    order = ["stem.patch_embed.weight", *(f"stages.{i}.blocks.{j}.mlp.fc1.weight" for i in (0, 1) for j in (0, 1)), "head.fc.weight"]
    assert [scale[name] for name in order] == sorted({scale[name] for name in order})
    assert set(scale) == set(dict(trained.named_parameters()))
    assert scale["stages.1.merge.reduction.weight"] == scale["stages.1.blocks.0.mlp.fc1.weight"]
