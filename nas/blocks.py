"""What stands around the mixers: stem, patch merging, the mixer's branch, channel MLP, head.

Tensors are [B, H, W, C] between modules; a convolution permutes inside, which copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.budget import Cost

NORM_EPS = 1e-6
SCALE_INIT = 0.1  # smaller ones (1e-4, 1e-6 in the papers, for 300 epochs) do not grow in a short run


class PatchConv(nn.Conv2d):
    """Non-overlapping k x k patches of [B, H, W, C_in], each to one token of C_out: [B, H / k, W / k, C_out]."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__(channels, width, patch, stride=patch)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return super().forward(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _patch_cost(channels: int, width: int, patch: int, grid: tuple[int, int]) -> Cost:
    outputs = grid[0] * grid[1] * width
    return Cost(macs=outputs * channels * patch**2, params=width * (channels * patch**2 + 1), activations=outputs)


class Stem(nn.Module):
    """Images [B, C, H, W] to tokens: a convolution over patches, then LayerNorm."""

    def __init__(self, channels: int, width: int, patch: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.patch_embed = PatchConv(channels, width, patch)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.norm(self.patch_embed(images_BCHW.permute(0, 2, 3, 1)))

    @staticmethod
    def cost(channels: int, width: int, patch: int, grid: tuple[int, int]) -> Cost:
        macs, params, activations = _patch_cost(channels, width, patch, grid)
        return Cost(macs, params + 2 * width, activations)


class Merge(nn.Module):
    """Patch merging between stages: convolution 2x2 with stride 2 and bias, no norm (ViP's form); `grid` is the one it makes."""

    def __init__(self, in_width: int, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.reduction = PatchConv(in_width, width, 2)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.reduction(x_BHWC)

    @staticmethod
    def cost(in_width: int, width: int, grid: tuple[int, int]) -> Cost:
        return _patch_cost(in_width, width, 2, grid)


class Branch(nn.Module):
    """A mixer's place on the residual stream: x + drop_path(scale * mixer(norm(x))) + cpe(x).

    The position encoding reads the block's input and is neither scaled nor dropped, as in SPACH, https://arxiv.org/abs/2108.13002.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.scale = nn.Parameter(torch.full((width,), SCALE_INIT))
        self.drop_path: nn.Module = nn.Identity()  # Network puts timm's DropPath here

    def forward(self, x_BHWC: Tensor, mixer: Callable[[Tensor], Tensor], cpe: Callable[[Tensor], Tensor] | None) -> Tensor:
        y = x_BHWC + self.drop_path(self.scale * mixer(self.norm(x_BHWC)))
        return y if cpe is None else y + cpe(x_BHWC)

    @staticmethod
    def cost(width: int) -> Cost:
        return Cost(macs=0, params=3 * width, activations=0)


class ChannelMLP(nn.Module):
    """The second residual of a block: x + drop_path(fc2(gelu(fc1(norm(x)))))."""

    def __init__(self, width: int, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop_path: nn.Module = nn.Identity()

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC + self.drop_path(self.fc2(F.gelu(self.fc1(self.norm(x_BHWC)))))

    @staticmethod
    def cost(width: int, hidden: int, grid: tuple[int, int]) -> Cost:
        tokens = grid[0] * grid[1]
        return Cost(
            macs=2 * tokens * width * hidden,
            params=2 * width * hidden + hidden + 3 * width,
            activations=tokens * (width + hidden),
        )


class Head(nn.Module):
    """Tokens to logits [B, classes]: LayerNorm, mean over positions, linear."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.fc = nn.Linear(width, classes)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc(self.norm(x_BHWC).mean(dim=(1, 2)))

    @staticmethod
    def cost(width: int, classes: int) -> Cost:
        return Cost(macs=width * classes, params=2 * width + (width + 1) * classes, activations=classes)
