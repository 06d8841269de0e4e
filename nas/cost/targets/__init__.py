"""Targets: the device, and the runtime on it, that a network's latency is taken on.

Each runtime is a file with a function `prepare(module, inputs, target)`, which makes a module ready to run and returns a function without
arguments that runs it once over `inputs` and comes back when the result is there. To add a runtime (TensorRT, a telephone's), write such a
file, mostly around `networks/onnx_model.py`, and add its line to `RUNTIMES`: budgets, tables and `profile` then know it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from nas.machine import cores, cpu_model
from nas.networks.onnx_model import NEEDED
from nas.yaml_files import brief, did_you_mean

DTYPES = ("fp32", "bf16", "fp16")


class Runtime(NamedTuple):
    """Where a runtime's `prepare` is (".module:function" beside this file), the packages it needs, the extra that installs them, its dtypes."""

    where: str
    packages: tuple[str, ...] = ("torch",)
    extra: str | None = None
    dtypes: tuple[str, ...] = DTYPES


RUNTIMES: dict[str, Runtime] = {
    "eager": Runtime(".eager:prepare"),
    "compile": Runtime(".eager:compiled"),
    "onnxruntime": Runtime(".onnx_runtime:prepare", ("torch", *NEEDED), "onnx", ("fp32",)),
}


@dataclass(frozen=True)
class Target:
    """What a latency is of, besides the network.

    Attributes:
        device: "cpu", "cuda" or "cuda:N".
        runtime: a name of `RUNTIMES`.
        batch: images in one pass.
        threads: of a CPU.
        dtype: what it computes in: one of `DTYPES`; bf16 and fp16 by autocast.
    """

    device: str = "cpu"
    runtime: str = "eager"
    batch: int = 1
    threads: int = 1
    dtype: str = "fp32"

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]

    def __str__(self) -> str:
        """As it is written: ``cpu:onnxruntime,batch=1,threads=2``."""
        threads = f",threads={self.threads}" if self.kind == "cpu" else ""
        dtype = f",dtype={self.dtype}" if self.dtype != "fp32" else ""
        return f"{self.device}:{self.runtime},batch={self.batch}{threads}{dtype}"

    @property
    def slug(self) -> str:
        """The same, fit for a file's name."""
        return re.sub("[:,]", "-", str(self)).replace("=", "")

    def prepare(self, module: Any, inputs: Any) -> Callable[[], Any]:
        """A function that runs the module once over the inputs, with this target's runtime."""
        name, _, function = RUNTIMES[self.runtime].where.partition(":")
        return getattr(importlib.import_module(name, __name__), function)(module, inputs, self)


_EXAMPLE = "Write it like cpu:onnxruntime,batch=1,threads=2, or cuda:compile,batch=64,dtype=bf16."


def parse_target(text: str, place: str = "--target") -> Target:
    """Reads a target: a device, ``:`` and a runtime (eager where it is left out), then ``,name=value`` for each setting.

    Raises:
        ValueError: an unknown device, runtime or setting, or a value that it does not take.
    """
    where, *settings = (part.strip() for part in text.split(","))
    device, runtime = (
        (found[1], found[2] or "eager") if (found := re.fullmatch(r"(cpu|cuda(?::\d+)?)(?::([\w-]+))?", where, re.I)) else ("", "")
    )
    if not device:
        raise ValueError(f"{place}: no device: got {brief(text)}; accepted: cpu, cuda or cuda:N, then :RUNTIME. {_EXAMPLE}")
    runtime = runtime.lower()
    if runtime not in RUNTIMES:
        raise ValueError(
            f"{place}: unknown runtime: got {runtime!r}; accepted: {', '.join(RUNTIMES)}.{did_you_mean(runtime, RUNTIMES) or ' ' + _EXAMPLE}"
        )
    given: dict[str, Any] = {}
    for setting in settings:
        name, _, value = (part.strip() for part in setting.partition("="))
        if name in given:
            raise ValueError(f"{place}: {name}: got it twice in {brief(text)}; accepted: each setting once. Leave one out.")
        given[name] = _setting(name, value, runtime, place)
    if device.lower() != "cpu" and "threads" in given:
        raise ValueError(f"{place}: threads: got it with {device}; accepted: with cpu alone. Leave it out.")
    return Target(device.lower(), runtime, **given)


def _setting(name: str, value: str, runtime: str, place: str) -> int | str:
    if name == "dtype":
        if value in RUNTIMES[runtime].dtypes:
            return value
        raise ValueError(f"{place}: dtype: got {brief(value)}; accepted with {runtime}: {', '.join(RUNTIMES[runtime].dtypes)}.")
    if name not in ("batch", "threads"):
        near = did_you_mean(name, ("batch", "threads", "dtype")) or f" {_EXAMPLE}"
        raise ValueError(f"{place}: unknown setting: got {brief(name)}; accepted: batch=N, threads=N, dtype=NAME.{near}")
    if not re.fullmatch("[1-9][0-9]{0,6}", value):
        raise ValueError(f"{place}: {name}: got {brief(value)}; accepted: a whole number from 1 on.")
    return int(value)


def check_target(target: Target) -> None:
    """Looks whether the target is at hand.

    Raises:
        ValueError: no such device, more threads than cores, or a package that its runtime needs is not installed.
    """
    import torch

    runtime = RUNTIMES[target.runtime]
    missing = [name for name in runtime.packages if not _version(name)]
    if missing:
        what = f"pip install '.[{runtime.extra}]'" if runtime.extra else f"pip install {' '.join(missing)}"
        raise ValueError(
            f"--target: {target.runtime} is not installed: got no {', '.join(missing)}; accepted: installed runtimes. Run {what}."
        )
    if target.kind == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(target.device.partition(":")[2] or 0) >= found:
            raise ValueError(
                f"--target: no such device: got {target.device}; accepted: cpu{', cuda:N below ' + str(found) if found else ''}."
            )
    elif target.threads > cores():
        raise ValueError(f"--target: threads: got {target.threads}; accepted: up to {cores()}, the cores of this machine.")
    if target.kind == "cuda" and target.runtime == "onnxruntime":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ValueError("--target: this onnxruntime has no CUDA: got cuda; accepted: cpu, or the package onnxruntime-gpu. Install it.")


def conditions(target: Target) -> dict[str, str]:
    """All that a latency of this target depends on, besides the network: figures taken under other conditions are not of this target."""
    import torch

    device = torch.cuda.get_device_name(target.device) if target.kind == "cuda" else f"{cpu_model()}, {cores()} cores"
    versions = {name: str(_version(name)) for name in RUNTIMES[target.runtime].packages}
    return {"target": str(target), "device": device, **versions}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version("onnxruntime-gpu" if package == "onnxruntime" and _version("onnxruntime-gpu") else package)
    except importlib.metadata.PackageNotFoundError:
        return None
