"""What a trained network says of images, batch by batch, and how often it is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.cost.latency import memory_errors
from nas.data import DataSource
from nas.data.decoding import decoded
from nas.data.images import Images
from nas.machine import cores
from nas.networks.network import Network
from nas.networks.precision import autocast
from nas.networks.trained import load_network
from nas.yaml_files import did_you_mean


@dataclass(frozen=True)
class Answering:
    """A trained network that is asked about images.

    Attributes:
        network: with all that is needed to make its images.
        device: where it runs.
        batch_size: images at a time.
        path: its file.
    """

    network: Network
    device: torch.device
    batch_size: int
    path: Path

    @staticmethod
    def load(path: Path, device: torch.device, batch_size: int) -> Answering:
        """The network of a weights file.

        Raises:
            ValueError: no such file, damaged, or nothing in it says how images are made for the network.
        """
        network = load_network(path)
        if network.preprocess is None:
            raise ValueError(
                f"{path}: nothing in it says how images are made for its network: got no mean and std, as in files of earlier versions; accepted: "
                "weights that this version wrote. Run retrain or import-weights again, with another --run."
            )
        return Answering(network.to(device), device, batch_size, path)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's outputs in order: those of its file, or numbers."""
        return self.network.classes or tuple(map(str, range(self.network.architecture.frame.classes)))

    def logits(self, images: Images, indices: NDArray[np.int64]) -> Iterator[list[Tensor | ValueError]]:
        """Yields batch by batch, in order, logits [classes] on the CPU for each of these images, or the error of a broken one.

        Raises:
            ValueError: no memory for a batch, or what the network gives is no number.
        """
        how = self.network.preprocess
        assert how is not None
        for batch in decoded(images, indices, how, self.batch_size, cores()):
            whole = [pixels for pixels in batch if isinstance(pixels, Tensor)]
            rows = iter(self._run(torch.stack(whole)) if whole else ())
            yield [each if isinstance(each, ValueError) else next(rows) for each in batch]

    def _run(self, pixels: Tensor) -> Tensor:
        how = self.network.preprocess
        assert how is not None
        try:
            with memory_errors(), torch.inference_mode(), autocast(self.network.bf16, self.device):
                logits = self.network(how.normalise(pixels.to(self.device))).float().cpu()
        except MemoryError as error:
            got = f"got {len(pixels)} images of {how.resolution} px at a time ({error})"
            raise ValueError(
                f"--batch-size: no memory for so many: {got}; accepted: what fits. Give a smaller one, or another --device."
            ) from None
        if not logits.isfinite().all():
            raise ValueError(
                f"{self.path}: the network's answers are no numbers: got inf or nan; accepted: weights of a training that went well. Train it again."
            )
        return logits


def outputs_of(classes: Sequence[str], outputs: Sequence[str], data: str) -> NDArray[np.int64]:
    """Which of a network's outputs each class of a data set is, by its name. The data set may lack some of them.

    Raises:
        ValueError: a class that the network does not have, or several of one name; `data` is what the data set is called.
    """
    if tuple(classes) == tuple(outputs):
        return np.arange(len(outputs))
    place = {name: number for number, name in enumerate(outputs)}
    for name in classes:
        if name not in place:
            known = f"{', '.join(outputs[:8])}{', ...' * (len(outputs) > 8)}"
            advice = did_you_mean(name, outputs) or " Rename it, or take other images."
            raise ValueError(f"{data}: not a class of the network: got {name!r}; accepted: the network's {len(outputs)}: {known}.{advice}")
    if twice := [name for names in (classes, outputs) for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"{data}: several classes of one name, in another order than the network's: got {twice[0]!r}; accepted: one. Rename them."
        )
    return np.array([place[name] for name in classes])


def judged(confusion: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """The figures of a confusion matrix [class, answer], as they are written: in all and for each class that has images.

    A class's `most_confused_with` is the wrong answer that its images got most often, the first of several; None where all are right.
    """
    images, correct = confusion.sum(axis=1), confusion.diagonal()
    wrong = confusion - np.diag(correct)
    rows = []
    for number in np.flatnonzero(images):
        worst = int(wrong[number].argmax())
        count = int(wrong[number, worst])
        rows.append(
            {
                "class": classes[int(number)],
                "images": int(images[number]),
                "correct": int(correct[number]),
                "accuracy": round(float(correct[number] / images[number]), 4),
                "most_confused_with": {"class": classes[worst], "images": count} if count else None,
            }
        )
    total, right = int(images.sum()), int(correct.sum())
    return {
        "accuracy": round(right / total, 4), "images": total, "correct": right, "per_class": rows,
        "classes": list(classes), "confusion": confusion.tolist(),
    }  # fmt: skip


def some_images(network: Network, source: DataSource, count: int) -> Tensor:
    """Held-out images as a network takes them, at most `count`: [B, C, H, W].

    Raises:
        ValueError: its file does not say how images are made for it, or none of them is whole.
    """
    how, (images, indices) = network.preprocess, source.split("held_out")
    batches = decoded(images, indices[:count], how, count, cores()) if how else iter(())
    whole = [pixels for pixels in next(batches, []) if isinstance(pixels, Tensor)]
    if not whole or how is None:
        raise ValueError(f"data {source.name}: no image that the network takes.")
    return how.normalise(torch.stack(whole))
