"""Axial shift: chunks of channels move by -2 to +2 positions, along the width in one branch and along the height in the other.

Source: "AS-MLP", https://arxiv.org/abs/2107.08391, code svip-lab/AS-MLP: 1x1, norm, GELU, then the sum of (shift along the width, 1x1,
GELU) and (shift along the height, 1x1, GELU), norm, 1x1; zeros move in at the borders; shift size 5 as in the released configurations; the norms
are GroupNorm with one group, over positions and channels. The 1x1 convolutions are linears here: tensors are [B, H, W, C].
Chunks hold ceil(C / 5) channels. Where that leaves fewer than five chunks (C = 12 or 16, for instance) the largest shifts would vanish; such widths are
refused.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.networks.norms import GroupNorm1
from nas.quantities import Cost

SHIFT_SIZE = 5


def as_shift(x_BHWC: Tensor, dim: int) -> Tensor:
    """Chunk g moves by g - 2 along `dim` (1: height, 2: width), zeros come in.

    On a CPU it runs as the fixed depthwise convolution that it equals: forward and back that takes two thirds of the time of `by_pads`.
    """
    if x_BHWC.device.type != "cpu":
        return by_pads(x_BHWC, dim)
    make = _kernels.__wrapped__ if torch.compiler.is_compiling() else _kernels  # what is traced is not to be kept
    kernels = make(x_BHWC.shape[-1], SHIFT_SIZE, dim, x_BHWC.dtype)
    padding = (SHIFT_SIZE // 2, 0) if dim == 1 else (0, SHIFT_SIZE // 2)
    return F.conv2d(x_BHWC.permute(0, 3, 1, 2), kernels, padding=padding, groups=len(kernels)).permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=256)
def _kernels(width: int, size: int, dim: int, dtype: torch.dtype) -> Tensor:
    """One-hot kernels, [width, 1, size, 1] or [width, 1, 1, size]."""
    with torch.inference_mode(False):  # kept for trainings too
        chunk = torch.arange(width, device="cpu") // -(-width // size)
        taps = torch.eye(size, dtype=dtype, device="cpu").flip(0)[chunk]
        return taps.reshape(width, 1, *((size, 1) if dim == 1 else (1, size)))


def by_pads(x_BHWC: Tensor, dim: int) -> Tensor:
    """The same by moving memory.

    Each chunk by itself, with a negative pad on its far side: cutting all chunks from one padded copy takes half as long again, and so does it to
    leave the middle chunk a view, since `cat` is fast for contiguous parts only.
    """
    moved = []
    for g, chunk in enumerate(x_BHWC.chunk(SHIFT_SIZE, dim=-1)):
        # a grid narrower than the shift keeps nothing of the chunk
        step = max(-x_BHWC.shape[dim], min(x_BHWC.shape[dim], g - SHIFT_SIZE // 2))
        moved.append(F.pad(chunk, (0, 0, step, -step) if dim == 2 else (0, 0, 0, 0, step, -step)) if step else chunk.contiguous())
    return torch.cat(moved, dim=-1)


class ASShift(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if -(-width // -(-width // SHIFT_SIZE)) < SHIFT_SIZE:
            raise ValueError(f"as_shift: chunks of ceil(width/5) are not five: got width {width}; accepted 5, 9, 10, 13 to 15, from 17 on.")
        self.conv1 = nn.Linear(width, width)
        self.norm1 = GroupNorm1(width)
        self.conv2_1 = nn.Linear(width, width)
        self.conv2_2 = nn.Linear(width, width)
        self.norm2 = GroupNorm1(width)
        self.conv3 = nn.Linear(width, width)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x_BHWC)))
        along_width = F.gelu(self.conv2_1(as_shift(x, dim=2)))
        along_height = F.gelu(self.conv2_2(as_shift(x, dim=1)))
        return self.conv3(self.norm2(along_width + along_height))

    def own_slice(self, name: str, largest: Tensor) -> Tensor:
        """The first channels of each chunk where the shifts are; leading ones elsewhere."""
        width, widest = self.conv1.weight.shape[0], largest.shape[0]

        def chunkwise(tensor: Tensor, dim: int) -> Tensor:
            chunk, whole = -(-width // SHIFT_SIZE), -(-widest // SHIFT_SIZE)
            sizes = [min(chunk, width - g * chunk) for g in range(SHIFT_SIZE)]
            if any(size > min(whole, widest - g * whole) for g, size in enumerate(sizes)):
                raise ValueError(f"as_shift: the widths do not nest: got {width} and {widest}; accepted multiples of 28 or of 32.")
            return torch.cat([tensor.narrow(dim, g * whole, size) for g, size in enumerate(sizes)], dim)

        if name in ("conv1.bias", "norm1.weight", "norm1.bias"):
            return chunkwise(largest, 0)
        if name == "conv1.weight":
            return chunkwise(largest, 0)[:, :width]
        if name in ("conv2_1.weight", "conv2_2.weight"):
            return chunkwise(largest, 1)[:width]
        return largest[:width, :width] if largest.dim() == 2 else largest[:width]

    @staticmethod
    def cost(width: int, grid: tuple[int, int]) -> Cost:
        tokens = grid[0] * grid[1]
        return Cost(macs=4 * tokens * width**2, params=4 * width**2 + 8 * width, activations=4 * tokens * width)
