"""The contract of every mixer in `MIXERS`, what a narrower one has of a wider one, and what each refuses.

The contract kit is not told about a new mixer: it reads the options that its line declares, finds values for them, and asks for a slow reference.
It is held to honest mixers from outside as well: one without parameters, one whose gain begins at one (`toy_mixers.py`).
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import typing
from typing import Any, Literal

import onnx
import pydantic
import pytest
import references
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_mixers import TOY_COUNTS, TOY_REFERENCES, TOYS
from tracing import torch_macs, trace

from nas.export.onnx_file import run_onnx, to_onnx
from nas.networks.blocks import GatherMerge
from nas.networks.layers import own_slice
from nas.networks.mixers import MIXERS, Option
from nas.networks.mixers.as_shift import as_shift
from nas.networks.mixers.conv import Conv, depthwise

# Every side of GRIDS divides all three, as do 4 (shift groups) and the heads tried; their chunks of a fifth nest.
WIDTH, WIDER, WIDEST = 28, 56, 112
GRIDS = ((4, 4), (7, 4), (2, 7))
OTHER_GRIDS = ((2, 8), (8, 2), (1, 16), (1, 1), (4, 5), (5, 4), (3, 3), (8, 8), (3, 4), (3, 5), (7, 7))
# Values to try for an option; those that its type or the mixer refuses are left out.
TRIED: tuple[Any, ...] = (False, True, 3, 7, 5, 14, 0.5, 2.0)


@pytest.fixture(params=[*MIXERS, *TOYS])
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param in TOYS:
        monkeypatch.setitem(MIXERS, request.param, TOYS[request.param])
        monkeypatch.setitem(references.REFERENCES, request.param, TOY_REFERENCES[request.param])
        monkeypatch.setitem(references.HAND_COUNTS, request.param, TOY_COUNTS[request.param])
    return request.param


def values_of(option: Option, tried: tuple[Any, ...] = TRIED) -> list[Any]:
    if typing.get_origin(option.type) is Literal:
        return list(typing.get_args(option.type))
    accepted = []
    for value in tried:
        with contextlib.suppress(pydantic.ValidationError):
            if type(pydantic.TypeAdapter(option.type).validate_python(value)) is type(value):
                accepted.append(value)
    return accepted


def choices(name: str, tried: tuple[Any, ...] = TRIED) -> list[dict[str, Any]]:
    """All values of all options, whether the mixer takes them or not; of options that say the same one is given."""
    options = MIXERS[name].options
    ways = [
        [first, *(other for other in options if options[other].instead_of == first)]
        for first, option in options.items()
        if option.instead_of is None
    ]
    return [
        dict(zip(given, choice, strict=True))
        for given in itertools.product(*ways)
        for choice in itertools.product(*(values_of(options[option], tried) for option in given))
    ]


def samples(name: str, width: int = WIDTH, grid: tuple[int, int] = GRIDS[0]) -> list[dict[str, Any]]:
    """Options that the mixer takes at this width and grid."""
    return [options for options in choices(name) if fits(name, width, grid, options)]


def fits(name: str, width: int, grid: tuple[int, int], options: dict[str, Any]) -> bool:
    try:
        with torch.device("meta"):
            MIXERS[name].layer(width, grid, **options)
    except ValueError:
        return False
    return True


def build(
    name: str, width: int = WIDTH, grid: tuple[int, int] = GRIDS[0], options: dict[str, Any] | None = None, seed: int = 0
) -> nn.Module:
    """The mixer in float64, its parameters away from the zeros and ones they may begin with."""
    torch.manual_seed(seed)
    mixer = MIXERS[name].layer(width, grid, **(samples(name, width, grid)[0] if options is None else options)).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return mixer


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grid", GRIDS)
def test_shape_and_dtype_are_kept_and_the_input_too(name: str, grid: tuple[int, int], dtype: torch.dtype) -> None:
    for options in samples(name, grid=grid):
        x = tokens(2, *grid, WIDTH).to(dtype)
        before = x.clone()
        y = build(name, grid=grid, options=options).to(dtype)(x)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert torch.equal(x, before)


@pytest.mark.parametrize("width", [1, 2, 6, 16, 20, 28, 30])
@pytest.mark.parametrize("grid", [(1, 1), (3, 3), (4, 7), (5, 2)])
def test_a_shape_is_taken_or_named_in_the_refusal(name: str, width: int, grid: tuple[int, int]) -> None:
    for options in choices(name, tried=(3, 4, 7, 0.5, True)):
        try:
            mixer = MIXERS[name].layer(width, grid, **options)
        except ValueError as error:
            shown = [str(width), f"{grid[0]}x{grid[1]}", *map(str, options.values())]
            assert any(each in str(error) for each in shown)
            assert str(error).startswith(f"{name}: ")
            assert "\n" not in str(error)
        else:
            assert mixer(torch.randn(1, *grid, width)).shape == (1, *grid, width)


@pytest.mark.parametrize("other", OTHER_GRIDS)
def test_weights_of_one_grid_run_on_another_as_if_made_for_it_or_name_it_in_the_refusal(name: str, other: tuple[int, int]) -> None:
    x = tokens(2, *other, WIDTH)
    for options in samples(name):
        mixer = build(name, grid=(4, 4), options=options)
        try:
            y = mixer(x)
        except ValueError as error:
            assert f"{other[0]}x{other[1]}" in str(error)
        else:
            assert torch.equal(y, build(name, grid=other, options=options)(x))


def test_every_parameter_gets_a_gradient(name: str) -> None:
    for options in samples(name):
        mixer = build(name, options=options)
        (mixer(tokens(2, 4, 4, WIDTH).requires_grad_()) * tokens(2, 4, 4, WIDTH, seed=2)).sum().backward()
        for parameter_name, parameter in mixer.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name


def test_samples_do_not_see_each_other_and_positions_do(name: str) -> None:
    x = tokens(3, 4, 4, WIDTH).requires_grad_()
    for options in samples(name):
        y = build(name, options=options)(x)
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
        cost = MIXERS[name].layer.cost(width, grid, **options)
        shape = (1, *grid, width)
        assert cost == trace(lambda options=options: MIXERS[name].layer(width, grid, **options), *shape)
        assert cost.macs == torch_macs(lambda options=options: MIXERS[name].layer(width, grid, **options), *shape)
        assert (cost.macs, cost.params) == references.HAND_COUNTS[name](width, *grid, **options)
        assert cost.params == sum(parameter.numel() for parameter in build(name, width, grid, options).parameters())


def test_same_seed_same_weights_and_a_round_trip_through_the_state_dict(name: str) -> None:
    x = tokens(2, 4, 4, WIDTH)
    for options in samples(name):
        first, again, other = (build(name, options=options, seed=seed) for seed in (3, 3, 4))
        assert torch.equal(first(x), again(x))
        other.load_state_dict(first.state_dict())
        assert torch.equal(first(x), other(x))


def test_bfloat16_gives_float32s_outputs_and_gradients_up_to_rounding(name: str) -> None:
    weight = tokens(2, 4, 4, WIDTH, seed=2).float()
    for options in samples(name):
        mixer, found = build(name, options=options).float(), list[list[Tensor]]()
        for wanted in (False, True):
            x = tokens(2, 4, 4, WIDTH).float().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=wanted):
                y = mixer(x)
            found.append([y.float(), *torch.autograd.grad((y.float() * weight).sum(), [x, *mixer.parameters()])])
        for exact, rounded in zip(*found, strict=True):
            assert (rounded - exact).norm() < 0.03 * exact.norm()  # a rounding is up to 0.4%


def test_no_buffers(name: str) -> None:
    assert not any(list(build(name, options=options).buffers()) for options in samples(name))


def test_exports(name: str) -> None:
    for options in samples(name):
        mixer, x = build(name, options=options).eval(), tokens(2, 4, 4, WIDTH)
        assert torch.equal(torch.export.export(mixer, (x,)).module()(x), mixer(x))


class Together(nn.Module):
    """Mixers side by side on one input, since an export takes a second whatever it exports."""

    def __init__(self, mixers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.mixers = nn.ModuleDict(mixers)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return torch.stack([mixer(x_BHWC) for mixer in self.mixers.values()], dim=1)


def as_onnx(mixers: dict[str, nn.Module]) -> tuple[Tensor, dict[str, list[str]]]:
    """What onnxruntime answers, a mixer after the other, one and three samples at a time, and the kinds of operators of each mixer's graph."""
    content = to_onnx(Together(mixers).eval(), tokens(2, 4, 4, WIDTH).float(), {})
    x, run = tokens(4, 4, 4, WIDTH).float(), run_onnx(content)
    operators: dict[str, list[str]] = {name: [] for name in mixers}
    for node in onnx.load_from_string(content).graph.node:
        for scope in {
            each.value.split("/mixers.")[1].split(":")[0].split(".")[0] for each in node.metadata_props if "/mixers." in each.value
        }:
            operators[scope].append(node.op_type)
    return torch.cat([run(x[:1]), run(x[1:])]), operators


