"""What a trained network's mixers have learnt to look at, found out by gradients on real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.networks.layers import BlockSpecs
from nas.networks.network import Network

Map = NDArray[np.float64]


def receptive_fields(network: Network, images_BCHW: Tensor) -> list[Map]:
    """Of each stage: how much each pixel moves the token in the middle of its last block's output, [H, W], at most 1.

    Source: W. Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", https://arxiv.org/abs/1701.04128:
    the mean of the gradients' absolute values over images and channels.
    """
    fields = []
    for blocks in _stages(network):
        images = images_BCHW.detach().clone().requires_grad_()
        last = network.get_submodule(blocks[-1].mlp.weights)
        y_BHWC = _outputs(network, last, images)[-1]
        _middle(y_BHWC).backward()
        assert images.grad is not None
        fields.append(_scaled(images.grad.abs().mean(dim=(0, 1))))
    return fields


def mixing_fields(network: Network, images_BCHW: Tensor) -> list[list[Map]]:
    """Of each block of each stage: how much each token of its mixer's input moves the mixer's output in the middle, [H, W], between -1 and 1.

    Signed, the mean over channels and images: of a convolution its mean kernel, of a token linear the row of its matrix that belongs to the
    middle token. Zero where a block has no mixer.
    """
    stages = []
    for blocks in _stages(network):
        maps = []
        for block in blocks:
            x_BHWC = _inputs(network, block, images_BCHW)
            if x_BHWC is None or block.mixer is None:
                maps.append(np.zeros((1, 1)))
                continue
            x_BHWC = x_BHWC.detach().requires_grad_()
            _middle(network.get_submodule(block.mixer.weights)(x_BHWC)).backward()
            assert x_BHWC.grad is not None
            maps.append(_scaled(x_BHWC.grad.mean(dim=(0, 3))))
        stages.append(maps)
    return stages


def _stages(network: Network) -> list[list[BlockSpecs]]:
    """The blocks of each stage."""
    stages: list[list[BlockSpecs]] = [[]]
    for layer in network.outline[1:-1]:
        if isinstance(layer, BlockSpecs):
            stages[-1].append(layer)
        else:
            stages.append([])
    return stages


def _outputs(network: Network, module: nn.Module, images: Tensor) -> list[Tensor]:
    """What a module gives in a pass, each time that it is called."""
    return _watched(network, images, lambda told: module.register_forward_hook(lambda _module, _inputs, output: told.append(output)))


def _inputs(network: Network, block: BlockSpecs, images: Tensor) -> Tensor | None:
    """What a block's mixer is given in a pass. A shared one is called by several blocks: the place among them tells."""
    if block.mixer is None:
        return None
    same = [each for stage in _stages(network) for each in stage if each.mixer and each.mixer.weights == block.mixer.weights]
    module = network.get_submodule(block.mixer.weights)
    with torch.no_grad():
        told = _watched(network, images, lambda told: module.register_forward_pre_hook(lambda _module, inputs: told.append(inputs[0])))
    return told[[each.mlp.place for each in same].index(block.mlp.place)]


def _watched(network: Network, images: Tensor, watch: Callable[[list[Tensor]], Any]) -> list[Tensor]:
    told: list[Tensor] = []
    handle = watch(told)
    try:
        network.eval()(images)
    finally:
        handle.remove()
    return told


def _middle(y_BHWC: Tensor) -> Tensor:
    return y_BHWC[:, y_BHWC.shape[1] // 2, y_BHWC.shape[2] // 2].sum()


def _scaled(field: Tensor) -> Map:
    values = field.detach().double().cpu().numpy()
    return np.asarray(values / max(float(np.abs(values).max()), 1e-30))
