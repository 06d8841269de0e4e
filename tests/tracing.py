"""What a network costs, found by running it on the meta device and looking at every operation: the twin of the cost formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from nas.quantities import Cost


class _Operations(TorchDispatchMode):
    """Adds up the floating-point operations of convolutions and matrix products, by torch's own formulas, and their output elements.

    A functional operation runs once per shape; after that its output is an empty tensor of the same shape and strides. Networks repeat few
    operations, and `FlopCounterMode` on the meta device takes ten times as long, nearly all of it in broadcasting rules.
    """

    known: ClassVar[dict[Any, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.elements = 0
        self.in_attention = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = self._run(func, args, kwargs)
        if func.overloadpacket in flop_registry and not self.in_attention:
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
            self.elements += output.numel()
        return output

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        functional = func.namespace == "aten" and not any(each.alias_info for each in (*func._schema.returns, *func._schema.arguments))
        if not functional or self.in_attention:
            return func(*args, **kwargs)
        key = (func, _signature(args), _signature(tuple(kwargs.items())))
        if key not in self.known:
            output = func(*args, **kwargs)
            tensors = output if isinstance(output, tuple) else (output,)
            if not all(isinstance(each, Tensor) for each in tensors):
                return output
            self.known[key] = isinstance(output, tuple), [(each.shape, each.stride(), each.dtype, each.device) for each in tensors]
        several, known = self.known[key]
        tensors = tuple(torch.empty_strided(shape, strides, dtype=dtype, device=device) for shape, strides, dtype, device in known)
        return tensors if several else tensors[0]


def _signature(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    return tuple(map(_signature, value)) if isinstance(value, (tuple, list)) else (type(value), value)


class _Attention(TorchFunctionMode):
    """Counts an attention as one operation with one output: whether it is one kernel or two products and a softmax depends on the device."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations = operations

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.operations.in_attention = True
        output = func(*args, **kwargs)
        self.operations.in_attention = False
        self.operations.flops += sdpa_flop_count(*(each.shape for each in args[:3]))
        self.operations.elements += output.numel()
        return output


def trace(build: Callable[[], nn.Module], *shape: int) -> Cost:
    """The cost of one forward pass of `build()` on an input of `shape`, whose batch is one. Torch counts a multiply-add as two."""
    with torch.device("meta"):
        module, x = build(), torch.empty(shape)
    operations = _Operations()
    with torch.no_grad(), operations, _Attention(operations):
        module(x)
    return Cost(operations.flops // 2, sum(parameter.numel() for parameter in module.parameters()), operations.elements)


def torch_macs(build: Callable[[], nn.Module], *shape: int) -> int:
    """The multiply-adds alone, by torch's counter as it stands. On the meta device: for attention on CPU tensors it says zero."""
    with torch.device("meta"):
        module, x = build(), torch.empty(shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops() // 2
