"""Weights as safetensors files, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from nas.yaml_files import one_line_error, open_file, write_atomically


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors as safetensors, atomically. Names that share a tensor each get a copy of it.

    Raises:
        ValueError: one line, when there is no room or no permission.
    """
    import safetensors.torch

    plain = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    content = safetensors.torch.save(plain, dict(metadata))
    write_atomically(path, content)


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads tensors (on the CPU) and metadata from a safetensors file.

    Raises:
        ValueError: one line: no such file, or not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    open_file(path, "a safetensors file").close()
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise one_line_error(f"{path}: damaged, or not a safetensors file: {error}. Restore it from a copy, or make it again.") from None
