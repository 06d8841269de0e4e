"""Memory of inference: weights, and the tensors that are alive at once at most while the network runs, operator by operator as PyTorch runs it.

Counted without running it: a part of a network (`table.parts`) is traced once on the meta device, and a network needs what its hungriest part
needs. What a runtime needs for itself (its code, workspaces, rounding of its allocator) is not in it; a runtime that fuses operators needs less.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.cost.counts import cost
from nas.cost.table import Part, PartModule, parts
from nas.networks.architecture import Architecture

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def memory_bytes(architecture: Architecture, batch: int = 1, dtype: str = "fp32") -> int:
    """Of a forward pass of the network in its own frame: weights, images and the largest sum of what is alive beside them."""
    frame = architecture.frame
    images = frame.channels * frame.resolution**2
    first, *others = parts(architecture)
    live = max(live_elements(first), *(images + live_elements(part) for part in others))
    return BYTES[dtype] * (cost(architecture).params + batch * live)


def live_elements(part: Part) -> int:
    """The most elements alive at once while a part runs on one image, its input among them."""
    key = part.key
    if key not in _LIVE:
        with torch.device("meta"):
            _LIVE[key] = peak_elements(PartModule(part).eval(), torch.empty(1, *part.shape))
    return _LIVE[key]


_LIVE: dict[str, int] = {}  # by a part's key: tracing one takes some ten milliseconds


def peak_elements(module: nn.Module, x: Tensor) -> int:
    """The most elements alive at once while a module runs, its input among them and its parameters not."""
    with torch.inference_mode(), Live() as live:
        live.begin(x)
        module(x)
    return live.peak


class Live(TorchDispatchMode):
    """Counts the elements of the storages that operators make, and of those that are still there; or their bytes.

    Attributes:
        peak: the most that were there at once.
    """

    def __init__(self, in_bytes: bool = False) -> None:
        super().__init__()
        self._in_bytes = in_bytes
        self.peak = self._now = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def begin(self, x: Tensor) -> None:
        """Counts a tensor that is there already."""
        storage = x.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes() // (1 if self._in_bytes else x.element_size())
            self._now += size
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._end, size)

    def _end(self, size: int) -> None:
        self._now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        outputs = func(*args, **(kwargs or {}))
        for each in tree_leaves(outputs):
            if isinstance(each, Tensor) and id(each.untyped_storage()) not in given:  # views and what is changed in place are no new ones
                self.begin(each)
        return outputs
