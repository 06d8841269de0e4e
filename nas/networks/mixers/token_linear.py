"""Token linear: one linear layer over the positions, the same for every channel.

Source: "ResMLP", https://arxiv.org/abs/2105.03404, code facebookresearch/deit: A of the paper, with bias and without a hidden layer. The
affine before it and the scale after it belong to the block. Its weights belong to one grid.
"""

from torch import Tensor, nn

from nas.quantities import Cost


class TokenLinear(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.linear_tokens = nn.Linear(grid[0] * grid[1], grid[0] * grid[1])

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        if self.grid != (H, W):  # 2 x 8 has as many tokens as 4 x 4: a linear layer alone would not notice
            raise ValueError(f"token_linear: its weights belong to another grid: got {H}x{W}; accepted {self.grid[0]}x{self.grid[1]}.")
        x_BCN = x_BHWC.reshape(B, H * W, C).transpose(1, 2)
        return self.linear_tokens(x_BCN).transpose(1, 2).reshape(B, H, W, C)

    @staticmethod
    def cost(width: int, grid: tuple[int, int]) -> Cost:
        tokens = grid[0] * grid[1]
        return Cost(macs=tokens**2 * width, params=tokens**2 + tokens, activations=tokens * width)
