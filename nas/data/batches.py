"""Data: the splits of a data set at one resolution, on one device, as batches.

A training batch is a function of (seed, step): the order of an epoch, the crops, the mixing are drawn from keys, never from a state that
runs along. To go on at step k is to ask for step k. One of several processes makes its part of every batch, and what it makes are these rows
of the batch that one process alone would make, to the bit. A recipe means the same whatever the size of the set: what is streamed equals what is
in memory, to the bit, or to rounding where boxes are scaled.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.data.augmentation import BOX_NUMBERS, RESIZED_RATIO, Augmentation, augment, erase, mix, random_boxes, resized_crop
from nas.data.damage import Damage
from nas.data.decoding import Heed, Samples, decode, look, never, stream
from nas.data.images import Broken, Images, Unusable, refuse
from nas.data.parts import WHOLE, Part
from nas.data.seeding import BOX, DRAW, MIX, ORDER, generator, permutation
from nas.data.splits import Found, split_indices
from nas.data.transfer import moved
from nas.networks.preprocessing import Preprocessing, normalised

# Training images, the same in every run, that mean and standard deviation are taken from; fewer of large ones, whose pixels would fill the memory.
MEASURED, MEASURED_PIXELS = 2000, 2000 * 256 * 256
JUDGED = ("held_out", "test")  # splits that accuracies are of

Batch = tuple[Tensor, Tensor]
Chosen = tuple[NDArray[np.int64], Tensor | None]  # which images, and the random numbers of their boxes; None for centre squares


@dataclass(frozen=True)
class Kept:
    """Batches that are kept as uint8 pixels and normalised each time they are gone through: a quarter of the memory, the same to the bit.

    Attributes:
        batches: uint8 images [B, C, R, R] and labels [B], on one device.
        mean: Per channel in 0..255, [C, 1, 1], there too; `std` likewise.
    """

    batches: tuple[Batch, ...]
    mean: Tensor
    std: Tensor

    def __iter__(self) -> Iterator[Batch]:
        return ((normalised(x, self.mean, self.std), labels) for x, labels in self.batches)


class Data:
    """Batches of a data set.

    Its splits are those of `split_indices`; `test` is not decoded before it is asked for.

    Attributes:
        classes: Name of each class, in the order of the labels.
        channels: 1 or 3.
        resolution: Side of the images in pixels.
        part: Of every training batch, what this process makes.
    """

    def __init__(self, found: Found, resolution: int, device: torch.device, loaders: int, memory_limit: int, part: Part = WHOLE) -> None:
        assert loaders >= 0, loaders
        self.part = part
        self.name, self.classes, self.resolution = found.name, found.classes, resolution
        self.channels = found.survey.channels
        self._found, self._device, self._loaders, self._memory_limit = found, device, loaders, memory_limit
        self._indices = split_indices(found)
        # uint8 pixels of splits, on the device, and whether none of the originals had to be scaled for them.
        self._decoded: dict[str, tuple[Tensor, bool]] = {}
        self._damage = [Damage(found.name, images, self.channels) for images in (found.train, found.test)]  # what is met later
        self.looked: tuple[int, float] | None = None  # what `check` gave, and its seconds

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, in 0..1, of the training images (of a fixed sample of 2,000 where there are more; above 256 pixels of fewer)."""
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation likewise."""
        return self._statistics[1]

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to an image before a network sees it, but for augmentation."""
        return Preprocessing(self.resolution, self.channels, self.mean, self.std)

    def size(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self._indices[split])

    def steps_per_epoch(self, split: str, batch_size: int) -> int:
        """Returns the number of full batches in a split; a ValueError if there is not even one, or one is too small for all processes."""
        images = self.size(split)
        if batch_size < 1 or batch_size > images:
            raise ValueError(
                f"data {self.name}: batch size: got {batch_size} for {images} images in split {split!r}; "
                f"accepted 1 to {images}. Choose a smaller batch, or add images."
            )
        self.part.rows(batch_size)
        return images // batch_size

    def check(self, training: Augmentation | None = None, heed: Heed = never) -> int:
        """Looks at every image of all splits, once; to be called before anything is spent on them.

        Of the training images and of the test images, those that fit into `memory_limit` at this resolution are decoded. Of a larger set the
        header and the last bytes of every file are read, and only what these leave in doubt is decoded: so files that were cut off are found
        in a set of any size. Damage in the middle of such a file is met when the image is used, see `Damage`. No pixel of the test images is
        kept. On two busy cores 1,400 (tar) to 4,800 (files) images of 128 pixels a second were decoded, and 2,200 to 10,700 headers read.

        Args:
            training: How this process will train: where it will do so from memory, the decoded training images stay there. None: it will not.
            heed: Asked five times a second; what it raises ends the look.

        Returns:
            The number of images that were not decoded.

        Raises:
            ValueError: Broken images: the first by name and reason, the others counted.
        """
        if self.looked is not None:
            return self.looked[0]
        begun, broken, undecoded, threads = time.monotonic(), list[Broken](), 0, max(1, self._loaders)
        for part, images in (("train", self._found.train), ("test", self._found.test)):
            fits = self._fits(part)
            if part == "train" and training is not None and fits and self._whole_square(training.crop == "resized"):
                broken += self._keep(part, heed)
            elif part not in self._decoded:
                found, rest = look(images, self.channels, self.resolution if fits else None, threads, self.name, heed)
                broken, undecoded = broken + found, undecoded + rest
        refuse(broken)
        self.looked = undecoded, time.monotonic() - begun
        return undecoded

    def batches(self, split: str, batch_size: int, seed: int, augmentation: Augmentation) -> Callable[[int], Iterator[Batch]]:
        """Returns a function from a first step to training batches that never end.

        Each epoch is a new permutation of the split, less the images that do not fill a batch.

        Args:
            split: `fit` or `train` (any split will do).
            batch_size: Images in a batch, in the parts of all processes together; even where mixup or cutmix act.
            seed: The run's.
            augmentation: What is done to the images.

        Returns:
            `batches(k)` yields exactly what `batches(0)` yields after k batches: x, float32, normalised, [B, C, R, R], and the target,
            int64 [B], or probabilities [B, classes] where mixup or cutmix act; of B only the rows of this process's part.

        Raises:
            ValueError: A batch size that the split or the processes do not fill, or an odd one that is to be mixed; a broken image in a set that
                is kept in memory, named. In a set that is streamed the next image of the split stands for it, see `Damage`.
        """
        steps, rows = self.steps_per_epoch(split, batch_size), self.part.rows(batch_size)
        if augmentation.mixes and batch_size % 2:
            raise ValueError(
                f"data {self.name}: batch size: got {batch_size} with mixup or cutmix; accepted: even numbers. "
                f"Choose {batch_size + 1}, or set both to 0."
            )
        boxed = augmentation.crop == "resized"
        self._resident(split, boxed)  # decoded here: a broken image is named before training begins

        def chosen(start_step: int) -> Iterator[Chosen]:
            epoch, first = divmod(start_step, steps)
            while True:
                order = self._indices[split][permutation(self.size(split), ORDER, seed, epoch)]
                for position in range(first, steps):
                    batch, step = order[position * batch_size : (position + 1) * batch_size], epoch * steps + position
                    numbers = torch.rand(batch_size, BOX_NUMBERS, generator=generator(BOX, seed, step))[rows.places] if boxed else None
                    yield batch[rows.places.numpy()], numbers
                epoch, first = epoch + 1, 0

        def batches_from(start_step: int) -> Iterator[Batch]:
            assert start_step >= 0, start_step
            crops = self._crops(split, chosen(start_step), boxed, augmentation.crop_scale, stand_ins=True)
            for step, (x, target) in enumerate(crops, start_step):
                draw = generator(DRAW, seed, step)
                x = self._normalised(augment(x, augmentation, self.mean, draw, rows))
                if augmentation.erasing:
                    x = erase(x, augmentation.erasing, int(torch.randint(2**31, (), generator=draw)), rows)
                if augmentation.mixes:
                    x, target = mix(x, target, augmentation, len(self.classes), MIX, seed, step)
                yield x, target

        return batches_from

    def evaluation_batches(self, split: str, batch_size: int, *, raw: bool = False) -> Iterator[Batch]:
        """Yields x and labels as `batches` does, but in order, without augmentation, the last batch as short as it comes; `raw` ones as uint8 pixels."""
        self._resident(split, False)  # which may leave some out
        index = self._indices[split]
        chosen = ((index[start : start + batch_size], None) for start in range(0, len(index), batch_size))
        for x, labels in self._crops(split, chosen):
            yield (x if raw else self._normalised(x)), labels

    def kept(self, split: str, batch_size: int) -> "Kept":
        """Returns the same for whoever goes through them again and again."""
        return Kept(tuple(self.evaluation_batches(split, batch_size, raw=True)), *self._shift_scale)

    def _crops(
        self, split: str, chosen: Iterator[Chosen], boxed: bool = False, scale: tuple[float, float] = (1, 1), stand_ins: bool = False
    ) -> Iterator[Batch]:
        """Yields uint8 images [B, C, R, R] and labels, on the device: centre squares, or boxes of an area within `scale`."""
        images = self._images(split)
        if resident := self._resident(split, boxed):
            pixels, rows = resident
            for batch, numbers in chosen:
                boxes = [] if numbers is None else [random_boxes(numbers, scale, RESIZED_RATIO)]
                places, labels = torch.from_numpy(np.searchsorted(rows, batch)), torch.from_numpy(images.labels[batch])
                places, labels, *boxes = moved(self._device, places, labels, *boxes)
                yield (resized_crop(pixels[places], *boxes) if boxes else pixels[places]), labels
        else:
            lists = ((batch, None if numbers is None else numbers.tolist()) for batch, numbers in chosen)
            wanted = ([(int(i), numbers and numbers[k]) for k, i in enumerate(batch)] for batch, numbers in lists)
            most = self._damage[split == "test"].most if stand_ins else 0
            samples = Samples(images, self.channels, self.resolution, scale, self._indices[split], most)
            met = partial(self._met, split, stand_ins=stand_ins)
            for x, labels in stream(samples, wanted, self._loaders, self._device.type == "cuda", met):
                yield x.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)

    def _resident(self, split: str, boxed: bool) -> tuple[Tensor, NDArray[np.int64]] | None:
        """Returns pixels in memory that a split's crops can be taken from, and which image each of them is; or None.

        Boxes are boxes of the original image, so they need originals that are squares of the wanted side themselves.
        """
        if not self._whole_square(boxed):
            return None
        part = "test" if split == "test" else "train"
        # A search reads the held-out images once per candidate and the others never: it decodes those alone, and keeps them even where the
        # whole set would not fit.
        if split == "held_out" and part not in self._decoded:
            part = split
        if self._fits(part) and (broken := self._keep(part)):
            if part not in JUDGED:
                refuse(broken)
            self._met(part, self._damage[part == "test"].again(self._indices[part], broken))
            self._keep(part)
        if part not in self._decoded or (boxed and not self._decoded[part][1]):
            return None
        return self._decoded[part][0], self._indices[part]

    def _met(self, split: str, broken: Sequence[Unusable], stand_ins: bool = False) -> None:
        """Takes note of broken images of a split; who judges by it goes without them, now and from now on.

        Raises:
            ValueError: Too many of all are broken, or nothing goes on without them.
        """
        if not stand_ins and split not in JUDGED:
            raise ValueError(broken[0][1])
        damage, what = self._damage[split == "test"], "The next image stands for it" if stand_ins else "It is left out"
        # Whoever trains along is silent on stderr, but may be the only one that has met this image.
        damage.note(broken, what, sys.__stderr__ if self.part.number else sys.stderr)
        if not stand_ins:
            self._indices[split] = np.setdiff1d(self._indices[split], [index for index, _ in broken])

    def _whole_square(self, boxed: bool) -> bool:
        """Whether what is in memory might do, by the survey: boxes are cut from it only where it is the original."""
        return not boxed or self._found.survey.side == self.resolution

    def _fits(self, part: str) -> bool:
        return len(self._indices[part]) * self.channels * self.resolution**2 <= self._memory_limit

    def _keep(self, part: str, heed: Heed = never) -> list[Broken]:
        """Decodes a part of the images into memory, if it is not there; returns the broken ones, with which nothing is kept."""
        if part in self._decoded:
            return []
        pixels, unscaled, broken = self._decode(self._images(part), self._indices[part], heed)
        if not broken:
            self._decoded[part] = pixels.to(self._device), unscaled
        return broken

    def _images(self, split: str) -> Images:
        return self._found.test if split == "test" else self._found.train

    def _decode(self, images: Images, index: NDArray[np.int64], heed: Heed = never) -> tuple[Tensor, bool, list[Broken]]:
        return decode(images, index, (self.channels, self.resolution), max(1, self._loaders), self.name, heed)

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        sample = self._found.train.sample(max(1, min(MEASURED, MEASURED_PIXELS // self.resolution**2)))
        if "train" in self._decoded:
            return channel_statistics(self._decoded["train"][0][sample].cpu())
        pixels, _, broken = self._decode(self._found.train, sample)
        refuse(broken)
        return channel_statistics(pixels)

    @cached_property
    def _shift_scale(self) -> tuple[Tensor, Tensor]:
        shift, scale = (torch.tensor(values, device=self._device).mul_(255).view(-1, 1, 1) for values in self._statistics)
        return shift, scale

    def _normalised(self, x: Tensor) -> Tensor:
        return normalised(x, *self._shift_scale)


def channel_statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel, in 0..1, of uint8 images [N, C, R, R]."""
    values = torch.arange(256, dtype=torch.float64) / 255
    # By histograms: exact, and without a copy of the images in floating point.
    histograms = [torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in image]) for image in x]
    shares = torch.stack(histograms).sum(0).double() / (x.numel() / x.shape[1])
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=1 / 255)  # a constant channel would be divided by zero
    return tuple(mean.tolist()), tuple(std.tolist())
