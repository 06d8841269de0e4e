"""A data set that is not here: photographs made up in its size, by which a plan can time real decoding and real steps."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data import Data, DataSource
from nas.data.images import Images, Labels, survey
from nas.data.splits import Found

PHOTO = (500, 375)  # width and height in pixels, as most of ImageNet's are
SMALL = 64  # side up to which images are squares of it
VARIETY = 16  # different ones
TESTED = 25  # training images for each one to test


@dataclass(frozen=True)
class Photographs(Images):
    """Noise that is coarse and fine, as JPEG files in memory: about as many bytes, and as long to decode, as photographs have."""

    labels: Labels
    size: tuple[int, int]

    @cached_property
    def _files(self) -> list[bytes]:
        draw, files = np.random.default_rng(0), []
        for _ in range(VARIETY):
            pixels = np.zeros((self.size[1], self.size[0], 3))
            for parts in (4, 16, 64, max(self.size)):
                noise = Image.fromarray(draw.integers(0, 256, (parts, parts, 3), np.uint8)).resize(self.size, Image.Resampling.BICUBIC)
                pixels += np.asarray(noise, np.float64) / parts**0.2
            file = io.BytesIO()
            Image.fromarray((pixels / pixels.max() * 255).astype(np.uint8)).save(file, "JPEG", quality=95)
            files.append(file.getvalue())
        return files

    def sample(self, count: int) -> NDArray[np.int64]:
        return super().sample(min(count, VARIETY))

    def open(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self._files[index % VARIETY]))

    def place(self, index: int) -> str:
        return f"made-up photograph {index}"

    def content(self) -> Iterator[bytes]:
        yield f"made up: {len(self.labels)} of {self.size}".encode()


class Imagined(DataSource):
    """Nothing of it is kept in memory, so that of a split only what is asked for is decoded."""

    def load(self, *about: Any, **more: Any) -> Data:
        return super().load(*about, **{**more, "memory_limit": 0})


def imagined(images: int, classes: int, resolution: int | None) -> DataSource:
    """A set of so many training images in colour, photographs or, where networks are trained at a small side, squares of it.

    Raises:
        ValueError: fewer than two classes, or too few images for them.
    """
    if classes < 2 or images < 5 * classes:
        raise ValueError(
            f"--images: too few: got {images} in {classes} classes; accepted: two classes or more, and five images of each. Give more."
        )
    size = (resolution, resolution) if resolution and resolution <= SMALL else PHOTO
    train, test = (Photographs(np.arange(num) % classes, size) for num in (images, max(classes, images // TESTED)))
    names = tuple(f"class {number}" for number in range(classes))
    return Imagined(Found(f"{images}_images", names, train, test, survey(train), None))
