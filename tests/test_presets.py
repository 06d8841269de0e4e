"""The published networks: counted three ways, held against golden integers and against what their papers print."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from errors import refused
from tracing import trace

from nas.cost import cost
from nas.networks.architecture import FORM_DEFAULTS, Architecture, Frame
from nas.networks.mixers import known_options
from nas.networks.network import Network
from nas.published import presets
from nas.published.presets import Figure, Published, System, preset_names, preset_path, read_preset, read_presets
from nas.yaml_files import read_yaml, validate

PUBLISHED_NAMES = {
    "SPACH": """
        SPACH-MLP-XXS SPACH-Conv-XXS SPACH-Trans-XXS SPACH-MLP-XXS+Shared
        SPACH-MLP-XS SPACH-Conv-XS SPACH-Trans-XS SPACH-MLP-XS+Shared
        SPACH-MLP-S SPACH-Conv-S SPACH-Trans-S SPACH-MLP-S+Shared
        SPACH-MLP-MS-XXS SPACH-Conv-MS-XXS SPACH-Trans-MS-XXS SPACH-MLP-MS-XXS+Shared
        SPACH-MLP-MS-XS SPACH-Conv-MS-XS SPACH-Trans-MS-XS SPACH-MLP-MS-XS+Shared
        SPACH-MLP-MS-S SPACH-Conv-MS-S SPACH-Trans-MS-S SPACH-MLP-MS-S+Shared
        SPACH-Hybrid-MS-XS SPACH-Hybrid-MS-XS+ SPACH-Hybrid-MS-S SPACH-Hybrid-MS-S+
    """,
    "MLP-Mixer": "Mixer-S/32 Mixer-S/16 Mixer-B/32 Mixer-B/16 Mixer-L/32 Mixer-L/16",
    "ResMLP": "ResMLP-S12 ResMLP-S24 ResMLP-S36 ResMLP-B24/16 ResMLP-B24/8 ResMLP-S12/14 ResMLP-S12/8",
    "S2-MLP": "S2-MLP-wide S2-MLP-deep",
    "S2-MLPv2": "S2-MLPv2-Small/7 S2-MLPv2-Medium/7 S2-MLPv2-Small/14",
    "AS-MLP": "AS-MLP-T AS-MLP-S AS-MLP-B AS-MLP-mobile",
    "ViP": "ViP-Small/16 ViP-Small/14 ViP-Small/7 ViP-Medium/7 ViP-Large/7",
}
NAMES = preset_names()
PAGE = (Path(__file__).parents[1] / "docs" / "networks.md").read_text(encoding="utf-8")
PRESETS = {name: read_preset(name) for name in NAMES}

# (parameters, multiply-adds) of other implementations of these networks, built and traced
GOLDEN = {
    "spach_mlp_xxs": (8_307_184, 1_630_602_240),
    "spach_mlp_ms_xxs_shared": (5_750_639, 931_126_272),
    "spach_conv_ms_xxs": (5_085_224, 712_358_912),
    "spach_trans_ms_xxs": (2_372_744, 530_039_296),
    "spach_hybrid_ms_xs": (27_956_584, 4_444_316_928),
    "mixer_b_16": (59_880_472, 12_601_767_936),
    "resmlp_s12": (15_350_872, 3_009_739_776),
    "s2_mlp_wide": (72_241_384, 13_989_033_984),
    "s2_mlpv2_small_7": (25_112_680, 6_901_767_168),
    "as_mlp_t": (28_282_696, 4_350_425_088),
    "vip_small_7": (25_114_984, 6_901_767_168),
}

# The published figures that no count gives: docs/networks.md says what is known of each.
MISFITS = {
    ("spach_mlp_ms_xxs", "params"),
    ("spach_mlp_ms_s", "params"),
    ("s2_mlp_deep", "params"),
    ("spach_conv_ms_s", "macs"),
    ("spach_trans_ms_s", "macs"),
    ("spach_mlp_ms_s", "macs"),
    ("spach_hybrid_ms_s", "macs"),
    ("spach_hybrid_ms_s_", "macs"),
    ("s2_mlpv2_small_14", "macs"),
    ("as_mlp_b", "macs"),
}


# ---- counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_integers(name: str) -> None:
    macs, params, _ = cost(PRESETS[name].architecture)
    assert (params, macs) == GOLDEN[name]


@pytest.mark.parametrize("name", NAMES)
def test_cost_equals_tracing_the_built_network(name: str) -> None:
    architecture = PRESETS[name].architecture
    assert cost(architecture) == trace(lambda: Network(architecture), 1, 3, 224, 224)


# Each system once more, in closed form. Every one begins with patches and ends with a classifier; a norm is 2C parameters, whatever its kind.


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def by_hand_spach(architecture: Architecture) -> tuple[int, int]:
    side, patch, C = 224 // architecture.patch, architecture.patch, architecture.stages[0].width
    params, macs = linear(3 * patch**2, C), side**2 * 3 * patch**2 * C
    if architecture.stem == "conv4":
        taps = 3 * 7**2 * 64 + 2 * 64 * 3**2 * 64
        params, macs = taps + 3 * 2 * 64 + linear(64 * 2**2, C), 112**2 * taps + side**2 * 64 * 2**2 * C
    params += 2 * C
    for i, stage in enumerate(architecture.stages):
        before, C, N = C, stage.width, (side // 2**i) ** 2
        if i:
            params, macs = params + 4 * before * C + 2 * C, macs + N * 4 * before * C
        hidden = int(stage.mlp_ratio * C)
        params += stage.depth * (linear(9, C) + 2 * C + linear(C, hidden) + linear(hidden, C))
        macs += stage.depth * (N * 9 * C + N * 2 * C * hidden)
        attention, token_mlp = stage.mixers.count("attention"), stage.mixers.count("token_mlp")
        params += (attention + token_mlp) * 3 * C
        macs += attention * (4 * N * C**2 + 2 * N**2 * C) + token_mlp * 2 * N * (N // 2) * C
        if stage.sharing:
            attention, token_mlp = min(attention, 1), min(token_mlp, 1)
        params += attention * (linear(C, 3 * C) + linear(C, C)) + token_mlp * (linear(N, N // 2) + linear(N // 2, N))
    return params + 2 * C + linear(C, 1000), macs + 1000 * C


def by_hand_mixer(architecture: Architecture) -> tuple[int, int]:
    (stage,), patch = architecture.stages, architecture.patch
    C, depth, N, Ds, Dc = stage.width, stage.depth, (224 // patch) ** 2, stage.width // 2, 4 * stage.width
    block = 2 * C + linear(N, Ds) + linear(Ds, N) + 2 * C + linear(C, Dc) + linear(Dc, C)
    params = linear(3 * patch**2, C) + depth * block + 2 * C + linear(C, 1000)
    return params, N * 3 * patch**2 * C + depth * (2 * N * Ds * C + 2 * N * C * Dc) + 1000 * C


def by_hand_resmlp(architecture: Architecture) -> tuple[int, int]:
    (stage,), patch = architecture.stages, architecture.patch
    C, depth, N = stage.width, stage.depth, (224 // patch) ** 2
    block = 2 * C + linear(N, N) + C + 2 * C + linear(C, 4 * C) + linear(4 * C, C) + C
    params = linear(3 * patch**2, C) + depth * block + 2 * C + linear(C, 1000)
    return params, N * 3 * patch**2 * C + depth * (N**2 * C + 8 * N * C**2) + 1000 * C


def by_hand_s2_mlp(architecture: Architecture) -> tuple[int, int]:
    (stage,), patch = architecture.stages, architecture.patch
    C, depth, N = stage.width, stage.depth, (224 // patch) ** 2
    block = 2 * C + 2 * linear(C, C) + 2 * C + linear(C, 4 * C) + linear(4 * C, C)
    params = linear(3 * patch**2, C) + 2 * C + depth * block + linear(C, 1000)
    return params, N * 3 * patch**2 * C + depth * 10 * N * C**2 + 1000 * C


def by_hand_s2_mlpv2(architecture: Architecture) -> tuple[int, int]:
    side, patch, C = 224 // architecture.patch, architecture.patch, architecture.stages[0].width
    params, macs = linear(3 * patch**2, C), side**2 * 3 * patch**2 * C
    for i, stage in enumerate(architecture.stages):
        before, C, N = C, stage.width, (side // 2**i) ** 2
        if i:
            params, macs = params + linear(4 * before, C), macs + N * 4 * before * C
        split_attention = C * (C // 4) + (C // 4) * 3 * C
        mlps = linear(C, 3 * C) + linear(C, C) + linear(C, 3 * C) + linear(3 * C, C)
        params += stage.depth * (2 * 2 * C + mlps + split_attention)
        macs += stage.depth * (10 * N * C**2 + split_attention)
    return params + linear(C, 1000), macs + 1000 * C


def by_hand_as_mlp(architecture: Architecture) -> tuple[int, int]:
    side, patch, C = 224 // architecture.patch, architecture.patch, architecture.stages[0].width
    params, macs = linear(3 * patch**2, C) + 2 * C, side**2 * 3 * patch**2 * C
    for i, stage in enumerate(architecture.stages):
        before, C, N = C, stage.width, (side // 2**i) ** 2
        if i:
            params, macs = params + 2 * 4 * before + 4 * before * C, macs + N * 4 * before * C
        params += stage.depth * (4 * 2 * C + 4 * linear(C, C) + linear(C, 4 * C) + linear(4 * C, C))
        macs += stage.depth * 12 * N * C**2
    return params + 2 * C + linear(C, 1000), macs + 1000 * C


def by_hand_vip(architecture: Architecture) -> tuple[int, int]:
    side, patch, C = 224 // architecture.patch, architecture.patch, architecture.stages[0].width
    params, macs = linear(3 * patch**2, C), side**2 * 3 * patch**2 * C
    for i, stage in enumerate(architecture.stages):
        before, C, N = C, stage.width, (side // 2**i) ** 2
        if i:
            params, macs = params + linear(4 * before, C), macs + N * 4 * before * C
        reweight = linear(C, C // 4) + linear(C // 4, 3 * C)
        params += stage.depth * (2 * 2 * C + 3 * C**2 + linear(C, C) + reweight + linear(C, 3 * C) + linear(3 * C, C))
        macs += stage.depth * (10 * N * C**2 + C**2)
    return params + 2 * C + linear(C, 1000), macs + 1000 * C


BY_HAND = {
    "SPACH": by_hand_spach,
    "MLP-Mixer": by_hand_mixer,
    "ResMLP": by_hand_resmlp,
    "S2-MLP": by_hand_s2_mlp,
    "S2-MLPv2": by_hand_s2_mlpv2,
    "AS-MLP": by_hand_as_mlp,
    "ViP": by_hand_vip,
}


@pytest.mark.parametrize("name", NAMES)
def test_cost_equals_a_count_by_hand(name: str) -> None:
    macs, params, _ = cost(PRESETS[name].architecture)
    assert (params, macs) == BY_HAND[PRESETS[name].published.system](PRESETS[name].architecture)


# ---- what the papers print ---------------------------------------------------------------------------------------------


def test_published_figures_fit_but_for_ten() -> None:
    assert {(name, figure.quantity) for name, preset in PRESETS.items() for figure in preset.misfits} == MISFITS
    assert len(MISFITS) == 10
    assert sum(len(preset.figures) for preset in PRESETS.values()) == 62


@pytest.mark.parametrize(
    ("published", "exact", "fits", "difference"),
    [
        (28, 27_500_000, True, -500_000),
        (28, 28_500_001, False, 500_001),
        (28.0, 28_050_000, True, 50_000),
        (28.0, 27_949_999, False, -50_001),
        (76.05, 76_055_000, True, 5_000),
        (76.05, 76_055_001, False, 5_001),
        (4.4, 4_350_000, True, -50_000),  # 4.4 - 4.35 in binary would be a little more than 0.05
    ],
)
def test_a_figure_fits_within_half_its_last_digit(published: float, exact: int, fits: bool, difference: int) -> None:
    figure = Figure("params", published, exact)
    assert (figure.fits, figure.difference) == (fits, difference)


def test_parameters_without_the_classifier() -> None:
    for name, preset in PRESETS.items():
        without = preset.published.system in ("MLP-Mixer", "S2-MLP")
        assert preset.published.params_with_head is (None if preset.published.params_M is None else not without), name
        width = preset.architecture.stages[-1].width
        for figure in preset.figures:
            if figure.quantity == "params":
                assert figure.exact == cost(preset.architecture).params - (1000 * width + 1000 if without else 0)


def flops_of_spachs_code(architecture: Architecture, by_area: bool = False) -> int:
    """What `flops()` in microsoft/SPACH adds up: norms, skip connections and biases too, and a patch's sides where their product is meant."""
    side, C, half = 224 // architecture.patch, architecture.stages[0].width, architecture.patch // 2

    def taps(patch: int) -> int:
        return patch**2 if by_area else 2 * patch

    N = side**2
    flops = N * C * (taps(architecture.patch) * 3 + 1)
    if architecture.stem == "conv4":
        inside = N * taps(half)
        flops = inside * 64 * (3 * 49 + 1 + 2 * (64 * 9 + 1)) + N * C * (taps(half) * 64 + 1)
    flops += 1 + N + C  # the norm after the stem: the sum of its shape
    for i, stage in enumerate(architecture.stages):
        before, C, N = C, stage.width, (side // 2**i) ** 2
        hidden, tokens = int(stage.mlp_ratio * C), N // 2
        flops += N * C * (4 * before + 1) if i else 0
        flops += stage.depth * (10 * N * C + (C + 1) * hidden * N + (hidden + 1) * C * N + 2 * N * C)
        flops += stage.mixers.count("attention") * (4 * C**2 * N + 2 * N**2 * C + 2 * N * C)
        flops += stage.mixers.count("token_mlp") * ((N + 1) * tokens * C + (tokens + 1) * N * C + 2 * N * C)
    return flops + 1 + N + C + C * 1000


def flops_of_as_mlps_code(architecture: Architecture) -> int:
    """What `flops()` in svip-lab/AS-MLP adds up: norms and the sum of the two branches too."""
    C = architecture.stages[0].width
    flops = 56**2 * C * (48 + 1)
    for i, stage in enumerate(architecture.stages):
        before, C, N = C, stage.width, (56 // 2**i) ** 2
        flops += 4 * N * before * (1 + C) if i else 0
        flops += stage.depth * N * C * (12 * C + 5)
    return flops + C * 56**2 // 2**4 + C * 1000


def test_the_counters_of_the_official_code() -> None:
    """What the page says of them: a line for each of SPACH's and AS-MLP's networks with published FLOPs, and what the counters explain."""
    systems = {"SPACH": flops_of_spachs_code, "AS-MLP": flops_of_as_mlps_code}
    with_flops = {name: preset for name, preset in PRESETS.items() if preset.published.system in systems and preset.published.gflops}

    def counted(by_area: bool) -> dict[str, int]:
        spach = {name: flops_of_spachs_code(each.architecture, by_area) for name, each in with_flops.items() if name.startswith("spach")}
        return {name: flops_of_as_mlps_code(each.architecture) for name, each in with_flops.items() if name not in spach} | spach

    def fits(name: str, count: int) -> bool:
        return Figure("macs", with_flops[name].published.gflops, count).fits

    own = counted(by_area=False)
    lines = re.findall(r"^\| `(\w+)` \| ([\d.]+) G \| ([\d,]+)(\\\*)? \| ([\d,]+)(\\\*)? \|$", PAGE, re.M)
    macs = {name: cost(preset.architecture).macs for name, preset in with_flops.items()}
    assert {line[0]: line[1:] for line in lines} == {
        name: (
            str(preset.published.gflops),
            *(part for count in (macs[name], own[name]) for part in (f"{count:,}", "" if fits(name, count) else r"\*")),
        )
        for name, preset in with_flops.items()
    }
    assert f"{counted(by_area=True)['spach_trans_ms_s']:,}" in PAGE
    fit = {name for name in with_flops if (name, "macs") not in MISFITS}
    assert {name for name, count in own.items() if fits(name, count)} == fit | {"spach_conv_ms_s"}
    assert {name for name, count in counted(by_area=True).items() if fits(name, count)} == fit | {"spach_conv_ms_s", "spach_trans_ms_s"}


def test_what_the_page_says_of_the_parameters_that_do_not_fit() -> None:
    def fits(name: str, published: int, head: bool = True) -> bool:
        preset = PRESETS[name]
        return Figure("params", published, cost(preset.architecture).params - (0 if head else preset.head_params)).fits

    def cut_off(name: str) -> int:
        return cost(PRESETS[name].architecture).params // 10**6

    assert fits("spach_mlp_ms_xxs", 6, head=False) and fits("spach_mlp_ms_s", 46, head=False)
    assert (cut_off("spach_mlp_ms_xxs"), cut_off("spach_mlp_ms_s")) == (6, 46)
    for name, published in (("spach_conv_ms_s", 44), ("spach_trans_ms_s", 40)):
        assert fits(name, published) and not fits(name, published, head=False) and cut_off(name) != published
    assert fits("spach_mlp_ms_xxs_shared", 6) and not fits("spach_mlp_ms_s_shared", 46)
    assert not fits("s2_mlp_deep", 51) and not fits("s2_mlp_deep", 51, head=False)
    # 51.5 million weights, each used for 196 tokens, and the classifier: less than 10.45 billion
    assert 51_500_000 * 196 + 384_000 < 10_450_000_000
    assert cost(PRESETS["s2_mlpv2_small_14"].architecture).macs == cost(PRESETS["vip_small_14"].architecture).macs
    small = PRESETS["s2_mlpv2_small_14"].architecture
    shallower = cost(dataclasses.replace(small, stages=(dataclasses.replace(small.stages[0], mixers=small.stages[0].mixers[:15]),)))
    counts = [
        shallower.macs,
        shallower.params,
        *(cost(PRESETS[f"spach_mlp_ms_{size}_shared"].architecture).params for size in ("xxs", "s")),
    ]
    counts += [
        cost(PRESETS[name].architecture).params - PRESETS[name].head_params
        for name in ("spach_mlp_ms_xxs", "spach_mlp_ms_s", "s2_mlp_deep")
    ]
    assert all(f"{count:,}" in PAGE for count in counts)


# ---- files -------------------------------------------------------------------------------------------------------------


def test_every_named_network_has_its_file() -> None:
    expected = {
        re.sub("[^a-z0-9]", "_", name.lower()): (name, system) for system, names in PUBLISHED_NAMES.items() for name in names.split()
    }
    assert len(expected) == 55
    assert {name: (preset.published.name, preset.published.system) for name, preset in PRESETS.items()} == expected
    assert sorted(preset.name for preset in read_presets()) == NAMES


def test_different_networks_have_different_keys() -> None:
    assert len({preset.architecture.key for preset in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_canonical(name: str) -> None:
    """Nothing is written that reading would change, and no field at its default."""
    architecture = PRESETS[name].architecture
    assert Architecture.from_dict(architecture.to_dict(), name) == architecture
    data = read_yaml(preset_path(name))
    assert list(data) == ["format", "architecture", "published"]
    written = architecture.to_dict()
    for stage in written["stages"]:
        for option in ("cpe", "sharing"):
            if not stage[option]:  # a winner's file says these too
                del stage[option]
    assert data["architecture"] == written
    assert list(data["architecture"]) == list(written)
    for stage in data["architecture"]["stages"]:
        assert all(stage[name] != option.default or option.required for name, option in known_options().items() if name in stage)
    assert all(data["architecture"][form] != default for form, default in FORM_DEFAULTS.items() if form in data["architecture"])
    assert data["published"] == PRESETS[name].published.model_dump(exclude_none=True)


PAPERS = {  # title, number on arXiv, the authors' repository where there is one
    "SPACH": ("A Battle of Network Structures: An Empirical Study of CNN, Transformer, and MLP", "2108.13002", "microsoft/SPACH"),
    "MLP-Mixer": ("MLP-Mixer: An all-MLP Architecture for Vision", "2105.01601", "google-research/vision_transformer"),
    "ResMLP": ("ResMLP: Feedforward networks for image classification with data-efficient training", "2105.03404", "facebookresearch/deit"),
    "S2-MLP": ("S2-MLP: Spatial-Shift MLP Architecture for Vision", "2106.07477", None),
    "S2-MLPv2": ("S2-MLPv2: Improved Spatial-Shift MLP Architecture for Vision", "2108.01072", None),
    "AS-MLP": ("AS-MLP: An Axial Shifted MLP Architecture for Vision", "2107.08391", "svip-lab/AS-MLP"),
    "ViP": ("Vision Permutator: A Permutable MLP-Like Architecture for Visual Recognition", "2106.12368", "houqb/VisionPermutator"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_begins_with_its_source(name: str) -> None:
    title, arxiv, repository = PAPERS[PRESETS[name].published.system]
    code = f", code {repository}" if repository else ""
    first = preset_path(name).read_text(encoding="utf-8").splitlines()[0]
    assert first == f'# {PRESETS[name].published.name}: "{title}", https://arxiv.org/abs/{arxiv}{code}'


@pytest.mark.parametrize("name", NAMES)
def test_who_depends_on_the_resolution(name: str) -> None:
    """As the page says: token MLPs and token linears have other parameters at another resolution, nobody else has."""
    architecture = PRESETS[name].architecture
    mixers = {mixer for stage in architecture.stages for mixer in stage.mixers}
    larger = cost(architecture.at(Frame(448, 3, 1000)))
    assert (larger.params != cost(architecture).params) == bool(mixers & {"token_mlp", "token_linear"})


# ---- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [("as_mlp_tt", "as_mlp_t"), ("AS-MLP-T", "as_mlp_t"), ("SPACH-Hybrid-MS-S+", "spach_hybrid_ms_s_"), ("Mixer-B/16", "mixer_b_16")],
)
def test_an_unknown_name_is_told_the_nearest(given: str, meant: str) -> None:
    with refused(repr(given), f"Did you mean '{meant}'?"):
        read_preset(given)


def test_a_name_is_no_path() -> None:
    for name in ("../cifar", "presets/as_mlp_t", "as_mlp_t.yaml", ""):
        with refused("unknown preset"):
            preset_path(name)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("published: {", "published: [", "not accepted as YAML"),
        ("published: {", "publisher: {", "published: got None"),
        ("system: AS-MLP", "system: AS-MPL", "published: system: got 'AS-MPL'"),
        ("gflops: 4.4", "gflop: 4.4", "published: unknown key 'gflop'"),
        ("gflops: 4.4", "gflops: .inf", "published: gflops: got"),
        ("gflops: 4.4", "gflops: 0", "published: gflops: got"),
        ("params_M: 28, ", "", "params_with_head alone"),
        ("params_with_head: true, ", "", "params_M alone"),
        ("params_with_head: true", "params_with_head: 1", "published: params_with_head: got 1"),
        ("[as_shift, as_shift]", "[as_shift, as_shiftt]", "unknown mixer 'as_shiftt'"),
        ("\n  norm: group_norm", "\n  norm: batch_norm", "architecture.norm: got 'batch_norm'"),
        ("format: architecture 1", "format: recipe 1", "format: got 'recipe 1'"),
        ("architecture:", "architectur:", "no key 'architecture'"),
    ],
)
def test_a_damaged_file_is_named(old: str, new: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = preset_path("as_mlp_t").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "as_mlp_t.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    with refused(path, said):
        read_preset("as_mlp_t")


def test_published_keeps_the_printed_digits() -> None:
    published = validate(Published, {"name": "N", "system": "ViP", "params_M": 30.0, "params_with_head": True, "gflops": 6}, "here")
    assert (repr(published.params_M), repr(published.gflops), published.top1) == ("30.0", "6", None)


# ---- tables ------------------------------------------------------------------------------------------------------------


def page_rows(columns: int) -> list[list[str]]:
    """The cells of the page's tables of so many columns, heads and rules left out."""
    rows = [line.strip("| ").replace("`", "").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return [row for row in rows if len(row) == columns]


def test_the_page_has_every_count_and_every_published_figure() -> None:
    rows = {row[0]: row[1:] for row in page_rows(7)}
    assert sorted(rows) == NAMES and len(page_rows(7)) == len(NAMES)
    for name, (published, params, macs, *printed) in rows.items():
        counted, said = cost(PRESETS[name].architecture), PRESETS[name].published
        assert (published, params, macs) == (said.name, f"{counted.params:,}", f"{counted.macs:,}")
        head = "" if said.params_with_head in (None, True) else " (no head)"
        marks = {quantity: "\\*" if (name, quantity) in MISFITS else "" for quantity in ("params", "macs")}
        assert printed == [
            "-" if said.params_M is None else f"{said.params_M} M{marks['params']}{head}",
            "-" if said.gflops is None else f"{said.gflops} G{marks['macs']}",
            "-" if said.top1 is None else str(said.top1),
        ]


def test_the_page_has_every_figure_that_does_not_fit() -> None:
    assert f"{62 - len(MISFITS)} of the 62 published figures fit" in PAGE
    rows = page_rows(5)
    assert {(name, what.lower()) for name, what, *_ in rows} == MISFITS and len(rows) == len(MISFITS)
    for name, what, published, exact, difference in rows:
        (figure,) = (each for each in PRESETS[name].misfits if each.quantity == what.lower())
        assert published == f"{figure.published} {'M' if what == 'params' else 'G'}"
        count = figure.exact
        assert (exact, difference) == (f"{count:,}", f"{count - round(figure.published * figure.unit[0]):+,}")


def test_the_page_names_every_paper() -> None:
    for title, arxiv, code in PAPERS.values():
        assert f"[{title}](https://arxiv.org/abs/{arxiv})" in PAGE and (code is None or f"https://github.com/{code}" in PAGE)


def test_the_table_has_every_network() -> None:
    head, *lines = presets.as_table().splitlines()
    assert head.split() == ["network", "params", "MACs", "published", "params", "published", "FLOPs", "top-1"]
    assert sorted(line.split()[0] for line in lines[:55]) == NAMES
    assert sum(line.count("*") for line in lines[:55]) == len(MISFITS)
    assert len({len(line) for line in (head, *lines[:55])}) == 1  # columns stand below each other
    assert lines[55].startswith("Counts at 224 px") and lines[56].startswith("* ") and len(lines) == 57
    assert "mixer_b_16                59,880,472   12,601,767,936  59 M (no head)    -                76.44" in lines


def test_rows_are_plain_and_complete() -> None:
    rows = {row["name"]: row for row in json.loads(json.dumps(presets.rows()))}
    assert sorted(rows) == NAMES
    for name, row in rows.items():
        assert row["key"] == PRESETS[name].architecture.key
        assert (row["macs"], row["params"], row["activations"]) == cost(PRESETS[name].architecture)
        assert {(name, quantity) for quantity in row["misfits"]} == {cell for cell in MISFITS if cell[0] == name}
    row = rows["as_mlp_mobile"]
    assert (row["published_name"], row["system"]) == ("AS-MLP-mobile", "AS-MLP")
    assert (row["published_params_M"], row["published_params_with_head"]) == (9.6, True)
    assert (row["published_gflops"], row["published_top1"]) == (None, 76.05)


def test_presets_are_grouped_by_system_and_grow() -> None:
    order = [(get_args(System).index(row["system"]), row["macs"], row["params"]) for row in presets.rows()]
    assert order == sorted(order)


def test_attention_that_is_shared() -> None:
    """A network that SPACH's code can build and its paper does not report; the page says its size."""
    trans = PRESETS["spach_trans_ms_s"].architecture
    stages = (trans.stages[0], *(dataclasses.replace(stage, sharing=True) for stage in trans.stages[1:]))
    assert cost(dataclasses.replace(trans, stages=stages)).params == 27_863_176
    assert "27,863,176 parameters" in PAGE
