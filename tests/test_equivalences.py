"""Laws: what the mixers, norms and blocks are equal to, in float64.

On one side of each law stand the project's modules, on the other torch's convolutions, linears and einsum. Where both sides do the same
additions the law holds to the last bit (`torch.equal`); where their order differs, to `ATOL`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from tracing import trace

from nas.cost import cost
from nas.networks import mixers
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.blocks import Branch, ChannelMLP, GatherMerge, Merge, PatchConv, Stem
from nas.networks.layers import BlockSpecs, run
from nas.networks.mixers import MIXERS
from nas.networks.mixers.as_shift import as_shift, by_pads
from nas.networks.mixers.s2_shift import s2_shift
from nas.networks.network import Network
from nas.networks.norms import NORMS, Affine, GroupNorm1
from nas.quantities import Cost

ATOL = 1e-10  # float64 leaves 1e-13 or so; a wrong tap, axis or border leaves about 1
SHAPES = [(4, (4, 4)), (12, (3, 5)), (8, (7, 2)), (4, (1, 6)), (16, (1, 1))]  # width, grid
SEGMENTED = [(4, (4, 4)), (12, (3, 4)), (8, (4, 2)), (12, (1, 6)), (16, (2, 2))]  # those whose sides divide the width

by_shape = pytest.mark.parametrize(("width", "grid"), SHAPES)
by_segments = pytest.mark.parametrize(("width", "grid"), SEGMENTED)
many = settings(deadline=None, derandomize=True, database=None, max_examples=60)
any_grid = st.tuples(st.integers(1, 8), st.integers(1, 8))


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module, seed: int = 0) -> Any:
    """The module in float64, with all its parameters drawn: none is left at a zero or one that would hide it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return module


def close(actual: Tensor, expected: Tensor) -> bool:
    assert actual.shape == expected.shape
    return torch.allclose(actual, expected, rtol=0, atol=ATOL)


def convolved(x_BHWC: Tensor, weight: Tensor, bias: Tensor | None = None, **arguments: Any) -> Tensor:
    return F.conv2d(x_BHWC.permute(0, 3, 1, 2), weight, bias, **arguments).permute(0, 2, 3, 1)


def depthwise(x_BHWC: Tensor, kernels: Tensor, padding: str) -> Tensor:
    """Cross-correlation with one kernel per channel; `padding` is its mode ('constant': zeros)."""
    pads = tuple(side // 2 for side in kernels.shape[:0:-1] for _ in range(2))
    padded = F.pad(x_BHWC.permute(0, 3, 1, 2), pads, mode=padding)
    return F.conv2d(padded, kernels.unsqueeze(1), groups=len(kernels)).permute(0, 2, 3, 1)


# -------------------------------------------------------------------------------------- linears that are convolutions


@pytest.mark.parametrize(("channels", "side", "grid"), [(3, 4, (4, 4)), (3, 7, (2, 3)), (1, 2, (5, 1)), (8, 2, (3, 2))])
def test_a_patch_projection_is_a_linear_on_unfolded_patches(channels: int, side: int, grid: tuple[int, int]) -> None:
    """The order within a patch: channel, row, column."""
    x = tokens(2, grid[0] * side, grid[1] * side, channels)
    patches = x.reshape(2, grid[0], side, grid[1], side, channels).permute(0, 1, 3, 5, 2, 4).flatten(3)
    conv = filled(PatchConv(channels, 12, side))
    stem = filled(Stem(channels, 12, side, grid, norm="none", eps=1e-6))
    assert close(conv(x), F.linear(patches, conv.weight.flatten(1), conv.bias))
    linear = stem.patch_embed
    assert close(stem(x.permute(0, 3, 1, 2)), F.linear(patches, linear.weight.flatten(1), linear.bias))


@by_shape
@pytest.mark.parametrize("token_hidden", ["tokens", "channels"])
def test_the_first_linear_of_a_token_mlp_is_a_convolution_with_the_whole_map(width: int, grid: tuple[int, int], token_hidden: str) -> None:
    """Depthwise, with multiplier Ds, and with one set of kernels repeated for all channels: output channels are channel-major."""
    fc1, x = filled(MIXERS["token_mlp"].layer(width, grid, token_hidden=token_hidden)).fc1, tokens(2, *grid, width)
    kernels = fc1.weight.reshape(-1, 1, *grid)
    hidden = convolved(x, kernels.repeat(width, 1, 1, 1), fc1.bias.repeat(width), groups=width)
    assert close(fc1(x.flatten(1, 2).transpose(1, 2)), hidden.reshape(2, width, -1))


@by_shape
@pytest.mark.parametrize("token_hidden", ["tokens", "channels"])
def test_a_token_mlp_is_that_convolution_and_a_grouped_1x1_convolution(width: int, grid: tuple[int, int], token_hidden: str) -> None:
    mixer, x = filled(MIXERS["token_mlp"].layer(width, grid, token_hidden=token_hidden)), tokens(2, *grid, width)
    kernels = mixer.fc1.weight.reshape(-1, 1, *grid)
    hidden = F.gelu(convolved(x, kernels.repeat(width, 1, 1, 1), mixer.fc1.bias.repeat(width), groups=width))
    back = mixer.fc2.weight[..., None, None]
    y = convolved(hidden, back.repeat(width, 1, 1, 1), mixer.fc2.bias.repeat(width), groups=width)
    assert close(mixer(x), y.reshape(2, width, *grid).permute(0, 2, 3, 1))


@by_shape
def test_a_token_linear_is_a_convolution_with_the_whole_map(width: int, grid: tuple[int, int]) -> None:
    """The token MLP's first one with multiplier N: there is no hidden layer."""
    mixer, x = filled(MIXERS["token_linear"].layer(width, grid)), tokens(2, *grid, width)
    linear, positions = mixer.linear_tokens, grid[0] * grid[1]
    kernels = linear.weight.reshape(positions, 1, *grid)
    y = convolved(x, kernels.repeat(width, 1, 1, 1), linear.bias.repeat(width), groups=width)
    assert close(mixer(x), y.reshape(2, width, *grid).permute(0, 2, 3, 1))


@by_shape
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_convolution_with_one_kernel_for_all_channels_is_a_token_linear_with_a_banded_matrix(
    width: int, grid: tuple[int, int], kernel: int
) -> None:
    conv, linear = filled(MIXERS["conv"].layer(width, grid, kernel=kernel)), filled(MIXERS["token_linear"].layer(width, grid))
    height, columns = grid
    band = torch.zeros(*grid, *grid, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:1].expand_as(conv.weight))
        conv.bias.copy_(conv.bias[:1].expand_as(conv.bias))
        for h, w, p, q in itertools.product(range(height), range(columns), range(height), range(columns)):
            i, j = p - h + kernel // 2, q - w + kernel // 2
            if 0 <= i < kernel and 0 <= j < kernel:
                band[h, w, p, q] = conv.weight[0, 0, i, j]
        linear.linear_tokens.weight.copy_(band.reshape(height * columns, -1))
        linear.linear_tokens.bias.fill_(conv.bias[0])
    x = tokens(2, *grid, width)
    assert close(conv(x), linear(x))


