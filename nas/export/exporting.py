"""A network as a file of another program, believed only once that program has run it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from nas.export.onnx_file import check_installed, run_onnx, to_onnx
from nas.export.origin import Origin
from nas.export.torch_file import run_torch, to_torch
from nas.networks.network import Network
from nas.networks.onnx_model import OPSET
from nas.networks.preprocessing import Preprocessing
from nas.yaml_files import one_line_error

BATCHES = (1, 3)  # images at a time in the check; neither is the number that the exporter sees
TOLERANCE = 1e-4  # largest difference that passes, as a share of the largest logit: float32 in another order of summation gives up to 2e-6
# ... or so many times the network's own error in float32, and never more than the second share: S2-MLPv2's softmax over a sum of 1,024 positions
# makes 1e-3 of a rounding, at any batch. A wrong operator changes logits by far more.
ROUNDINGS, MOST = 10, 1e-2


@dataclass(frozen=True)
class Format:
    """How a network is written, and read back to be run."""

    suffix: str
    about: str
    runtime: str
    write: Callable[[nn.Module, Tensor, Mapping[str, Any]], bytes]
    run: Callable[[bytes], Callable[[Tensor], Tensor]]
    check_installed: Callable[[], None] = lambda: None


FORMATS = {
    "onnx": Format(".onnx", f"ONNX, opset {OPSET}", "onnxruntime", to_onnx, run_onnx, check_installed),
    "torch": Format(".pt2", f"torch.export, torch {torch.__version__}", "torch", to_torch, run_torch),
}


@dataclass(frozen=True)
class Checked:
    """A file's content, how far its answers are from the network's (the largest difference of a logit), and how far they might be."""

    content: bytes
    difference: float
    accepted: float
    largest: float  # logit


def export(origin: Origin, format: Format) -> Checked:
    """Writes a network out and runs what was written, at every batch of `BATCHES`.

    Raises:
        ValueError: it cannot be written, or what was written gives other answers than the network.
    """
    images = photographs(origin.network, sum(BATCHES))
    content = format.write(origin.network, images[:2], origin.metadata)
    with torch.no_grad():
        expected = origin.network(images)
        try:
            run = format.run(content)
            got = torch.cat([run(each) for each in images.split(BATCHES)])
        except Exception as error:  # whatever a runtime raises for what it does not take
            said = f"{format.runtime} cannot run what was exported: {' '.join(str(error).split())[:200]}"
            raise one_line_error(f"{origin.path}: {said}. Nothing was written. Give another --format.") from error
    if not expected.isfinite().all():
        raise ValueError(f"{origin.path}: the network's answers are no numbers: got inf or nan; accepted: finite ones. Train it again.")
    difference, largest = (got - expected).abs().max().item(), expected.abs().max().item()
    accepted = TOLERANCE * largest
    if difference > accepted:
        accepted = max(accepted, min(MOST * largest, ROUNDINGS * _rounding(origin.network, images, expected)))
    if not difference <= accepted:  # not a number either
        raise ValueError(
            f"{origin.path}: what was exported gives other answers in {format.runtime} than the network: got differences up to {difference:.2g}, where "
            f"the largest logit is {largest:.3g}; accepted: {accepted:.2g}. Nothing was written. Give another --format."
        )
    return Checked(content, difference, accepted, largest)


def _rounding(network: Network, images: Tensor, answers: Tensor) -> float:
    """How far a network's answers are from what they would be without rounding to float32."""
    with torch.no_grad():
        return (copy.deepcopy(network).double()(images.double()) - answers).abs().max().item()


def photographs(network: Network, count: int) -> Tensor:
    """Parts of scikit-learn's two photographs as the network takes them: [count, C, R, R].

    A network of which it is not known how its images are made gets them with a mean of 0.5 and a deviation of 0.25, and one whose images are
    neither grey nor in colour as many grey parts as it has channels.
    """
    from sklearn.datasets import load_sample_images

    frame = network.architecture.frame
    of_each = 1 if frame.channels in (1, 3) else frame.channels
    channels = frame.channels // of_each
    how = network.preprocess or Preprocessing(frame.resolution, channels, (0.5,) * channels, (0.25,) * channels)
    photos = [Image.fromarray(each) for each in load_sample_images().images]
    made = []
    for number in range(count * of_each):
        left = 37 * number % 200  # another part each time
        made.append(how(photos[number % 2].crop((left, 10, left + 400, 410))))
    return torch.stack(made).reshape(count, frame.channels, frame.resolution, frame.resolution)
