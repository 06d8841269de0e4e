"""Token MLP: a two-layer MLP over the positions, the same for every channel.

Source: "MLP-Mixer", https://arxiv.org/abs/2105.01601, code google-research/vision_transformer, and SPACH,
https://arxiv.org/abs/2108.13002, code microsoft/SPACH. They differ in the hidden width, which `token_hidden` names: half the number of tokens
(SPACH), or half the number of channels (MLP-Mixer), rounded down. GELU is the exact one, as in SPACH (MLP-Mixer's code approximates it by
tanh). Its weights belong to one grid.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nas.quantities import Cost


def hidden_units(width: int, grid: tuple[int, int], token_hidden: str) -> int:
    """Units of the hidden layer."""
    if token_hidden not in ("tokens", "channels"):
        raise ValueError(f"token_mlp: unknown 'token_hidden': got {token_hidden!r}; accepted 'tokens' and 'channels'.")
    # one token has a hidden width of one, as in SPACH's code
    return max(1, (grid[0] * grid[1] if token_hidden == "tokens" else width) // 2)


class TokenMLP(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int], token_hidden: str = "tokens") -> None:
        super().__init__()
        self.grid = tuple(grid)
        tokens, hidden = grid[0] * grid[1], hidden_units(width, grid, token_hidden)
        self.fc1 = nn.Linear(tokens, hidden)
        self.fc2 = nn.Linear(hidden, tokens)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        if self.grid != (H, W):  # 2 x 8 has as many tokens as 4 x 4: a linear layer alone would not notice
            raise ValueError(f"token_mlp: its weights belong to another grid: got {H}x{W}; accepted {self.grid[0]}x{self.grid[1]}.")
        x_BCN = x_BHWC.reshape(B, H * W, C).transpose(1, 2)
        y_BCN = self.fc2(F.gelu(self.fc1(x_BCN)))
        return y_BCN.transpose(1, 2).reshape(B, H, W, C)

    @staticmethod
    def cost(width: int, grid: tuple[int, int], token_hidden: str = "tokens") -> Cost:
        tokens, hidden = grid[0] * grid[1], hidden_units(width, grid, token_hidden)
        return Cost(
            macs=2 * tokens * hidden * width,
            params=2 * tokens * hidden + hidden + tokens,
            activations=(hidden + tokens) * width,
        )
