"""torch.export: a .pt2 file, which torch runs without this project."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.networks.onnx_model import exporting

METADATA = "metadata.json"  # among the file's extra files


def to_torch(network: nn.Module, example: Tensor, metadata: Mapping[str, Any]) -> bytes:
    """The file's content; arguments and errors as of `to_onnx`."""
    content = io.BytesIO()
    with exporting("--format torch"):
        exported = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    exported.example_inputs = None  # would be written too
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # has the paths of this machine
    torch.export.save(exported, content, extra_files={METADATA: json.dumps(dict(metadata), indent=1)})
    return content.getvalue()


def run_torch(content: bytes) -> Callable[[Tensor], Tensor]:
    """The network of a file's content, loaded anew."""
    return torch.export.load(io.BytesIO(content)).module()
