"""ONNX: one file that holds the weights too, for onnxruntime and whatever else reads it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.export.origin import as_text
from nas.networks.onnx_model import INPUT, LARGEST, NEEDED, OUTPUT, onnx_model

KEPT = "namespace"  # of what the exporter notes at a node: its place in the network. The rest are traces with the paths of this machine


def check_installed() -> None:
    """Raises a ValueError where the extra is missing; looks without importing."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"--format onnx: not installed: got no {', '.join(missing)}; accepted: the extra 'onnx'. Run pip install 'hybrid-nas[onnx]', or in a "
            "checkout pip install -e '.[onnx]'."
        )


def to_onnx(network: nn.Module, example: Tensor, metadata: Mapping[str, Any]) -> bytes:
    """The file's content, for any number of images at a time.

    Args:
        network: in evaluation mode.
        example: two or more images, as it takes them.
        metadata: plain values; each is written as JSON.

    Raises:
        ValueError: too large for one file, or the exporter cannot do it.
    """
    import onnx_ir  # onnxscript brings it

    size = sum(each.numel() * each.element_size() for each in network.parameters())
    if size > LARGEST:
        raise ValueError(f"--format onnx: one file holds less than 2 GiB: got {size:,} bytes of weights. Give --format torch.")
    model = onnx_model(network, example, "--format onnx")
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        kept = {name: value for name, value in node.metadata_props.items() if name == KEPT}
        node.metadata_props.clear()
        node.metadata_props.update(kept)
    model.metadata_props.update(as_text(dict(metadata)))
    return onnx_ir.to_proto(model).SerializeToString(deterministic=True)


def run_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    """The network of a file's content, in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
