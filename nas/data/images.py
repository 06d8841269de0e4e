"""One image at a time: where it lies, how it is decoded, and what is said when it is broken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

SURVEYED = 32  # images whose headers say the channels and the resolution of a set


class Images(Protocol):
    """The images of one split, undecoded, with their labels."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each image, [N]."""

    def prepare(self) -> None:
        """Reads what all images of the split share, once, before threads or worker processes open them."""

    def open(self, index: int) -> Image.Image:
        """Opens an image; may leave the pixels to be decoded later."""

    def place(self, index: int) -> str:
        """Names an image for an error message: its path, or its file and row."""


@dataclass(frozen=True)
class Found:
    """What a layout (digits, Parquet, folder, torchvision) knows of a data set before anything is decoded.

    Attributes:
        name: Short and safe in a file name.
        classes: Name of each class, in the order of the labels.
        train: The training images, held-out ones included.
        test: Gives the test images; called when they are asked for.
        survey: Channels (1 or 3) and side in pixels, from a fixed sample of the training images.
        held_out: Indices of `train` that the layout itself holds out, or None to choose them.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    test: Callable[[], Images]
    survey: tuple[int, int]
    held_out: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class ArrayImages:
    """Grey images that are arrays already: [N, H, W], uint8."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    name: str

    def prepare(self) -> None:
        pass

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def place(self, index: int) -> str:
        return f"{self.name}: image {index}"


def survey(images: Images, indices: Sequence[int] | None = None) -> tuple[int, int]:
    """Reads the headers of a fixed sample of images.

    Args:
        images: The training images.
        indices: Which to look at; None for 32 that are evenly spaced.

    Returns:
        Channels, 1 where every image is grey and else 3, and the median of the shorter sides in pixels.

    Raises:
        ValueError: An image that cannot be opened, named.
    """
    if indices is None:
        count = len(images.labels)
        indices = sorted({int(index) for index in np.linspace(0, count - 1, min(SURVEYED, count))})
    sides, modes = [], set()
    for index in indices:
        try:
            with images.open(index) as image:
                sides.append(min(image.size))
                modes.add(image.mode)
        except Exception as error:
            raise broken_image(images.place(index), error) from error
    return (1 if modes <= {"1", "L", "LA"} else 3), median_low(sides)


def picture(images: Images, index: int, channels: int, draft: int | None = None) -> Image.Image:
    """Decodes one image to 8 bits in one (grey) or three (RGB) channels.

    Args:
        images: The split.
        index: Which image.
        channels: 1 or 3.
        draft: Side in pixels that will do: lets the JPEG decoder skip detail that scaling would throw away.

    Raises:
        ValueError: An image that is missing, broken, truncated or not 8-bit, named.
    """
    try:
        with images.open(index) as image:
            if draft is not None:
                image.draft(None, (draft, draft))
            if image.mode.startswith(("I", "F")):
                # Pillow would clip these to 255: a white image, without a word.
                raise ValueError(f"pixels of more than 8 bits (mode {image.mode})")
            if "transparency" in image.info:
                image = image.convert("RGBA")
            return image.convert("L" if channels == 1 else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # a decoder that meets garbage may raise anything: OSError, SyntaxError, struct.error...
        raise broken_image(images.place(index), error) from error


def square(image: Image.Image, resolution: int) -> Image.Image:
    """Scales the shorter side to `resolution` (bilinear, antialiased) and crops the centre, in one operation."""
    width, height = image.size
    side = min(width, height)
    if width == height == resolution:
        return image
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((resolution, resolution), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def pixels(images: Images, index: int, channels: int, resolution: int) -> NDArray[np.uint8]:
    """Decodes one image for evaluation: uint8, [channels, resolution, resolution]."""
    array = np.asarray(square(picture(images, index, channels, draft=resolution), resolution))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def broken_image(place: str, error: Exception) -> ValueError:
    """Returns the error for an image that cannot be decoded, in one line."""
    # Pillow's message for an unknown format names the file again, or an object in memory.
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error_text(error)
    return ValueError(
        f"{place}: broken image: got {reason}; accepted: whole 8-bit images that Pillow reads. Replace or remove it."
    )


def error_text(error: Exception) -> str:
    """Returns what went wrong without the path that an OSError repeats."""
    return getattr(error, "strerror", None) or one_line(error)


def one_line(error: Exception) -> str:
    """Returns an error's message on one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def check_labels(place: str, labels: NDArray[np.int64], classes: Sequence[str], every_class: bool) -> None:
    """Checks that labels count classes from 0, and that each class has an image.

    Args:
        place: Where the labels are, for the message.
        labels: Class of each image, [N].
        classes: Name of each class.
        every_class: Whether a class without an image is an error; a test split may lack one.

    Raises:
        ValueError: No label at all, one outside 0..len(classes) - 1, or a class without images.
    """
    if not len(labels):
        raise ValueError(f"{place}: no images: got 0; accepted: at least one. Add images.")
    for extreme in (int(labels.min()), int(labels.max())):
        if not 0 <= extreme < len(classes):
            raise ValueError(
                f"{place}: label outside the classes: got {extreme}; accepted 0 to {len(classes) - 1} "
                f"({len(classes)} classes). Number the classes from 0 without gaps."
            )
    empty = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if every_class and len(empty):
        raise ValueError(
            f"{place}: class without images: got none of class {empty[0]} ({classes[empty[0]]!r}); "
            "accepted: at least one image of every class. Add images, or remove the class."
        )
