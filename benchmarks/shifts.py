"""What a shift costs: S2 and AS shift over a pass through memory, and over the same shift as a fixed depthwise convolution.

    python benchmarks/shifts.py [--targets cpu:eager,threads=2 cpu:onnxruntime,threads=2] [--rounds 5] [--json FILE]

References, in the same run: a new tensor of the same values with the other sign, and the same shift as a depthwise convolution with a one-hot kernel
on the same [B, H, W, C] tensor: 3x3 with replicated borders for S2, 5x1 or 1x5 with zeros for AS. Each is timed in a row, since a session of
ONNX Runtime keeps its threads busy for a while after a pass, and all of them in turns, round by round. With PyTorch a pass forward and back is
timed too. "moving" is the same shift by cutting, padding and joining.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import machine, write_figures
from torch import Tensor, nn

from nas.cost.latency import pinned, timed
from nas.cost.targets import Target, check_target, parse_target
from nas.networks.mixers.as_shift import as_shift, by_pads
from nas.networks.mixers.s2_shift import cut, s2_shift

SHAPES = ([1, 16, 16, 96], [64, 16, 16, 96], [64, 8, 8, 128], [1, 28, 28, 224], [16, 28, 28, 224])


def one_hot(width: int, height: int, columns: int, tap: Callable[[int], tuple[int, int]]) -> Tensor:
    kernels = torch.zeros(width, 1, height, columns)
    for c in range(width):
        i, j = tap(c)
        kernels[c, 0, i, j] = 1
    return kernels


def convolution(kernels: Tensor, replicate: bool = False) -> Callable[[Tensor], Tensor]:
    height, columns = kernels.shape[2] // 2, kernels.shape[3] // 2

    def convolved(x_BHWC: Tensor) -> Tensor:
        x = x_BHWC.permute(0, 3, 1, 2)
        if replicate:
            y = F.conv2d(F.pad(x, (columns, columns, height, height), mode="replicate"), kernels, groups=len(kernels))
        else:
            y = F.conv2d(x, kernels, padding=(height, columns), groups=len(kernels))
        return y.permute(0, 2, 3, 1)

    return convolved


Shift = Callable[[Tensor], Tensor]


def contenders(width: int) -> dict[str, tuple[Shift, Shift, Shift]]:
    """Name -> the shift as it runs, by moving memory, as a convolution."""
    chunk = -(-width // 5)
    groups = ((0, 1), (2, 1), (1, 0), (1, 2))

    def s2_by_cuts(x: Tensor) -> Tensor:
        moves = ((1, 1), (-1, 1), (1, 2), (-1, 2))
        return torch.cat([cut(part, *move) for part, move in zip(x.chunk(4, dim=-1), moves, strict=True)], dim=-1)

    return {
        "s2_shift": (s2_shift, s2_by_cuts, convolution(one_hot(width, 3, 3, lambda c: groups[4 * c // width]), replicate=True)),
        "as_shift height": (
            lambda x: as_shift(x, 1), lambda x: by_pads(x, 1), convolution(one_hot(width, 5, 1, lambda c: (4 - c // chunk, 0))),
        ),
        "as_shift width": (
            lambda x: as_shift(x, 2), lambda x: by_pads(x, 2), convolution(one_hot(width, 1, 5, lambda c: (0, 4 - c // chunk))),
        ),
    }  # fmt: skip


class Form(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def medians(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each: the median over the rounds of the medians of some passes in a row."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(timed(call, 5, 20))
    return {name: statistics.median(each) for name, each in found.items()}


def forward(forms: Mapping[str, Shift], x: Tensor, target: Target, rounds: int) -> dict[str, float]:
    its = dataclasses.replace(target, batch=len(x))
    return medians({name: its.prepare(Form(form), x) for name, form in forms.items()}, rounds)


def forward_and_back(forms: Mapping[str, Shift], x: Tensor, rounds: int) -> dict[str, float]:
    leaf, gradient = x.clone().requires_grad_(), torch.randn_like(x)
    return medians({name: lambda form=form: torch.autograd.grad(form(leaf), leaf, gradient) for name, form in forms.items()}, rounds)  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--targets", nargs="+", default=["cpu:eager,threads=2", "cpu:onnxruntime,threads=2"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    figures = []
    print(machine())
    print(f"{'runtime':12} {'shape':18} {'shift':25} {'ms':>7} {'over a pass':>11} {'over moving':>11} {'over convolution':>16}")
    for target in map(parse_target, options.targets):
        check_target(target)
        for shape in SHAPES:
            x = torch.randn(shape, device=target.device)
            its = contenders(shape[-1])
            forms: dict[str, Shift] = {"pass": torch.neg}
            for name, (shift, moving, fixed) in its.items():
                assert torch.equal(shift(x), fixed(x)) and torch.equal(shift(x), moving(x))
                forms |= {name: shift, f"{name} by moving": moving, f"{name} as convolution": fixed}
            with pinned(target.threads):
                told = {"": forward(forms, x, target, options.rounds)}
                if target.runtime == "eager":
                    told[" and back"] = forward_and_back(forms, x, options.rounds)
            for way, ms in told.items():
                for name in its:
                    over = {
                        reference: round(ms[name] / ms[other], 3)
                        for reference, other in (
                            ("pass", "pass"),
                            ("moving", f"{name} by moving"),
                            ("convolution", f"{name} as convolution"),
                        )
                    }
                    figures.append({"target": str(target), "shape": shape, "shift": name + way, "ms": ms[name], "over": over})
                    print(
                        f"{target.runtime:12} {shape!s:18} {name + way:25} {ms[name]:7.3f} {over['pass']:11.2f} {over['moving']:11.2f} "
                        f"{over['convolution']:16.2f}",
                        flush=True,
                    )
    write_figures(options.json, "cpu", {"shifts": figures})


if __name__ == "__main__":
    main()
