"""Large sets: decoded by worker processes, batch by batch.

Every sample is drawn by a seed of its own, (seed, epoch, index), so neither the number of workers nor the step one
starts at changes a batch, and there is no generator state to save.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.data.augmentation import PAD_DIVISOR, Augmentation
from nas.data.images import Images, picture, pixels, square
from nas.data.seeding import SAMPLE, seeded

PREFETCHED = 4  # batches each worker prepares ahead


@dataclass
class Samples(Dataset[Any]):
    """Decodes a sample, and augments it where there is a transform.

    Attributes:
        images: The split.
        channels: 1 or 3.
        resolution: Side in pixels.
        seed: The run's seed.
        transform: From a Pillow image to uint8 [channels, resolution, resolution]; None for evaluation.
    """

    images: Images
    channels: int
    resolution: int
    seed: int = 0
    transform: Callable[[Image.Image], Tensor] | None = None

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | ValueError:
        """Returns pixels and label of an (epoch, index); a broken image's error is returned, not raised.

        A DataLoader would wrap a raised error in the worker's traceback, many lines long.
        """
        epoch, index = key
        try:
            if self.transform is None:
                x = torch.from_numpy(pixels(self.images, index, self.channels, self.resolution).copy())
            else:
                image = picture(self.images, index, self.channels)
                with seeded(SAMPLE, self.seed, epoch, index):
                    x = self.transform(image)
        except ValueError as error:
            return ValueError(str(error))  # a plain copy: the original's cause may not survive pickling
        return x, int(self.images.labels[index])


def stream(
    samples: Samples, batches: Iterable[list[tuple[int, int]]], workers: int, pin_memory: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields uint8 images [B, C, R, R] and labels [B] on the CPU, in the order of `batches`.

    Args:
        samples: What decodes a sample.
        batches: The (epoch, index) keys of each batch; may be endless.
        workers: Number of processes; 0 decodes in this one.
        pin_memory: Whether the batches go to a GPU.

    Raises:
        ValueError: A broken image, named.
    """
    samples.images.prepare()
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of lists of keys will do
        num_workers=workers,
        prefetch_factor=PREFETCHED if workers else None,
        collate_fn=_collate,
        pin_memory=pin_memory,
        # Its own: a DataLoader draws a base seed, from the global generator if it is given none.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch


def training_transform(
    augmentation: Augmentation, resolution: int, mean: tuple[float, ...]
) -> Callable[[Image.Image], Tensor]:
    """Returns crop, flip and RandAugment for one image, from timm's parts, ending in uint8 [C, R, R].

    Erasing, mixup and cutmix follow on the whole batch, on the device.
    """
    from timm.data import create_transform
    from torchvision import transforms

    randaugment = None
    if augmentation.randaugment is not None:
        num_ops, magnitude = augmentation.randaugment
        # inc1: strength grows with the magnitude for every operation, as it does in torchvision's.
        randaugment = f"rand-m{magnitude}-n{num_ops}-inc1"
    crop_and_flip, randomly_augment, to_tensor = create_transform(
        resolution,
        is_training=True,
        scale=augmentation.crop_scale,
        hflip=0.5 if augmentation.flip else 0.0,
        color_jitter=None,  # type: ignore[arg-type]  # None is its word for off
        auto_augment=randaugment,
        interpolation="bilinear",
        mean=mean,
        normalize=False,
        separate=True,
    )
    if augmentation.crop != "resized":
        crop = [transforms.RandomCrop(resolution, resolution // PAD_DIVISOR)] if augmentation.crop == "pad" else []
        flip = [transforms.RandomHorizontalFlip()] if augmentation.flip else []
        crop_and_flip = transforms.Compose([partial(square, resolution=resolution), *crop, *flip])
    return transforms.Compose([crop_and_flip, randomly_augment, to_tensor])


def _collate(samples: list[tuple[Tensor, int] | ValueError]) -> tuple[Tensor, Tensor] | ValueError:
    good = []
    for sample in samples:
        if isinstance(sample, ValueError):
            return sample
        good.append(sample)
    return torch.stack([x for x, _ in good]), torch.tensor([label for _, label in good])
