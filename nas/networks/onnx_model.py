"""A network, or a part of one, as an ONNX model: what `export` writes, and what ONNX Runtime is timed with."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nas.yaml_files import one_line_error

OPSET = 20  # the first with GELU as one operator
INPUT, OUTPUT = "images", "logits"
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # packages
LARGEST = 2**31 - 2**24  # bytes of weights: protobuf ends at 2 GiB, less 16 MiB for what stands around them


@contextlib.contextmanager
def exporting(place: str) -> Iterator[None]:
    """Makes one line of whatever torch's exporter raises for what it does not know; it prints pages beside it, and warns of its own libraries."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = error.__cause__ or error  # what the ONNX exporter says itself is advice to whoever works on torch
        said = next(iter(str(reason).strip().splitlines()), type(reason).__name__)[:200]
        raise one_line_error(f"{place}: torch cannot export the network: {said}") from error


def onnx_model(module: nn.Module, example: Tensor, place: str) -> Any:
    """The model, of `onnx_ir`, for any number of images at a time.

    Args:
        module: in evaluation mode.
        example: two or more inputs.
        place: begins the message.

    Raises:
        ValueError: the exporter cannot do it.
    """
    from onnx_ir.passes.common import DeduplicateInitializersPass  # onnxscript brings it

    with exporting(place):
        exported = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert exported is not None
    # A norm over positions and channels gets its ones written out, some 800 kB each at 56 x 56 x 64: once is enough.
    DeduplicateInitializersPass(size_limit=LARGEST)(exported.model)
    return exported.model
