"""The standalone network of an architecture: what is retrained, timed and handed out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.networks.architecture import Architecture
from nas.networks.layers import BlockSpecs, LayerSpec, layer_specs, outline, run
from nas.networks.weight_files import load_weights


def attach(root: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module at a dotted name below `root`, with plain modules on the way, so that parameters are named by their place."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


class Network(nn.Module):
    """The network of `architecture`, with fresh weights from torch's random state.

    Args:
        architecture: what to build; its frame says for which images and classes.
        drop_path: rate of the last block; the others rise to it linearly from 0.

    Attributes:
        layers: the modules by the `weights` of their specs.

    Raises:
        ValueError: a mixer cannot take its width or grid; the message names the place.
    """

    def __init__(self, architecture: Architecture, drop_path: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        self.outline = outline(architecture)
        self.layers: dict[str, nn.Module] = {}
        for spec in layer_specs(architecture):
            if spec.weights not in self.layers:
                attach(self, spec.weights, build_layer(spec))
                self.layers[spec.weights] = self.get_submodule(spec.weights)
        if drop_path:
            self._set_drop_path(drop_path)

    def _set_drop_path(self, rate: float) -> None:
        from timm.layers import DropPath  # three seconds to import: only when training asks for it

        blocks = [layer for layer in self.outline if isinstance(layer, BlockSpecs)]
        for block, block_rate in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
            if block.branch:
                self.layers[block.branch.weights].drop_path = DropPath(block_rate)
            self.layers[block.mlp.weights].drop_path = DropPath(block_rate)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images [B, channels, resolution, resolution] to logits [B, classes]."""
        return run(self.outline, self._call, images_BCHW)

    def _call(self, spec: LayerSpec, *inputs: object) -> Tensor:
        return self.layers[spec.weights](*inputs)


def load_network(path: Path | str) -> Network:
    """The network of a weights file that `retrain` or `import-weights` wrote, in evaluation mode.

    Raises:
        ValueError: one line: no such file, damaged, or not of a network of this project.
    """
    weights, metadata = load_weights(Path(path))
    if "architecture" not in metadata:
        raise ValueError(
            f"{path}: no architecture in its metadata: got {', '.join(metadata) or 'none'}; accepted: a file of retrain or import-weights."
        )
    architecture = Architecture.from_dict(json.loads(metadata["architecture"]), str(path))
    with torch.device("meta"):
        network = Network(architecture)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def build_layer(spec: LayerSpec) -> nn.Module:
    """The spec's module; an error of geometry is told with its place."""
    try:
        return spec.build()
    except ValueError as error:
        raise ValueError(f"{spec.place}: {error}") from None
