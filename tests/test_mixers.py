"""The contract of every mixer in `MIXERS`, and what each of the six is equal to.

The contract kit is not told about a new mixer: it reads `options`, finds values for them, and asks for a slow reference.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import references
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tracing import torch_macs, trace

from nas.architecture import Stage
from nas.layers import own_part
from nas.mixers import MIXERS
from nas.mixers.as_shift import GroupNorm1, as_shift
from nas.mixers.s2_shift import s2_shift

WIDTH, WIDER = 28, 56  # every side of GRIDS divides both, as do 4 (shift groups) and the head widths tried; their chunks of a fifth nest
GRIDS = ((4, 4), (7, 4), (2, 7))
# Values to try for an option of a mixer, by the type of the field of Stage; those that a mixer refuses are left out.
TRIED = {"int": (3, 7, 5, 14), "float": (0.5, 2.0), "bool": (False, True)}


def samples(name: str, width: int = WIDTH, grid: tuple[int, int] = GRIDS[0]) -> list[dict[str, Any]]:
    """Options that the mixer takes at this width and grid."""
    types = {field.name: str(field.type) for field in dataclasses.fields(Stage)}
    unknown = set(MIXERS[name].options) - set(types)
    assert not unknown, f"{name} reads {unknown}: add the field to architecture.Stage"
    values = [next(tried for kind, tried in TRIED.items() if kind in types[option].lower()) for option in MIXERS[name].options]
    return [
        options
        for choice in itertools.product(*values)
        if fits(name, width, grid, options := dict(zip(MIXERS[name].options, choice, strict=True)))
    ]


def fits(name: str, width: int, grid: tuple[int, int], options: dict[str, Any]) -> bool:
    try:
        with torch.device("meta"):
            MIXERS[name](width, grid, **options)
    except ValueError:
        return False
    return True


def build(
    name: str, width: int = WIDTH, grid: tuple[int, int] = GRIDS[0], options: dict[str, Any] | None = None, seed: int = 0
) -> nn.Module:
    """The mixer in float64, its parameters away from the zeros and ones they may begin with."""
    torch.manual_seed(seed)
    mixer = MIXERS[name](width, grid, **(samples(name, width, grid)[0] if options is None else options)).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return mixer


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=MIXERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


# ------------------------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grid", GRIDS)
def test_shape_and_dtype_are_kept_and_the_input_too(name: str, grid: tuple[int, int], dtype: torch.dtype) -> None:
    x = tokens(2, *grid, WIDTH).to(dtype)
    before = x.clone()
    y = build(name, grid=grid).to(dtype)(x)
    assert y.shape == x.shape
    assert y.dtype == dtype
    assert torch.equal(x, before)


@pytest.mark.parametrize("width", [1, 2, 6, 16, 20, 28, 30])
@pytest.mark.parametrize("grid", [(1, 1), (3, 3), (4, 7), (5, 2)])
def test_a_shape_is_taken_or_named_in_the_refusal(name: str, width: int, grid: tuple[int, int]) -> None:
    for choice in itertools.product(*[(3, 4, 7)] * len(MIXERS[name].options)):
        options = dict(zip(MIXERS[name].options, choice, strict=True))
        try:
            mixer = MIXERS[name](width, grid, **options)
        except ValueError as error:
            shown = [str(width), f"{grid[0]}x{grid[1]}", *map(str, choice)]
            assert any(each in str(error) for each in shown)
            assert str(error).startswith(f"{name}: ")
            assert "\n" not in str(error)
        else:
            assert mixer(torch.randn(1, *grid, width)).shape == (1, *grid, width)


def test_another_grid_with_as_many_tokens_is_taken_or_refused_by_its_shape(name: str) -> None:
    mixer, x = build(name, grid=(4, 4)), tokens(1, 2, 8, WIDTH)
    try:
        assert mixer(x).shape == x.shape
    except ValueError as error:
        assert "2x8" in str(error)


def test_every_parameter_gets_a_gradient(name: str) -> None:
    mixer = build(name)
    (mixer(tokens(2, 4, 4, WIDTH)) * tokens(2, 4, 4, WIDTH, seed=2)).sum().backward()
    assert list(mixer.parameters())
    for parameter_name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


def test_samples_do_not_see_each_other_and_positions_do(name: str) -> None:
    x = tokens(3, 4, 4, WIDTH).requires_grad_()
    y = build(name)(x)
    (gradient,) = torch.autograd.grad(y[1].square().sum(), x, retain_graph=True)
    assert not gradient[[0, 2]].any()
    reached = [torch.autograd.grad(y[1, h, w].square().sum(), x, retain_graph=True)[0][1] for h, w in ((0, 0), (1, 2))]
    assert all(gradient.abs().sum(-1).count_nonzero() > 1 for gradient in reached)


@pytest.mark.parametrize("grid", GRIDS)
def test_equals_the_slow_reference(name: str, grid: tuple[int, int]) -> None:
    assert name in references.REFERENCES, f"add a slow reference of {name} to tests/references.py: its paper's equation, by loops"
    x = tokens(2, *grid, WIDTH)
    for options in samples(name, grid=grid):
        mixer = build(name, grid=grid, options=options)
        expected = torch.tensor([references.REFERENCES[name](mixer, sample) for sample in x.tolist()], dtype=torch.float64)
        # the order of summation differs
        torch.testing.assert_close(mixer(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("width", [WIDTH, WIDER])
def test_cost_equals_tracing_and_the_count_by_hand(name: str, width: int, grid: tuple[int, int]) -> None:
    assert name in references.HAND_COUNTS, f"add the multiply-adds and parameters of {name}, written out by hand, to tests/references.py"
    for options in samples(name, width, grid):
        cost = MIXERS[name].cost(width, grid, **options)
        shape = (1, *grid, width)
        assert cost == trace(lambda options=options: MIXERS[name](width, grid, **options), *shape)
        assert cost.macs == torch_macs(lambda options=options: MIXERS[name](width, grid, **options), *shape)
        assert (cost.macs, cost.params) == references.HAND_COUNTS[name](width, *grid, **options)
        assert cost.params == sum(parameter.numel() for parameter in build(name, width, grid, options).parameters())


def test_same_seed_same_weights_and_a_round_trip_through_the_state_dict(name: str) -> None:
    options = samples(name)[0]
    first, again, other = (torch.manual_seed(seed) and MIXERS[name](WIDTH, (4, 4), **options) for seed in (3, 3, 4))
    weights = first.state_dict()
    assert all(torch.equal(weight, again.state_dict()[key]) for key, weight in weights.items())
    x = torch.randn(2, 4, 4, WIDTH)
    assert not torch.equal(first(x), other(x))
    other.load_state_dict(weights)
    assert torch.equal(first(x), other(x))


def test_no_buffers(name: str) -> None:
    assert not list(build(name).buffers())


def test_exports(name: str) -> None:
    mixer, x = build(name).eval(), tokens(2, 4, 4, WIDTH)
    assert torch.equal(torch.export.export(mixer, (x,)).module()(x), mixer(x))


# ------------------------------------------------------------------------------------- narrower mixers, cut from wider ones


def cut(narrow: nn.Module, large: nn.Module) -> None:
    with torch.no_grad():
        for parameter_name, parameter in narrow.named_parameters():
            parameter.copy_(own_part(narrow, parameter_name, large.get_parameter(parameter_name)))


def keep_only_the_part_of(narrow: nn.Module, large: nn.Module) -> None:
    """Sets every entry of the large mixer to zero that is not the narrow one's: which they are, a count through own_part tells."""
    for parameter_name, parameter in large.named_parameters():
        places = own_part(narrow, parameter_name, torch.arange(parameter.numel()).reshape(parameter.shape))
        assert places.unique().numel() == places.numel(), f"{parameter_name}: an entry is taken twice"
        kept = torch.zeros(parameter.numel(), dtype=torch.bool)
        kept[places.flatten()] = True
        with torch.no_grad():
            parameter.mul_(kept.reshape(parameter.shape))


