"""Multi-head self-attention over all tokens of the grid.

Source: "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929, in the form of SPACH,
https://arxiv.org/abs/2108.13002, code microsoft/SPACH: one fused qkv with bias, scale head_width^-0.5, no relative positions.
Differs: the width of a head is given, and the number of heads follows from it, so that a wider network has more heads, not wider
ones; narrower networks then use the first heads of the widest.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nas.budget import Cost


class Attention(nn.Module):
    options = ("head_width",)

    def __init__(self, width: int, grid: tuple[int, int], head_width: int) -> None:
        super().__init__()
        if width % head_width:
            raise ValueError(
                f"attention: heads of {head_width} do not divide the width: got width {width}; accepted multiples of {head_width}."
            )
        self.head_width = head_width
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        # rows of qkv are ordered (three, heads, head_width)
        qkv = self.qkv(x_BHWC).reshape(B, H * W, 3, C // self.head_width, self.head_width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(B, H, W, C))

    def take(self, name: str, shared: Tensor) -> Tensor:
        """The first heads of each of q, k and v; leading rows and columns elsewhere."""
        width = self.proj.weight.shape[0]
        if name.startswith("qkv."):
            shared = shared.unflatten(0, (3, -1))[:, :width]
            return (shared if name.endswith("bias") else shared[:, :, :width]).flatten(0, 1)
        return shared[:width] if name.endswith("bias") else shared[:width, :width]

    @staticmethod
    def cost(width: int, grid: tuple[int, int], head_width: int) -> Cost:
        tokens = grid[0] * grid[1]
        linears, products = 4 * tokens * width**2, 2 * tokens**2 * width
        # outputs of qkv (3), of attention times values (1) and of the projection (1)
        return Cost(macs=linears + products, params=4 * width**2 + 4 * width, activations=5 * tokens * width)
