"""A trained network's file: its weights, and all that is needed to use them on an image."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.networks.preprocessing import INTERPOLATIONS, Preprocessing
from nas.networks.weight_files import check_numbers, load_weights, save_weights

BF16 = ("gpu", "auto", "always", "never")  # where a network runs in bfloat16


def save_network(
    path: Path, weights: Mapping[str, Tensor], architecture: Architecture, classes: Sequence[str], how: Preprocessing, bf16: str = "never"
) -> None:
    """Writes a network's weights with its architecture, the names of its classes in their order, how its images are made, and where it was
    trained in bfloat16 (`BF16`).

    Raises:
        ValueError: one line, when there is no room or no permission.
    """
    described = {"architecture": architecture.to_dict(), "classes": list(classes), "bf16": bf16, **how.recorded()}
    save_weights(path, weights, {name: json.dumps(value) for name, value in described.items()})


def load_network(path: Path | str) -> Network:
    """The network of a weights file that `retrain`, `search` or `import-weights` wrote, in evaluation mode.

    It takes images [B, channels, resolution, resolution] to logits [B, classes]. `network.preprocess(image)` makes such an image of a
    Pillow one, as it was made for the test, and `network.classes` has the names of the classes. In files of earlier versions either may be
    missing.

    Raises:
        ValueError: one line: no such file, damaged, or not of a network of this project.
    """
    weights, metadata = load_weights(Path(path))
    if "architecture" not in metadata:
        raise ValueError(f"{path}: no architecture in its metadata: got {', '.join(metadata) or 'none'}; accepted: what retrain wrote.")
    try:
        told = {name: json.loads(value) for name, value in metadata.items()}
        architecture = Architecture.from_dict(told["architecture"], str(path))
        with torch.device("meta"):
            network = Network(architecture)
        network.load_state_dict(weights, assign=True)
        network.classes, network.preprocess = tuple(map(str, told.get("classes", ()))), _preprocessing(architecture, told)
        network.bf16 = told.get("bf16", "never")
        if len(network.classes) not in (0, architecture.frame.classes) or network.bf16 not in BF16:
            raise ValueError(f"got {len(network.classes)} classes for {architecture.frame.classes} outputs, and bf16 {network.bf16!r}")
    except (ValueError, RuntimeError, TypeError) as error:  # RuntimeError: names or shapes that do not fit
        what = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: not the weights of the network that its metadata name: {what}. Restore it, or train again.") from None
    return network.eval()


@torch.no_grad()
def begin_with(network: Network, weights: Network, place: str, theirs: Path | None = None) -> list[str]:
    """Gives a network the weights of another of the same architecture, which may be made for other images; what is left fresh, in words. `theirs` is
    where the file of its architecture would lie.

    Another number of classes leaves the head fresh; grey images get the sum of a stem's weights for colours, and colours a third each of those for
    grey. Any resolution will do where no mixer's weights depend on the grid.

    Raises:
        ValueError: another architecture, a mixer that cannot take the resolution, or weights that are no numbers; begins with `place`.
    """
    made_for, wanted = weights.architecture.frame, network.architecture.frame
    if weights.architecture.at(wanted) != network.architecture:
        got, accepted = weights.architecture.key, network.architecture.at(made_for).key
        named = f"{theirs} instead" if theirs and theirs.exists() else "the file that they were trained from"
        raise ValueError(f"{place}: weights of another architecture: got {got}; accepted: {accepted}. Retrain {named}.")
    check_numbers(weights.state_dict(), place, "The training that wrote them had failed by then: take weights of one that went well.")
    own, fresh = network.state_dict(), list[str]()
    for name, tensor in weights.state_dict().items():
        inputs = own[name].shape[1:2], tensor.shape[1:2]
        if own[name].shape == tensor.shape:
            own[name].copy_(tensor)
        elif name.startswith("head.fc"):
            fresh = [f"the head, for {wanted.classes} classes instead of {made_for.classes}"]
        elif inputs == ((wanted.channels,), (made_for.channels,)) and {wanted.channels, made_for.channels} == {1, 3}:
            own[name].copy_(tensor.sum(1, keepdim=True) / wanted.channels)
        else:
            what = "channels" if made_for.resolution == wanted.resolution else "px"
            asked, taken = ({"px": each.resolution, "channels": each.channels}[what] for each in (wanted, made_for))
            advice = f"Give --resolution {taken}." if what == "px" else "Take such images."
            raise ValueError(
                f"{place}: {name} is made for {taken} {what}: got images of {asked} {what}; accepted: {taken} {what}. {advice}"
            )
    return fresh


def _preprocessing(architecture: Architecture, told: Mapping[str, object]) -> Preprocessing | None:
    """What the metadata say of it; None where they say nothing, as in files of earlier versions."""
    if "mean" not in told or "std" not in told:
        return None
    frame = architecture.frame
    given = {name: told[name] for name in ("crop", "interpolation") if name in told}
    how = Preprocessing(frame.resolution, frame.channels, tuple(map(float, told["mean"])), tuple(map(float, told["std"])), **given)  # type: ignore[call-overload,arg-type]
    numbers = all(map(math.isfinite, how.mean)) and all(0 < each < math.inf for each in how.std) and 0 < how.crop <= 1
    if not numbers or {len(how.mean), len(how.std)} != {how.channels} or how.interpolation not in INTERPOLATIONS:
        raise ValueError(f"images are made in a way that is not known: got {how}")
    return how
