"""What a shift costs: S2 and AS shift over a copy of the tensor, and over the same shift as a fixed depthwise convolution.

    python benchmarks/shifts.py [--device cuda] [--repeats 25] [--json FILE]

References, in the same run, in turns: `x.clone()`, and the same shift as a depthwise convolution with a one-hot kernel on the same [B, H, W, C]
tensor: 3x3 with replicated borders for S2, 5x1 or 1x5 with zeros for AS. Targets for the forward pass on a CPU: S2 at most 5 and AS (one
axis) at most 7 copies, each less than its convolution. Forward with backward is reported beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import in_turns, machine, ratio, write_figures
from torch import Tensor

from nas.networks.mixers.as_shift import as_shift
from nas.networks.mixers.s2_shift import s2_shift

SHAPES = ([64, 16, 16, 96], [64, 8, 8, 128], [32, 28, 28, 224])


def one_hot(width: int, height: int, columns: int, tap: Callable[[int], tuple[int, int]], device: str) -> Tensor:
    kernels = torch.zeros(width, 1, height, columns, device=device)
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


def contenders(width: int, device: str) -> dict[str, tuple[float, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]:
    """Name -> target in copies, the shift, the same as a convolution."""
    chunk = -(-width // 5)
    groups = ((0, 1), (2, 1), (1, 0), (1, 2))
    return {
        "s2_shift": (5, s2_shift, convolution(one_hot(width, 3, 3, lambda c: groups[4 * c // width], device), replicate=True)),
        "as_shift height": (7, lambda x: as_shift(x, 1), convolution(one_hot(width, 5, 1, lambda c: (4 - c // chunk, 0), device))),
        "as_shift width": (7, lambda x: as_shift(x, 2), convolution(one_hot(width, 1, 5, lambda c: (0, 4 - c // chunk), device))),
    }


def with_backward(function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function(x), x, gradient)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    figures = []
    print(machine(options.device))
    print(
        f"{'shape':18} {'shift':16} {'over a copy':>11} {'target':>6} {'over convolution':>16} | with backward: {'over a copy':>11} {'over convolution':>16}"
    )
    for shape in SHAPES:
        x = torch.randn(shape, device=options.device)
        leaf, gradient = x.clone().requires_grad_(), torch.randn_like(x)
        for name, (target, shift, fixed) in contenders(shape[-1], options.device).items():
            assert torch.equal(shift(x), fixed(x))
            forward = in_turns(
                {"copy": x.clone, "shift": lambda f=shift, x=x: f(x), "convolution": lambda f=fixed, x=x: f(x)}, options.repeats
            )
            both = in_turns(
                {
                    "copy": with_backward(torch.clone, leaf, gradient),
                    "shift": with_backward(shift, leaf, gradient),
                    "convolution": with_backward(fixed, leaf, gradient),
                },
                options.repeats,
            )
            figure = {
                "shape": shape,
                "shift": name,
                "forward_over_copy": round(ratio(forward, "shift", "copy"), 2),
                "target": target,
                "forward_over_convolution": round(ratio(forward, "shift", "convolution"), 3),
                "backward_over_copy": round(ratio(both, "shift", "copy"), 2),
                "backward_over_convolution": round(ratio(both, "shift", "convolution"), 3),
            }
            figures.append(figure)
            print(
                f"{shape!s:18} {name:16} {figure['forward_over_copy']:11.2f} {target:6} {figure['forward_over_convolution']:16.3f} "
                f"| {'':14} {figure['backward_over_copy']:11.2f} {figure['backward_over_convolution']:16.3f}",
                flush=True,
            )
    write_figures(options.json, options.device, {"shifts": figures})


if __name__ == "__main__":
    main()
