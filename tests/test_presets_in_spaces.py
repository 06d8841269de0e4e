"""Every published network is a point of a space: of one that fixes its values, and of one that offers others beside them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, get_args

import pytest

from nas import HOME
from nas.cost import cost
from nas.networks.architecture import FORM_DEFAULTS, Architecture, MergeKind, NormKind, OptionalNorm, Scaled
from nas.published.presets import Preset, preset_names, read_preset, read_presets
from nas.quantities import parse_budgets
from nas.searching.known_networks import starting_networks
from nas.spaces.decisions import SearchSpace
from nas.spaces.schema import space_file

OTHER_FORMS = {
    "stem_norm": get_args(OptionalNorm),
    "norm": get_args(NormKind),
    "layer_scale": get_args(Scaled),
    "merge": get_args(MergeKind),
    "final_norm": get_args(OptionalNorm),
}


def space_around(architecture: Architecture, others: bool) -> SearchSpace:
    stages = []
    for stage in architecture.stages:
        given: dict[str, Any] = dict(stage.options)
        given |= {"width": stage.width, "depth": stage.depth, "mixer": sorted(set(stage.mixers)), "mlp_ratio": stage.mlp_ratio}
        given |= {"cpe": stage.cpe, "sharing": stage.sharing}
        if others:
            given |= {"depth": [stage.depth, stage.depth + 1], "mlp_ratio": [stage.mlp_ratio, stage.mlp_ratio + 1], "cpe": [False, True]}
            given |= {"mixer": sorted({*stage.mixers, "none", "conv"}), "sharing": [False, True]}
        stages.append(given)
    forms = {form: getattr(architecture, form) for form in FORM_DEFAULTS} | (OTHER_FORMS if others else {})
    data = {"format": "search space 1", "frame": architecture.frame, "patch": architecture.patch, **forms, "stages": stages}
    data = {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}
    return SearchSpace(space_file(data, "around.yaml"), "around", "around.yaml")


@pytest.mark.whole
@pytest.mark.parametrize("name", preset_names())
def test_a_space_that_fixes_its_values_contains_it(name: str) -> None:
    architecture = read_preset(name).architecture
    space = space_around(architecture, others=False)
    assert set(space.decisions) == set(space.mixer_decisions)  # of hybrids, whose stages have two kinds
    assert space.decode(space.encode(architecture)) == architecture


@pytest.mark.parametrize(
    "name", ["spach_hybrid_ms_xs", "spach_mlp_ms_xxs_shared", "mixer_s_32", "resmlp_s12", "as_mlp_mobile", "vip_small_7"]
)
def test_a_space_that_offers_other_values_too_contains_it(name: str) -> None:
    architecture = read_preset(name).architecture
    space = space_around(architecture, others=True)
    assert len(space.decisions) > 10
    assert space.decode(space.encode(architecture)) == architecture


def test_the_form_of_merging_is_no_decision_where_nothing_is_merged() -> None:
    architecture = read_preset("mixer_s_32").architecture
    data = {"format": "search space 1", "frame": architecture.frame, "patch": 32, "merge": ["gather", "conv_norm"]}
    forms = {form: getattr(architecture, form) for form in ("stem_norm", "layer_scale")}
    stage = {"width": 512, "depth": 8, "mixer": "token_mlp", "mlp_ratio": 4, "token_hidden": "channels"}
    space = SearchSpace(space_file({**data, **forms, "stages": [stage]}, "one.yaml"), "one", "one.yaml")
    assert not space.decisions
    assert space.decode(space.encode(architecture)) == architecture


def test_the_space_around_spach_contains_what_its_file_says() -> None:
    space = SearchSpace.read(Path(__file__).parents[1] / "search_spaces" / "spach.yaml")

    def contains(name: str) -> bool:
        try:
            return bool(space.encode(read_preset(name).architecture))
        except ValueError:
            return False

    xs = {"spach_conv_ms_xs", "spach_mlp_ms_xs", "spach_mlp_ms_xs_shared", "spach_trans_ms_xs"}
    assert set(filter(contains, preset_names())) == xs | {"spach_conv_ms_s", "spach_mlp_ms_s", "spach_mlp_ms_s_shared", "spach_hybrid_ms_s"}


def test_a_search_begins_with_the_published_networks_of_its_space_that_are_within_budget() -> None:
    space = SearchSpace.read(HOME / "search_spaces" / "spach.yaml")

    def contained(preset: Preset) -> bool:
        with contextlib.suppress(ValueError):
            return bool(space.encode(preset.architecture))
        return False

    macs = {preset.name: cost(preset.architecture).macs for preset in read_presets() if contained(preset)}
    limit = sorted(macs.values())[len(macs) // 2]
    starts = starting_networks(space, parse_budgets([f"{limit}MACs"]), ())
    assert set(starts) == {name for name, value in macs.items() if value <= limit} and 0 < len(starts) < len(macs)
