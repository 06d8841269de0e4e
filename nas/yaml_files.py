"""YAML files in and out: read with suspicion, checked against a model, written atomically.

Every mistake a user can make in a file becomes a ValueError of one line that names the file and the place in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import pydantic
import yaml

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml: the same rules, slower
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
_FLOW_WIDTH = 88
_LINE_WIDTH = 110

Model = TypeVar("Model", bound=pydantic.BaseModel)


# --------------------------------------------------------------------------------------------------------- names


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """``" Did you mean 'attention'?"`` for the nearest of the known names, ``""`` when none is near."""
    names = {str(name).lower(): str(name) for name in known}
    close = difflib.get_close_matches(str(word).lower(), names, n=1)
    return f" Did you mean '{names[close[0]]}'?" if close else ""


# ------------------------------------------------------------------------------------------------------- reading


class _Loader(_SafeLoader):
    """The safe loader without YAML 1.1's surprises.

    A number is a number as everyone writes it: ``1e-3`` is a float (PyYAML reads a string), while ``012``, ``12:30`` and
    ``2026-11-21`` stay text (PyYAML reads 10, 750 and a date). ``on/off/yes/no`` are booleans, which suits switches.
    Keys are text and occur once.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            problem = None
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                problem = f"a key must be text: got {shown!r}; accepted: a name. Put it in quotes if it is meant"
            elif key.value in seen:
                problem = f"duplicate key {key.value!r}, also on line {seen[key.value]}. Keep one"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


