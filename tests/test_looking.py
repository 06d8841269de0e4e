"""What mixers look at, by gradients, is what their weights and their shapes say."""

from __future__ import annotations

import numpy as np
import torch

from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.training.looking import mixing_fields, receptive_fields

SIDE, PATCH = 32, 4
GRID = SIDE // PATCH


def network(*mixers: str, sharing: bool = False) -> Network:
    torch.manual_seed(0)
    options = {"kernel": 3} if "conv" in mixers else {}
    return Network(Architecture(Frame(SIDE, 3, 5), PATCH, (Stage(16, mixers, 1.0, sharing=sharing, options=options),))).eval()


def images() -> torch.Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def scaled(values: np.ndarray) -> np.ndarray:
    return values / np.abs(values).max()


def test_a_token_linear_looks_by_the_row_of_its_matrix() -> None:
    net = network("token_linear", "token_linear")
    for block, field in enumerate(mixing_fields(net, images())[0]):
        weight = net.get_submodule(f"stages.0.blocks.{block}.mixer.token_linear").linear_tokens.weight.detach().double().numpy()
        middle = (GRID // 2) * GRID + GRID // 2
        np.testing.assert_allclose(field, scaled(weight[middle].reshape(GRID, GRID)), atol=1e-5)


def test_a_convolution_looks_by_its_mean_kernel_and_no_further() -> None:
    net = network("conv")
    field = mixing_fields(net, images())[0][0]
    kernel = net.get_submodule("stages.0.blocks.0.mixer.conv").weight.detach().double().numpy().mean(axis=(0, 1))
    wanted = np.zeros((GRID, GRID))
    wanted[GRID // 2 - 1 : GRID // 2 + 2, GRID // 2 - 1 : GRID // 2 + 2] = kernel
    np.testing.assert_allclose(field, scaled(wanted), atol=1e-5)


def test_pixels_that_move_the_middle_grow_by_a_kernel_with_each_block() -> None:
    for depth in (1, 2):
        (field,) = receptive_fields(network(*["conv"] * depth), images())
        low, high = PATCH * (GRID // 2 - depth), PATCH * (GRID // 2 + depth + 1)
        inside = np.zeros((SIDE, SIDE), bool)
        inside[low:high, low:high] = True
        assert (field[inside] > 0).all() and not field[~inside].any() and field.max() == 1.0


def test_a_shared_mixer_is_looked_at_in_each_of_its_blocks() -> None:
    """The weights are the same; of attention the input makes the difference."""
    options = {"head_width": 8}
    torch.manual_seed(0)
    net = Network(
        Architecture(Frame(SIDE, 3, 5), PATCH, (Stage(16, ("attention", "attention"), 1.0, sharing=True, options=options),))
    ).eval()
    first, second = mixing_fields(net, images())[0]
    assert first.shape == second.shape == (GRID, GRID) and not np.allclose(first, second)


def test_looking_changes_no_weight_and_no_mode() -> None:
    net = network("conv", "conv")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    receptive_fields(net, images())
    mixing_fields(net, images())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not net.training and not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
