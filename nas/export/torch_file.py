"""torch.export: a .pt2 file, which torch runs without this project."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas.yaml_files import one_line_error

METADATA = "metadata.json"  # among the file's extra files


@contextlib.contextmanager
def exporting(format: str) -> Iterator[None]:
    """Makes one line of whatever torch's exporter raises for what it does not know; it prints pages beside it, and warns of its own libraries."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = error.__cause__ or error  # what the ONNX exporter says itself is advice to whoever works on torch
        said = next(iter(str(reason).strip().splitlines()), type(reason).__name__)[:200]
        raise one_line_error(f"--format {format}: torch cannot export the network: {said}") from error


def to_torch(network: nn.Module, example: Tensor, metadata: Mapping[str, Any]) -> bytes:
    """The file's content; arguments and errors as of `to_onnx`."""
    content = io.BytesIO()
    with exporting("torch"):
        exported = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    exported.example_inputs = None  # would be written too
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # has the paths of this machine
    torch.export.save(exported, content, extra_files={METADATA: json.dumps(dict(metadata), indent=1)})
    return content.getvalue()


def run_torch(content: bytes) -> Callable[[Tensor], Tensor]:
    """The network of a file's content, loaded anew."""
    return torch.export.load(io.BytesIO(content)).module()