# Segments of channels hang on the width, so a narrow mixer's leading channels are other ones than the wide one's; it has its own test below.
OTHERWISE_CUT = {"permute"}


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in OTHERWISE_CUT])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_narrow_mixer_is_the_large_one_with_all_else_zero(name: str, grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics over channels are the one thing that must differ with the width: norms are switched off."""
    monkeypatch.setattr(F, "layer_norm", lambda x, *_, **__: x)
    monkeypatch.setattr(F, "group_norm", lambda x, *_, **__: x)
    both = [options for options in samples(name, WIDTH, grid) if fits(name, WIDER, grid, options)]
    for options in both:
        narrow, large = build(name, WIDTH, grid, options), build(name, WIDER, grid, options, seed=5)
        cut(narrow, large)
        keep_only_the_part_of(narrow, large)
        x = tokens(2, *grid, WIDTH)
        torch.testing.assert_close(
            large(F.pad(x, (0, WIDER - WIDTH)))[..., :WIDTH], narrow(x), rtol=1e-10, atol=1e-12
        )  # sums of other lengths


def test_of_a_mixer_of_its_own_size_all_is_taken(name: str) -> None:
    mixer, same = build(name), build(name, seed=5)
    for parameter_name, parameter in same.named_parameters():
        assert own_part(mixer, parameter_name, parameter) is parameter


def test_a_small_kernel_is_the_centre_of_a_large_one() -> None:
    small, large = (MIXERS["conv"](WIDTH, (7, 7), kernel=kernel).double() for kernel in (3, 7))
    cut(small, large)
    with torch.no_grad():
        for i, j in itertools.product(range(7), repeat=2):
            if max(abs(i - 3), abs(j - 3)) > 1:
                large.weight[:, :, i, j] = 0
    x = tokens(2, 7, 7, WIDTH)
    torch.testing.assert_close(small(x), large(x), rtol=1e-10, atol=1e-12)  # another kernel, another order of summation


def test_permute_keeps_position_and_channel_within_the_segment() -> None:
    height, columns = 7, 4
    narrow, large = build("permute", WIDTH, (height, columns)), build("permute", WIDER, (height, columns), seed=5)
    cut(narrow, large)
    for layer, side in (("mlp_h", height), ("mlp_w", columns)):
        small, big = narrow.get_submodule(layer).weight, large.get_submodule(layer).weight
        size, whole = WIDTH // side, WIDER // side
        for p, q in itertools.product(range(side), repeat=2):
            for s, t in itertools.product(range(size), repeat=2):
                assert small[p * size + s, q * size + t] == big[p * whole + s, q * whole + t]
    assert torch.equal(narrow.proj.weight, large.proj.weight[:WIDTH, :WIDTH])
    assert torch.equal(
        narrow.reweight_fc2.weight.unflatten(0, (WIDTH, 3)), large.reweight_fc2.weight.unflatten(0, (WIDER, 3))[:WIDTH, :, : WIDTH // 4]
    )


# --------------------------------------------------------------------------------------- shifts are fixed convolutions


def depthwise(x_BHWC: Tensor, kernels: Tensor, mode: str) -> Tensor:
    """Cross-correlation with one kernel per channel; `mode` is the padding's."""
    pads = tuple(side // 2 for side in kernels.shape[:0:-1] for _ in range(2))
    padded = F.pad(x_BHWC.permute(0, 3, 1, 2), pads, mode=mode)
    return F.conv2d(padded, kernels.unsqueeze(1), groups=len(kernels)).permute(0, 2, 3, 1)


def s2_kernels(width: int) -> Tensor:
    kernels = torch.zeros(width, 3, 3, dtype=torch.float64)
    for group, (i, j) in enumerate(((0, 1), (2, 1), (1, 0), (1, 2))):
        kernels[group * width // 4 : (group + 1) * width // 4, i, j] = 1
    return kernels


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 2), (5, 3), (8, 8)])
def test_s2_shift_is_a_fixed_convolution_with_replicated_borders(grid: tuple[int, int]) -> None:
    x = tokens(2, *grid, 12)
    assert torch.equal(s2_shift(x), depthwise(x, s2_kernels(12), "replicate"))  # one factor is 1, the others 0: exact