_FLOAT = re.compile(
    r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$"
    r"|\.(?:nan|NaN|NAN)$"
)
_Loader.yaml_implicit_resolvers = {}  # begin without those of YAML 1.1
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_BOOL = re.compile(r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
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
    path = Path(path)
    text = _read_text(path)
    try:
        _refuse_events(text)
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise _error(f"{path}:{where} not accepted as YAML: {error.problem or error.context}.") from None
    except yaml.reader.ReaderError as error:
        raise _error(
            f"{path}: line {_line_of(text, error.position)}: not YAML: a control character: got {chr(int(error.character))!r}; "
            "accepted: plain text. Remove it."
        ) from None
    except (RecursionError, ValueError, yaml.YAMLError) as error:
        raise _error(f"{path}: not accepted as YAML: {error}.") from None
    if not isinstance(data, dict):
        raise _error(f"{path}: not a mapping: got {_short(data)}; accepted: lines of `key: value`.")
    if format is not None:
        _check_format(path, data, format)
    return data


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise _error(f"{path}: a folder: accepted: a YAML file. Name the file in it.")
        if not path.exists():
            siblings = [str(path.parent / entry.name) for entry in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
            hint = did_you_mean(str(path), siblings)
            raise _error(f"{path}: no such file; accepted: a YAML file that exists.{hint or ' Check the path.'}")
        if not path.is_file():
            raise _error(f"{path}: not a regular file; accepted: a YAML file.")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _error(f"{path}: cannot be read: {error.strerror}. Check the path and its permissions.") from None
    if len(raw) > MAX_BYTES:
        raise _error(f"{path}: too large for a YAML file: got more than {MAX_BYTES} bytes; accepted: at most that.")
    try:
        return raw.decode("utf-8-sig")  # an editor's byte-order mark is no content
    except UnicodeDecodeError as error:
        raise _error(
            f"{path}: line {raw.count(10, 0, error.start) + 1}: not text in UTF-8: got byte 0x{raw[error.start]:02x}; "
            "accepted: a YAML file in UTF-8. Save it as UTF-8, or name another file."
        ) from None


def _refuse_events(text: str) -> None:
    """Refuses what the loader would follow blindly: aliases can grow to gigabytes, nesting overflows the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        problem = None
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor:
            problem = f"anchors and aliases are not accepted: got {anchor!r}. Write the value out"
        elif tag:
            problem = f"tags are not accepted: got {tag!r}. Write the plain value"
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                problem = f"nested too deeply; accepted: at most {MAX_DEPTH} levels"
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]  # either parser's mark


def _check_format(path: Path, data: Mapping[str, Any], format: str) -> None:
    kind = format.rpartition(" ")[0]
    found = data.get("format")
    if found is None:
        keys = ", ".join(map(str, list(data)[:8])) or "nothing"
        raise _error(f"{path}: no key 'format': got {keys}; accepted: `format: {format}`. Is this {_a(kind)} file?")
    if found == format:
        return
    named = re.fullmatch(r"([a-z]+(?: [a-z]+)*) [0-9]+", str(found))
    if named and named[1] == kind:
        raise _error(f"{path}: format: unknown version: got {found!r}; accepted: {format!r}. Another release wrote it.")
    what = f"this is {_a(named[1])} file" if named else "unknown format"
    raise _error(f"{path}: format: {what}: got {_short(found)}; needs {_a(kind)} file, `format: {format}`.")


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


# ------------------------------------------------------------------------------------------------------- writing


class _Dumper(yaml.SafeDumper):
    """Keeps short inner mappings and all lists of scalars on one line, so that a file can be read at a glance."""

    def ignore_aliases(self, data: Any) -> bool:
        return True  # the reader refuses aliases, so what occurs twice is written twice

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=len(repr(mapping)) <= _FLOW_WIDTH)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        scalars = not any(isinstance(item, (dict, list, tuple)) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=scalars or len(repr(sequence)) <= _FLOW_WIDTH)

    def serialize(self, node: yaml.Node) -> None:
        assert isinstance(node, yaml.MappingNode)
        node.flow_style = False  # the outermost mapping: a line for each key
        super().serialize(node)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML leaves a U+0085 bare between single quotes, where it reads back as a space: what cannot be seen is escaped.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)
# Decides which text needs quotes: beside YAML 1.1's own list what `_Loader` takes for a number.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def write_yaml(path: Path, data: Mapping[str, Any], header: str = "") -> None:
    """Writes a mapping as YAML, atomically: a reader finds the old file or the new one, never a part.

    Args:
        path: where to; its folder is made.
        data: text, numbers, booleans, None, lists and mappings of these; the order of the keys is kept.
        header: lines to stand above the data as a comment.

    Raises:
        ValueError: one line, when the file cannot be written.
    """
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    body = yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_LINE_WIDTH)
    write_atomically(Path(path), (comment + body).encode("utf-8"))


def write_atomically(path: Path, *parts: bytes | memoryview, previous: Path | None = None) -> None:
    """Writes a file beside its place, syncs it, renames it into place and syncs the folder.

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
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None:
            os.replace(path, previous)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise _error(f"{path}: cannot be written: {error.strerror}. Make room or choose another place; nothing was lost.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a rename in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_room(path: Path, num_bytes: int) -> None:
    """Looks before writing: the errors of a disk that fills up under a write say less, and some writers leave half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise _error(f"{path}: cannot be written: {error.strerror}. Check the path and its permissions.") from None
    if free < num_bytes + (1 << 20):
        sizes = f"needs {num_bytes / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
        raise _error(f"{path}: no room: {sizes}; what was there stays. Make room, then run the same command to continue.")


# ---------------------------------------------------------------------------------------------------- validation

# Of a model and of a plain dataclass inside one.
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def validate(model: type[Model], data: object, place: str) -> Model:
    """Checks data against a pydantic model and says the first mistake in one line.

    Args:
        model: what is accepted.
        data: usually what `read_yaml` gave.
        place: begins the error: the path of the file.

    Raises:
        ValueError: ``place: stages[1].mixer: unknown mixer 'atention'; known: ... Did you mean 'attention'?``
    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        raise _error(_first_mistake(model, data, place, error.errors(include_url=False))) from None


def _first_mistake(model: type[pydantic.BaseModel], data: object, place: str, errors: Sequence[Any]) -> str:
    paths = [_path(data, error) for error in errors]
    # A misspelt key is also a missing one: the misspelling explains more, so it goes first.
    first = next((i for i, error in enumerate(errors) if error["type"] in _UNKNOWN_KEY), 0)
    # Each alternative of a union reports for itself: the one that got deepest into the value is the one that was meant.
    related = [i for i, path in enumerate(paths) if path[: len(paths[first])] == paths[first]]
    deepest = max(related, key=lambda i: (len(paths[i]), -i)) if errors[first]["type"] not in _UNKNOWN_KEY else first
    same = [errors[i] for i in related if paths[i] == paths[deepest]]
    others = {path for path in paths if path[: len(paths[first])] != paths[first]}
    # Prefixes of one another are one mistake seen from two alternatives.
    count = sum(not any(path != other and path == other[: len(path)] for other in others) for path in others)
    shown = _show_path(paths[deepest][:-1] if errors[deepest]["type"] in ("missing", *_UNKNOWN_KEY) else paths[deepest])
    message = f"{place}: {shown}: " if shown else f"{place}: "
    message += _explain(model, errors[deepest], same, paths[deepest])
    return message + (f" ({count} more after this one.)" if count else "")


def _path(data: object, error: Any) -> tuple[str | int, ...]:
    """The place of an error in the data, without the names of union members that pydantic puts into `loc`."""
    path: list[str | int] = []
    for number, part in enumerate(error["loc"]):
        is_item = isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        if is_item or (isinstance(data, Mapping) and part in data):
            data = data[part]  # type: ignore[index]
        elif not (error["type"] == "missing" and number == len(error["loc"]) - 1):
            continue
        path.append(part)
    return tuple(path)


def _show_path(path: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _explain(model: type[pydantic.BaseModel], error: Any, same: Sequence[Any], path: Sequence[str | int]) -> str:
    kind, context, got = error["type"], error.get("ctx", {}), error["input"]
    name = next((part for part in reversed(path) if isinstance(part, str)), "value")
    if kind in _UNKNOWN_KEY:
        known = [key for found in _models_at(model, error["loc"][:-1]) for key in _keys(found)]
        return f"unknown key {name!r}; known: {', '.join(known)}.{did_you_mean(name, known)}"
    if kind == "missing":
        needed = [key for found in _models_at(model, error["loc"][:-1]) for key in _keys(found, required=True)]
        keys = ", ".join(map(str, got)) if isinstance(got, Mapping) and got else "nothing"
        return f"missing key {name!r}: got {keys}; needed: {', '.join(needed) or name}. Add it."
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", error["msg"]))  # the validator's own sentence is finished
    choices = [choice for each in same for choice in _choices(each)]
    if choices and all(_choices(each) or each["type"].endswith("_type") for each in same):
        return f"unknown {name} {_short(got)}; known: {', '.join(choices)}.{did_you_mean(got, choices)}"
    accepted = " or ".join(dict.fromkeys(_accepted(each) for each in same))
    return f"not accepted: got {_short(got)}; accepted: {accepted}."


def _choices(error: Any) -> list[str]:
    if error["type"] not in ("literal_error", "enum"):
        return []
    expected = error["ctx"]["expected"]  # "'a', 'b' or 'c'"; numbers stand without quotes
    return re.findall(r"'([^']*)'", expected) or re.split(r", | or ", expected)


def _accepted(error: Any) -> str:
    choices = _choices(error)
    if choices:
        return ", ".join(choices)
    message: str = error["msg"]
    message = re.sub(r"^Input should (be )?", "", message)
    message = re.sub(r"^an? (valid )?dictionary.*", "a mapping, `key: value`", message)  # the rest names Python classes
    return re.sub(r", (unable to|got) .*$", "", message, flags=re.S)


def _models_at(model: type, loc: Iterable[str | int]) -> list[type]:
    """The models or dataclasses that may stand at a place; several where the annotation is a union."""
    found = [model]
    for part in loc:
        named = [each for each in found if each.__name__ == part]
        annotations = [_fields(each)[part][0] for each in found if isinstance(part, str) and part in _fields(each)]
        if annotations:
            found = [inner for annotation in annotations for inner in _models_in(annotation)]
        elif named:
            found = named
    return found


def _models_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and (issubclass(annotation, pydantic.BaseModel) or dataclasses.is_dataclass(annotation)):
        return [annotation]
    return [inner for argument in get_args(annotation) for inner in _models_in(argument)]


def _fields(model: type) -> dict[str, tuple[Any, bool]]:
    """Each key as it is written in a file, with its annotation and whether it is needed."""
    if issubclass(model, pydantic.BaseModel):
        return {field.alias or name: (field.annotation, field.is_required()) for name, field in model.model_fields.items()}
    assert dataclasses.is_dataclass(model)
    annotations = get_type_hints(model)
    missing = dataclasses.MISSING
    needed = {field.name: field.default is missing and field.default_factory is missing for field in dataclasses.fields(model)}
    return {name: (annotations[name], is_needed) for name, is_needed in needed.items()}


def _keys(model: type, required: bool = False) -> list[str]:
    return [key for key, (_, needed) in _fields(model).items() if needed or not required]


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _error(message: str) -> ValueError:
    return ValueError(" ".join(message.splitlines()))