@pytest.fixture(scope="module")
def together() -> tuple[dict[str, nn.Module], dict[str, Tensor], dict[str, list[str]]]:
    """Every mixer, its answers in onnxruntime, its operators there. Where not all can be exported at once, none."""
    mixers = {name: build(name).float() for name in MIXERS}
    try:
        answers, operators = as_onnx(mixers)
    except ValueError:
        return mixers, {}, {}
    return mixers, dict(zip(mixers, answers.unbind(1), strict=True)), operators


@pytest.mark.whole
@pytest.mark.parametrize("name", MIXERS)
def test_exports_to_onnx(name: str, together: Any) -> None:
    mixers, answers, _ = together
    got = answers[name] if answers else as_onnx({name: mixers[name]})[0][:, 0]  # one by one, to tell which cannot
    torch.testing.assert_close(got, mixers[name](tokens(4, 4, 4, WIDTH).float()), rtol=1e-4, atol=1e-5)  # in another order of summation


@pytest.mark.whole
@pytest.mark.parametrize(("name", "shifts"), [("s2_shift", 1), ("s2_shift_v2", 2), ("as_shift", 2)])
def test_a_shift_is_a_few_moves_in_onnx(name: str, shifts: int, together: Any) -> None:
    """An S2 move: a cut, a gather for each group, a joint. An axial one: a depthwise convolution between two turns of the axes."""
    graph = together[2][name]
    moves = [each for each in graph if each in ("Split", "Concat", "Pad", "Slice", "GatherElements", "GatherND", "ScatterND", "Where")]
    if name == "as_shift":
        assert not moves and graph.count("Conv") == shifts and graph.count("Transpose") <= 2 * shifts
    else:
        thirds = 1 + 3 if name == "s2_shift_v2" else 0  # cutting into thirds, and the weights of each
        assert len([each for each in moves if each not in ("Split", "Concat")]) <= thirds
        assert graph.count("Split") + graph.count("Concat") <= 2 * shifts + thirds and "Conv" not in graph