@by_shape
def test_channel_mixing_is_two_1x1_convolutions(width: int, grid: tuple[int, int]) -> None:
    mlp, x = filled(ChannelMLP(width, 3 * width, grid, norm="layer_norm", eps=1e-6, scale=1.0)), tokens(2, *grid, width)
    y = F.layer_norm(x, (width,), mlp.norm.weight, mlp.norm.bias, eps=1e-6)
    y = F.gelu(convolved(y, mlp.fc1.weight[..., None, None], mlp.fc1.bias))
    assert close(mlp(x), x + mlp.scale * convolved(y, mlp.fc2.weight[..., None, None], mlp.fc2.bias))


# ---------------------------------------------------------------------------------------- shifts are fixed convolutions

# The tap of each group: row (first axis) and column of the kernel that is 1.
S2_TAPS = {(1, 2): ((0, 1), (2, 1), (1, 0), (1, 2)), (2, 1): ((1, 0), (1, 2), (0, 1), (2, 1))}
by_axes = pytest.mark.parametrize("axes", S2_TAPS, ids=["SS1", "SS2"])


def s2_kernels(width: int, axes: tuple[int, int]) -> Tensor:
    kernels = torch.zeros(width, 3, 3, dtype=torch.float64)
    for group, (i, j) in enumerate(S2_TAPS[axes]):
        kernels[group * width // 4 : (group + 1) * width // 4, i, j] = 1
    return kernels


@by_axes
@many
@given(quarter=st.integers(1, 4), grid=any_grid)
def test_a_spatial_shift_is_a_fixed_convolution_with_replicated_borders(axes: tuple[int, int], quarter: int, grid: tuple[int, int]) -> None:
    x = tokens(2, *grid, 4 * quarter)
    assert torch.equal(s2_shift(x, axes), depthwise(x, s2_kernels(4 * quarter, axes), "replicate"))


@by_axes
@pytest.mark.parametrize("padding", ["constant", "reflect", "circular"])
@pytest.mark.parametrize(("width", "grid"), [(4, (4, 4)), (12, (6, 5)), (8, (3, 7))])
def test_with_other_borders_that_convolution_differs_there_and_only_there(
    axes: tuple[int, int], padding: str, width: int, grid: tuple[int, int]
) -> None:
    x = tokens(2, *grid, width)
    difference = (s2_shift(x, axes) - depthwise(x, s2_kernels(width, axes), padding)).abs()
    assert not difference[:, 1:-1, 1:-1].any()
    for border in (difference[:, 0], difference[:, -1], difference[:, :, 0], difference[:, :, -1]):
        assert border.max() > 0.5


@many
@given(quarter=st.integers(1, 4), grid=any_grid)
def test_the_second_shift_is_the_first_of_the_transposed_transposed(quarter: int, grid: tuple[int, int]) -> None:
    x = tokens(2, *grid, 4 * quarter)
    assert torch.equal(s2_shift(x, (2, 1)), s2_shift(x.transpose(1, 2)).transpose(1, 2))


def test_a_spatial_shift_does_not_repeat_a_row_over_the_map_as_the_listing_does() -> None:
    """The paper's listing assigns overlapping slices of one tensor: the groups that move on repeat the first row or column for ever."""
    x = tokens(1, 6, 6, 4)
    expected = x.clone()
    for n in range(1, 6):
        expected[:, n, :, 0], expected[:, :, n, 2] = x[:, n - 1, :, 0], x[:, :, n - 1, 2]
        expected[:, n - 1, :, 1], expected[:, :, n - 1, 3] = x[:, n, :, 1], x[:, :, n, 3]
    assert torch.equal(s2_shift(x), expected)
    assert not torch.equal(s2_shift(x)[:, 2:, :, 0], x[:, :1, :, 0].expand(1, 4, 6))


# The sizes of the paper's ablation and one that is none, and widths of which some leave fewer chunks than the size.
by_chunks = pytest.mark.parametrize(("width", "size"), [*itertools.product((6, 12, 16, 20, 28, 96), (1, 3, 5, 7))])


@by_chunks
@pytest.mark.parametrize("dim", [1, 2])
def test_an_axial_shift_is_a_fixed_convolution_with_zero_borders(width: int, size: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixers.as_shift, "SHIFT_SIZE", size)
    kernels = torch.zeros(width, size, dtype=torch.float64)
    for c in range(width):
        kernels[c, size - 1 - c // math.ceil(width / size)] = 1
    kernels = kernels.unsqueeze(2 if dim == 1 else 1)
    for grid in ((1, 1), (2, 3), (6, 4), (7, 9)):
        x = tokens(2, *grid, width)
        assert torch.equal(as_shift(x, dim), depthwise(x, kernels, "constant"))


@by_chunks
@pytest.mark.parametrize("dim", [1, 2])
def test_an_axial_shift_is_padding_rolling_and_cropping(width: int, size: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixers.as_shift, "SHIFT_SIZE", size)
    mixers.as_shift._kernels.cache_clear()
    pad = size // 2
    for grid in ((1, 1), (2, 3), (6, 4), (7, 9)):
        x = tokens(2, *grid, width)
        padded = F.pad(x, (0, 0, pad, pad) if dim == 2 else (0, 0, 0, 0, pad, pad))
        rolled = [torch.roll(chunk, g - pad, dim) for g, chunk in enumerate(padded.split(math.ceil(width / size), dim=-1))]
        expected = torch.cat(rolled, dim=-1).narrow(dim, pad, grid[dim - 1])
        with torch.inference_mode():
            assert torch.equal(as_shift(x, dim), expected)
        gradients = []
        for shift in (as_shift, by_pads):  # on a CPU and elsewhere; what was made for inference serves training too
            leaf = x.clone().requires_grad_()
            moved = shift(leaf, dim)
            assert torch.equal(moved, expected)
            (moved * moved).sum().backward()
            gradients.append(leaf.grad)
        assert torch.equal(*gradients)


@pytest.mark.parametrize("dim", [1, 2])
def test_an_axial_shift_of_size_one_stays(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixers.as_shift, "SHIFT_SIZE", 1)
    x = tokens(2, 4, 3, 10)
    assert torch.equal(as_shift(x, dim), x)


def test_shifts_have_no_parameters_and_no_multiply_adds() -> None:
    class Shifts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return s2_shift(x) + s2_shift(x, (2, 1)) + as_shift(x, 1) + as_shift(x, 2)

    assert trace(Shifts, 1, 8, 8, 20) == Cost(macs=0, params=0, activations=0)


# ---------------------------------------------------------------------------------------------- permute, split attention


def branch(mixer: Any, x: Tensor, which: int) -> Tensor:
    """One of permute's branches (0 height, 1 width, 2 channels): the projection made the identity and the softmax over branches a choice."""
    with torch.no_grad():
        mixer.proj.weight.copy_(torch.eye(x.shape[-1]))
        mixer.proj.bias.zero_()
        mixer.reweight_fc2.weight.zero_()
        mixer.reweight_fc2.bias.copy_(F.one_hot(torch.tensor(which), 3).mul(1000.0).repeat(x.shape[-1]))
    return mixer(x)


@by_segments
def test_permute_mixes_height_with_the_channels_of_a_segment(width: int, grid: tuple[int, int]) -> None:
    """One matrix W[h', s', h, s] for all columns and segments; likewise along the width, and over the channels alone."""
    mixer, x = filled(MIXERS["permute"].layer(width, grid)), tokens(2, *grid, width)
    height, columns = grid
    h_weight = mixer.mlp_h.weight.reshape(height, -1, height, width // height)
    w_weight = mixer.mlp_w.weight.reshape(columns, -1, columns, width // columns)
    along_height = torch.einsum("ptqs,bqwgs->bpwgt", h_weight, x.unflatten(-1, (height, -1))).flatten(-2)
    along_width = torch.einsum("ptqs,bhqgs->bhpgt", w_weight, x.unflatten(-1, (columns, -1))).flatten(-2)
    assert close(branch(mixer, x, 0), along_height)
    assert close(branch(mixer, x, 1), along_width)
    assert close(branch(mixer, x, 2), torch.einsum("dc,bhwc->bhwd", mixer.mlp_c.weight, x))


@by_segments
def test_permutes_height_branch_is_its_width_branch_of_the_transposed(width: int, grid: tuple[int, int]) -> None:
    upright, across = filled(MIXERS["permute"].layer(width, grid)), filled(MIXERS["permute"].layer(width, grid[::-1]), seed=5)
    with torch.no_grad():
        across.mlp_w.weight.copy_(upright.mlp_h.weight)
    x = tokens(2, *grid, width)
    # the same sums for rows in another order, which a matrix product may take in other blocks: not `torch.equal` on every machine
    assert close(branch(upright, x, 0), branch(across, x.transpose(1, 2), 1).transpose(1, 2))


@by_segments
def test_permute_with_a_kronecker_weight_mixes_along_one_axis(width: int, grid: tuple[int, int]) -> None:
    mixer, x = filled(MIXERS["permute"].layer(width, grid)), tokens(2, *grid, width)
    for which, layer, equation in ((0, mixer.mlp_h, "ph,bhwc->bpwc"), (1, mixer.mlp_w, "pw,bhwc->bhpc")):
        axial = tokens(grid[which], grid[which], seed=7)
        with torch.no_grad():
            layer.weight.copy_(torch.kron(axial, torch.eye(width // grid[which], dtype=torch.float64)))
        assert close(branch(mixer, x, which), torch.einsum(equation, axial, x))


@by_segments
def test_permute_without_reweighting_is_the_mean_of_its_branches(width: int, grid: tuple[int, int]) -> None:
    mixer, x = filled(MIXERS["permute"].layer(width, grid)), tokens(2, *grid, width)
    mean = sum(branch(mixer, x, which) for which in range(3)) / 3
    with torch.no_grad():
        mixer.reweight_fc2.bias.zero_()
    assert close(mixer(x), mean)


def split_parts(mixer: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What S2-MLPv2 weighs: its thirds, shifted by convolutions."""
    width = x.shape[-1]
    x1, x2, x3 = (F.linear(x, *parts) for parts in zip(mixer.mlp1.weight.chunk(3), mixer.mlp1.bias.chunk(3), strict=True))
    return depthwise(x1, s2_kernels(width, (1, 2)), "replicate"), depthwise(x2, s2_kernels(width, (2, 1)), "replicate"), x3


@by_shape
@pytest.mark.parametrize("split_pool", ["mean", "sum"])
def test_split_attention_without_its_second_layer_is_the_mean_of_the_splits(width: int, grid: tuple[int, int], split_pool: str) -> None:
    mixer, x = filled(MIXERS["s2_shift_v2"].layer(width, grid, split_pool=split_pool)), tokens(2, *grid, width)
    with torch.no_grad():
        mixer.sa_mlp2.weight.zero_()
    assert close(mixer(x), mixer.mlp2(sum(split_parts(mixer, x)) / 3))


@by_shape
@pytest.mark.parametrize("split_pool", ["mean", "sum"])
def test_split_attention_weighs_the_splits_by_a_softmax_for_each_channel(width: int, grid: tuple[int, int], split_pool: str) -> None:
    mixer, x = filled(MIXERS["s2_shift_v2"].layer(width, grid, split_pool=split_pool)), tokens(2, *grid, width)
    splits = torch.stack(split_parts(mixer, x))
    summary = torch.einsum("kbhwc->bc", splits) / (grid[0] * grid[1] if split_pool == "mean" else 1)
    scores = torch.einsum("kch,bh->kbc", mixer.sa_mlp2.weight.unflatten(0, (3, width)), F.gelu(summary @ mixer.sa_mlp1.weight.T))
    weights = scores.exp() / scores.exp().sum(0)
    assert close(mixer(x), mixer.mlp2(torch.einsum("kbc,kbhwc->bhwc", weights, splits)))


def test_the_sum_over_positions_grows_with_the_grid_and_the_mean_does_not() -> None:
    """Of constant maps: shifts leave them, and the mean sees no more on a larger grid."""
    for split_pool, same in (("mean", True), ("sum", False)):
        mixer = filled(MIXERS["s2_shift_v2"].layer(8, (2, 2), split_pool=split_pool))
        token = tokens(1, 1, 1, 8)
        small, large = (mixer(token.expand(1, side, side, 8))[:, :1, :1] for side in (2, 6))
        assert close(small, large) == same


# ------------------------------------------------------------------------------------------------------ norms and scales


@by_shape
def test_group_norm_is_torchs_and_layer_norm_on_a_single_token_only(width: int, grid: tuple[int, int]) -> None:
    norm, x = filled(GroupNorm1(width)), tokens(2, *grid, width)
    expected = F.group_norm(x.permute(0, 3, 1, 2), 1, norm.weight, norm.bias, eps=1e-5).permute(0, 2, 3, 1)
    assert close(norm(x), expected)
    per_token = F.layer_norm(x, (width,), norm.weight, norm.bias, eps=1e-5)
    if grid == (1, 1):
        assert close(norm(x), per_token)
    else:
        assert (norm(x) - per_token).abs().max() > 0.1


@by_shape
def test_an_affine_before_a_linear_is_part_of_the_linear(width: int, grid: tuple[int, int]) -> None:
    affine, linear, x = filled(Affine(width)), filled(nn.Linear(width, 7), seed=5), tokens(2, *grid, width)
    folded = F.linear(x, linear.weight * affine.alpha, linear.bias + linear.weight @ affine.beta)
    assert close(linear(affine(x)), folded)


@by_shape
def test_a_channel_mlp_with_an_affine_is_one_without_a_norm(width: int, grid: tuple[int, int]) -> None:
    with_affine, plain = (filled(ChannelMLP(width, 2 * width, grid, norm=norm, eps=1e-6, scale=1.0)) for norm in ("affine", "none"))
    with torch.no_grad():
        plain.fc1.weight.copy_(with_affine.fc1.weight @ with_affine.norm.alpha.diag())
        plain.fc1.bias.copy_(with_affine.fc1.bias + with_affine.fc1.weight @ with_affine.norm.beta)
        for name in ("fc2.weight", "fc2.bias", "scale"):
            plain.get_parameter(name).copy_(with_affine.get_parameter(name))
    x = tokens(2, *grid, width)
    assert close(with_affine(x), plain(x))


@by_shape
def test_an_affine_is_a_layer_scale_and_a_bias(width: int, grid: tuple[int, int]) -> None:
    affine, scaled, x = filled(Affine(width)), filled(Branch(width, norm="none", eps=1e-6, scale=1.0)), tokens(2, *grid, width)
    with torch.no_grad():
        scaled.scale.copy_(affine.alpha)
    assert close(scaled(x, lambda y: y, None), x + affine(x) - affine.beta)


@by_shape
def test_resmlps_token_branch_is_a_matrix_over_tokens_a_scale_and_two_biases(width: int, grid: tuple[int, int]) -> None:
    """gamma (A(alpha x + beta) + b) = (gamma alpha) A x + gamma beta rowsum(A) + gamma b."""
    around, mixer = filled(Branch(width, norm="affine", eps=1e-6, scale=1.0)), filled(MIXERS["token_linear"].layer(width, grid), seed=5)
    A, b = mixer.linear_tokens.weight, mixer.linear_tokens.bias[:, None]
    alpha, beta, gamma = around.norm.alpha, around.norm.beta, around.scale
    x = tokens(2, *grid, width)
    z = x.flatten(1, 2)
    expected = z + (gamma * alpha) * (A @ z) + gamma * beta * A.sum(1, keepdim=True) + gamma * b
    assert close(around(x, mixer, None), expected.reshape(x.shape))


@by_shape
@pytest.mark.parametrize("bias", [False, True])
def test_of_resmlps_alpha_and_gamma_only_the_product_matters(width: int, grid: tuple[int, int], bias: bool) -> None:
    """As long as the linear has no bias, which gamma scales alone."""
    around, mixer = filled(Branch(width, norm="affine", eps=1e-6, scale=1.0)), filled(MIXERS["token_linear"].layer(width, grid), seed=5)
    x, factor = tokens(2, *grid, width), tokens(width, seed=3).exp()
    with torch.no_grad():
        mixer.linear_tokens.bias.mul_(bias)
        before = around(x, mixer, None)
        around.norm.alpha.mul_(factor)
        around.norm.beta.mul_(factor)
        around.scale.div_(factor)
        after = around(x, mixer, None)
    assert close(after, before) == (not bias)


@pytest.mark.parametrize(("width", "grid"), [(3, (2, 2)), (4, (3, 1)), (8, (2, 5))])
def test_merging_is_a_2x2_convolution_with_group_norm_before_or_after_it(width: int, grid: tuple[int, int]) -> None:
    """Gathering takes the four neighbours in the order (0,0), (1,0), (0,1), (1,1); its norm's statistics are those of the map before."""
    x = tokens(2, 2 * grid[0], 2 * grid[1], width)

    def normed(x_BHWC: Tensor) -> Tensor:
        return F.group_norm(x_BHWC.permute(0, 3, 1, 2), 1, eps=1e-5).permute(0, 2, 3, 1)

    after, before = filled(Merge(width, 6, grid, normed=True)), filled(GatherMerge(width, 6, grid))
    y = normed(convolved(x, after.reduction.weight, stride=2)) * after.norm.weight + after.norm.bias
    assert close(after(x), y)
    kernel = torch.zeros(6, width, 2, 2, dtype=torch.float64)
    bias = before.reduction.weight @ before.norm.bias
    for corner, (i, j) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        own = slice(corner * width, (corner + 1) * width)
        kernel[:, :, i, j] = before.reduction.weight[:, own] * before.norm.weight[own]
    assert close(before(x), convolved(normed(x), kernel, bias, stride=2))


# ------------------------------------------------------------------------------------------------- attention, token order


def reordered(x_BHWC: Tensor) -> Tensor:
    positions = x_BHWC.shape[1] * x_BHWC.shape[2]
    order = torch.randperm(positions, generator=torch.Generator().manual_seed(0))
    return x_BHWC.flatten(1, 2)[:, order].reshape(x_BHWC.shape)


@pytest.mark.parametrize(("width", "grid"), [(4, (4, 4)), (12, (3, 5)), (8, (7, 2))])
@pytest.mark.parametrize("heads", [{"heads": 2}, {"head_width": 4}])
def test_attention_commutes_with_permutations_of_tokens(width: int, grid: tuple[int, int], heads: dict[str, int]) -> None:
    mixer, x = filled(MIXERS["attention"].layer(width, grid, **heads)), tokens(2, *grid, width)
    assert close(mixer(reordered(x)), reordered(mixer(x)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("token_mlp", {}),
        ("token_linear", {}),
        ("conv", {"kernel": 3}),
        ("s2_shift", {}),
        ("s2_shift_v2", {}),
        ("as_shift", {}),
        ("permute", {}),
    ],
)
def test_no_other_mixer_commutes_with_permutations_of_tokens(name: str, options: dict[str, Any]) -> None:
    mixer, x = filled(MIXERS[name].layer(20, (4, 5), **options)), tokens(2, 4, 5, 20)
    assert (mixer(reordered(x)) - reordered(mixer(x))).abs().max() > 0.1


@pytest.mark.parametrize(("width", "heads"), [(12, 3), (8, 2), (8, 8), (20, 1)])
def test_the_number_and_the_width_of_heads_tell_the_same(width: int, heads: int) -> None:
    by_number, by_width = (
        MIXERS["attention"].layer(width, (3, 4), **option) for option in ({"heads": heads}, {"head_width": width // heads})
    )
    x = tokens(2, 3, 4, width)
    assert torch.equal(filled(by_number)(x), filled(by_width)(x))
    if heads > 1:
        assert not close(by_number(x), filled(MIXERS["attention"].layer(width, (3, 4), heads=1))(x))


@pytest.mark.parametrize(("width", "grid"), [(4, (2, 2)), (16, (4, 4)), (7, (1, 7)), (12, (3, 4))])
def test_token_mlps_of_spach_and_mixer_are_one_where_tokens_and_channels_are_as_many(width: int, grid: tuple[int, int]) -> None:
    spach, mixer = (filled(MIXERS["token_mlp"].layer(width, grid, token_hidden=hidden)) for hidden in ("tokens", "channels"))
    x = tokens(2, *grid, width)
    assert torch.equal(spach(x), mixer(x))


# ---------------------------------------------------------------------------------------------------- blocks and networks

OPTIONS = {"kernel": 5, "head_width": 10, "token_hidden": "channels", "split_pool": "sum"}
# Width 20 on a grid of 4 x 4 or 2 x 2 suits every mixer.
BASE = Architecture(Frame(resolution=8, channels=3, classes=5), patch=2, stages=(Stage(20, ("conv",), 2.0, **OPTIONS),))


def one_stage(*names: str, frame: Frame = BASE.frame, forms: dict[str, Any] | None = None, **changes: Any) -> Architecture:
    stage = dataclasses.replace(BASE.stages[0], mixers=names, **changes)
    return dataclasses.replace(BASE, frame=frame, stages=(stage,), **(forms or {}))


def block_of(architecture: Architecture) -> tuple[Any, Any]:
    """A function of tokens [B, H, W, C], the first block of the network, and the network, whose parameters it has."""
    network = filled(Network(architecture))
    block = next(layer for layer in network.outline if isinstance(layer, BlockSpecs))
    return lambda x: run((block,), lambda spec, *inputs: network.get_submodule(spec.weights)(*inputs), x), network


def images(resolution: int = 8) -> Tensor:
    return tokens(2, 3, resolution, resolution)


def test_spachs_convolution_block_is_a_convolution_with_one_more_at_the_centre() -> None:
    """x + DWConv(x), with no norm, scale or mixer beside it; a channel MLP without its second linear adds nothing."""
    block, network = block_of(one_stage("none", cpe=True))
    cpe, mlp = network.get_submodule("stages.0.blocks.0.cpe"), network.get_submodule("stages.0.blocks.0.mlp")
    with torch.no_grad():
        mlp.fc2.weight.zero_()
        mlp.fc2.bias.zero_()
        kernel = cpe.weight.clone()
        kernel[:, :, 1, 1] += 1
    x = tokens(2, 4, 4, 20)
    assert close(block(x), convolved(x, kernel, cpe.bias, padding=1, groups=20))
    places = {name.split(".")[4] for name in network.state_dict() if name.startswith("stages.0.blocks.0.")}
    assert places == {"cpe", "mlp"}


def test_spachs_convolution_block_without_its_position_encoding_is_a_channel_mlp() -> None:
    block, network = block_of(one_stage("none", cpe=False))
    x = tokens(2, 4, 4, 20)
    assert torch.equal(block(x), network.get_submodule("stages.0.blocks.0.mlp")(x))


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("norm", ["layer_norm", "group_norm", "affine"])
@pytest.mark.parametrize("layer_scale", ["none", "mixer", "both"])
def test_a_block_is_x_and_gamma_f_of_the_normed_and_a_convolution_of_x_then_the_channel_mlp(name: str, norm: str, layer_scale: str) -> None:
    block, network = block_of(one_stage(name, cpe=True, forms={"norm": norm, "layer_scale": layer_scale, "norm_eps": 1e-3}))
    parts = {part: network.get_submodule(f"stages.0.blocks.0.{part}") for part in (f"branch.{name}", f"mixer.{name}", "cpe", "mlp")}
    around, mixer, cpe, mlp = (cast(Any, part) for part in parts.values())

    def normed(module: Any, x: Tensor) -> Tensor:
        if norm == "affine":
            return module.alpha * x + module.beta
        if norm == "group_norm":
            return F.layer_norm(x, x.shape[1:], eps=1e-5) * module.weight + module.bias
        return F.layer_norm(x, (20,), module.weight, module.bias, eps=1e-3)

    x = tokens(2, 4, 4, 20)
    gamma, mlp_gamma = around.scale if layer_scale != "none" else 1, mlp.scale if layer_scale == "both" else 1
    y = x + gamma * mixer(normed(around.norm, x)) + convolved(x, cpe.weight, cpe.bias, padding=1, groups=20)
    hidden = F.gelu(F.linear(normed(mlp.norm, y), mlp.fc1.weight, mlp.fc1.bias))
    assert torch.equal(block(x), y + mlp_gamma * F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias))


def test_a_spach_block_of_token_mlp_with_gamma_one_is_mixers_token_mixing() -> None:
    """Without position encoding, and where both have the same hidden width: of 16 tokens and 16 channels."""
    spach, with_gamma = block_of(one_stage("token_mlp", width=16, token_hidden="tokens", forms={"layer_scale": "mixer"}))
    mixer, without = block_of(one_stage("token_mlp", width=16, token_hidden="channels", forms={"layer_scale": "none"}))
    weights = with_gamma.state_dict()
    with torch.no_grad():
        weights.pop("stages.0.blocks.0.branch.token_mlp.scale").fill_(1)
    without.load_state_dict(weights)
    x = tokens(2, 4, 4, 16)
    assert torch.equal(spach(x), mixer(x))


def shuffled_patches(x_BCHW: Tensor, side: int) -> Tensor:
    B, C, H, W = x_BCHW.shape
    patches = x_BCHW.reshape(B, C, H // side, side, W // side, side).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.randperm(patches.shape[1], generator=torch.Generator().manual_seed(0))
    return patches[:, order].reshape(B, H // side, W // side, C, side, side).permute(0, 3, 1, 4, 2, 5).reshape(x_BCHW.shape)


@pytest.mark.parametrize("norm", ["layer_norm", "group_norm", "affine"])
def test_attention_alone_does_not_see_in_which_order_patches_stand(norm: str) -> None:
    forms = {"norm": norm, "stem_norm": norm, "final_norm": norm}
    network, x = filled(Network(one_stage("attention", "none", "attention", forms=forms))), images()
    assert (shuffled_patches(x, 2) - x).abs().max() > 1
    assert close(network(shuffled_patches(x, 2)), network(x))


@pytest.mark.parametrize(
    ("names", "cpe"), [(("attention", "attention"), True), (("attention", "token_mlp"), False), (("token_linear",), False)]
)
def test_position_encoding_and_every_other_mixer_see_the_order_of_patches(names: tuple[str, ...], cpe: bool) -> None:
    network, x = filled(Network(one_stage(*names, cpe=cpe))), images()
    assert (network(shuffled_patches(x, 2)) - network(x)).abs().max() > 1e-3


@pytest.mark.parametrize("name", MIXERS)
def test_sharing_changes_parameters_and_neither_work_nor_outputs(name: str) -> None:
    own, shared = (one_stage(name, name, name, cpe=True, sharing=sharing) for sharing in (False, True))
    single = cost(one_stage(name, cpe=True))
    assert cost(own)[::2] == cost(shared)[::2]  # multiply-adds and activations
    mixer = sum(parameter.numel() for parameter in Network(own).get_submodule(f"stages.0.blocks.0.mixer.{name}").parameters())
    assert cost(own).params - cost(shared).params == 2 * mixer
    assert cost(shared).params > single.params  # norms, scales, encodings and channel MLPs are each block's own
    one, three = filled(Network(shared)), filled(Network(own), seed=5)
    weights = dict(one.state_dict())
    moved = {key: weights.pop(key) for key in list(weights) if key.startswith(f"stages.0.shared.{name}.")}
    for key, j in itertools.product(moved, range(3)):
        weights[key.replace("stages.0.shared", f"stages.0.blocks.{j}.mixer")] = moved[key]
    three.load_state_dict(weights)
    assert torch.equal(three(images()), one(images()))


@pytest.mark.parametrize("name", ["none", "conv", "attention", "s2_shift", "s2_shift_v2", "as_shift"])
def test_parameters_of_these_mixers_are_the_same_at_every_resolution(name: str) -> None:
    """In number, and the weights of one resolution run at another."""
    small, large = (one_stage(name, name, cpe=True, frame=dataclasses.replace(BASE.frame, resolution=side)) for side in (8, 14))
    assert cost(small).params == cost(large).params
    assert cost(small).macs < cost(large).macs
    at_small, at_large = filled(Network(small)), filled(Network(large), seed=5)
    at_large.load_state_dict(at_small.state_dict())
    assert torch.equal(at_large(images(14)), at_small(images(14)))


@pytest.mark.parametrize(
    ("name", "more"), [("token_mlp", 2 * 10 * (25 - 16) + (25 - 16)), ("token_linear", 25**2 + 25 - 16**2 - 16), ("permute", 0)]
)
def test_parameters_of_these_mixers_belong_to_a_grid(name: str, more: int) -> None:
    """Token MLP (hidden width of half the channels) and token linear in number, permute in what its segments are."""
    small, large = (one_stage(name, frame=dataclasses.replace(BASE.frame, resolution=side)) for side in (8, 10))
    assert cost(large).params - cost(small).params == more
    with pytest.raises(ValueError, match=f"^{name}: .* another grid: got 5x5; accepted 4x4"):
        Network(small)(torch.zeros(1, 3, 10, 10))


@pytest.mark.parametrize(
    ("patch", "stages"),
    [(7, ((192, 4), (384, 14))), (7, ((256, 7), (512, 17))), (14, ((384, 18),))],
    ids=["Small/7", "Medium/7", "Small/14"],
)
def test_vip_and_s2_mlp_v2_of_one_size_do_the_same_work(patch: int, stages: tuple[tuple[int, int], ...]) -> None:
    macs = {
        name: cost(
            Architecture(Frame(224, 3, 1000), patch, tuple(Stage(width, (name,) * depth, 3.0) for width, depth in stages), stem_norm="none")
        ).macs
        for name in ("permute", "s2_shift_v2")
    }
    assert macs["permute"] == macs["s2_shift_v2"]


def test_every_norm_has_its_law_here() -> None:
    assert set(NORMS) == {"none", "layer_norm", "group_norm", "affine"}
    x = tokens(2, 3, 3, 8)
    assert torch.equal(NORMS["none"](8, 1e-6)(x), x)
    norm = filled(NORMS["layer_norm"](8, 1e-3))
    assert torch.equal(norm(x), F.layer_norm(x, (8,), norm.weight, norm.bias, eps=1e-3))
