"""PyTorch itself: operator by operator, or compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from nas.cost.targets import Target
from nas.networks.precision import float32

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(module: nn.Module, inputs: Tensor, target: Target) -> Callable[[], Tensor]:
    """Runs a module as PyTorch runs it by itself."""
    device = torch.device(target.device)
    module, inputs = module.eval().to(device), inputs.to(device)

    def run() -> Tensor:
        autocast = torch.autocast(device.type, _AUTOCAST[target.dtype]) if target.dtype != "fp32" else nullcontext()
        with torch.inference_mode(), autocast, float32(device, tf32=False):
            outputs = module(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a GPU's work is asynchronous: wait for its end
        return outputs

    return run


def compiled(module: nn.Module, inputs: Tensor, target: Target) -> Callable[[], Tensor]:
    """Runs a module through `torch.compile`; on a GPU as a graph, which leaves no time between its operators."""
    torch.compiler.reset()  # otherwise the ninth network of a class is no longer compiled
    mode = "reduce-overhead" if target.kind == "cuda" else None
    return prepare(torch.compile(module.eval(), dynamic=False, mode=mode), inputs, target)  # type: ignore[arg-type]