def test_every_value_of_every_option_is_tried(name: str) -> None:
    """The kit itself: an option that no test above reads, or a word of a list that no mixer takes, would stand here."""
    tried = [(option, value) for options in samples(name) for option, value in options.items()]
    for option, declared in MIXERS[name].options.items():
        values = [value for known, value in tried if known == option]
        assert values
        if typing.get_origin(declared.type) is Literal:
            assert set(values) == set(typing.get_args(declared.type))


def test_an_option_left_out_has_the_value_that_its_line_declares(name: str) -> None:
    for function in (MIXERS[name].layer, MIXERS[name].layer.cost):
        parameters = inspect.signature(function).parameters
        assert set(parameters) == {"width", "grid", *MIXERS[name].options}
        for option, declared in MIXERS[name].options.items():
            assert declared.required or parameters[option].default in (declared.default, inspect.Parameter.empty)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_narrow_mixer_is_a_part_of_a_wider_one_and_that_of_a_still_wider_one(name: str, grid: tuple[int, int]) -> None:
    """Which entries it has, a count through them tells: none twice, and the same ones by way of a width between."""
    for options in samples(name, WIDTH, grid):
        if fits(name, WIDER, grid, options) and fits(name, WIDEST, grid, options):
            narrow, wider, widest = (build(name, width, grid, options) for width in (WIDTH, WIDER, WIDEST))
            for parameter_name, parameter in widest.named_parameters():
                entries = torch.arange(parameter.numel()).reshape(parameter.shape)
                own = own_slice(narrow, parameter_name, entries)
                assert own.shape == narrow.get_parameter(parameter_name).shape
                assert own.unique().numel() == own.numel()
                assert torch.equal(own, own_slice(narrow, parameter_name, own_slice(wider, parameter_name, entries)))
                assert own_slice(widest, parameter_name, entries) is entries


