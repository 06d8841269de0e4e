"""YAML files in and out: read with suspicion, checked against a model, written atomically.

Every mistake a user can make in a file becomes a ValueError of one line that names the file and the place in it.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pydantic
import yaml

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML without libyaml: the same rules, slower
MAX_BYTES = 1 << 20
MAX_DEPTH = 50
_LINE_WIDTH = 110
_TEXT = "tag:yaml.org,2002:str"

Model = TypeVar("Model", bound=pydantic.BaseModel)


def one_line_error(message: str) -> ValueError:
    """The error for what a user wrote; what it quotes may have line breaks, the message has none."""
    return ValueError(" ".join(message.splitlines()))


def listed(names: Iterable[object], most: int = 6) -> str:
    """The first of many names, and how many more there are."""
    every = [str(name)[:100] for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """``" Did you mean 'attention'?"`` for the nearest of the known names, ``""`` when none is near."""
    names = {str(name).lower(): str(name) for name in known}
    close = difflib.get_close_matches(str(word).lower(), names, n=1)
    return f" Did you mean '{names[close[0]]}'?" if close else ""


def brief(value: object) -> str:
    """A value as messages quote it: its repr, cut at 60 characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


class _Loader(_SafeLoader):
    """The safe loader without YAML 1.1's surprises.

    A number is a number as everyone writes it: ``1e-3`` is a float (PyYAML reads a string), while ``012``, ``12:30`` and
    ``2026-11-21`` stay text (PyYAML reads 10, 750 and a date). ``on/off/yes/no`` are booleans, which suits switches.
    Keys are text and occur once.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != _TEXT or key.value in seen:
                what = "duplicate key" if key.tag == _TEXT else "a key must be text, or stand in quotes: got"
                raise yaml.MarkedYAMLError(problem=f"{what} {brief(key.value)}", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_FLOAT = re.compile(
    r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$"
    r"|\.(?:nan|NaN|NAN)$"
)
_Loader.yaml_implicit_resolvers = {}  # begin without those of YAML 1.1
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_BOOL = re.compile(r"(?:[Yy]es|YES|[Nn]o|NO|[Tt]rue|TRUE|[Ff]alse|FALSE|[Oo]n|ON|[Oo]ff|OFF)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("yYnNtTfFoO"))


def read_yaml(path: Path, *, format: str | None = None) -> dict[str, Any]:
    """Reads one mapping from a YAML file, without anchors, aliases, tags, duplicate keys or any code.

    Args:
        path: the file; at most `MAX_BYTES`, UTF-8, nested at most `MAX_DEPTH` deep.
        format: what the key ``format`` must say, kind and version, such as ``"architecture 1"``; None checks nothing.

    Returns:
        The mapping, keys in the order of the file, ``format`` among them.

    Raises:
        ValueError: one line that names the file and, where there is one, the line and column.
    """
    opened = open_file(Path(path), "a YAML file")
    try:
        with opened as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"got more than {MAX_BYTES} bytes; accepted: at most that")
        text = raw.decode()
        _refuse_events(text)
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise one_line_error(f"{path}:{where} not accepted as YAML: {error.problem or error.context}.") from None
    except (OSError, RecursionError, ValueError, yaml.YAMLError) as error:  # such as bytes that are no UTF-8, and control characters
        raise one_line_error(f"{path}: not accepted as YAML: {error}.") from None
    if not isinstance(data, dict):
        raise one_line_error(f"{path}: not a mapping: got {brief(data)}; accepted: lines of `key: value`.")
    if format is not None and data.get("format") != format:
        got = f"got {brief(data['format'])}" if "format" in data else f"no such key: got {brief(list(data))}"
        raise one_line_error(f"{path}: format: {got}; accepted: {format!r}. It is a file of another kind or of another release.")
    return data


def open_file(path: Path, what: str) -> BinaryIO:
    """Opens a file that a user named, to read bytes.

    Raises:
        ValueError: one line: no such file, with the nearest name beside it, no regular file, or no permission; `what` says what is accepted.
    """
    try:
        if not path.exists():
            near = did_you_mean(path.name, (each.name for each in path.parent.glob("*")))
            raise one_line_error(f"{path}: no such file; accepted: {what}.{near or ' Check the path.'}")
        if not path.is_file():
            raise one_line_error(f"{path}: a folder or a device; accepted: {what}. Name the file itself.")
        return path.open("rb")
    except OSError as error:
        raise one_line_error(f"{path}: cannot be read: {error.strerror}. Check the path and its permissions.") from None


def _refuse_events(text: str) -> None:
    """Refuses what the loader would follow blindly: aliases can grow to gigabytes, nesting overflows the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if anchor or tag or depth > MAX_DEPTH:
            what = f"anchors and aliases are not accepted: got {anchor!r}" if anchor else f"tags are not accepted: got {tag!r}"
            problem = what if anchor or tag else f"nested too deeply; accepted: at most {MAX_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]  # of either parser


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # the reader refuses aliases, so what occurs twice is written twice

    def serialize(self, node: yaml.Node) -> None:
        node.flow_style = False  # type: ignore[attr-defined]  # a line for each key of the file, however short
        super().serialize(node)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML leaves a U+0085 bare between single quotes, where it reads back as a space: what cannot be seen is escaped.
    return dumper.represent_scalar(_TEXT, text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)
