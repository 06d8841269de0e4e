"""In what precision a device computes: bfloat16 by autocast, and what a GPU makes of float32."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from nas.machine import cpu_bf16


@functools.cache
def has_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 of its own: NVIDIA's GPUs have from Ampere on; a CPU that does not tell may have. Another computes with it too, and
    takes longer than in float32."""
    if device.type != "cuda":
        return (found := cpu_bf16()) is None or bool(found)
    if not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def in_bf16(bf16: str, device: torch.device) -> bool:
    """Whether `bf16`, one of `BF16`, wants bfloat16 on this device.

    Of CPUs `auto` takes those with avx512_bf16, for which it was measured to be quicker (docs/results.md).
    """
    if bf16 in ("gpu", "auto") and device.type == "cuda":
        return has_bf16(device)
    return bf16 == "always" or (bf16 == "auto" and "avx512_bf16" in (cpu_bf16() or ()))


def autocast(bf16: str, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast where `bf16`, one of `BF16`, wants it on this device; a new context at each call."""
    return torch.autocast(device.type, torch.bfloat16) if in_bf16(bf16, device) else nullcontext()


def bf16_note(bf16: str, device: torch.device) -> str | None:
    """What is to be said, in a sentence, where a device lacks what `bf16` wants, or a CPU is given it; None where nothing is."""
    if bf16 == "auto" and device.type == "cpu" and in_bf16(bf16, device):
        return "This CPU trains in bfloat16, which it has instructions for; `bf16: never` in the recipe keeps to float32."
    if has_bf16(device):
        return None
    if bf16 == "always":
        kind = "GPU" if device.type == "cuda" else "CPU"
        return f"bf16 is slower than float32 on this {kind}, which has no instructions for it: `bf16: gpu` in the recipe keeps to float32 here."
    return "This GPU computes in float32: it has no bfloat16." if bf16 != "never" and device.type == "cuda" else None


@contextmanager
def float32(device: torch.device, tf32: bool) -> Iterator[None]:
    """In the block a GPU multiplies float32 as TF32, with 10 bits of mantissa and several times as fast, or as it is. Elsewhere nothing changes.

    As torch comes, its convolutions do and its matrix products do not.
    """
    if device.type != "cuda":
        yield
        return
    # Both calls are known to every torch that this project takes; `fp32_precision`, their heir, must not be mixed with them.
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        _set("high" if tf32 else "highest", tf32)
        yield
    finally:
        _set(*before)


def _set(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
