"""What stands around the mixers: stem, patch merging, the mixer's branch, channel MLP, head.

Tensors are [B, H, W, C] between modules; a convolution permutes inside, which copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.networks.norms import NORMS, BatchNorm, GroupNorm1, norm_params
from nas.quantities import Cost

CONV4_WIDTH = 64  # channels between the convolutions of SPACH's stem


class PatchConv(nn.Conv2d):
    """Non-overlapping k x k patches of [B, H, W, C_in], each to one token of C_out: [B, H / k, W / k, C_out]."""

    def __init__(self, channels: int, width: int, patch: int, bias: bool = True) -> None:
        super().__init__(channels, width, patch, stride=patch, bias=bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return super().forward(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _patch_cost(channels: int, width: int, patch: int, grid: tuple[int, int]) -> Cost:
    outputs = grid[0] * grid[1] * width
    return Cost(macs=outputs * channels * patch**2, params=width * (channels * patch**2 + 1), activations=outputs)


class Stem(nn.Module):
    """Images [B, C, H, W] to tokens: a convolution over patches, then a norm or none."""

    def __init__(self, channels: int, width: int, patch: int, grid: tuple[int, int], norm: str, eps: float) -> None:
        super().__init__()
        self.patch_embed = PatchConv(channels, width, patch)
        self.norm = NORMS[norm](width, eps)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.norm(self.patch_embed(images_BCHW.permute(0, 2, 3, 1)))

    @staticmethod
    def cost(channels: int, width: int, patch: int, grid: tuple[int, int], norm: str, eps: float) -> Cost:
        macs, params, activations = _patch_cost(channels, width, patch, grid)
        return Cost(macs, params + norm_params(norm, width), activations)


class Conv4Stem(Stem):
    """SPACH's stem ("+"): convolutions 7x7 with stride 2, 3x3, 3x3, each with batch norm and ReLU, then patches of half the side.

    The only batch norm of the project. Every architecture sees the same images through it, so in a supernet its statistics are no mixture.
    """

    def __init__(self, channels: int, width: int, patch: int, grid: tuple[int, int], norm: str, eps: float) -> None:
        if patch % 2:
            raise ValueError(f"stem conv4: a convolution halves the side, patches do the rest: got patch {patch}; accepted even ones.")
        super().__init__(CONV4_WIDTH, width, patch // 2, grid, norm, eps)
        self.conv1 = nn.Conv2d(channels, CONV4_WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm(CONV4_WIDTH)
        self.conv2 = nn.Conv2d(CONV4_WIDTH, CONV4_WIDTH, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(CONV4_WIDTH)
        self.conv3 = nn.Conv2d(CONV4_WIDTH, CONV4_WIDTH, 3, padding=1, bias=False)
        self.bn3 = BatchNorm(CONV4_WIDTH)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images_BCHW)))
        x = F.relu(self.bn2(self.conv2(x)))
        return super().forward(F.relu(self.bn3(self.conv3(x))))

    @staticmethod
    def cost(channels: int, width: int, patch: int, grid: tuple[int, int], norm: str, eps: float) -> Cost:
        macs, params, activations = Stem.cost(CONV4_WIDTH, width, patch // 2, grid, norm, eps)
        taps = CONV4_WIDTH * (channels * 7**2 + 2 * CONV4_WIDTH * 3**2)
        positions = grid[0] * grid[1] * (patch // 2) ** 2
        return Cost(macs + positions * taps, params + taps + 3 * 2 * CONV4_WIDTH, activations + 3 * positions * CONV4_WIDTH)


class Merge(nn.Module):
    """Patch merging between stages, onto `grid`: convolution 2x2 with stride 2, either with bias (ViP's) or `normed`: then group norm (SPACH's)."""

    def __init__(self, in_width: int, width: int, grid: tuple[int, int], normed: bool = False) -> None:
        super().__init__()
        self.reduction = PatchConv(in_width, width, 2, bias=not normed)
        self.norm = GroupNorm1(width) if normed else nn.Identity()

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.norm(self.reduction(x_BHWC))

    @staticmethod
    def cost(in_width: int, width: int, grid: tuple[int, int], normed: bool = False) -> Cost:
        macs, params, activations = _patch_cost(in_width, width, 2, grid)
        return Cost(macs, params - width + norm_params("group_norm", width) if normed else params, activations)


class GatherMerge(nn.Module):
    """AS-MLP's patch merging, as Swin's: four neighbours (0,0), (1,0), (0,1), (1,1) to one token of 4C, group norm, linear without bias."""

    def __init__(self, in_width: int, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.norm = GroupNorm1(4 * in_width)
        self.reduction = nn.Linear(4 * in_width, width, bias=False)
        self.groups = {"norm.weight": (4,), "norm.bias": (4,), "reduction.weight": (1, 4)}

    def forward(self, x_BHWC: Tensor) -> Tensor:
        corners = [x_BHWC[:, h::2, w::2] for w in (0, 1) for h in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))

    @staticmethod
    def cost(in_width: int, width: int, grid: tuple[int, int]) -> Cost:
        macs, params, activations = _patch_cost(in_width, width, 2, grid)
        return Cost(macs, params - width + norm_params("group_norm", 4 * in_width), activations)


def _scaled(scale: nn.Parameter | None, x: Tensor) -> Tensor:
    return x if scale is None else scale * x


class Branch(nn.Module):
    """A mixer's place on the residual stream: x + drop_path(scale * mixer(norm(x))) + cpe(x).

    The position encoding reads the block's input and is neither scaled nor dropped, as in SPACH, https://arxiv.org/abs/2108.13002.
    `scale` is where the layer scale begins; None: there is none.
    """

    def __init__(self, width: int, norm: str, eps: float, scale: float | None) -> None:
        super().__init__()
        self.norm = NORMS[norm](width, eps)
        self.scale = None if scale is None else nn.Parameter(torch.full((width,), scale))
        self.drop_path: nn.Module = nn.Identity()  # Network puts timm's DropPath here

    def forward(self, x_BHWC: Tensor, mixer: Callable[[Tensor], Tensor], cpe: Callable[[Tensor], Tensor] | None) -> Tensor:
        y = x_BHWC + self.drop_path(_scaled(self.scale, mixer(self.norm(x_BHWC))))
        return y if cpe is None else y + cpe(x_BHWC)

    @staticmethod
    def cost(width: int, norm: str, eps: float, scale: float | None) -> Cost:
        return Cost(macs=0, params=norm_params(norm, width) + (width if scale is not None else 0), activations=0)


class ChannelMLP(nn.Module):
    """The second residual of a block: x + drop_path(scale * fc2(gelu(fc1(norm(x))))), mostly without the scale."""

    def __init__(self, width: int, hidden: int, grid: tuple[int, int], norm: str, eps: float, scale: float | None) -> None:
        super().__init__()
        self.norm = NORMS[norm](width, eps)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.scale = None if scale is None else nn.Parameter(torch.full((width,), scale))
        self.drop_path: nn.Module = nn.Identity()

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return x_BHWC + self.drop_path(_scaled(self.scale, self.fc2(F.gelu(self.fc1(self.norm(x_BHWC))))))

    @staticmethod
    def cost(width: int, hidden: int, grid: tuple[int, int], norm: str, eps: float, scale: float | None) -> Cost:
        tokens = grid[0] * grid[1]
        return Cost(
            macs=2 * tokens * width * hidden,
            params=2 * width * hidden + hidden + width + norm_params(norm, width) + (width if scale is not None else 0),
            activations=tokens * (width + hidden),
        )


class Head(nn.Module):
    """Tokens to logits [B, classes]: a norm or none, mean over positions, linear."""

    def __init__(self, width: int, classes: int, norm: str, eps: float) -> None:
        super().__init__()
        self.norm = NORMS[norm](width, eps)
        self.fc = nn.Linear(width, classes)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc(self.norm(x_BHWC).mean(dim=(1, 2)))

    @staticmethod
    def cost(width: int, classes: int, norm: str, eps: float) -> Cost:
        return Cost(macs=width * classes, params=norm_params(norm, width) + (width + 1) * classes, activations=classes)
