"""Token MLP: a two-layer MLP over the positions, the same for every channel.

Source: "MLP-Mixer", https://arxiv.org/abs/2105.01601, with the hidden width of SPACH, https://arxiv.org/abs/2108.13002: half
the number of tokens, rounded down (MLP-Mixer ties it to the channels instead). Its weights belong to one grid.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nas.budget import Cost


def hidden_tokens(grid: tuple[int, int]) -> int:
    return max(1, grid[0] * grid[1] // 2)  # one token has a hidden width of one, as in the official code


class TokenMLP(nn.Module):
    options = ()

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = tuple(grid)
        tokens = grid[0] * grid[1]
        self.fc1 = nn.Linear(tokens, hidden_tokens(grid))
        self.fc2 = nn.Linear(hidden_tokens(grid), tokens)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        if self.grid != (H, W):  # 2 x 8 has as many tokens as 4 x 4: a linear layer alone would not notice
            raise ValueError(f"token_mlp: its weights belong to another grid: got {H}x{W}; accepted {self.grid[0]}x{self.grid[1]}.")
        x_BCN = x_BHWC.reshape(B, H * W, C).transpose(1, 2)
        y_BCN = self.fc2(F.gelu(self.fc1(x_BCN)))
        return y_BCN.transpose(1, 2).reshape(B, H, W, C)

    @staticmethod
    def cost(width: int, grid: tuple[int, int]) -> Cost:
        tokens, hidden = grid[0] * grid[1], hidden_tokens(grid)
        return Cost(
            macs=2 * tokens * hidden * width,
            params=2 * tokens * hidden + hidden + tokens,
            activations=(hidden + tokens) * width,
        )
