"""Spatial shift, second version: two shifted thirds and one that stays, weighed against each other.

Source: "S2-MLPv2", https://arxiv.org/abs/2108.01072; no official code was found. A linear to three times the channels, without activation; the
first third moves as in S2-MLP (SS1), the second by the same moves with the axes exchanged (SS2), the third stays; split attention; linear.
Split attention: what the positions say of the sum of the thirds goes through an MLP without bias (C, C/4, 3C; split-major), and a softmax
over the thirds gives each channel its weights.
Differs: the positions' mean by default (`split_pool`), as the paper's text says and ViP has it. Its equation takes the sum, which grows with the
resolution and saturates the softmax: on 32 x 32 tokens it is the mean times 1024. The thirds are each C wide (its listing reads C before the
linear makes 3C of it, and would cut C/3, C/3 and 7C/3).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nas.networks.mixers.s2_shift import s2_shift
from nas.quantities import Cost


class S2ShiftV2(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int], split_pool: str = "mean") -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"s2_shift_v2: its four groups must be equal: got width {width}; accepted multiples of 4.")
        if split_pool not in ("mean", "sum"):
            raise ValueError(f"s2_shift_v2: unknown 'split_pool': got {split_pool!r}; accepted 'mean' and 'sum'.")
        self.split_pool = split_pool
        self.mlp1 = nn.Linear(width, 3 * width)
        self.sa_mlp1 = nn.Linear(width, width // 4, bias=False)
        self.sa_mlp2 = nn.Linear(width // 4, 3 * width, bias=False)
        self.mlp2 = nn.Linear(width, width)
        # twelve: three thirds of four groups
        self.groups = {
            "mlp1.weight": (12, 1),
            "mlp1.bias": (12,),
            "sa_mlp1.weight": (1, 4),
            "sa_mlp2.weight": (12, 1),
            "mlp2.weight": (1, 4),
        }

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, _, _, C = x_BHWC.shape
        x1, x2, x3 = self.mlp1(x_BHWC).chunk(3, dim=-1)
        x1, x2 = s2_shift(x1), s2_shift(x2, axes=(2, 1))
        total = x1 + x2 + x3
        summary = total.mean(dim=(1, 2)) if self.split_pool == "mean" else total.sum(dim=(1, 2))
        weights = self.sa_mlp2(F.gelu(self.sa_mlp1(summary))).reshape(B, 3, C).softmax(dim=1)
        a1, a2, a3 = weights.to(x_BHWC.dtype).reshape(B, 3, 1, 1, C).unbind(dim=1)
        return self.mlp2(x1 * a1 + x2 * a2 + x3 * a3)

    @staticmethod
    def cost(width: int, grid: tuple[int, int], split_pool: str = "mean") -> Cost:
        tokens, hidden = grid[0] * grid[1], width // 4
        return Cost(
            macs=4 * tokens * width**2 + 4 * width * hidden,
            params=4 * width**2 + 4 * width + 4 * width * hidden,
            activations=4 * tokens * width + hidden + 3 * width,
        )
