"""Search spaces: the table of decisions and its inverse, extremes, and every mistake in a file in one line."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.cost import cost
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.layers import LayerSpec, layer_specs, sections
from nas.spaces import decisions, geometry
from nas.spaces.decisions import SearchSpace
from nas.spaces.schema import Decision

SPACE_FILES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))

STAGE = {
    "width": [32, 64],
    "depth": [1, 2],
    "mixer": ["conv", "attention", "permute"],
    "mlp_ratio": [1, 2],
    "kernel": [3, 5],
    "head_width": 16,
    "cpe": [False, True],
    "sharing": [False, True],
}
FILE = {
    "format": "search space 1",
    "frame": {"resolution": 32, "channels": 3, "classes": 10},
    "patch": 4,
    "mixer_per": "block",
    "stages": [{**STAGE, "mixer": ["conv", "token_mlp"]}, {**STAGE, "width": [64, 128]}],
}

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No space that another test read is known to be sound."""
    monkeypatch.setattr(decisions, "_CHECKED", set())


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes FILE with changes: `stages__0__width=3` changes one entry, of a value None it is left out."""

    def write_file(**changes: Any) -> Path:
        data: Any = copy.deepcopy(FILE)
        for place, value in changes.items():
            *path, last = (int(part) if part.isdigit() else part for part in place.split("__"))
            inner = data
            for part in path:
                inner = inner[part]
            if value is None:
                del inner[last]
            else:
                inner[last] = value
        file = tmp_path / "mine.yaml"
        file.write_text(json.dumps(data).replace("NaN", ".nan"))  # JSON is YAML
        return file

    return write_file


def everything(space: SearchSpace) -> Iterator[Architecture]:
    names = list(space.decisions)
    for choice in itertools.product(*space.decisions.values()):
        yield space.decode(dict(zip(names, choice, strict=True)))


# --------------------------------------------------------------------------------------------------- shipped spaces


@pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)
def test_a_shipped_space_loads_within_five_seconds(path: Path) -> None:
    started = time.process_time()  # the process's own seconds: a busy machine is not the space's fault
    SearchSpace.read(path)
    assert time.process_time() - started < 5


def test_a_wide_space_loads_within_five_seconds_too(write: Write) -> None:
    wide = {**STAGE, "depth": [2, 6, 12], "mlp_ratio": [1, 1.5, 2, 3, 4, 6], "kernel": [3, 5, 7, 9], "head_width": [16, 32]}
    path = write(stages=[{**wide, "width": [32 * 2**i * k for k in (1, 2, 3, 4)]} for i in range(3)])
    started = time.process_time()
    SearchSpace.read(path)
    assert time.process_time() - started < 5


@pytest.mark.whole
@pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)
def test_every_layer_that_a_network_may_have_is_built_when_its_space_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A width or a grid that a mixer refuses is found there, not an hour into the supernet's training."""
    built, build = set(), LayerSpec.build
    monkeypatch.setattr(LayerSpec, "build", lambda spec: built.add(spec.shape) or build(spec))
    space, rng = SearchSpace.read(path), random.Random(0)
    for _ in range(300):
        assert {spec.shape for spec in layer_specs(space.decode(space.random(rng)))} <= built


