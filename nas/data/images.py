"""One image at a time: where it lies, how it is decoded, and what is said when it is broken."""

import os
import re
import stat
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median_low
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nas.data.seeding import SPLIT, permutation
from nas.networks.preprocessing import in_channels

SURVEYED = 32  # images whose headers say the channels and the resolution of a set
NAMED = 3  # broken images besides the first
ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # the last bytes of a file, by Pillow's name of the format
EIGHT_BITS = {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"}  # Pillow's modes that need no second look
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFDIR: "a folder"}

Labels = NDArray[np.int64]
Broken = tuple[str, str]  # where an image lies, and what is wrong with it
Unusable = tuple[int, str]  # its index, and what is wrong with it
REPLACE = "Replace or remove it."


class Unreadable(ValueError):
    """The system does not give an image out: nothing is known to be wrong with the image."""


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


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Pillow's warnings from the user: of an image above 89 megapixels, of a damaged EXIF entry in an image that is whole.

    To be entered around threads, not in them: what is warned of is the whole process's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


class Survey(NamedTuple):
    """What the headers of a sample say of a set."""

    channels: int  # 1 where every image is grey, else 3
    side: int  # in pixels, the median of the shorter ones
    least: int  # side, and the greatest: all images are squares of one size where both are equal
    greatest: int


def survey(images: Images) -> Survey:
    """Looks at the headers of a sample, the same in every run.

    Broken images are passed over: they are all named together, when all images are looked at.

    Raises:
        ValueError: No image of the sample can be opened; the first is named.
    """
    sizes, modes, broken = [], set(), []
    with quiet():
        for index in images.sample(SURVEYED):
            try:
                with images.open(index) as image:
                    sizes.append(sorted(image.size))
                    modes.add(image.mode)
            except Exception as error:
                broken.append((images.place(index), str(broken_image(images.place(index), error))))
    if not sizes:
        refuse(broken)
    shorter, longer = zip(*sizes, strict=True)
    return Survey(1 if modes <= {"1", "L", "LA"} else 3, median_low(shorter), min(shorter), max(longer))


def open_file(path: str) -> Image.Image:
    """Opens an image file, and nothing else: a FIFO would wait for ever for somebody to write into it."""
    if not regular_file(path).st_size:
        raise ValueError("an empty file")
    return Image.open(path)


def regular_file(path: str | os.PathLike[str]) -> os.stat_result:
    """Returns the status of a file; a ValueError where it is a FIFO, a socket, a device or a folder."""
    status = os.stat(path)
    if kind := KINDS.get(stat.S_IFMT(status.st_mode)):
        raise ValueError(f"{kind} in place of a file")
    return status


def seems_whole(images: Images, index: int) -> bool:
    """Returns whether an image's header and the last bytes of its file are those of a whole JPEG or PNG image of 8 bits.

    A file that was cut off, or made at its full length but not filled to its end, has other last bytes. Damage in the middle goes unnoticed,
    and a whole image may have something behind its end, or another format: where the answer is no, only decoding tells.
    """
    try:
        with images.open(index) as image:
            return image.mode in EIGHT_BITS and _ends_well(image)
    except MemoryError:
        raise
    except Exception:  # what it is, `picture` says
        return False


def _ends_well(image: Image.Image) -> bool:
    ending, file = ENDINGS.get(str(image.format)), getattr(image, "fp", None)
    if ending is None or file is None:
        return False
    file.seek(-len(ending), os.SEEK_END)  # decoding begins with a seek of its own
    return bool(file.read(len(ending)) == ending)


def picture(images: Images, index: int, channels: int, draft: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes one image to 8 bits in one (grey) or three (RGB) channels; returns also its own width and height.

    A `draft` is the side in pixels that will do: it lets the JPEG decoder skip detail that scaling would throw away.

    Raises:
        ValueError: An image that is broken, truncated or not 8-bit, named; an `Unreadable` one where the system says no, as of one that is missing.
    """
    try:
        with images.open(index) as image:
            size = image.size
            if image.format == "PNG" and not _ends_well(image):
                with images.open(index) as again:
                    again.verify()  # checksums: Pillow decodes zeros in place of the rest of some files without a word
            if draft is not None:
                image.draft(None, (draft, draft))
            return in_channels(image, channels), size
    except MemoryError:
        raise
    except Exception as error:  # a decoder that meets garbage may raise anything: OSError, SyntaxError, struct.error...
        raise broken_image(images.place(index), error) from error


def broken_image(place: str, error: Exception) -> ValueError:
    """Returns the error for an image that cannot be decoded, in one line."""
    if isinstance(error, Image.DecompressionBombError):  # above twice what Pillow warns of: 179 megapixels take half a gigabyte
        got, most = (int(number) for number in re.findall(r"\d+", str(error)))
        return ValueError(f"{place}: too large an image: got {got:,} pixels; accepted: at most {most:,}. Scale it down or remove it.")
    # Pillow's message for an unknown format names the file again, or an object in memory.
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error_text(error)
    advice = "Check its permissions." if isinstance(error, PermissionError) else REPLACE
    kind = Unreadable if isinstance(error, OSError) and error.errno else ValueError
    return kind(f"{place}: broken image: got {reason}; accepted: whole 8-bit images that Pillow reads. {advice}")


def refuse(broken: Sequence[Broken]) -> None:
    """Raises a ValueError where there are broken images, in one line: the first with what is wrong, how many more, and where some of these are."""
    if broken:
        (_, message), *others = broken
        some = ", ".join(place for place, _ in others[:NAMED])
        such = "such as " if len(others) > NAMED else ""
        raise ValueError(f"{message} {len(others)} more cannot be used: {such}{some}." if others else message)


def error_text(error: Exception) -> str:
    """Returns what went wrong without the path that an OSError repeats."""
    return getattr(error, "strerror", None) or one_line(error)


def one_line(error: Exception) -> str:
    """Returns an error's message on one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def check_names(place: str, names: Sequence[str]) -> None:
    """Raises a ValueError for a name that is not UTF-8: no record of a run could hold it."""
    for name in names:
        if name.encode(errors="replace").decode() != name:
            raise ValueError(f"{place}: a name that is not UTF-8: got {name!r}; accepted: UTF-8. Rename it.")


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
