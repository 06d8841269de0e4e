"""Mixers from outside the package: honest ones that a contract must take, and what it asks to be told of them.

`Pool` (PoolFormer's) has no parameters; `Gained` has a gain that begins at one; `Grouped` has an option that no other mixer has, and weights that change
their shape with it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, StrictInt
from torch import Tensor, nn

from nas.networks.mixers import Mixer, Option
from nas.quantities import Cost


class Pool(nn.Module):
    """The mean over a window, border positions over what there is of it, minus the input."""

    def __init__(self, width: int, grid: tuple[int, int], window: int = 3) -> None:
        super().__init__()
        if window % 2 == 0:
            raise ValueError(f"toy_pool: the window must be odd: got {window}.")
        self.window = window

    def forward(self, x_BHWC: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x_BHWC.permute(0, 3, 1, 2), self.window, 1, self.window // 2, count_include_pad=False)
        return pooled.permute(0, 2, 3, 1) - x_BHWC

    @staticmethod
    def cost(width: int, grid: tuple[int, int], window: int = 3) -> Cost:
        return Cost(0, 0, 0)


class Gained(nn.Module):
    """The mean along an axis, times a gain per channel."""

    def __init__(self, width: int, grid: tuple[int, int], along: str = "height") -> None:
        super().__init__()
        self.dim = 1 if along == "height" else 2
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return (x_BHWC.mean(self.dim, keepdim=True) * self.gain).expand_as(x_BHWC)

    @staticmethod
    def cost(width: int, grid: tuple[int, int], along: str = "height") -> Cost:
        return Cost(0, width, 0)


class Grouped(nn.Module):
    """Each token and the next one of its row, through one linear per group of channels: the option is the number of channels in a group."""

    def __init__(self, width: int, grid: tuple[int, int], group_width: int = 8) -> None:
        super().__init__()
        if width % group_width:
            raise ValueError(f"toy_grouped: groups of {group_width} do not divide the width: got width {width}.")
        self.weight = nn.Parameter(torch.randn(width // group_width, group_width, group_width) * group_width**-0.5)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x = x_BHWC + x_BHWC.roll(-1, dims=2)
        return torch.einsum("bhwgi,goi->bhwgo", x.unflatten(-1, self.weight.shape[:2]), self.weight).flatten(-2)

    def own_slice(self, name: str, largest: Tensor) -> Tensor:
        """The first groups; of wider groups, the blocks on their diagonals."""
        groups, size = self.weight.shape[:2]
        blocks = largest.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # [groups, k, size, k, size]
        return blocks.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).flatten(0, 1)[:groups]

    @staticmethod
    def cost(width: int, grid: tuple[int, int], group_width: int = 8) -> Cost:
        tokens = grid[0] * grid[1]
        return Cost(tokens * width * group_width, width * group_width, tokens * width)


# The one line of each.
TOYS = {
    "toy_pool": Mixer("toy_mixers:Pool", {"window": Option(Annotated[StrictInt, Field(ge=1, le=31)], 3)}),
    "toy_gained": Mixer("toy_mixers:Gained", {"along": Option(Literal["height", "width"], "height", ascending=False)}),
    "toy_grouped": Mixer("toy_mixers:Grouped", {"group_width": Option(Annotated[StrictInt, Field(ge=1, le=1024)], 8)}),
}


def pool(mixer: Any, x: list[list[list[float]]]) -> list[list[list[float]]]:
    reach, (height, columns) = mixer.window // 2, (len(x), len(x[0]))

    def value(h: int, w: int, c: int) -> float:
        rows = range(max(0, h - reach), min(height, h + reach + 1))
        window = [x[i][j][c] for i in rows for j in range(max(0, w - reach), min(columns, w + reach + 1))]
        return sum(window) / len(window) - x[h][w][c]

    return [[[value(h, w, c) for c in range(len(x[0][0]))] for w in range(columns)] for h in range(height)]


def gained(mixer: Any, x: list[list[list[float]]]) -> list[list[list[float]]]:
    gain, (height, columns) = mixer.gain.tolist(), (len(x), len(x[0]))

    def value(h: int, w: int, c: int) -> float:
        line = [x[i][w][c] for i in range(height)] if mixer.dim == 1 else [x[h][j][c] for j in range(columns)]
        return gain[c] * sum(line) / len(line)

    return [[[value(h, w, c) for c in range(len(x[0][0]))] for w in range(columns)] for h in range(height)]


def grouped(mixer: Any, x: list[list[list[float]]]) -> list[list[list[float]]]:
    weight, columns = mixer.weight.tolist(), len(x[0])
    size = len(weight[0])

    def value(h: int, w: int, c: int) -> float:
        group, row = c // size, weight[c // size][c % size]
        return sum(row[i] * (x[h][w][group * size + i] + x[h][(w + 1) % columns][group * size + i]) for i in range(size))

    return [[[value(h, w, c) for c in range(len(x[0][0]))] for w in range(columns)] for h in range(len(x))]


TOY_REFERENCES = {"toy_pool": pool, "toy_gained": gained, "toy_grouped": grouped}
TOY_COUNTS = {
    "toy_pool": lambda C, H, W, window: (0, 0),
    "toy_gained": lambda C, H, W, along: (0, C),
    "toy_grouped": lambda C, H, W, group_width: (H * W * C * group_width, C // group_width * group_width**2),
}
