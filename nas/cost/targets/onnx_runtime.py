"""ONNX Runtime, https://onnxruntime.ai: what many programs run networks with, on CPUs and beyond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nas.cost.targets import Target
from nas.networks.onnx_model import INPUT, OUTPUT, onnx_model


def prepare(module: nn.Module, inputs: Tensor, target: Target) -> Callable[[], Any]:
    """Exports a module as `export` does, and opens it in a session with the target's threads."""
    import onnx_ir
    import onnxruntime

    model = onnx_model(module.eval(), torch.cat([inputs[:1]] * 2), f"--target {target}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = target.threads, 1
    options.log_severity_level = 3  # errors alone
    providers: list[Any] = ["CPUExecutionProvider"]
    if target.kind == "cuda":
        device = int(target.device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device, "use_tf32": 0}))  # fp32 as it is named
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(model).SerializeToString(), options, providers=providers)
    fed = {INPUT: inputs.cpu().numpy()}
    return lambda: session.run([OUTPUT], fed)
