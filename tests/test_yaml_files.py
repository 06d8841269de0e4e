"""YAML: what is written reads back the same, and no bad file gets further than one line that names it."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.yaml_files import MAX_DEPTH, did_you_mean, read_yaml, validate, write_atomically, write_yaml


def read_text(tmp_path: Path, text: str | bytes, format: str | None = None) -> dict:
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path, format=format)


def one_line(raised: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(raised.value)
    assert len(message.splitlines()) == 1, message
    return message


# ------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("5.", 5.0),
        (".inf", math.inf),
        ("-7", -7),
        ("0", 0),
        ("012", "012"),
        ("12:30", "12:30"),
        ("2026-11-21", "2026-11-21"),
        ("1.2.3", "1.2.3"),
        ("0x1F", "0x1F"),
        ("4.5GFLOPs", "4.5GFLOPs"),
        ("e5", "e5"),
        ("-", None),
        ("on", True),
        ("no", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
    ],
)
def test_scalars_mean_what_they_look_like(tmp_path: Path, scalar: str, value: object) -> None:
    if scalar == "-":
        assert read_text(tmp_path, "key:\n  -\n")["key"] == [None]
        return
    read = read_text(tmp_path, f"key: {scalar}\n")["key"]
    assert read == value and type(read) is type(value)


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    assert read_text(tmp_path, b"\xef\xbb\xbfkey: 1\n") == {"key": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3, column 1", "duplicate key 'a'"]),
        ("top:\n  - {x: 1, x: 2}\n", ["line 2, column 12", "duplicate key 'x'"]),
        ("a: &anchor 1\nb: 2\n", ["line 1", "'anchor'"]),
        ("a: [&x [1], *x]\n", ["aliases"]),
        ("a: *nowhere\n", ["aliases"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["tags", "os.system"]),
        ("a: !thing 1\n", ["tags"]),
        ("a: 1\nb: !!int '3'\n", ["line 2", "tags"]),
        ("a: [1, 2\nb: 3\n", ["line 2, column 2"]),
        ("a: 'open\n", ["line"]),
        ("a: 1\n\tb: 2\n", ["line 2"]),
        ("a: 1\n---\nb: 2\n", ["line 2"]),
        ("- 1\n- 2\n", ["not a mapping", "[1, 2]"]),
        ("just words\n", ["not a mapping", "'just words'"]),
        ("", ["not a mapping"]),
        ("# only a comment\n", ["not a mapping"]),
        ("a: 1\nb: bell \x07\n", ["#x0007", "position"]),
        (b"a: 1\nb: \xff\xfe\n", ["0xff", "position 8"]),
        (b"\x89PNG\r\n\x1a\n\x00\x00", ["0x89"]),
        ("a: " + "[" * 2000 + "]" * 2000 + "\n", ["nest"]),
        ("a: " + "{b: " * 60 + "1" + "}" * 60 + "\n", ["nest"]),
        ("1: x\n", ["key", "'1'"]),
        ("on: x\n", ["key", "'on'"]),
        ("? [a, b]\n: x\n", ["key"]),
        ("a: " + "9" * 5000 + "\n", ["integer"]),
        ("a: '" + "x" * (1 << 20) + "'\n", ["1048576 bytes"]),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        read_text(tmp_path, text)
    message = one_line(raised)
    assert message.startswith(str(tmp_path / "file.yaml")) and all(word in message for word in words), message


def test_nesting_up_to_the_limit_is_read(tmp_path: Path) -> None:
    deep = MAX_DEPTH - 1  # the file's own mapping is a level too
    assert read_text(tmp_path, "a: " + "[" * deep + "]" * deep + "\nb: [[1], [2]]\n")["b"] == [[1], [2]]
    with pytest.raises(ValueError, match="deep"):
        read_text(tmp_path, "a: " + "[" * (deep + 1) + "]" * (deep + 1) + "\n")


def test_a_bomb_of_aliases_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30))
    with pytest.raises(ValueError, match="anchors and aliases"):
        read_text(tmp_path, "l0: &l0 [x]\n" + levels)


@settings(deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=200) | st.text("ab:-[]{}&*!#'\"|>%@?, \n\t01.e~", max_size=60).map(str.encode))
def test_any_bytes_are_a_mapping_or_a_one_line_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    try:
        assert isinstance(read_yaml(path), dict)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1 and str(path) in str(error)


def test_a_path_without_a_readable_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "cifar.yaml").write_text("a: 1\n")
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for path, says in [
        (tmp_path / "cifr.yaml", "no such file; accepted: a YAML file. Did you mean 'cifar.yaml'?"),
        (tmp_path / "none" / "x.yaml", "no such file"),
        (tmp_path, "a folder"),
        (tmp_path / "pipe", "a device"),
        (Path("/dev/zero"), "a device"),
        (tmp_path / ("x" * 300), "cannot be read"),
        *([(Path("/proc/self/mem"), "not accepted")] if Path("/proc/self/mem").exists() else []),  # opens, and fails when read
    ]:
        with pytest.raises(ValueError) as raised:
            read_yaml(path)
        assert str(path) in str(raised.value) and says in one_line(raised)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("format: recipe 1\n", "'recipe 1'"),
        ("format: architecture 2\n", "'architecture 2'"),
        ("epochs: 3\nlr: 1\n", "['epochs', 'lr']"),
        ("{}\n", "[]"),
        ("format: 7\n", "7"),
        ("format: null\n", "None"),
        ("format: [architecture 1]\n", "['architecture 1']"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, text: str, got: str) -> None:
    with pytest.raises(ValueError) as raised:
        read_text(tmp_path, text, "architecture 1")
    assert f"got {got};" in one_line(raised).replace("no such key: ", "") and "accepted: 'architecture 1'" in str(raised.value)


def test_the_right_format_is_read(tmp_path: Path) -> None:
    assert read_text(tmp_path, "format: architecture 1\na: 1\n", "architecture 1") == {"format": "architecture 1", "a": 1}


# ------------------------------------------------------------------------------------------------------- writing

scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text()
tricky = st.sampled_from(["1e-3", "012", "1_000", "12:30", "on", "null", "~", "", "- a", "a: b", "#", "2026-11-21", "0x1F", "é", "\x85"])
values = st.recursive(scalars | tricky, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@settings(deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.text() | tricky, values, max_size=5), st.text())
def test_what_is_written_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, data: dict, header: str) -> None:
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    write_yaml(path, data, header="".join(character for character in header if character.isprintable() or character == "\n"))
    read = read_yaml(path)
    assert read == data and list(read) == list(data)


def test_files_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    block = {"mixer": "conv", "kernel": 7, "cpe": True}
    shared = [1, 2]
    stages = [{"width": 56, "blocks": [block, block, block]}]
    write_yaml(path, {"format": "architecture 1", "stages": stages, "a": shared, "b": shared}, "One.\n\nTwo.")
    assert path.read_text() == (
        "# One.\n#\n# Two.\n"
        "format: architecture 1\n"
        "stages:\n"
        "- width: 56\n"
        "  blocks:\n"
        "  - {mixer: conv, kernel: 7, cpe: true}\n"
        "  - {mixer: conv, kernel: 7, cpe: true}\n"
        "  - {mixer: conv, kernel: 7, cpe: true}\n"
        "a: [1, 2]\n"
        "b: [1, 2]\n"
    )


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.yaml"
    write_yaml(path, {"a": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError) as raised:
        write_yaml(path, {"a": 2})
    assert "No space left on device" in one_line(raised) and str(path) in str(raised.value)
    assert read_yaml(path) == {"a": 1} and os.listdir(tmp_path) == ["x.yaml"]


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written") as raised:
        write_atomically(tmp_path / "file" / "x.yaml", b"")
    assert str(tmp_path / "file" / "x.yaml") in one_line(raised)


def test_what_stood_there_goes_to_the_previous_name(tmp_path: Path) -> None:
    for content in (b"one", b"two", b"three"):
        write_atomically(tmp_path / "x", content[:1], content[1:], previous=tmp_path / "old" if (tmp_path / "x").exists() else None)
    assert ((tmp_path / "x").read_bytes(), (tmp_path / "old").read_bytes()) == (b"three", b"two")
    assert sorted(os.listdir(tmp_path)) == ["old", "x"]


# ---------------------------------------------------------------------------------------------------- validation


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Stage(Strict):
    width: int | list[int]
    mixer: Literal["attention", "conv", "shift"] | list[Literal["attention", "conv", "shift"]]
    kernel: Literal[3, 5, 7] = 3
    ratio: Annotated[float, pydantic.Field(gt=0, le=8)] = 4.0


class Frame(Strict):
    resolution: int = 224


@pydantic.with_config(pydantic.ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True)
class Head:
    classes: int
    hidden: Frame | None = None


class Space(Strict):
    name: str = "x"
    stages: list[Stage]
    frame: Frame | None = None
    head: Head | None = None
    span: tuple[float, float] = (0.0, 1.0)
    frames: dict[str, Frame] = {}

    @pydantic.field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 8:
            raise ValueError(f"too long: got {name!r}; accepted: 8 letters. Shorten it.")
        return name


GOOD = {"width": 64, "mixer": "conv"}


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        ({"stages": [GOOD, {"width": 64, "mixer": "atention"}]}, "stages[1].mixer", ["'atention'", "Did you mean 'attention'?"]),
        ({"stages": [{"width": 64, "mixer": ["conv", "shft"]}]}, "stages[0].mixer[1]", ["'shft'", "'conv'", "Did you mean 'shift'?"]),
        (
            {"stages": [{"width": 64, "mixr": "conv"}]},
            "stages[0]",
            ["unknown key 'mixr'; known: width, mixer, kernel, ratio.", "'mixer'?"],
        ),
        ({"stagse": [GOOD]}, "", ["unknown key 'stagse'; known: name, stages, frame, head, span, frames.", "'stages'?"]),
        ({"stages": [GOOD], "frame": {"resolutoin": 3}}, "frame", ["unknown key 'resolutoin'; known: resolution.", "'resolution'?"]),
        ({"stages": [GOOD], "head": {"clases": 3}}, "head", ["unknown key 'clases'; known: classes, hidden.", "'classes'?"]),
        ({"stages": [GOOD], "head": {"hidden": None}}, "head", ["missing key 'classes'; needed: classes."]),
        (
            {"stages": [GOOD], "head": {"classes": 3, "hidden": {"resoluton": 1}}},
            "head.hidden",
            ["unknown key 'resoluton'; known: resolution."],
        ),
        ({"stages": [{"mixer": "conv"}]}, "stages[0]", ["missing key 'width'; needed: width, mixer."]),
        ({}, "", ["missing key 'stages'; needed: stages."]),
        ({"stages": [{**GOOD, "width": "wide"}]}, "stages[0].width", ["'wide'", "a valid integer", " or a valid list"]),
        ({"stages": [{**GOOD, "width": [64, "wide"]}]}, "stages[0].width[1]", ["'wide'", "a valid integer"]),
        ({"stages": [{**GOOD, "kernel": 4}]}, "stages[0].kernel", ["got 4", "3, 5 or 7"]),
        ({"stages": [{**GOOD, "ratio": 0}]}, "stages[0].ratio", ["got 0", "greater than 0"]),
        ({"stages": {"a": 1}}, "stages", ["got {'a': 1}", "a valid list"]),
        ({"stages": [3]}, "stages[0]", ["got 3", "a mapping"]),
        ({"stages": [GOOD], "head": 3}, "head", ["got 3", "a mapping"]),
        (None, "", ["got None", "a mapping"]),
        ({"stages": [GOOD], "span": [0.5]}, "span", ["one more item"]),
        (
            {"stages": [GOOD], "frames": {"a": {"resolution": 3}, "b": {"resoluton": 3}}},
            "frames.b",
            ["known: resolution.", "'resolution'?"],
        ),
    ],
)
def test_a_mistake_is_said_with_its_place_and_what_is_accepted(data: object, place: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        validate(Space, data, "x.yaml")
    message = one_line(raised)
    assert message.startswith(f"x.yaml: {place}: " if place else "x.yaml: "), message
    assert all(word in message for word in words), message
    assert "Stage" not in message and "literal[" not in message  # nothing of Python's types


def test_a_validators_own_sentence_passes_through_whole() -> None:
    with pytest.raises(ValueError) as raised:
        validate(Space, {"stages": [GOOD], "name": "far too long"}, "x.yaml")
    assert str(raised.value) == "x.yaml: name: too long: got 'far too long'; accepted: 8 letters. Shorten it."


def test_what_is_right_passes() -> None:
    space = validate(Space, {"stages": [{"width": [32, 64], "mixer": "conv"}]}, "x.yaml")
    assert isinstance(space, Space) and space.stages[0].width == [32, 64]


def test_only_a_near_name_is_suggested() -> None:
    known = ["attention", "conv"]
    assert did_you_mean("Atention", known) == " Did you mean 'attention'?"
    assert did_you_mean("zebra", known) == "" and did_you_mean(3, []) == ""


keys = st.sampled_from(["stages", "frame", "name", "width", "mixer", "kernel", "ratio", "resolution", "int", "list[int]", "Stage", "odd\n"])
junk = st.recursive(
    scalars | st.sampled_from(["conv", 3, 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.dictionaries(keys, junk, max_size=4)
    | st.fixed_dictionaries({"stages": st.lists(st.dictionaries(keys, junk, max_size=4), max_size=3)})
    | junk
)
def test_any_data_fit_or_give_a_one_line_error(data: object) -> None:
    try:
        validate(Space, data, "x.yaml")
    except ValueError as error:
        assert str(error).startswith("x.yaml: ")
        assert len(str(error).splitlines()) == 1
