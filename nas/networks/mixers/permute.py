"""Permute: linear layers along the height, along the width and along the channels, weighed against each other.

Source: "Vision Permutator", https://arxiv.org/abs/2106.12368, code houqb/VisionPermutator, its weighted layer: channels are cut into as
many segments as the grid is high; each linear along the height mixes (height x segment width), the same for all columns and segments; likewise
along the width. Branches without bias, output projection with bias; the weights of the three branches come from the mean of their sum over the
positions through an MLP (C, C/4, 3C; channel-major), by a softmax over the branches.
Differs: a grid may be oblong, with C / height and C / width channels to a segment (the official code asks for a square).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nas.quantities import Cost


class Permute(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if width % grid[0] or width % grid[1]:
            raise ValueError(f"permute: the sides of the grid must divide the width: got width {width} on a grid of {grid[0]}x{grid[1]}.")
        if width % 4:
            raise ValueError(f"permute: a quarter of the width is its hidden width: got width {width}; accepted multiples of 4.")
        self.grid = tuple(grid)
        self.mlp_h = nn.Linear(width, width, bias=False)
        self.mlp_w = nn.Linear(width, width, bias=False)
        self.mlp_c = nn.Linear(width, width, bias=False)
        self.reweight_fc1 = nn.Linear(width, width // 4)
        self.reweight_fc2 = nn.Linear(width // 4, 3 * width)
        self.proj = nn.Linear(width, width)
        self.groups = {"mlp_h.weight": (grid[0], grid[0]), "mlp_w.weight": (grid[1], grid[1])}  # a group is one position's segment

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        if self.grid != (H, W):
            raise ValueError(f"permute: its segments belong to another grid: got {H}x{W}; accepted {self.grid[0]}x{self.grid[1]}.")
        # [B, H, W, segments, S] -> [B, segments, W, H * S] and back
        h = x_BHWC.reshape(B, H, W, H, C // H).permute(0, 3, 2, 1, 4).reshape(B, H, W, C)
        h = self.mlp_h(h).reshape(B, H, W, H, C // H).permute(0, 3, 2, 1, 4).reshape(B, H, W, C)
        # [B, H, W, segments, S] -> [B, H, segments, W * S] and back
        w = x_BHWC.reshape(B, H, W, W, C // W).permute(0, 1, 3, 2, 4).reshape(B, H, W, C)
        w = self.mlp_w(w).reshape(B, H, W, W, C // W).permute(0, 1, 3, 2, 4).reshape(B, H, W, C)
        c = self.mlp_c(x_BHWC)
        summary = (h + w + c).mean(dim=(1, 2))
        weights = self.reweight_fc2(F.gelu(self.reweight_fc1(summary))).reshape(B, C, 3).softmax(dim=-1)
        a_h, a_w, a_c = weights.to(x_BHWC.dtype).reshape(B, 1, 1, C, 3).unbind(dim=-1)
        return self.proj(h * a_h + w * a_w + c * a_c)

    @staticmethod
    def cost(width: int, grid: tuple[int, int]) -> Cost:
        tokens, hidden = grid[0] * grid[1], width // 4
        return Cost(
            macs=4 * tokens * width**2 + 4 * width * hidden,
            params=4 * width**2 + width + (width + 1) * hidden + (hidden + 1) * 3 * width,
            activations=4 * tokens * width + hidden + 3 * width,
        )
