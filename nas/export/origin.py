"""Where a network that is handed out comes from: a trained one from its weights, or one with random weights from an architecture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import nas
from nas.networks.architecture import read_architecture
from nas.networks.network import Network
from nas.networks.trained import load_network
from nas.published.import_weights import usual_preprocessing
from nas.published.presets import architecture_file, preset_names, read_preset
from nas.runs.folder import RUNS, weights_file
from nas.runs.records import digest
from nas.yaml_files import did_you_mean, one_line_error

YAML = (".yaml", ".yml")
SEED = 0  # of random weights: the same ones each time


@dataclass(frozen=True)
class Origin:
    """A network that is handed out.

    Attributes:
        network: in evaluation mode, in float32 on the CPU.
        path: the file of its weights, or of its architecture.
        name: what it is called: its file's name, or its run's.
        digest: of the file of its weights; None where the weights are random.
    """

    network: Network
    path: Path
    name: str
    digest: str | None

    @property
    def metadata(self) -> dict[str, Any]:
        """What another program needs to use the network, as plain values; `mean` and so on only where it is known how images are made."""
        network, how = self.network, self.network.preprocess
        frame = network.architecture.frame
        return {
            "name": self.name,
            "architecture": network.architecture.to_dict(),
            "architecture_key": network.architecture.key,
            "weights": self.digest or "random",
            "classes": list(network.classes),
            "resolution": frame.resolution,
            "channels": frame.channels,
            **(how.recorded() if how else {}),
            "preprocessing": in_words(network),
            "made_with": f"hybrid-nas {nas.__version__}, torch {torch.__version__}",
        }


def in_words(network: Network) -> str:
    """How an image becomes the network's input."""
    how, frame = network.preprocess, network.architecture.frame
    if how is None:
        return f"Nothing says how images of {frame.resolution} px with {frame.channels} channels are made for it."
    square = "the square in the middle" + (f", {how.crop:.4g} of the shorter side" if how.crop < 1 else "")
    colours, per = ("grey", "") if how.channels == 1 else ("RGB", " per channel")
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (how.mean, how.std))
    return (
        f"{square[0].upper()}{square[1:]}; scaled to {how.resolution} x {how.resolution} px, {how.interpolation}, antialiased; {colours}, "
        f"divided by 255; less the mean{per} ({mean}), divided by the deviation ({std}); float32 [batch, {how.channels}, {how.resolution}, "
        f"{how.resolution}]."
    )


def open_origin(given: str) -> Origin:
    """The network that is meant: a file of weights, a run by its name or folder, an architecture's file, or a published network's name.

    Raises:
        ValueError: none of these, a run without weights, or a damaged file.
    """
    path = Path(given)
    word = path.name == given and not path.suffix and not path.exists() and not (RUNS / given).exists()
    if word and given not in preset_names():
        near = did_you_mean(given.replace("-", "_"), [*preset_names(), *(run.name for run in RUNS.glob("*/"))])
        accepted = "weights, an architecture's file, the name or folder of a run, or a published network's name"
        raise one_line_error(f"{given}: no such file, run or published network; accepted: {accepted}.{near or ' Check the name.'}")
    if word or path.suffix in YAML:
        return _untrained(given)
    path = weights_file(given)
    name = path.resolve().parent.name if path.stem == "weights" else path.stem
    return Origin(load_network(path).float(), path, name, digest(path))


def _untrained(given: str) -> Origin:
    path = architecture_file(Path(given))
    architecture, _ = read_architecture(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = Network(architecture).eval()
    if given in preset_names():
        network.preprocess = usual_preprocessing(read_preset(given))
    return Origin(network, path, path.stem, None)


def as_text(metadata: dict[str, Any]) -> dict[str, str]:
    """Each value as JSON, as a weights file has them."""
    return {name: json.dumps(value) for name, value in metadata.items()}
