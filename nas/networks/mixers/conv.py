"""Depthwise convolution as a token mixer.

Source: the convolution of "A Battle of Network Structures" (SPACH), https://arxiv.org/abs/2108.13002, code
microsoft/SPACH: one k x k filter per channel, zero padding, with bias.
Differs: there it reads the block's input and is the position encoding at the same time; here it is a branch like every other mixer
(the block around it has the norm and the scale), and k may be larger than 3.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas.quantities import Cost


class Conv(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int], kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"conv: the kernel must be odd to keep the grid: got {kernel}; accepted 1, 3, 5, 7 and so on.")
        reference = nn.Conv2d(width, width, kernel, groups=width)  # for its initial weights
        assert reference.bias is not None
        self.weight, self.bias = reference.weight, reference.bias

    def forward(self, x_BHWC: Tensor) -> Tensor:
        # The permuted view is channels_last already: nothing is copied on either side.
        return depthwise(x_BHWC.permute(0, 3, 1, 2), self.weight, self.bias).permute(0, 2, 3, 1)

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


def depthwise(x_BCHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One odd k x k filter per channel, [C, 1, k, k], with zeros around; the same grid.

    Where a CPU learns a k beyond 3, its filters' gradient is put together from narrower ones: the time of `_ByColumns`.
    """
    if weight.shape[-1] > 3 and weight.requires_grad and torch.is_grad_enabled() and _learns_slowly(x_BCHW.device):
        if torch.is_autocast_enabled("cpu"):  # which does not look into a function
            dtype = torch.get_autocast_dtype("cpu")
            x_BCHW, weight, bias = x_BCHW.to(dtype), weight.to(dtype), bias.to(dtype)
        y: Tensor = _ByColumns.apply(x_BCHW, weight, bias)
        return y
    return F.conv2d(x_BCHW, weight, bias, padding=weight.shape[-1] // 2, groups=weight.shape[0])


def _learns_slowly(device: torch.device) -> bool:
    """oneDNN on x86. What is traced is to have the convolution itself."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX") and not torch.compiler.is_compiling()


class _ByColumns(torch.autograd.Function):
    """`depthwise` whose filters' gradient is that of k x 3 filters side by side, the last two overlapping where 3 does not divide k.

    oneDNN has fast code for the gradient of depthwise filters of up to three columns, and none beyond: for 5x5 in bfloat16 it takes
    ten times as long (docs/results.md). The grid is padded beforehand, since that code wants it at least as high as the filter.
    """

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight)
        return depthwise(x_BCHW, weight, bias)  # without gradients in here: the convolution itself

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient_BCHW: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x_BCHW, weight = ctx.saved_tensors
        padding, width = weight.shape[-1] // 2, x_BCHW.shape[-1]
        of_x = _gradients(gradient_BCHW, x_BCHW, weight, padding, of_x=True)[0] if ctx.needs_input_grad[0] else None
        padded, of_weight = F.pad(x_BCHW, [padding] * 4), torch.empty_like(weight)
        last = weight.shape[-1] - 3
        for column in (*range(0, last, 3), last):
            columns = padded[..., column : column + width + 2]
            _, of_weight[..., column : column + 3], of_bias = _gradients(gradient_BCHW, columns, weight[..., :3], padding=0, of_x=False)
        return of_x, of_weight, of_bias


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, padding: int, of_x: bool) -> tuple[Any, Any, Any]:
    """By x alone, or by weight and bias alone; None by the others."""
    channels, ones, wanted = weight.shape[0], [1, 1], [of_x, not of_x, not of_x]
    return torch.ops.aten.convolution_backward(gradient, x, weight, [channels], ones, [padding] * 2, ones, False, [0, 0], channels, wanted)