def test_a_space_is_checked_once_in_a_process_and_a_refused_one_each_time(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command makes its space again for each frame, and a copy of it with each copy of a supernet."""
    checked: list[int] = []
    real = geometry.check
    monkeypatch.setattr(geometry, "check", lambda *args: checked.append(1) or real(*args))
    space = SearchSpace.read(write())
    assert copy.deepcopy(space).fingerprint == SearchSpace.read(write()).fingerprint == space.fingerprint and len(checked) == 1
    assert space.at(Frame(64, 3, 10)).frame.resolution == 64 and len(checked) == 2
    for times in (3, 4):
        with pytest.raises(ValueError, match=r"at resolution 40: stages\.1"):
            SearchSpace.read(write(frame__resolution=40, stages__1__mixer="permute"))
        assert len(checked) == times


def test_a_network_is_written_out_once(write: Write) -> None:
    """Who fits sizes to a budget asks for the same few hundred networks ten thousand times, and for networks that differ in one stage."""
    space, rng = SearchSpace.read(write()), random.Random(0)
    for _ in range(50):
        values = space.random(rng)
        architecture = space.decode(values)
        assert space.decode(dict(reversed(values.items()))) is architecture
        assert sections(architecture) == sections(copy.deepcopy(architecture)), "equal parts are one object"
        name = rng.choice(list(values))
        for option in space.decisions[name]:
            assert (space.decode({**values, name: option}) is architecture) is (option == values[name])


@pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)
def test_encode_is_the_inverse_of_decode(path: Path) -> None:
    space, rng = SearchSpace.read(path), random.Random(0)
    for _ in range(300):
        architecture = space.decode(space.random(rng))
        values = space.encode(architecture)
        assert list(values) == list(space.decisions)
        assert space.decode(values) == architecture
        assert space.encode(space.decode(values)) == values
        assert space.encode(architecture.at(Frame(space.stride, 1, 2))) == values


@pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)
def test_the_decisions_are_a_fixed_table_in_ascending_order_of_cost(path: Path) -> None:
    space = SearchSpace.read(path)
    middle = {name: options[len(options) // 2] for name, options in space.decisions.items()}
    for name, options in space.decisions.items():
        assert len(options) > 1
        if not name.endswith((".mixer", ".head_width")):
            costs = [cost(space.decode({**middle, name: option})) for option in options]
            assert costs == sorted(costs)


# --------------------------------------------------------------------------------------------------- canonical form


def stage_of(space: SearchSpace, **changes: Any) -> Stage:
    """Stage 0, with conv, one block, all at their first options but for the changes."""
    first = {name: options[0] for name, options in space.decisions.items()}
    return space.decode({**first, "s0.sharing": False, **{name.replace("__", "."): value for name, value in changes.items()}}).stages[0]


def test_what_has_no_effect_is_left_out(write: Write) -> None:
    space = SearchSpace.read(write(stages__0__mixer=["conv", "attention", "s2_shift"]))
    kernel_unread = [stage_of(space, s0__b0__mixer="s2_shift", s0__kernel=kernel) for kernel in (3, 5)]
    assert kernel_unread[0] == kernel_unread[1]
    assert kernel_unread[0].options == ()
    assert stage_of(space, s0__b0__mixer="attention").options == (("head_width", 16),)

    assert stage_of(space, s0__sharing=True) == stage_of(space, s0__sharing=False)  # one block shares with nobody
    assert stage_of(space, s0__b1__mixer="conv") == stage_of(space, s0__b1__mixer="s2_shift")  # cut off by the depth
    shared = [stage_of(space, s0__depth=2, s0__sharing=True, s0__b1__mixer=mixer) for mixer in ("conv", "s2_shift")]
    assert shared[0] == shared[1]
    assert shared[0].mixers == ("conv", "conv")


def test_equal_networks_have_equal_keys_and_others_have_others(write: Write) -> None:
    """The layers written out tell networks apart; a shared mixer's own place among them tells sharing."""
    space = SearchSpace.read(write(stages=[{**STAGE, "mixer": ["none", "conv", "s2_shift"], "mlp_ratio": 1}]))
    by_layers: dict[Any, set[str]] = {}
    by_key: dict[str, set[Any]] = {}
    for architecture in everything(space):
        layers = layer_specs(architecture)
        by_layers.setdefault(layers, set()).add(architecture.key)
        by_key.setdefault(architecture.key, set()).add(layers)
    assert all(len(keys) == 1 for keys in by_layers.values())
    assert all(len(layers) == 1 for layers in by_key.values())


def test_a_scalar_is_fixed_and_a_list_of_one_is_too(write: Write) -> None:
    scalar, single = (
        SearchSpace.read(write(stages__0__width=width, stages__1__mixer=mixer)) for width, mixer in ((32, "conv"), ([32], ["conv"]))
    )
    assert scalar.decisions == single.decisions
    assert "s0.width" not in scalar.decisions
    assert not any(name.startswith("s1.b") for name in scalar.decisions)


def test_one_mixer_per_stage(write: Write) -> None:
    space = SearchSpace.read(write(mixer_per="stage", stages__0__cpe=True, stages__1__mlp_ratio=2, stages__1__cpe=True))
    assert [name for name in space.decisions if name.endswith("mixer")] == ["s0.mixer", "s1.mixer"]
    assert list(space.mixer_decisions) == ["s0.mixer", "s1.mixer"]
    for architecture in everything(space):
        assert all(len(set(stage.mixers)) == 1 for stage in architecture.stages)
        assert space.decode(space.encode(architecture)) == architecture


def test_sharing_is_one_mixer_for_all_blocks_of_a_stage(write: Write) -> None:
    space = SearchSpace.read(write())
    seen = 0
    rng = random.Random(0)
    for _ in range(300):
        architecture = space.decode(space.random(rng))
        for i, stage in enumerate(architecture.stages):
            places = {
                spec.weights for spec in layer_specs(architecture) if spec.place.startswith(f"stages.{i}.") and ".mixer." in spec.place
            }
            assert len(places) == (1 if stage.sharing else stage.depth)
            assert not stage.sharing or len(set(stage.mixers)) == 1
            if stage.sharing:  # the other blocks' decisions have no effect
                assert space.encode(architecture)[f"s{i}.b1.mixer"] == space.decisions[f"s{i}.b1.mixer"][0]
            seen += stage.sharing
    assert seen


def test_the_fingerprint_changes_with_what_decisions_mean(write: Write) -> None:
    original = SearchSpace.read(write()).fingerprint
    assert SearchSpace.read(write()).fingerprint == original
    for changes in ({"stages__0__width": [32, 96]}, {"patch": 2}, {"mixer_per": "stage"}, {"stages__1__head_width": 32}):
        assert SearchSpace.read(write(**changes)).fingerprint != original


def test_an_option_that_no_mixer_of_the_stage_reads_is_no_decision(write: Write) -> None:
    space = SearchSpace.read(write(stages__0__mixer=["token_mlp", "s2_shift"]))
    assert "s0.kernel" not in space.decisions
    assert "s1.kernel" in space.decisions


def test_heads_are_told_by_their_number_or_by_their_width(write: Write) -> None:
    """A network enters a space whichever it uses, with the heads that it has."""
    by_width = SearchSpace.read(write(stages__1__head_width=[16, 32]))
    by_number = SearchSpace.read(write(stages__1__head_width=None, stages__1__heads=[2, 4, 8]))
    start = {name: options[-1] for name, options in by_width.decisions.items()} | {"s1.b0.mixer": "attention", "s1.width": 128}
    for width, number in ((16, 8), (32, 4)):
        one = by_width.decode({**start, "s1.head_width": width})
        assert by_number.encode(one)["s1.heads"] == number
        other = by_number.decode(by_number.encode(one))
        assert other.stages[1].option("heads") == number
        assert by_width.encode(other)["s1.head_width"] == width
        assert by_width.decode(by_width.encode(other)) == one


# ------------------------------------------------------------------------------------------- not in the space


def test_what_the_space_cannot_contain_is_refused(write: Write) -> None:
    space = SearchSpace.read(write())
    inside = space.largest(lambda architecture: cost(architecture).macs)
    first, second = inside.stages
    outside = [
        (dataclasses.replace(first, width=96), second),
        (dataclasses.replace(first, mlp_ratio=1.5), second),
        (dataclasses.replace(first, mixers=("conv",) * 3, kernel=3), second),
        (dataclasses.replace(first, mixers=("attention", "attention"), kernel=None, head_width=16), second),
        (first, dataclasses.replace(second, mixers=("attention", "attention"), kernel=None, head_width=32)),
        (first, dataclasses.replace(second, mixers=("conv", "attention"), kernel=3, head_width=16, sharing=True)),
        (dataclasses.replace(first, mixers=("token_mlp", "token_mlp"), kernel=3), second),  # a kernel that nothing reads
        (first,),
        (first, second, second),
    ]
    for stages in outside:
        architecture = dataclasses.replace(inside, stages=stages)
        with pytest.raises(ValueError, match=f"mine.yaml: architecture {architecture.key} is not in the space") as raised:
            space.encode(architecture)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="not in the space"):
        space.encode(dataclasses.replace(inside, patch=2))


