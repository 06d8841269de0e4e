"""The lowering: every layer of an architecture with its place, and the networks that are made of them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath

from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.blocks import Branch
from nas.networks.layers import BlockSpecs, layer_specs, outline
from nas.networks.network import Network

SMALL = Architecture(
    Frame(32, 3, 10),
    4,
    (
        Stage(32, ("conv", "attention"), 2.0, cpe=True, kernel=5, head_width=16),
        Stage(64, ("s2_shift", "s2_shift"), 1.5, sharing=True),
    ),
)


def test_the_outline_of_a_small_network() -> None:
    norm = {"norm": "layer_norm", "eps": 1e-6}
    assert [(spec.layer.__name__, spec.place, dict(spec.settings)) for spec in layer_specs(SMALL)] == [
        ("Stem", "stem", {"channels": 3, "width": 32, "patch": 4, "grid": (8, 8), **norm}),
        ("Branch", "stages.0.blocks.0.branch.conv", {"width": 32, **norm, "scale": 0.1}),
        ("Conv", "stages.0.blocks.0.mixer.conv", {"width": 32, "grid": (8, 8), "kernel": 5}),
        ("Conv", "stages.0.blocks.0.cpe", {"width": 32, "grid": (8, 8), "kernel": 3}),
        ("ChannelMLP", "stages.0.blocks.0.mlp", {"width": 32, "hidden": 64, "grid": (8, 8), **norm, "scale": None}),
        ("Branch", "stages.0.blocks.1.branch.attention", {"width": 32, **norm, "scale": 0.1}),
        ("Attention", "stages.0.blocks.1.mixer.attention", {"width": 32, "grid": (8, 8), "head_width": 16}),
        ("Conv", "stages.0.blocks.1.cpe", {"width": 32, "grid": (8, 8), "kernel": 3}),
        ("ChannelMLP", "stages.0.blocks.1.mlp", {"width": 32, "hidden": 64, "grid": (8, 8), **norm, "scale": None}),
        ("Merge", "stages.1.merge", {"in_width": 32, "width": 64, "grid": (4, 4)}),
        ("Branch", "stages.1.blocks.0.branch.s2_shift", {"width": 64, **norm, "scale": 0.1}),
        ("S2Shift", "stages.1.blocks.0.mixer.s2_shift", {"width": 64, "grid": (4, 4)}),
        ("ChannelMLP", "stages.1.blocks.0.mlp", {"width": 64, "hidden": 96, "grid": (4, 4), **norm, "scale": None}),
        ("Branch", "stages.1.blocks.1.branch.s2_shift", {"width": 64, **norm, "scale": 0.1}),
        ("S2Shift", "stages.1.blocks.1.mixer.s2_shift", {"width": 64, "grid": (4, 4)}),
        ("ChannelMLP", "stages.1.blocks.1.mlp", {"width": 64, "hidden": 96, "grid": (4, 4), **norm, "scale": None}),
        ("Head", "head", {"width": 64, "classes": 10, **norm}),
    ]


def test_only_a_shared_mixers_weights_stand_elsewhere_than_its_place() -> None:
    elsewhere = {spec.place: spec.weights for spec in layer_specs(SMALL) if spec.weights != spec.place}
    assert elsewhere == {f"stages.1.blocks.{j}.mixer.s2_shift": "stages.1.shared.s2_shift" for j in range(2)}


def test_the_parameters_of_a_network_are_named_by_place() -> None:
    """Weights in files go by these names."""
    names = [name for name, _ in Network(SMALL).named_parameters()]
    assert names == [
        "stem.patch_embed.weight",
        "stem.patch_embed.bias",
        "stem.norm.weight",
        "stem.norm.bias",
        "stages.0.blocks.0.branch.conv.scale",
        "stages.0.blocks.0.branch.conv.norm.weight",
        "stages.0.blocks.0.branch.conv.norm.bias",
        "stages.0.blocks.0.mixer.conv.weight",
        "stages.0.blocks.0.mixer.conv.bias",
        "stages.0.blocks.0.cpe.weight",
        "stages.0.blocks.0.cpe.bias",
        "stages.0.blocks.0.mlp.norm.weight",
        "stages.0.blocks.0.mlp.norm.bias",
        "stages.0.blocks.0.mlp.fc1.weight",
        "stages.0.blocks.0.mlp.fc1.bias",
        "stages.0.blocks.0.mlp.fc2.weight",
        "stages.0.blocks.0.mlp.fc2.bias",
        "stages.0.blocks.1.branch.attention.scale",
        "stages.0.blocks.1.branch.attention.norm.weight",
        "stages.0.blocks.1.branch.attention.norm.bias",
        "stages.0.blocks.1.mixer.attention.qkv.weight",
        "stages.0.blocks.1.mixer.attention.qkv.bias",
        "stages.0.blocks.1.mixer.attention.proj.weight",
        "stages.0.blocks.1.mixer.attention.proj.bias",
        "stages.0.blocks.1.cpe.weight",
        "stages.0.blocks.1.cpe.bias",
        "stages.0.blocks.1.mlp.norm.weight",
        "stages.0.blocks.1.mlp.norm.bias",
        "stages.0.blocks.1.mlp.fc1.weight",
        "stages.0.blocks.1.mlp.fc1.bias",
        "stages.0.blocks.1.mlp.fc2.weight",
        "stages.0.blocks.1.mlp.fc2.bias",
        "stages.1.merge.reduction.weight",
        "stages.1.merge.reduction.bias",
        "stages.1.blocks.0.branch.s2_shift.scale",
        "stages.1.blocks.0.branch.s2_shift.norm.weight",
        "stages.1.blocks.0.branch.s2_shift.norm.bias",
        "stages.1.blocks.0.mlp.norm.weight",
        "stages.1.blocks.0.mlp.norm.bias",
        "stages.1.blocks.0.mlp.fc1.weight",
        "stages.1.blocks.0.mlp.fc1.bias",
        "stages.1.blocks.0.mlp.fc2.weight",
        "stages.1.blocks.0.mlp.fc2.bias",
        "stages.1.blocks.1.branch.s2_shift.scale",
        "stages.1.blocks.1.branch.s2_shift.norm.weight",
        "stages.1.blocks.1.branch.s2_shift.norm.bias",
        "stages.1.blocks.1.mlp.norm.weight",
        "stages.1.blocks.1.mlp.norm.bias",
        "stages.1.blocks.1.mlp.fc1.weight",
        "stages.1.blocks.1.mlp.fc1.bias",
        "stages.1.blocks.1.mlp.fc2.weight",
        "stages.1.blocks.1.mlp.fc2.bias",
        "stages.1.shared.s2_shift.fc1.weight",
        "stages.1.shared.s2_shift.fc1.bias",
        "stages.1.shared.s2_shift.fc2.weight",
        "stages.1.shared.s2_shift.fc2.bias",
        "head.norm.weight",
        "head.norm.bias",
        "head.fc.weight",
        "head.fc.bias",
    ]


def test_a_network_is_its_formula() -> None:
    """Stem, two blocks, head, written out: the position encoding reads the block's input and has no scale."""
    torch.manual_seed(0)
    stage = Stage(8, ("conv", "s2_shift"), 2.0, cpe=True, kernel=5)
    network = Network(Architecture(Frame(16, 3, 10), 4, (stage,))).double()
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for weight in weights.values():
            weight += 0.1 * torch.randn_like(weight)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
    x = norm("stem.norm", patches @ weights["stem.patch_embed.weight"].flatten(1).T + weights["stem.patch_embed.bias"])
    for j, mixer in enumerate(stage.mixers):
        block = f"stages.0.blocks.{j}"
        branch, cpe = f"{block}.branch.{mixer}", network.get_submodule(f"{block}.cpe")
        mixed = network.get_submodule(f"{block}.mixer.{mixer}")(norm(f"{branch}.norm", x))
        x = x + weights[f"{branch}.scale"] * mixed + cpe(x)
        x = x + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.mlp.norm", x))))
    expected = linear("head.fc", norm("head.norm", x).flatten(1, 2).mean(1))
    torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-12)  # products are summed in another order


