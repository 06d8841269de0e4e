"""ONNX Runtime, https://onnxruntime.ai: what many programs run networks with, on CPUs and beyond."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nas.cost.targets import Target


def onnx_model(module: nn.Module, inputs: Tensor) -> bytes:
    """The module as an ONNX model for inputs of this shape: what an exported network's parts are timed with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(module.eval(), (inputs,), dynamo=True, verbose=False, optimize=True)
    assert program is not None
    return program.model_proto.SerializeToString()


def prepare(module: nn.Module, inputs: Tensor, target: Target) -> Callable[[], Any]:
    """Exports a module and opens it in a session with the target's threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = target.threads, 1
    options.log_severity_level = 3  # errors alone
    providers = ["CPUExecutionProvider"]
    if target.kind == "cuda":
        providers = [("CUDAExecutionProvider", {"device_id": int(target.device.partition(":")[2] or 0)}), *providers]  # type: ignore[list-item]
    session = onnxruntime.InferenceSession(onnx_model(module, inputs), options, providers=providers)
    fed = {session.get_inputs()[0].name: inputs.cpu().numpy()}
    return lambda: session.run(None, fed)
