"""What a module costs, found by running it on the meta device and looking at every operation: the twin of the cost formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nas.budget import Cost

aten = torch.ops.aten
PRODUCTS = {aten.convolution, aten._convolution, aten.addmm, aten.mm, aten.bmm, aten.baddbmm}


class _Known(TorchDispatchMode):
    """Runs an operation on the meta device once per shape: later outputs are empty tensors of the same shape and strides.

    Networks repeat few operations; without this, tracing takes three times as long, nearly all of it in broadcasting rules.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[Any, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returns = func._schema.returns
        # views and operations in place must be the real ones
        if len(returns) != 1 or any(argument.alias_info for argument in (*returns, *func._schema.arguments)):
            return func(*args, **kwargs)
        key = (func, _signature(args), _signature(sorted(kwargs.items())))
        if key not in self.outputs:
            output = func(*args, **kwargs)
            if not (isinstance(output, torch.Tensor) and output.is_meta):
                return output
            self.outputs[key] = output.shape, output.stride(), output.dtype
        shape, strides, dtype = self.outputs[key]
        return torch.empty_strided(shape, strides, dtype=dtype, device="meta")


def _signature(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.device.type
    return tuple(map(_signature, value)) if isinstance(value, (tuple, list)) else (type(value), value)


class _Products(TorchDispatchMode):
    """Adds up the output elements of convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in PRODUCTS and not self.paused:
            self.elements += output.numel()
        return output


class _Attention(TorchFunctionMode):
    """Counts an attention once, by its output: whether it is one kernel or two products and a softmax depends on the device."""

    def __init__(self, products: _Products) -> None:
        super().__init__()
        self.products = products

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.products.paused = True
        output = func(*args, **(kwargs or {}))
        self.products.paused = False
        self.products.elements += output.numel()
        return output


_known = _Known()


def trace(build: Callable[[], nn.Module], *shape: int) -> Cost:
    """The cost of one forward pass of `build()` on an input of `shape`, whose batch is one.

    torch's counter gives two per multiply-add, and zero for attention on CPU tensors: hence the half, and the meta device.
    """
    with torch.device("meta"):
        module, x = build(), torch.empty(shape)
    products, flops = _Products(), FlopCounterMode(display=False)
    with torch.no_grad(), _known, flops, products, _Attention(products):
        module(x)
    assert flops.get_total_flops() % 2 == 0
    return Cost(flops.get_total_flops() // 2, sum(parameter.numel() for parameter in module.parameters()), products.elements)