# ------------------------------------------------------------------------------------- narrower mixers, cut from wider ones


def cut(narrow: nn.Module, large: nn.Module) -> None:
    with torch.no_grad():
        for parameter_name, parameter in narrow.named_parameters():
            parameter.copy_(own_slice(narrow, parameter_name, large.get_parameter(parameter_name)))


def keep_only_the_part_of(narrow: nn.Module, large: nn.Module) -> None:
    """Sets every entry of the large mixer to zero that is not the narrow one's: which they are, a count through own_slice tells."""
    for parameter_name, parameter in large.named_parameters():
        places = own_slice(narrow, parameter_name, torch.arange(parameter.numel()).reshape(parameter.shape))
        assert places.unique().numel() == places.numel(), f"{parameter_name}: an entry is taken twice"
        kept = torch.zeros(parameter.numel(), dtype=torch.bool)
        kept[places.flatten()] = True
        with torch.no_grad():
            parameter.mul_(kept.reshape(parameter.shape))


# Not permute: its segments hang on the width, so a narrow one's leading channels are other ones than the wide one's; it has its own test below.
@pytest.mark.parametrize("name", ["conv", "attention", "token_mlp", "token_linear", "s2_shift", "s2_shift_v2", "as_shift"])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_narrow_mixer_is_the_large_one_with_all_else_zero(name: str, grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What must differ with the width is switched off: statistics over channels, and attention's scale by the width of a head."""
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: attend(q, k, v, scale=1.0))
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


