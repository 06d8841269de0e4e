"""All networks of a space in one: for every place the largest module, of which each architecture uses a part.

Nothing is implemented a second time. A layer of a smaller width, ratio or kernel is the ordinary standalone module, run on slices of the
largest one's parameters; `subnet` copies the same slices into a standalone network. Mixer kinds share nothing but what surrounds
them: stem, merging, channel MLP, position encoding and head are one per place, whichever mixer ran; each mixer kind has its own norm and scale.
Where a space chooses between kinds of norm or forms of merging, each has its own weights too (`LayerSpec.home`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.networks.architecture import Architecture
from nas.networks.layers import LayerSpec, layer_specs, outline, own_slice, run
from nas.networks.network import Network, attach, attached
from nas.spaces.decisions import SearchSpace


class Supernet(nn.Module):
    """The supernet of a space, with fresh weights from torch's random state, for the images and classes of `space.frame`."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        for home, spec in space.largest_layers.items():
            attach(self, home, spec.build())
        self._skeletons: dict[Any, tuple[nn.Module, tuple[str, ...], tuple[str, ...]]] = {}

    def forward(self, images_BCHW: Tensor, architecture: Architecture, recompute: bool = False) -> Tensor:
        """Images [B, channels, resolution, resolution] to logits [B, classes], by the network of `architecture`; `recompute` as in `run`."""
        return run(outline(architecture), self._call, images_BCHW, recompute)

    def _call(self, spec: LayerSpec, *inputs: object) -> Tensor:
        skeleton, parameters, buffers = self._skeleton(spec)
        shared = attached(self, spec.home)
        tensors = {name: own_slice(skeleton, name, shared.get_parameter(name)) for name in parameters}
        if buffers:  # a batch norm's: no choice changes them, so they are used, and kept up, as they are
            tensors |= {name: shared.get_buffer(name) for name in buffers}
            skeleton.train(self.training)
        return functional_call(skeleton, tensors, inputs)

    def _skeleton(self, spec: LayerSpec) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
        """The spec's module without weights (on the meta device), and the names of its parameters and buffers.

        Not registered: the weights are the largest module's. Two threads must not run one skeleton at once.
        """
        if spec.shape not in self._skeletons:
            with torch.device("meta"):
                skeleton = spec.build()
            # A buffer that is not passed would stay on meta, and indexing by it reads uninitialised memory without an error.
            buffers, shared = dict(skeleton.named_buffers()), attached(self, spec.home)
            assert all(shared.get_buffer(name).shape == buffer.shape for name, buffer in buffers.items()), spec.place
            self._skeletons[spec.shape] = skeleton, tuple(dict(skeleton.named_parameters())), tuple(buffers)
        return self._skeletons[spec.shape]

    def subnet(self, architecture: Architecture) -> Network:
        """The standalone network of `architecture` with a copy of its part of the shared weights: same outputs, same gradients."""
        with torch.device("meta"):
            network = Network(architecture)
        for spec in {spec.weights: spec for spec in layer_specs(architecture)}.values():
            module, shared = attached(network, spec.weights), attached(self, spec.home)
            tensors = {name: own_slice(module, name, shared.get_parameter(name)) for name, _ in module.named_parameters()}
            tensors |= dict(shared.named_buffers())
            copies = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
            module.load_state_dict(copies, assign=True)
        return network.train(self.training)
