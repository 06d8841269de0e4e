"""Weights as safetensors files, without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from nas.yaml_files import listed, one_line_error, open_file, write_atomically


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors as safetensors, atomically: the same ones as the same bytes. Names that share a tensor each get a copy of it.

    Raises:
        ValueError: one line, when there is no room or no permission.
    """
    import safetensors.torch

    plain = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    content = safetensors.torch.save(plain, dict(metadata))
    begins = 8 + int.from_bytes(content[:8], "little")  # the data, behind the length of the header and the header
    write_atomically(path, _in_order(content[8:begins]), memoryview(content)[begins:])


def check_numbers(tensors: Mapping[str, torch.Tensor], place: str, advice: str) -> None:
    """Refuses weights that are NaN or infinite.

    Raises:
        ValueError: one line that begins with `place`, names the tensors and ends with `advice`.
    """
    if broken := [name for name, tensor in tensors.items() if not torch.stack(tensor.aminmax()).isfinite().all()]:
        raise one_line_error(f"{place}: NaN or infinite values: got them in {listed(broken)}; accepted: finite numbers. {advice}")


def _in_order(header: bytes) -> bytes:
    """A header and its length with the keys in alphabetical order: the library's own order of the metadata is another in every process."""
    ordered = json.dumps(json.loads(header), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)  # the format's padding: the data begin at a multiple of 8
    return len(ordered).to_bytes(8, "little") + ordered


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
