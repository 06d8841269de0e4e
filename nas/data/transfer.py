"""From the memory of the CPU to a device, without a wait."""

import torch
import torch.nn.functional as F
from torch import Tensor

ALIGNED = 8  # bytes: no number is longer


def moved(device: torch.device, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Returns small CPU tensors on the device, all in one copy. A GPU has it from pinned memory: from any other, each copy is waited for."""
    if device.type == "cpu":
        return tensors
    parts = [each.contiguous().flatten().view(torch.uint8) for each in tensors]
    padded = [F.pad(part, (0, -len(part) % ALIGNED)) for part in parts]
    there = torch.cat(padded)
    if device.type == "cuda":
        there = there.pin_memory()
    there = there.to(device, non_blocking=True)
    pieces = there.split([len(part) for part in padded])
    own = [piece[: len(part)] for piece, part in zip(pieces, parts, strict=True)]
    return tuple(piece.view(tensor.dtype).view(tensor.shape) for piece, tensor in zip(own, tensors, strict=True))
