"""Architectures: values that survive a file, and keys that caches can go by."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.networks.architecture import FORMAT, Architecture, Frame, Stage, read_architecture
from nas.networks.mixers import known_options
from nas.published.presets import read_presets
from nas.yaml_files import write_yaml

GOLDEN = Architecture(
    Frame(32, 3, 10),
    4,
    (
        Stage(32, ("conv", "attention"), 2.0, cpe=True, kernel=3, head_width=16),
        Stage(64, ("s2_shift", "s2_shift"), 1.5, sharing=True),
    ),
)

stages = st.builds(
    Stage,
    width=st.integers(1, 65536),
    mixers=st.lists(st.sampled_from(["conv", "attention", "permute"]), min_size=1, max_size=5).map(tuple),
    mlp_ratio=st.floats(0.01, 64),
    cpe=st.booleans(),
    sharing=st.booleans(),
    kernel=st.none() | st.integers(1, 255),
    head_width=st.none() | st.integers(1, 65536),
    heads=st.none() | st.integers(1, 64),
    token_hidden=st.sampled_from(["tokens", "channels"]),
    split_pool=st.sampled_from(["mean", "sum"]),
)
norms = ["none", "layer_norm", "group_norm", "affine"]
architectures = st.builds(
    Architecture,
    frame=st.builds(Frame, resolution=st.integers(1, 4096), channels=st.integers(1, 4), classes=st.integers(1, 1000)),
    patch=st.integers(1, 256),
    stages=st.lists(stages, min_size=1, max_size=4).map(tuple),
    stem=st.sampled_from(["patch", "conv4"]),
    stem_norm=st.sampled_from(norms),
    norm=st.sampled_from(norms[1:]),
    norm_eps=st.sampled_from([1e-6, 1e-5]),
    layer_scale=st.sampled_from(["none", "mixer", "both"]),
    layer_scale_init=st.sampled_from([0.1, 1e-4, 1]),
    merge=st.sampled_from(["conv", "conv_norm", "gather"]),
    final_norm=st.sampled_from(norms),
)


@given(architectures)
def test_dict_round_trip_keeps_value_hash_and_key(architecture: Architecture) -> None:
    again = Architecture.from_dict(architecture.to_dict(), "here")
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.key == architecture.key


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "network.yaml"
    write_yaml(path, {"format": FORMAT, "architecture": GOLDEN.to_dict(), "note": "kept"})
    architecture, data = read_architecture(path)
    assert architecture == GOLDEN
    assert data["note"] == "kept"


def test_the_key_is_stable() -> None:
    """Studies and caches written by an earlier release go by it."""
    assert GOLDEN.key == "ba462f811f1d"
    named = {preset.name: preset.architecture.key for preset in read_presets()}
    assert named["spach_hybrid_ms_s_"] == "33ef2956ba65"  # conv4 stem, heads, blocks without a mixer
    assert named["s2_mlpv2_small_7"] == "b961df44189e"  # an option of a mixer
    every = "".join(f"{name} {key}\n" for name, key in sorted(named.items()))
    assert hashlib.sha256(every.encode()).hexdigest()[:16] == "0582e042495a1b3f"


@given(architectures, architectures)
def test_keys_are_equal_exactly_where_architectures_are(one: Architecture, other: Architecture) -> None:
    assert (one.key == other.key) == (one == other)


def test_a_whole_ratio_is_written_one_way() -> None:
    whole = dataclasses.replace(GOLDEN, stages=(dataclasses.replace(GOLDEN.stages[0], mlp_ratio=2), GOLDEN.stages[1]))
    assert whole == GOLDEN
    assert whole.key == GOLDEN.key


def test_every_field_changes_the_key() -> None:
    changes = [
        {"width": 64},
        {"mixers": ("conv", "conv")},
        {"mlp_ratio": 3.0},
        {"cpe": False},
        {"sharing": True},
        {"kernel": 5},
        {"head_width": 8},
        {"heads": 4, "head_width": None},
        {"token_hidden": "channels"},
        {"split_pool": "sum"},
    ]
    fields = {field.name for field in dataclasses.fields(Stage)} - {"options"}
    assert {name for change in changes for name in change} == fields | set(known_options())
    changed = [
        dataclasses.replace(GOLDEN, stages=(dataclasses.replace(GOLDEN.stages[0], **change), GOLDEN.stages[1])) for change in changes
    ]
    changed += [GOLDEN.at(dataclasses.replace(GOLDEN.frame, **{field.name: 7})) for field in dataclasses.fields(Frame)]
    forms = {"stem": "conv4", "stem_norm": "none", "norm": "affine", "norm_eps": 1e-5, "layer_scale": "both"}
    forms |= {"layer_scale_init": 1e-4, "merge": "gather", "final_norm": "none", "patch": 2}
    assert {"frame", "stages", *forms} == {field.name for field in dataclasses.fields(Architecture)}
    changed += [dataclasses.replace(GOLDEN, **{form: value}) for form, value in forms.items()]
    assert len({architecture.key for architecture in (GOLDEN, *changed)}) == len(changed) + 1


def test_a_form_without_effect_is_the_default() -> None:
    plain = dataclasses.replace(GOLDEN, layer_scale="none")
    assert dataclasses.replace(plain, layer_scale_init=1e-4) == plain
    alone = dataclasses.replace(GOLDEN, stages=GOLDEN.stages[:1])
    assert dataclasses.replace(alone, merge="gather") == alone
    groups = dataclasses.replace(GOLDEN, stem_norm="none", norm="group_norm", final_norm="affine")
    assert dataclasses.replace(groups, norm_eps=1e-5) == groups


def test_frozen() -> None:
    for target, name in ((GOLDEN, "patch"), (GOLDEN.frame, "classes"), (GOLDEN.stages[0], "width")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(target, name, 1)


@pytest.mark.parametrize(
    ("key", "value", "pieces"),
    [
        ("widht", 3, ["stages[0]", "unknown key 'widht'", "known: width", "Did you mean 'width'?"]),
        ("width", "32", ["stages[0].width", "'32'", "integer"]),
        ("width", 0, ["stages[0].width", "got 0", "1"]),
        ("mixers", "conv", ["stages[0].mixers", "'conv'"]),
        ("mixers", [], ["stages[0].mixers", "[]", "at least 1"]),
        ("mlp_ratio", True, ["stages[0].mlp_ratio", "True", "number"]),
        ("mlp_ratio", "2", ["stages[0].mlp_ratio", "'2'", "number"]),
        ("mlp_ratio", float("nan"), ["stages[0].mlp_ratio", "nan", "finite"]),
        ("cpe", 1, ["stages[0].cpe", "got 1", "boolean"]),
        ("kernel", 2.5, ["stages[0].kernel", "2.5", "integer"]),
    ],
)
def test_a_mistake_is_told_in_one_line(key: str, value: object, pieces: list[str]) -> None:
    data = GOLDEN.to_dict()
    data["stages"][0][key] = value
    with pytest.raises(ValueError) as raised:
        Architecture.from_dict(data, "mine.yaml")
    message = str(raised.value)
    assert message.startswith("mine.yaml: architecture.")
    assert all(piece in message for piece in pieces), message
    assert "\n" not in message


def test_a_file_without_an_architecture_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "network.yaml"
    write_yaml(path, {"format": FORMAT, "stages": []})
    with pytest.raises(ValueError, match=r"network\.yaml: no key 'architecture': got format, stages") as raised:
        read_architecture(path)
    assert "\n" not in str(raised.value)