# --------------------------------------------------------------------------------------------- extremes and patterns

SMALL_SPACES: dict[str, dict[str, Any]] = {
    "mixed": {"stages__0__cpe": True, "stages__1__cpe": False, "stages__1__mlp_ratio": 2, "stages__1__kernel": 3, "stages__1__width": 64},
    "per stage": {"mixer_per": "stage", "stages__0__cpe": True},
    "always shared": {"stages__0__sharing": True, "stages__1__sharing": True, "stages__0__kernel": 3, "stages__1__cpe": False},
    "one stage": {"stages": [{**STAGE, "mixer": ["permute", "s2_shift", "as_shift"], "depth": [2, 3]}]},
    # What the hidden width is worth shows only once the mixer is chosen that has one.
    "a kind that one mixer reads": {"stages": [{**STAGE, "mixer": ["conv", "token_mlp"], "token_hidden": ["tokens", "channels"]}]},
    "attention on many tokens": {
        "stages": [{**STAGE, "mixer": ["attention", "token_mlp", "conv"], "kernel": [3, 9], "head_width": [16, 32]}],
        "patch": 2,
    },
}


@pytest.mark.parametrize("changes", SMALL_SPACES.values(), ids=SMALL_SPACES)
def test_extremes_equal_enumeration(changes: dict[str, Any], write: Write) -> None:
    space = SearchSpace.read(write(**changes))
    costs = [cost(architecture) for architecture in everything(space)]
    for field in ("macs", "params", "activations"):

        def measure(architecture: Architecture, field: str = field) -> int:
            return getattr(cost(architecture), field)

        assert measure(space.smallest(measure)) == min(getattr(each, field) for each in costs)
        assert measure(space.largest(measure)) == max(getattr(each, field) for each in costs)


