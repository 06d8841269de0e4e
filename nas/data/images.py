"""One image at a time: where it lies, how it is decoded, and what is said when it is broken."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nas.data.seeding import SPLIT, permutation
from nas.networks.preprocessing import in_channels

SURVEYED = 32  # images whose headers say the channels and the resolution of a set

Labels = NDArray[np.int64]


class Images(ABC):
    """The images of one split, undecoded, and the class of each."""

    labels: Labels

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """Opens an image; may leave the pixels to be decoded later. Threads and processes call it side by side."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Names an image for an error message: its path, or its file and row."""

    @abstractmethod
    def content(self) -> Iterator[bytes | memoryview]:
        """Yields what tells these images from others without decoding any: names below the data folder, and sizes."""

    def sample(self, count: int) -> NDArray[np.int64]:
        """Returns the indices of at most `count` images, the same in every run, ascending."""
        return np.sort(permutation(len(self.labels), SPLIT)[:count])


@dataclass(frozen=True)
class ArrayImages(Images):
    """Images that are arrays already, grey or colour; `name` is what messages call them."""

    pixels: NDArray[np.uint8]  # [N, H, W] or [N, H, W, 3]
    labels: Labels
    name: str

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def place(self, index: int) -> str:
        return f"{self.name}: image {index}"

    def content(self) -> Iterator[bytes | memoryview]:
        yield np.ascontiguousarray(self.pixels).data.cast("B")


def survey(images: Images) -> tuple[int, int]:
    """Returns channels (1 where every image is grey, else 3) and the median shorter side in pixels, from a sample's headers.

    Raises:
        ValueError: An image that cannot be opened, named.
    """
    sides, modes = [], set()
    for index in images.sample(SURVEYED):
        try:
            with images.open(index) as image:
                sides.append(min(image.size))
                modes.add(image.mode)
        except Exception as error:
            raise broken_image(images.place(index), error) from error
    return (1 if modes <= {"1", "L", "LA"} else 3), median_low(sides)


def picture(images: Images, index: int, channels: int, draft: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes one image to 8 bits in one (grey) or three (RGB) channels; returns also its own width and height.

    A `draft` is the side in pixels that will do: it lets the JPEG decoder skip detail that scaling would throw away.

    Raises:
        ValueError: An image that is missing, broken, truncated or not 8-bit, named.
    """
    try:
        with images.open(index) as image:
            size = image.size
            if draft is not None:
                image.draft(None, (draft, draft))
            return in_channels(image, channels), size
    except MemoryError:
        raise
    except Exception as error:  # a decoder that meets garbage may raise anything: OSError, SyntaxError, struct.error...
        raise broken_image(images.place(index), error) from error


def broken_image(place: str, error: Exception) -> ValueError:
    """Returns the error for an image that cannot be decoded, in one line."""
    # Pillow's message for an unknown format names the file again, or an object in memory.
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error_text(error)
    return ValueError(f"{place}: broken image: got {reason}; accepted: whole 8-bit images that Pillow reads. Replace or remove it.")


def error_text(error: Exception) -> str:
    """Returns what went wrong without the path that an OSError repeats."""
    return getattr(error, "strerror", None) or one_line(error)


def one_line(error: Exception) -> str:
    """Returns an error's message on one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def check_classes(place: str, got: Sequence[str], classes: Sequence[str]) -> None:
    """Raises a ValueError where the classes of a split are not those of the training images."""
    if tuple(got) != tuple(classes):
        odd = sorted(set(got) ^ set(classes))[:1] or ["another order"]
        raise ValueError(
            f"{place}: classes differ from those of train: got {len(got)} classes, {odd[0]!r} in only one of the two; accepted: the "
            f"{len(classes)} classes of train. Add or remove the class, or write both splits again."
        )


def check_labels(place: str, labels: Labels, classes: Sequence[str]) -> None:
    """Raises a ValueError where there is no label at all, or one outside 0..len(classes) - 1."""
    if not len(labels):
        raise ValueError(f"{place}: no images: got 0; accepted: at least one. Add images.")
    for extreme in (int(labels.min()), int(labels.max())):
        if not 0 <= extreme < len(classes):
            raise ValueError(f"{place}: label outside the classes: got {extreme}; accepted 0 to {len(classes) - 1}. Number them from 0 on.")
