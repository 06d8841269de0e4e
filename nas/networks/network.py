"""The standalone network of an architecture: what is retrained, timed and handed out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.networks.architecture import Architecture
from nas.networks.layers import BlockSpecs, layer_specs, outline, run
from nas.networks.preprocessing import Preprocessing


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

    Attributes:
        classes: their names in order; empty where nobody said.
        preprocess: makes a Pillow image into what the network takes; None where nobody said how.
        bf16: where it was trained in bfloat16: "gpu", "auto", "always" or "never". `load_network` sets all three.

    Raises:
        ValueError: a mixer cannot take its width or grid; the message names the place.
    """

    def __init__(self, architecture: Architecture, drop_path: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        self.classes: tuple[str, ...] = ()
        self.preprocess: Preprocessing | None = None
        self.bf16 = "never"
        self.outline = outline(architecture)
        built: set[str] = set()
        for spec in layer_specs(architecture):
            if spec.weights not in built:
                attach(self, spec.weights, spec.build())
                built.add(spec.weights)
        if drop_path:
            self._set_drop_path(drop_path)

    def _set_drop_path(self, rate: float) -> None:
        from nas.networks.drop_path import DropPath  # three seconds to import: only when training asks for it

        blocks = [layer for layer in self.outline if isinstance(layer, BlockSpecs)]
        for block, block_rate in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
            if block.branch:
                self.get_submodule(block.branch.weights).drop_path = DropPath(block_rate)
            self.get_submodule(block.mlp.weights).drop_path = DropPath(block_rate)

    def forward(self, images_BCHW: Tensor, recompute: bool = False) -> Tensor:
        """Images [B, channels, resolution, resolution] to logits [B, classes]; `recompute` as in `run`."""
        return run(self.outline, lambda spec, *inputs: attached(self, spec.weights)(*inputs), images_BCHW, recompute)
