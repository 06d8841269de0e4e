"""How an image becomes the input of a network: one definition for the images of a data set and for those that a trained network is asked about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, which need not be whole


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a network sees it: the square in its middle, scaled, and normalised per channel.

    Attributes:
        resolution: side of the input in pixels.
        channels: 1 (grey) or 3 (RGB).
        mean: per channel, in 0..1; `std` likewise.
        crop: side of the square, as a share of the image's shorter side.
        interpolation: a key of `INTERPOLATIONS`; antialiased where it shrinks.
    """

    resolution: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    interpolation: str = "bilinear"

    def __call__(self, image: Image.Image) -> Tensor:
        """A Pillow image to float32 [channels, resolution, resolution]; stack several for a batch.

        In the test the decoder of a large JPEG skipped detail. It does so here, for the very same pixels, after
        `image.draft(None, (how.enough, how.enough))`, which makes `image` a small one for good.

        Raises:
            ValueError: pixels of more than 8 bits.
        """
        return self.normalise(torch.from_numpy(self.pixels(in_channels(image, self.channels)).copy()))

    @property
    def enough(self) -> int:
        """Shorter side in pixels from which on an image is not enlarged: what a decoder that can leave out detail has to give."""
        return math.ceil(self.resolution / self.crop)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The same before it is normalised, of an image in the right channels: uint8 [channels, resolution, resolution]."""
        return scaled(image, centre_square(image, self.crop), self.resolution, self.interpolation)

    def normalise(self, pixels: Tensor) -> Tensor:
        """What `pixels` gives, one image or a batch on any device, to float32."""
        return normalised(
            pixels, *(torch.tensor(values, device=pixels.device).mul_(255).view(-1, 1, 1) for values in (self.mean, self.std))
        )

    def recorded(self) -> dict[str, Any]:
        """All but resolution and channels, which a network has already, as plain values."""
        return {"mean": list(self.mean), "std": list(self.std), "crop": self.crop, "interpolation": self.interpolation}


def in_channels(image: Image.Image, channels: int) -> Image.Image:
    """Decodes an image to 8 bits in one (grey) or three (RGB) channels.

    Raises:
        ValueError: pixels of more than 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these to 255: a white image, without a word.
        raise ValueError(f"pixels of more than 8 bits (mode {image.mode})")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")


def centre_square(image: Image.Image, share: float = 1.0) -> Box:
    """The square in the middle of an image, its side a share of the image's shorter one."""
    width, height = image.size
    side = min(width, height) * share
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def scaled(image: Image.Image, box: Box, resolution: int, interpolation: str = "bilinear") -> NDArray[np.uint8]:
    """Scales a box of an image to a square (antialiased where it shrinks): uint8, [channels, R, R]."""
    whole = image.size == (resolution, resolution) and box == (0, 0, resolution, resolution)
    array = np.asarray(image if whole else image.resize((resolution, resolution), INTERPOLATIONS[interpolation], box))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def normalised(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 pixels to float32; mean and deviation per channel in 0..255, [C, 1, 1]."""
    return x.float().sub_(mean).div_(std)
