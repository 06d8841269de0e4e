"""Multi-head self-attention over all tokens of the grid.

Source: "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929, in the form of SPACH,
https://arxiv.org/abs/2108.13002, code microsoft/SPACH: one fused qkv with bias, scale head_width^-0.5, no relative positions.
Heads are given by their width or by their number, and what a narrower network has of the widest follows from that. With `head_width` (SPACH's
networks of one stage) it has fewer heads, the first ones; with `heads` (SPACH's networks of four stages: one number for all) it has as many,
of the first channels of each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.quantities import Cost


class Attention(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int], head_width: int | None = None, heads: int | None = None) -> None:
        super().__init__()
        divisor = heads if head_width is None else head_width
        if divisor is None or None not in (head_width, heads):
            got = "none" if divisor is None else f"{head_width} and {heads}"
            raise ValueError(f"attention: needs 'head_width' or 'heads': got {got}; accepted one of the two.")
        if width % divisor:
            what = f"{heads} heads" if heads else f"heads of {head_width}"
            raise ValueError(f"attention: {what} do not divide the width: got width {width}; accepted multiples of {divisor}.")
        self.head_width = head_width or width // divisor
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        groups = heads or 1  # heads of a fixed width are one group, whose first channels are the first heads
        self.groups = {"qkv.weight": (3 * groups, 1), "qkv.bias": (3 * groups,), "proj.weight": (1, groups)}

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        # rows of qkv are ordered (three, heads, head_width)
        qkv = self.qkv(x_BHWC).reshape(B, H * W, 3, C // self.head_width, self.head_width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if q.dtype == torch.bfloat16 and q.device.type == "cpu":
            # There the backward pass takes up to five times as long in bfloat16 as in float32 (docs/results.md).
            with torch.autocast("cpu", enabled=False):
                y = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(B, H, W, C))

    @staticmethod
    def cost(width: int, grid: tuple[int, int], head_width: int | None = None, heads: int | None = None) -> Cost:
        """The same for all heads: fewer of them are wider."""
        tokens = grid[0] * grid[1]
        linears, products = 4 * tokens * width**2, 2 * tokens**2 * width
        # outputs of qkv (3), of attention times values (1) and of the projection (1)
        return Cost(macs=linears + products, params=4 * width**2 + 4 * width, activations=5 * tokens * width)
