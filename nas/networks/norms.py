"""The norms of the published networks, for tensors [B, H, W, C]. `NORMS` has them by the names that an architecture uses.

LayerNorm takes its statistics over the channels of a token, group norm with one group over positions and channels, and ResMLP's affine
(https://arxiv.org/abs/2105.03404) has none. All three have two parameters per channel.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
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


class _Summed(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since what one process gives counts in the losses of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Summed.apply(gradients[0].contiguous())


class BatchNorm(nn.BatchNorm2d):
    """Batch norm, with the statistics of the whole batch in training where several processes have a part of it each.

    torch's SyncBatchNorm does so on GPUs alone. Where a process does its part in several goes, the statistics are those of one go.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x_BCHW)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None and self.momentum
        x = x_BCHW.float()
        sums = _Summed.apply(torch.cat([x.sum((0, 2, 3)), x.new_tensor([x.numel() / x.shape[1]])]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = x - mean[:, None, None]
        variance = _Summed.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x_BCHW.dtype)


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
