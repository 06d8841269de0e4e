"""Data: the splits of a data set at one resolution, on one device, as batches.

A training batch is a function of (seed, step): the order of an epoch, the crops, the mixing are drawn from keys, never
from a state that runs along. To go on at step k is to ask for step k.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.data.augmentation import Augmentation, augment, erase, mix
from nas.data.images import Found, Images
from nas.data.memory import decode
from nas.data.seeding import DRAW, MIX, ORDER, SPLIT, generator, permutation
from nas.data.splits import held_out_size, stratified
from nas.data.streaming import Samples, stream, training_transform

SPLITS = "fit", "held_out", "train", "test"
MEASURED = 2000  # training images, the same in every run, that mean and standard deviation are taken from

Batch = tuple[Tensor, Tensor]


class Data:
    """Batches of a data set.

    Splits: `held_out`, training images kept for selection, the same in every run; `fit`, the other training images;
    `train`, both together; `test`, not opened before it is asked for.

    Attributes:
        name: Of the data set.
        classes: Name of each class, in the order of the labels.
        channels: 1 or 3.
        resolution: Side of the images in pixels.
        mean: Per channel, in 0..1, of the training images (of a fixed sample of 2,000 where there are more).
        std: Likewise.
    """

    def __init__(self, found: Found, resolution: int, device: torch.device, memory_limit: int, workers: int) -> None:
        self.name, self.classes, self.resolution = found.name, found.classes, resolution
        self.channels = found.survey[0]
        self._found, self._device, self._memory_limit, self._workers = found, device, memory_limit, workers
        labels = found.train.labels
        everything = np.arange(len(labels))
        if found.held_out is None:
            fit, held_out = stratified(labels, held_out_size(len(labels)))
        else:
            fit, held_out = np.setdiff1d(everything, found.held_out), found.held_out
        if not len(held_out):
            raise ValueError(
                f"data {self.name}: too few training images to hold any out: got {len(labels)} in "
                f"{len(self.classes)} classes; accepted: 5 or more, and two of some class. Add images."
            )
        self._indices = {"fit": fit, "held_out": held_out, "train": everything}
        self._labels = torch.from_numpy(labels).to(device)
        measured = self._decode(found.train, np.sort(permutation(len(labels), SPLIT)[:MEASURED]))
        self.mean, self.std = channel_statistics(measured)
        self._shift, self._scale = (
            torch.tensor(values, device=device).mul_(255).view(-1, 1, 1) for values in (self.mean, self.std)
        )

    def size(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self._index(split))

    def steps_per_epoch(self, split: str, batch_size: int) -> int:
        """Returns the number of full batches in a split.

        Raises:
            ValueError: Not even one.
        """
        images = self.size(split)
        if batch_size < 1 or batch_size > images:
            raise ValueError(
                f"data {self.name}: batch size: got {batch_size} for {images} images in split {split!r}; "
                f"accepted 1 to {images}. Choose a smaller batch, or add images."
            )
        return images // batch_size

    def batches(
        self, split: str, batch_size: int, seed: int, augmentation: Augmentation
    ) -> Callable[[int], Iterator[Batch]]:
        """Returns a function from a first step to training batches that never end.

        Each epoch is a new permutation of the split, less the images that do not fill a batch.

        Args:
            split: `fit` or `train` (any split will do).
            batch_size: Images in a batch; even where mixup or cutmix act.
            seed: The run's.
            augmentation: What is done to the images.

        Returns:
            `batches(k)` yields exactly what `batches(0)` yields after k batches: x, float32, normalised,
            [B, C, R, R], and the target, int64 [B], or probabilities [B, classes] where mixup or cutmix act.

        Raises:
            ValueError: A batch size that the split does not fill, or an odd one that is to be mixed. A broken image
                is named here in a set that fits into memory, and when its batch is reached in one that is streamed.
        """
        steps = self.steps_per_epoch(split, batch_size)
        if augmentation.mixes and batch_size % 2:
            raise ValueError(
                f"data {self.name}: batch size: got {batch_size} with mixup or cutmix; accepted: even numbers. "
                f"Choose {batch_size + 1}, or set both to 0."
            )
        index, labels = self._index(split), self._split_labels(split)
        pixels = self._resident(split)  # decoded here: a broken image is named before training begins

        def keys(start_step: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
            """Yields the epoch and the indices of each batch."""
            epoch, position = divmod(start_step, steps)
            while True:
                order = index[permutation(len(index), ORDER, seed, epoch)]
                for step in range(position, steps):
                    yield epoch, order[step * batch_size : (step + 1) * batch_size]
                epoch, position = epoch + 1, 0

        def batches_from(start_step: int) -> Iterator[Batch]:
            assert start_step >= 0, start_step
            drawn: Iterator[Batch]
            if pixels is not None:
                on_device = (torch.from_numpy(batch).to(self._device) for _, batch in keys(start_step))
                drawn = ((pixels[batch], labels[batch]) for batch in on_device)
            else:
                samples = Samples(
                    self._images(split),
                    self.channels,
                    self.resolution,
                    seed,
                    training_transform(augmentation, self.resolution, self.mean),
                )
                named = ([(epoch, int(i)) for i in batch] for epoch, batch in keys(start_step))
                drawn = stream(samples, named, self._workers, self._device.type == "cuda")
            for step, (x, target) in enumerate(drawn, start_step):
                draw = generator(DRAW, seed, step)
                if pixels is not None:
                    x = augment(x, augmentation, self.mean, draw)
                x, target = self._normalised(x), target.to(self._device, non_blocking=True)
                if augmentation.erasing:
                    x = erase(x, augmentation.erasing, draw)
                if augmentation.mixes:
                    x, target = mix(x, target, augmentation, len(self.classes), MIX, seed, step)
                yield x, target

        return batches_from

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yields a split in order, without augmentation, the last batch as short as it comes.

        Returns:
            x, float32, normalised, [B, C, R, R], and labels, int64 [B].

        Raises:
            ValueError: A broken image, named.
        """
        index = self._index(split)
        # A search reads the held-out images once per candidate and the others never: it decodes those alone, and keeps
        # them even where the whole set would not fit.
        if split == "held_out" and self.__dict__.get("_pixels") is None and self._fits(len(index)):
            on_device = torch.from_numpy(index).to(self._device)
            for x, batch in zip(self._held_out_pixels.split(batch_size), on_device.split(batch_size), strict=True):
                yield self._normalised(x), self._labels[batch]
        elif (pixels := self._resident(split)) is not None:
            labels = self._split_labels(split)
            for batch in torch.from_numpy(index).to(self._device).split(batch_size):
                yield self._normalised(pixels[batch]), labels[batch]
        else:
            samples = Samples(self._images(split), self.channels, self.resolution)
            starts = range(0, len(index), batch_size)
            named = [[(0, int(i)) for i in index[start : start + batch_size]] for start in starts]
            for x, target in stream(samples, named, self._workers, self._device.type == "cuda"):
                yield self._normalised(x), target.to(self._device, non_blocking=True)

    def _normalised(self, x: Tensor) -> Tensor:
        return x.to(self._device, non_blocking=True).float().sub_(self._shift).div_(self._scale)

    def _index(self, split: str) -> NDArray[np.int64]:
        assert split in SPLITS, split
        return np.arange(len(self._test.labels)) if split == "test" else self._indices[split]

    def _images(self, split: str) -> Images:
        return self._test if split == "test" else self._found.train

    def _split_labels(self, split: str) -> Tensor:
        return torch.from_numpy(self._test.labels).to(self._device) if split == "test" else self._labels

    def _resident(self, split: str) -> Tensor | None:
        return self._test_pixels if split == "test" else self._pixels

    @cached_property
    def _pixels(self) -> Tensor | None:
        count = len(self._found.train.labels)
        return self._decode(self._found.train, np.arange(count)).to(self._device) if self._fits(count) else None

    @cached_property
    def _test(self) -> Images:
        return self._found.test()

    @cached_property
    def _test_pixels(self) -> Tensor | None:
        count = len(self._test.labels)
        return self._decode(self._test, np.arange(count)).to(self._device) if self._fits(count) else None

    @cached_property
    def _held_out_pixels(self) -> Tensor:
        return self._decode(self._found.train, self._indices["held_out"]).to(self._device)

    def _fits(self, count: int) -> bool:
        return count * self.channels * self.resolution**2 <= self._memory_limit

    def _decode(self, images: Images, index: NDArray[np.int64]) -> Tensor:
        return decode(images, index, self.channels, self.resolution, max(2, self._workers), self.name)


def channel_statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel, in 0..1, of uint8 images [N, C, R, R].

    By histograms: exact, and without a copy of the set in floating point.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in x.unbind(1):
        histogram = torch.zeros(256, dtype=torch.int64)
        for part in channel.split(1024):
            histogram += torch.bincount(part.flatten(), minlength=256)
        weights = histogram / histogram.sum()
        mean = (weights * values).sum()
        means.append(float(mean))
        # A channel that is constant would be divided by zero.
        stds.append(max(float((weights * (values - mean) ** 2).sum().sqrt()), 1 / 255))
    return tuple(means), tuple(stds)