def test_s2_shift_with_zero_padding_differs_at_the_border_only() -> None:
    x = tokens(2, 6, 6, 12)
    difference = s2_shift(x) - depthwise(x, s2_kernels(12), "constant")
    assert not difference[:, 1:-1, 1:-1].any()
    for border in (difference[:, 0], difference[:, -1], difference[:, :, 0], difference[:, :, -1]):
        assert border.abs().max() > 0.5


def test_s2_shift_does_not_repeat_a_row_over_the_map_as_the_listing_does() -> None:
    """The paper's listing assigns overlapping slices of one tensor."""
    x = tokens(1, 14, 14, 16)
    listing = x.clone()
    listing[:, 1:, :, :4] = listing[:, :-1, :, :4]
    listing[:, :-1, :, 4:8] = listing[:, 1:, :, 4:8]
    listing[:, :, 1:, 8:12] = listing[:, :, :-1, 8:12]
    listing[:, :, :-1, 12:] = listing[:, :, 1:, 12:]
    expected = torch.tensor([references.s2_shifted(sample) for sample in x.tolist()], dtype=torch.float64)
    assert torch.equal(s2_shift(x), expected)
    assert not torch.equal(listing, expected)


@pytest.mark.parametrize("width", [5, 9, 17, 20, 28, 96])
@pytest.mark.parametrize("dim", [1, 2])
def test_as_shift_is_a_fixed_convolution_with_zero_padding(width: int, dim: int) -> None:
    kernels = torch.zeros(width, 5, dtype=torch.float64)
    for c in range(width):
        kernels[c, 4 - c // math.ceil(width / 5)] = 1
    kernels = kernels.unsqueeze(2 if dim == 1 else 1)
    for grid in ((1, 1), (2, 3), (6, 4)):
        x = tokens(2, *grid, width)
        assert torch.equal(as_shift(x, dim), depthwise(x, kernels, "constant"))


def test_as_shift_takes_the_widths_it_says() -> None:
    def chunks(width: int) -> int:
        return len(torch.empty(width).chunk(5))

    assert [width for width in range(1, 60) if fits("as_shift", width, (4, 4), {})] == [
        width for width in range(1, 60) if chunks(width) == 5
    ]
    assert [width for width in range(1, 60) if chunks(width) == 5] == [5, 9, 10, 13, 14, 15, *range(17, 60)]


def test_group_norm_is_torchs_and_layer_norm_on_a_single_token_only() -> None:
    norm, single, several = GroupNorm1(12).double(), tokens(2, 1, 1, 12), tokens(2, 3, 3, 12)
    for x in (single, several):
        expected = F.group_norm(x.permute(0, 3, 1, 2), 1, eps=1e-5).permute(0, 2, 3, 1)
        torch.testing.assert_close(norm(x), expected, rtol=1e-10, atol=1e-12)  # another order of summation
    torch.testing.assert_close(norm(single), F.layer_norm(single, (12,), eps=1e-5), rtol=1e-10, atol=1e-12)
    assert (norm(several) - F.layer_norm(several, (12,), eps=1e-5)).abs().max() > 0.1


# ---------------------------------------------------------------------------------------------- what mixes which tokens


def test_attention_commutes_with_permutations_of_tokens_and_token_mlp_does_not() -> None:
    x = tokens(2, 4, 4, WIDTH)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def reordered(y: Tensor) -> Tensor:
        return y.flatten(1, 2)[:, order].reshape(y.shape)

    attention, token_mlp = build("attention"), build("token_mlp")
    torch.testing.assert_close(attention(reordered(x)), reordered(attention(x)), rtol=1e-10, atol=1e-12)  # another order of summation
    assert (token_mlp(reordered(x)) - reordered(token_mlp(x))).abs().max() > 0.1


def test_token_mlp_is_a_convolution_with_the_whole_map_then_a_shared_1x1_convolution() -> None:
    mixer, x = build("token_mlp", grid=(4, 4)), tokens(2, 4, 4, WIDTH)
    hidden = mixer.fc1.out_features
    kernels = mixer.fc1.weight.reshape(hidden, 1, 4, 4).repeat(WIDTH, 1, 1, 1)  # output channels are channel-major
    y = F.gelu(F.conv2d(x.permute(0, 3, 1, 2), kernels, mixer.fc1.bias.repeat(WIDTH), groups=WIDTH))
    y = F.conv2d(y, mixer.fc2.weight.repeat(WIDTH, 1)[..., None, None], mixer.fc2.bias.repeat(WIDTH), groups=WIDTH)
    torch.testing.assert_close(
        mixer(x), y.reshape(2, WIDTH, 4, 4).permute(0, 2, 3, 1), rtol=1e-10, atol=1e-12
    )  # another order of summation


def test_a_convolution_with_one_kernel_for_all_channels_is_a_banded_token_linear() -> None:
    mixer, x = MIXERS["conv"](WIDTH, (4, 4), kernel=3).double(), tokens(2, 4, 4, WIDTH)
    with torch.no_grad():
        mixer.weight.copy_(mixer.weight[:1].expand_as(mixer.weight))
        mixer.bias.zero_()
    band = torch.zeros(4, 4, 4, 4, dtype=torch.float64)
    for h, w, i, j in itertools.product(range(4), range(4), range(3), range(3)):
        if 0 <= h + i - 1 < 4 and 0 <= w + j - 1 < 4:
            band[h, w, h + i - 1, w + j - 1] = mixer.weight[0, 0, i, j]
    torch.testing.assert_close(mixer(x), torch.einsum("hwij,bijc->bhwc", band, x), rtol=1e-10, atol=1e-12)  # another order of summation


# ---------------------------------------------------------------------------------------------------------- permute


def branch(mixer: nn.Module, x: Tensor, which: int) -> Tensor:
    """One of permute's branches (0 height, 1 width, 2 channels): the projection made the identity and the softmax over branches a choice."""
    with torch.no_grad():
        mixer.proj.weight.copy_(torch.eye(x.shape[-1]))
        mixer.proj.bias.zero_()
        mixer.reweight_fc2.weight.zero_()
        mixer.reweight_fc2.bias.copy_(F.one_hot(torch.tensor(which), 3).mul(1000.0).repeat(x.shape[-1]))
    return mixer(x)


def test_permutes_height_branch_is_its_width_branch_of_the_transposed() -> None:
    mixer, x = build("permute"), tokens(2, 4, 4, WIDTH)
    with torch.no_grad():
        mixer.mlp_h.weight.copy_(mixer.mlp_w.weight)
    # the same products on rows in another order
    torch.testing.assert_close(branch(mixer, x, 0), branch(mixer, x.transpose(1, 2), 1).transpose(1, 2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_permute_with_a_kronecker_weight_mixes_along_one_axis(grid: tuple[int, int]) -> None:
    mixer, x = build("permute", grid=grid), tokens(2, *grid, WIDTH)
    for which, layer, equation in ((0, mixer.mlp_h, "ph,bhwc->bpwc"), (1, mixer.mlp_w, "pw,bhwc->bhpc")):
        axial = tokens(grid[which], grid[which], seed=7)
        with torch.no_grad():
            layer.weight.copy_(torch.kron(axial, torch.eye(WIDTH // grid[which], dtype=torch.float64)))
        torch.testing.assert_close(
            branch(mixer, x, which), torch.einsum(equation, axial, x), rtol=1e-10, atol=1e-12
        )  # zeros are summed too


def test_permute_without_reweighting_is_the_mean_of_its_branches() -> None:
    mixer, x = build("permute"), tokens(2, 4, 4, WIDTH)
    mean = sum(branch(mixer, x, which) for which in range(3)) / 3
    with torch.no_grad():
        mixer.reweight_fc2.bias.zero_()
    torch.testing.assert_close(mixer(x), mean, rtol=1e-10, atol=1e-12)  # thirds are rounded
