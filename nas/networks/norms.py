"""The norms of the published networks, for tensors [B, H, W, C]. `NORMS` has them by the names that an architecture uses.

LayerNorm takes its statistics over the channels of a token, group norm with one group over positions and channels, and ResMLP's affine
(https://arxiv.org/abs/2105.03404) has none. All three have two parameters per channel.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP_NORM_EPS = 1e-5


class GroupNorm1(nn.Module):
    """GroupNorm with one group: statistics over positions and channels, weights per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return F.layer_norm(x_BHWC, x_BHWC.shape[1:], eps=GROUP_NORM_EPS) * self.weight + self.bias


class Affine(nn.Module):
    """alpha * x + beta, per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.alpha * x_BHWC + self.beta


# By kind: (width, eps) -> module. Only LayerNorm's eps differs from network to network.
NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "none": lambda width, eps: nn.Identity(),
    "layer_norm": lambda width, eps: nn.LayerNorm(width, eps=eps),
    "group_norm": lambda width, eps: GroupNorm1(width),
    "affine": lambda width, eps: Affine(width),
}


def norm_params(kind: str, width: int) -> int:
    """Parameters of a norm."""
    return 0 if kind == "none" else 2 * width