def test_a_narrow_gathering_merge_is_the_large_one_with_all_else_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mixer, but its channels are in groups too: those of the four neighbours."""
    monkeypatch.setattr(F, "layer_norm", lambda x, *_, **__: x)
    torch.manual_seed(0)
    narrow, large = (GatherMerge(width, 2 * width, (2, 2)).double() for width in (8, 12))
    for parameter in large.parameters():
        torch.nn.init.normal_(parameter)
    cut(narrow, large)
    keep_only_the_part_of(narrow, large)
    x = tokens(2, 4, 4, 8)
    torch.testing.assert_close(large(F.pad(x, (0, 4)))[..., :16], narrow(x), rtol=1e-10, atol=1e-12)  # sums of other lengths


def test_a_small_kernel_is_the_centre_of_a_large_one() -> None:
    small, large = (MIXERS["conv"].layer(WIDTH, (7, 7), kernel=kernel).double() for kernel in (3, 7))
    cut(small, large)
    with torch.no_grad():
        for i, j in itertools.product(range(7), repeat=2):
            if max(abs(i - 3), abs(j - 3)) > 1:
                large.weight[:, :, i, j] = 0
    x = tokens(2, 7, 7, WIDTH)
    torch.testing.assert_close(small(x), large(x), rtol=1e-10, atol=1e-12)  # another kernel, another order of summation


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize("grid", [*GRIDS, (1, 1), (8, 8)])
def test_the_gradients_of_a_convolution_are_those_of_finite_differences(kernel: int, grid: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, *grid), (3, 1, kernel, kernel), (3,))
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(depthwise, inputs)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kernel", [5, 7])
def test_wide_kernels_learn_as_conv2d_says(kernel: int, autocast: bool) -> None:
    torch.manual_seed(0)
    mixer, x = Conv(WIDTH, (8, 8), kernel), torch.randn(4, 8, 8, WIDTH, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = mixer(x)
    assert y.dtype == (torch.bfloat16 if autocast else torch.float32)
    if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        assert "ByColumns" in y.grad_fn.next_functions[0][0].name()  # and not oneDNN's own slow gradient
    upstream = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, *mixer.parameters()), upstream)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, *mixer.parameters())]
    reference = F.conv2d(exact[0].permute(0, 3, 1, 2), exact[1], exact[2], padding=kernel // 2, groups=WIDTH).permute(0, 2, 3, 1)
    for mine, true in zip(found, torch.autograd.grad(reference, exact, upstream.double()), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - true).norm() <= (0.01 if autocast else 1e-5) * true.norm()


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


@pytest.mark.parametrize("option", ["head_width", "heads"])
def test_narrower_attention_has_the_first_heads_or_the_first_channels_of_each(option: str) -> None:
    number, wider = (WIDTH // 7, WIDER // 7) if option == "head_width" else (7, 7)
    size, whole = WIDTH // number, WIDER // wider
    narrow, large = build("attention", options={option: 7}), build("attention", WIDER, options={option: 7}, seed=5)
    assert (narrow.head_width, large.head_width) == (size, whole)
    cut(narrow, large)
    place = {head * size + c: head * whole + c for head in range(number) for c in range(size)}
    for part, (own, its) in itertools.product(range(3), place.items()):
        assert torch.equal(narrow.qkv.weight[part * WIDTH + own], large.qkv.weight[part * WIDER + its, :WIDTH])
        assert narrow.qkv.bias[part * WIDTH + own] == large.qkv.bias[part * WIDER + its]
    for own, its in place.items():
        assert torch.equal(narrow.proj.weight[:, own], large.proj.weight[:WIDTH, its])


def test_narrower_shift_groups_are_the_first_channels_of_the_wide_ones_in_all_three_thirds() -> None:
    narrow, large = build("s2_shift_v2"), build("s2_shift_v2", WIDER, seed=5)
    cut(narrow, large)
    place = {group * WIDTH // 4 + c: group * WIDER // 4 + c for group in range(4) for c in range(WIDTH // 4)}
    for part, (own, its) in itertools.product(range(3), place.items()):
        assert torch.equal(narrow.mlp1.weight[part * WIDTH + own], large.mlp1.weight[part * WIDER + its, :WIDTH])
        assert torch.equal(narrow.sa_mlp2.weight[part * WIDTH + own], large.sa_mlp2.weight[part * WIDER + its, : WIDTH // 4])
    for own, its in place.items():
        assert torch.equal(narrow.sa_mlp1.weight[:, own], large.sa_mlp1.weight[: WIDTH // 4, its])
        assert torch.equal(narrow.mlp2.weight[:, own], large.mlp2.weight[:WIDTH, its])


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "got"), [({}, "none"), ({"head_width": 7, "heads": 4}, "7 and 4"), ({"head_width": 7, "heads": 3}, "7 and 3")]
)
def test_attention_needs_the_width_or_the_number_of_its_heads_and_not_both(options: dict[str, int], got: str) -> None:
    with pytest.raises(ValueError, match=f"^attention: needs 'head_width' or 'heads': got {got}; "):
        MIXERS["attention"].layer(WIDTH, GRIDS[0], **options)


def test_attention_of_bfloat16_on_a_cpu_runs_in_float32_between_its_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 torch's own takes up to five times as long to learn there."""
    seen, own = list[torch.dtype](), F.scaled_dot_product_attention

    def attention(*qkv: Tensor) -> Tensor:
        y = own(*qkv)
        seen.append(y.dtype)  # autocast would have changed what it is given
        return y

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    mixer, projected = build("attention", options={"head_width": 7}).float(), list[torch.dtype]()
    mixer.qkv.register_forward_hook(lambda module, given, y: projected.append(y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert mixer(tokens(2, 4, 4, WIDTH).float()).dtype == torch.bfloat16
    assert projected == [torch.bfloat16] and seen == [torch.float32]


@pytest.mark.parametrize(("options", "what"), [({"head_width": 8}, "heads of 8"), ({"heads": 3}, "3 heads")])
def test_heads_that_do_not_divide_the_width_are_refused(options: dict[str, int], what: str) -> None:
    with pytest.raises(ValueError, match=f"^attention: {what} do not divide the width: got width 28; "):
        MIXERS["attention"].layer(WIDTH, GRIDS[0], **options)


@pytest.mark.parametrize(("name", "option"), [("token_mlp", "token_hidden"), ("s2_shift_v2", "split_pool")])
def test_an_unknown_word_is_refused_by_the_words_there_are(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: unknown '{option}': got 'tokns'; accepted ") as error:
        MIXERS[name].layer(WIDTH, GRIDS[0], **{option: "tokns"})
    assert all(f"'{word}'" in str(error.value) for word in typing.get_args(MIXERS[name].options[option].type))


def test_the_hidden_width_of_a_token_mlp_is_half_the_tokens_or_half_the_channels() -> None:
    """The ones of SPACH's stages at 224 pixels, of MLP-Mixer S and B, and an odd width; a single token or channel keeps one hidden unit."""

    def hidden(width: int, grid: tuple[int, int], token_hidden: str) -> int:
        with torch.device("meta"):
            return MIXERS["token_mlp"].layer(width, grid, token_hidden=token_hidden).fc1.out_features

    assert [hidden(64, (side, side), "tokens") for side in (28, 14, 7, 1)] == [392, 98, 24, 1]
    assert [hidden(width, (14, 14), "channels") for width in (512, 768, 30, 31, 1)] == [256, 384, 15, 15, 1]
    with torch.device("meta"):
        assert MIXERS["token_mlp"].layer(64, (7, 7)).fc1.out_features == 24


@pytest.mark.parametrize("name", ["token_mlp", "token_linear", "permute"])
@pytest.mark.parametrize("other", [(2, 8), (8, 2), (1, 16), (4, 5), (5, 4), (3, 3), (8, 8), (3, 4)])
def test_weights_of_one_grid_are_never_run_on_another(name: str, other: tuple[int, int]) -> None:
    """Also not on one with as many tokens, where a linear layer or a square root of the count would notice nothing."""
    mixer = build(name, grid=(4, 4), options=next(iter(samples(name))))
    with pytest.raises(ValueError, match=f"^{name}: .* another grid: got {other[0]}x{other[1]}; accepted 4x4\\.$"):
        mixer(tokens(1, *other, WIDTH))


@pytest.mark.parametrize("name", ["s2_shift", "s2_shift_v2"])
def test_shift_groups_are_four_equal_ones(name: str) -> None:
    for width in range(1, 60):
        if width % 4:
            with pytest.raises(ValueError, match=f"^{name}: .*: got width {width}; accepted multiples of 4\\.$"):
                MIXERS[name].layer(width, GRIDS[0])
        else:
            assert fits(name, width, GRIDS[0], {})


def test_as_shift_takes_the_widths_it_says() -> None:
    """Those of which ceil(width / 5) channels make five chunks: of 16 channels there are four, without the shift by +2."""

    def chunks(width: int) -> int:
        return len(torch.empty(width).chunk(5))

    taken = [width for width in range(1, 60) if chunks(width) == 5]
    assert [width for width in range(1, 60) if fits("as_shift", width, (4, 4), {})] == taken == [5, 9, 10, 13, 14, 15, *range(17, 60)]
    for width in (1, 4, 6, 8, 11, 12, 16):
        with pytest.raises(ValueError, match=f"^as_shift: .*: got width {width}; accepted 5, 9, 10, 13 to 15, from 17 on\\.$"):
            MIXERS["as_shift"].layer(width, (4, 4))


def test_the_last_chunk_of_a_wide_axial_shift_is_the_smaller_one() -> None:
    assert [chunk.numel() for chunk in torch.empty(96).chunk(5)] == [20, 20, 20, 20, 16]
    impulse = torch.ones(1, 1, 9, 96)
    impulse[:, :, [*range(4), *range(5, 9)]] = 0
    arrived = as_shift(impulse, dim=2)[0, 0].argmax(0) - 4
    assert arrived.tolist() == [-2] * 20 + [-1] * 20 + [0] * 20 + [1] * 20 + [2] * 16


@pytest.mark.parametrize(("width", "grid"), [(30, (4, 5)), (28, (4, 5)), (28, (5, 4)), (20, (8, 5)), (36, (8, 8)), (28, (3, 3))])
def test_permute_takes_no_grid_whose_sides_do_not_divide_the_width(width: int, grid: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"^permute: .*: got width {width} on a grid of {grid[0]}x{grid[1]}\\.$"):
        MIXERS["permute"].layer(width, grid)


@pytest.mark.parametrize("grid", [(2, 7), (7, 2), (1, 14), (14, 1)])
def test_permute_on_an_oblong_grid_costs_what_it_does_on_any_of_as_many_tokens(grid: tuple[int, int]) -> None:
    square = MIXERS["permute"].layer.cost(WIDER, (4, 4))
    oblong = MIXERS["permute"].layer.cost(WIDER, grid)
    assert oblong.params == square.params
    assert square.macs - oblong.macs == 4 * (16 - 14) * WIDER**2
