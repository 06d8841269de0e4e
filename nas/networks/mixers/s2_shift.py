"""Spatial shift: four groups of channels move one position each, in four directions, between two linears.

Source: "S2-MLP", https://arxiv.org/abs/2106.07477; no official code was found. linear, GELU, shift, linear. The first group
moves by +1 along the first spatial axis, the second by -1, the third and fourth likewise along the second axis; there is no group that stays.
The paper's listing assigns overlapping slices of one tensor, which in PyTorch silently repeats the first row; what it means is that a border
row keeps its own value, and that is what this file does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.quantities import Cost


def s2_shift(x_BHWC: Tensor, axes: tuple[int, int] = (1, 2)) -> Tensor:
    """The four moves, into a new tensor: two along the first of `axes`, two along the second (1: height, 2: width).

    Equal to a fixed depthwise 3x3 convolution with replicated borders. In exported files a move is one gather, a tenth to a quarter faster in
    ONNX Runtime; in PyTorch a gather is slower than `cut`.
    """
    moved = gathered if torch.compiler.is_exporting() else cut
    a, b, c, d = x_BHWC.chunk(4, dim=-1)
    first, second = axes
    return torch.cat((moved(a, 1, first), moved(b, -1, first), moved(c, 1, second), moved(d, -1, second)), dim=-1)


def cut(x_BHWC: Tensor, step: int, dim: int) -> Tensor:
    """One position on (+1) or back (-1) along `dim`; the border that nothing moves into keeps its value."""
    if x_BHWC.shape[dim] == 1:
        return x_BHWC
    # `split` and not overlapping slices: the backward of each slice fills the whole tensor with zeros (a quarter to a third slower)
    first, middle, last = x_BHWC.split((1, x_BHWC.shape[dim] - 2, 1), dim)
    return torch.cat((first, first, middle) if step == 1 else (middle, last, last), dim)


def gathered(x_BHWC: Tensor, step: int, dim: int) -> Tensor:
    """The same by positions."""
    side = x_BHWC.shape[dim]
    return x_BHWC.index_select(dim, (torch.arange(side) - step).clamp(0, side - 1))


class S2Shift(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"s2_shift: its four groups must be equal: got width {width}; accepted multiples of 4.")
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.groups = {"fc1.weight": (4, 1), "fc1.bias": (4,), "fc2.weight": (1, 4)}

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.fc2(s2_shift(F.gelu(self.fc1(x_BHWC))))

    @staticmethod
    def cost(width: int, grid: tuple[int, int]) -> Cost:
        tokens = grid[0] * grid[1]
        return Cost(macs=2 * tokens * width**2, params=2 * width**2 + 2 * width, activations=2 * tokens * width)