def test_extremes_are_looked_for_until_no_single_change_helps() -> None:
    """Here `a` helps only once `b` was changed, which comes after it."""
    measure = {(0, 0): 5, (1, 0): 6, (0, 1): 4, (1, 1): 3}
    decisions = {name: Decision(None, name, (0, 1), ascending=True) for name in ("a", "b")}
    values: Any = geometry.extreme(decisions, dict, lambda values: measure[values["a"], values["b"]], sign=1)  # type: ignore[arg-type, index]
    assert values == {"a": 1, "b": 1}


def test_patterns_are_each_mixer_alone_and_convolution_before_attention(write: Write) -> None:
    space = SearchSpace.read(write())
    patterns = {name: tuple(values.items()) for name, values in space.patterns().items()}

    def pattern(first: str, second: str) -> tuple[tuple[str, str], ...]:
        return (("s0.b0.mixer", first), ("s0.b1.mixer", first), ("s1.b0.mixer", second), ("s1.b1.mixer", second))

    assert patterns == {
        "conv": pattern("conv", "conv"),
        "attention": pattern("conv", "attention"),  # stage 0 does not allow it
        "token_mlp": pattern("token_mlp", "conv"),
        "permute": pattern("conv", "permute"),
        "conv-then-attention": pattern("conv", "attention"),
    }
    without_conv = SearchSpace.read(write(stages__0__mixer=["token_mlp", "s2_shift"]))
    assert without_conv.patterns()["attention"]["s0.b0.mixer"] == "token_mlp"
    with_none = SearchSpace.read(write(stages__0__mixer=["none", "conv", "token_mlp"]))
    assert with_none.patterns()["attention"]["s0.b0.mixer"] == "conv"  # not the first of the list
    assert SearchSpace.read(write(mixer_per="stage")).patterns()["permute"] == {"s0.mixer": "conv", "s1.mixer": "permute"}


# -------------------------------------------------------------------------------------------------- mistakes

MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown mixer": (
        {"stages__1__mixer": ["conv", "atention"]},
        ["stages[1].mixer", "'atention'", "known: none, conv, attention", "Did you mean 'attention'?"],
    ),
    "unknown key of a stage": ({"stages__1__widht": 3}, ["stages[1]", "'widht'", "known: width", "Did you mean 'width'?"]),
    "unknown key": ({"mixer_pre": "block"}, ["'mixer_pre'", "known: format", "Did you mean 'mixer_per'?"]),
    "unknown word": ({"mixer_per": "blocks"}, ["mixer_per", "'blocks'", "'block' or 'stage'", "Did you mean 'block'?"]),
    "missing key": ({"stages__0__width": None}, ["stages[0]", "missing key 'width'", "needed: width, depth, mixer, mlp_ratio"]),
    "text for a number": ({"stages__0__width": "32"}, ["stages[0].width", "'32'", "integer"]),
    "switch for a number": ({"stages__0__depth": [1, True]}, ["stages[0].depth[1]", "True", "integer"]),
    "switch for a ratio": ({"stages__0__mlp_ratio": True}, ["stages[0].mlp_ratio", "True", "number"]),
    "no number": ({"stages__0__mlp_ratio": float("nan")}, ["stages[0].mlp_ratio", "nan", "finite"]),
    "number for a switch": ({"stages__0__cpe": 1}, ["stages[0].cpe", "got 1", "boolean"]),
    "nested list": ({"stages__1__width": [[32]]}, ["stages[1].width[0]", "[32]", "integer"]),
    "empty list": ({"stages__0__width": []}, ["stages[0].width", "at least one", "[]"]),
    "no mixer": ({"stages__1__mixer": []}, ["stages[1].mixer", "at least one", "[]"]),
    "duplicate option": ({"stages__0__mlp_ratio": [2, 2.0]}, ["stages[0].mlp_ratio", "distinct", "[2.0, 2.0]"]),
    "a searched stem": ({"stem": ["patch", "conv4"]}, ["stem: fixed, not searched", "patch, conv4"]),
    "a searched eps": ({"norm_eps": [1e-6, 1e-5]}, ["norm_eps: fixed, not searched", "1e-06, 1e-05"]),
    "depth zero": ({"stages__0__depth": 0}, ["stages[0].depth", "got 0", "1"]),
    "no stages": ({"stages": []}, ["stages", "[]", "at least 1"]),
    "frame": ({"frame__classes": None}, ["frame", "missing key 'classes'", "needed: resolution, channels, classes"]),
    "another file": ({"format": "architecture 1"}, ["format", "'architecture 1'", "'search space 1'"]),
    "heads that do not divide": (
        {"stages__1__head_width": 12},
        ["at resolution 32", "stages.1.blocks.0.mixer.attention", "heads of 12", "width 128", "multiples of 12"],
    ),
    "heads that divide the largest width only": (
        {"stages__1__width": [72, 128]},
        ["stages.1.blocks.0.mixer.attention", "heads of 16", "width 72"],
    ),
    "a grid that does not divide": (
        {"frame__resolution": 24},
        ["at resolution 24", "stages.1.blocks.0.mixer.permute", "width 128 on a grid of 3x3"],
    ),
    "a width that four does not divide": (
        {"stages__0__mixer": ["conv", "s2_shift"], "stages__0__width": [32, 66]},
        ["stages.0.blocks.0.mixer.s2_shift", "width 66", "multiples of 4"],
    ),
    "chunks that do not nest": (
        {"stages__0__mixer": ["conv", "as_shift"], "stages__0__width": [20, 21]},
        ["stages.0.blocks.0.mixer.as_shift", "do not nest", "20", "21", "multiples of 28 or of 32"],
    ),
    "an even kernel": ({"stages__0__kernel": [3, 4]}, ["stages.0.blocks.0.mixer.conv", "must be odd", "got 4"]),
    "a resolution that is no multiple": ({"frame__resolution": 30}, ["resolution 30", "stride 8", "Take 32"]),
}


@pytest.mark.parametrize(("changes", "pieces"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_one_line_with_place_and_remedy(changes: dict[str, Any], pieces: list[str], write: Write) -> None:
    path = write(**changes)
    with pytest.raises(ValueError) as raised:
        SearchSpace.read(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert all(piece in message for piece in pieces), message
    assert "\n" not in message


def test_another_frame_is_checked_as_well(write: Write) -> None:
    space = SearchSpace.read(write())
    assert space.at(Frame(64, 3, 3)).frame == Frame(64, 3, 3)
    assert space.at(Frame(64, 3, 10)).decisions == space.decisions
    with pytest.raises(ValueError, match=r"at resolution 24: stages\.1\.blocks\.0\.mixer\.permute.*3x3"):
        space.at(Frame(24, 3, 10))
