"""Checkpoints of the original code, turned into weights of this project's networks, with what is needed to use them on an image."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from nas.networks.architecture import Architecture
from nas.networks.preprocessing import Preprocessing
from nas.networks.weight_files import check_numbers
from nas.published.dialects import TESTED, dialect_of, wanted
from nas.published.presets import Preset
from nas.yaml_files import listed, one_line_error

MOSTLY = 0.9  # share of a file's names that fit, from which on it is this network's, and was changed


def convert(system: str, architecture: Architecture, state: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """The state dict of `Network(architecture)`, in float32, from the original's. All of that is used, and all of the network is filled.

    Args:
        system: whose network it is, as presets name it.
        architecture: the network that `state` is of.
        state: what `read_checkpoint` gave.
        place: begins the error: the path of the file.

    Raises:
        ValueError: one line: no official code, keys that are missing, left over or of another shape, numbers that are none, or copies that
            differ.
    """
    dialect = dialect_of(system, architecture, state, place)
    names = wanted(dialect, architecture)
    heads = [theirs for theirs, (name, _) in names.items() if name.startswith("head.fc")]
    _check(dialect, {theirs: like for theirs, (_, like) in names.items()}, heads, state, place)
    given = {theirs: state[theirs].reshape(like.shape).to(like.dtype) for theirs, (_, like) in names.items()}
    advice = "The training that wrote it had failed by then: take an earlier checkpoint, or download it again."
    check_numbers(given, place, advice)

    converted: dict[str, Tensor] = {}
    for theirs, (name, _) in names.items():
        if not torch.equal(converted.setdefault(name, given[theirs]), given[theirs]):
            raise one_line_error(f"{place}: {theirs}: not equal to the first block's: no mixer is shared. Name the preset without sharing.")
    return converted


def _check(dialect: str, wanted: Mapping[str, Tensor], heads: Collection[str], state: Mapping[str, Tensor], place: str) -> None:
    """`heads` are those of the keys that depend on the number of classes.

    Axes of length one do not count: the originals have them where a linear is a 1x1 convolution, and where a scale is (1, 1, C).
    """

    def like(tensor: Tensor) -> tuple[list[int], bool]:
        return [size for size in tensor.shape if size != 1], tensor.is_floating_point()

    def shown(tensor: Tensor) -> str:
        return ("x".join(map(str, tensor.shape)) or "one number") + ("" if tensor.is_floating_point() else f" of {tensor.dtype}")

    both = {name: (state[name], tensor) for name, tensor in wanted.items() if name in state}
    differ = {name: pair for name, pair in both.items() if like(pair[0]) != like(pair[1])}
    unlike = [f"{name} (got {shown(a)}; accepted {shown(b)})" for name, (a, b) in differ.items()]
    problems = {
        "missing": [name for name in wanted if name not in state],
        "left over": [name for name in state if name not in wanted],
        "of another shape": unlike,
    }
    found = "; ".join(f"{what}: {listed(names)}" for what, names in problems.items() if names)
    if found:
        fit = len(both) - len(unlike)
        got, accepted = next(((a.numel(), b.numel()) for a, b in differ.values() if b.dim() == 1), (0, 0))  # of a head it is the bias
        if got != accepted and differ.keys() == set(heads) and state.keys() == wanted.keys():
            advice = f"Its head is made for {got:,} classes: take the file that was published for {accepted:,}."
        elif fit >= MOSTLY * len(wanted.keys() | state.keys()):
            advice = f"The other {fit} fit: the file was changed (a key renamed, a head for other classes). Take it as it was published."
        else:
            advice = "It is probably of another network: name the preset that it was trained as."
        raise one_line_error(f"{place}: not this network's weights, by their names in {dialect}: {found}. {advice}")


def preprocessing(preset: Preset, names: Collection[str], place: str) -> Preprocessing:
    """How whoever published a file makes the images of the test, by the names in it; `place` is the path of the file."""
    dialect = dialect_of(preset.published.system, preset.architecture, names, place)
    if re.search(r"mixer\w+[._]miil", place):  # nothing in the file tells
        dialect = "MLP-Mixer of MIIL"
    mean, std, crop, interpolation = TESTED.get(preset.published.name) or TESTED[dialect]
    frame = preset.architecture.frame
    return Preprocessing(frame.resolution, frame.channels, mean, std, crop, interpolation)


def usual_preprocessing(preset: Preset) -> Preprocessing:
    """The same without a file: as the first code of its system does it, or the most usual one where none was found (S2-MLP)."""
    system, frame = preset.published.system, preset.architecture.frame
    known = [dialect for dialect in TESTED if dialect.partition(" of ")[0] == system]
    mean, std, crop, interpolation = TESTED.get(preset.published.name) or TESTED[known[0] if known else "SPACH"]
    return Preprocessing(frame.resolution, frame.channels, mean, std, crop, interpolation)


def class_names(number: int) -> list[str]:
    """Those of ImageNet-1k, each once, for as many classes; none otherwise, since a file does not name them."""
    if number != 1000:
        return []
    from timm.data import ImageNetInfo  # seconds to import

    info = ImageNetInfo()
    short = [info.index_to_description(i) for i in range(number)]
    return [name if short.count(name) == 1 else info.index_to_description(i, detailed=True) for i, name in enumerate(short)]