def test_scales_begin_at_a_tenth() -> None:
    scales = [parameter for name, parameter in Network(SMALL).named_parameters() if name.endswith(".scale")]
    assert len(scales) == 4
    assert all(torch.equal(scale, torch.full_like(scale, 0.1)) for scale in scales)


def test_a_fresh_network_has_gradients_everywhere() -> None:
    torch.manual_seed(0)
    network = Network(SMALL)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_what_stands_at_a_name_is_what_runs() -> None:
    """A head taken off, a copy, weights assigned: each leaves one network, not a mixture with the modules it was built of."""
    torch.manual_seed(0)
    network, images = Network(SMALL, drop_path=0.2).eval(), torch.randn(2, 3, 32, 32)
    logits, head = network(images), network.head
    features = copy.deepcopy(network)
    features.head = torch.nn.Identity()
    assert features(images).shape == (2, 4, 4, 64)
    assert torch.equal(head(features(images)), logits)
    assert not any(name.startswith("head") for name in features.state_dict())
    network.get_submodule("stages.0.blocks.0.mixer").conv = torch.nn.Identity()
    assert not torch.equal(network(images), logits)

    other = Network(SMALL).eval()
    again = copy.deepcopy(other)
    again.load_state_dict({name: tensor + 0.1 for name, tensor in other.state_dict().items()}, assign=True)
    other.load_state_dict({name: tensor + 0.1 for name, tensor in other.state_dict().items()})
    assert torch.equal(again(images), other(images))
    assert {id(parameter) for parameter in again.parameters()}.isdisjoint(map(id, other.parameters()))
    half = copy.deepcopy(other).double()
    torch.testing.assert_close(half(images.double()).float(), other(images), rtol=1e-3, atol=1e-4)  # float32 against float64
    exported = torch.export.export(other, (images,)).module()
    assert torch.equal(exported(images), other(images))


