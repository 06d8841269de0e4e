"""The standalone network of an architecture: what is retrained, timed and handed out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.networks.architecture import Architecture
from nas.networks.layers import BlockSpecs, layer_specs, outline, run
from nas.networks.weight_files import load_weights


def attach(root: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module at a dotted name below `root`, with plain modules on the way, so that parameters are named by their place."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


def attached(root: nn.Module, name: str) -> nn.Module:
    """The module at a dotted name: `root.get_submodule(name)` in a sixth of its time, as every layer of every pass needs it."""
    for part in name.split("."):
        root = root._modules[part]  # type: ignore[assignment]  # None only where a module was registered as None
    return root


class Network(nn.Module):
    """The network of `architecture`, with fresh weights from torch's random state.

    Its modules have the names of their specs' `weights`. What stands at a name is what runs: `network.head = nn.Identity()` gives features.

    Args:
        architecture: what to build; its frame says for which images and classes.
        drop_path: rate of the last block; the others rise to it linearly from 0.

    Raises:
        ValueError: a mixer cannot take its width or grid; the message names the place.
    """

    def __init__(self, architecture: Architecture, drop_path: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        self.outline = outline(architecture)
        built: set[str] = set()
        for spec in layer_specs(architecture):
            if spec.weights not in built:
                attach(self, spec.weights, spec.build())
                built.add(spec.weights)
        if drop_path:
            self._set_drop_path(drop_path)

    def _set_drop_path(self, rate: float) -> None:
        from timm.layers import DropPath  # three seconds to import: only when training asks for it

        blocks = [layer for layer in self.outline if isinstance(layer, BlockSpecs)]
        for block, block_rate in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
            if block.branch:
                self.get_submodule(block.branch.weights).drop_path = DropPath(block_rate)
            self.get_submodule(block.mlp.weights).drop_path = DropPath(block_rate)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images [B, channels, resolution, resolution] to logits [B, classes]."""
        return run(self.outline, lambda spec, *inputs: attached(self, spec.weights)(*inputs), images_BCHW)


def load_network(path: Path | str) -> Network:
    """The network of a weights file that `retrain` or `import-weights` wrote, in evaluation mode.

    Raises:
        ValueError: one line: no such file, damaged, or not of a network of this project.
    """
    weights, metadata = load_weights(Path(path))
    if "architecture" not in metadata:
        raise ValueError(f"{path}: no architecture in its metadata: got {', '.join(metadata) or 'none'}; accepted: what retrain wrote.")
    try:
        architecture = Architecture.from_dict(json.loads(metadata["architecture"]), str(path))
        with torch.device("meta"):
            network = Network(architecture)
        network.load_state_dict(weights, assign=True)
    except (ValueError, RuntimeError) as error:  # RuntimeError: names or shapes that do not fit
        what = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: not the weights of the network that its metadata name: {what}. Restore it, or train again.") from None
    return network.eval()
