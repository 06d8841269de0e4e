"""Depthwise convolution as a token mixer.

Source: the convolution of "A Battle of Network Structures" (SPACH), https://arxiv.org/abs/2108.13002, code
microsoft/SPACH: one k x k filter per channel, zero padding, with bias.
Differs: there it reads the block's input and is the position encoding at the same time; here it is a branch like every other mixer
(the block around it has the norm and the scale), and k may be larger than 3.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nas.quantities import Cost


class Conv(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int], kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"conv: the kernel must be odd to keep the grid: got {kernel}; accepted 1, 3, 5, 7 and so on.")
        reference = nn.Conv2d(width, width, kernel, groups=width)  # for its initial weights
        self.weight, self.bias = reference.weight, reference.bias

    def forward(self, x_BHWC: Tensor) -> Tensor:
        # The permuted view is channels_last already: nothing is copied on either side.
        padding = self.weight.shape[-1] // 2
        y = F.conv2d(x_BHWC.permute(0, 3, 1, 2), self.weight, self.bias, padding=padding, groups=self.weight.shape[0])
        return y.permute(0, 2, 3, 1)

    def own_slice(self, name: str, largest: Tensor) -> Tensor:
        """The first filters; of a larger kernel, its centre."""
        width, kernel = self.weight.shape[0], self.weight.shape[-1]
        if name == "bias":
            return largest[:width]
        edge = (largest.shape[-1] - kernel) // 2
        return largest[:width, :, edge : edge + kernel, edge : edge + kernel]

    @staticmethod
    def cost(width: int, grid: tuple[int, int], kernel: int) -> Cost:
        outputs = grid[0] * grid[1] * width
        return Cost(macs=outputs * kernel**2, params=width * (kernel**2 + 1), activations=outputs)