def test_drop_path_rises_linearly_from_zero() -> None:
    network = Network(SMALL, drop_path=0.3)
    blocks = [layer for layer in network.outline if isinstance(layer, BlockSpecs)]
    for j, block in enumerate(blocks):
        for spec in (block.branch, block.mlp):
            drop = network.get_submodule(spec.weights).drop_path
            assert isinstance(drop, DropPath)
            assert drop.drop_prob == pytest.approx(0.3 * j / 3)
    assert not any(isinstance(module, DropPath) for module in Network(SMALL).modules())


def test_drop_path_spares_the_position_encoding() -> None:
    branch, x = Branch(8, "layer_norm", 1e-6, 0.1).train(), torch.randn(4, 2, 2, 8)
    branch.drop_path = DropPath(1.0 - 1e-9)
    torch.manual_seed(0)
    assert torch.equal(branch(x, lambda y: y, lambda y: 3 * y), x + 3 * x)


@pytest.mark.parametrize(
    ("stages", "resolution", "message"),
    [
        (
            (Stage(32, ("conv", "atention"), 2.0, kernel=3),),
            32,
            r"stages\[0\]\.mixers\[1\]: unknown mixer 'atention'; known: none, conv.*Did you mean 'attention'\?",
        ),
        ((Stage(32, ("conv",), 2.0),), 32, r"stages\[0\]: conv needs 'kernel': got none\. Add 'kernel:'"),
        (
            (Stage(32, ("conv", "s2_shift"), 2.0, sharing=True, kernel=3),),
            32,
            r"stages\[0\]\.sharing: one mixer serves all blocks: got conv, s2_shift",
        ),
        ((Stage(32, ("s2_shift",), 2.0),) * 2, 36, r"resolution 36: not a multiple of the network's stride 8 .*Take 40"),
        ((Stage(30, ("s2_shift",), 2.0),), 32, r"stages\.0\.blocks\.0\.mixer\.s2_shift: .*width 30; accepted multiples of 4"),
    ],
)
def test_an_impossible_architecture_is_refused_with_its_place(stages: tuple[Stage, ...], resolution: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        Network(Architecture(Frame(resolution, 3, 10), 4, stages))
    assert "\n" not in str(raised.value)


def test_layers_come_in_the_order_in_which_they_run() -> None:
    network, order = Network(SMALL), []
    for weights in {spec.weights: None for spec in layer_specs(SMALL)}:
        module = network.get_submodule(weights)
        module.register_forward_hook(lambda *_, weights=weights: order.append(weights))
    network(torch.randn(1, 3, 32, 32))
    assert order[0] == "stem"
    assert order[-1] == "head"
    # a branch calls its mixer, so it ends after it
    assert sorted(order) == sorted(spec.weights for spec in layer_specs(SMALL))
    assert [name for name in order if ".mlp" in name] == [layer.mlp.weights for layer in outline(SMALL) if isinstance(layer, BlockSpecs)]