# Decides which text needs quotes: beside YAML 1.1's own list what `_Loader` takes for a number.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def write_yaml(path: Path, data: Mapping[str, Any], header: str = "") -> None:
    """Writes a mapping as YAML, as `write_atomically` does.

    Args:
        path: where to; its folder is made.
        data: text, numbers, booleans, None, lists and mappings of these; the order of the keys is kept.
        header: lines to stand above the data as a comment.
    """
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    # default_flow_style None: what holds no list or mapping stands on one line
    body = yaml.dump(dict(data), Dumper=_Dumper, default_flow_style=None, sort_keys=False, allow_unicode=True, width=_LINE_WIDTH)
    write_atomically(Path(path), (comment + body).encode("utf-8"))


def write_atomically(path: Path, *parts: bytes | memoryview, previous: Path | None = None) -> None:
    """Writes a file beside its place and renames it into place: a reader finds the old file or the new one, never a part.

    Args:
        path: where to; its folder is made.
        parts: the content, in order.
        previous: where what stood at `path` goes; without it, it is replaced.

    Raises:
        ValueError: one line, when there is no room or no permission; what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None:
            os.replace(path, previous)
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # or a power cut may undo the renames
        os.close(folder)
    except OSError as error:
        raise one_line_error(f"{path}: cannot be written: {error.strerror}. Make room or choose another place; nothing was lost.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # of a model, and of a dataclass inside one


def validate(model: type[Model], data: object, place: str) -> Model:
    """Checks data against a pydantic model and says one mistake in one line.

    Args:
        model: what is accepted.
        data: usually what `read_yaml` gave.
        place: begins the error: the path of the file.

    Raises:
        ValueError: ``place: stages[1].depth: got 'two'; accepted: a valid integer.``
    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        mistakes = [(_path(data, each["loc"]), each) for each in error.errors(include_url=False)]
    # What got deepest into the data: every alternative of a union complains, and a misspelt key lies deeper than the missing one.
    path, mistake = max(mistakes, key=lambda each: len(each[0]))
    kind, got = mistake["type"], mistake["input"]
    if kind in _UNKNOWN_KEY:
        *path, name = path
        known = _keys(model, path, "properties")
        problem = f"unknown key {name!r}; known: {', '.join(known)}.{did_you_mean(name, known)}"
    elif kind == "missing":
        problem = f"missing key {mistake['loc'][-1]!r}; needed: {', '.join(_keys(model, path, 'required')) or 'one more item'}. Add it."
    elif kind in ("value_error", "assertion_error"):
        problem = str(mistake["ctx"]["error"])  # the validator's own sentence is finished
    else:
        messages = (re.sub("^Input should (be )?|, unable to .*", "", each["msg"]) for where, each in mistakes if where == path)
        accepted = " or ".join(dict.fromkeys(re.sub(r"(valid )?dictionary or .*", "mapping, `key: value`", each) for each in messages))
        near = did_you_mean(got, re.findall("'([^']*)'", accepted))
        problem = f"got {brief(got)}; accepted: {accepted}.{near}"
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    raise one_line_error(": ".join(filter(None, [place, shown, problem])))


def _path(data: Any, loc: Iterable[int | str]) -> list[int | str]:
    """The place of an error in the data: pydantic's `loc` without the names of a union's alternatives and without a missing key."""
    path: list[int | str] = []
    for part in loc:
        is_item = isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        if is_item or (isinstance(data, Mapping) and part in data):
            data = data[part]
            path.append(part)
    return path


def _keys(model: type[pydantic.BaseModel], path: Iterable[int | str], kind: str) -> list[str]:
    """The keys that a model accepts ("properties") or needs ("required") at a place, of all alternatives that may stand there."""
    schema = model.model_json_schema()

    def alternatives(each: Any) -> list[Any]:
        if "$ref" in each:
            return alternatives(schema["$defs"][each["$ref"].rpartition("/")[2]])
        return [inner for one in each["anyOf"] for inner in alternatives(one)] if "anyOf" in each else [each]

    found = alternatives(schema)
    for part in path:
        named = [{part: each.get("additionalProperties")} | each.get("properties", {}) for each in found]
        inside = [each.get("items") for each in found] if isinstance(part, int) else [each[part] for each in named]
        found = [inner for each in inside if isinstance(each, dict) for inner in alternatives(each)]
    return [key for each in found for key in each.get(kind, ())]
