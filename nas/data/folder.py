"""Image sets as files: `train/<class>/...` beside `val/<class>/...`, `test/<class>/...` or both."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import Images, Labels, check_classes, error_text, one_line
from nas.data.splits import Found, assemble, split_of


@dataclass(frozen=True)
class FileImages(Images):
    """Images that are files, with their sizes in bytes.

    The names below `folder` are an array of bytes: a list of a million strings would be copied into every worker process, since Python
    writes to each string that it reads (its reference count).
    """

    folder: str
    names: NDArray[np.bytes_]
    labels: Labels
    sizes: NDArray[np.int64]

    def open(self, index: int) -> Image.Image:
        return Image.open(self.place(index))

    def place(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.names[index]))

    def content(self) -> Iterator[bytes | memoryview]:
        yield b"\n".join(self.names.tolist())
        yield self.sizes.tobytes()


def open_folder(folder: Path) -> Found:
    """Opens a folder in ImageFolder layout: lists its files and reads a few headers.

    Raises:
        ValueError: A folder that is missing, unreadable or empty, a class without images, or classes that differ.
    """
    splits = [(split, entry, _classes(entry)) for entry in scan(folder) if (split := split_of(entry.name)) and entry.is_dir()]
    classes = next((classes for split, _, classes in splits if split == "train"), ())
    for _, entry, theirs in splits:
        check_classes(entry.path, theirs, classes or theirs)
    return assemble(str(folder.resolve()), classes, [(split, _images(folder, entry, theirs)) for split, entry, theirs in splits])


def scan(folder: str | Path) -> list[os.DirEntry[str]]:
    """Returns what is in a folder, sorted by name.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{folder}: unreadable: got {error_text(error)}; accepted: a folder you may read. Check permissions.") from error


def _classes(split: os.DirEntry[str]) -> tuple[str, ...]:
    classes = tuple(entry.name for entry in scan(split.path) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{split.path}: empty: got no class folder; accepted: one folder of images per class. Add the images.")
    return classes


def _images(folder: Path, split: os.DirEntry[str], classes: tuple[str, ...]) -> FileImages:
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    try:
        # What ImageFolder lists by, so that a set has the same images under both; it reads every folder once.
        files = make_dataset(split.path, {name: label for label, name in enumerate(classes)}, IMG_EXTENSIONS)
        sizes = np.array([os.stat(path).st_size for path, _ in files], np.int64)
    except OSError as error:
        raise ValueError(
            f"{split.path}: not one folder of images per class: got {one_line(error)}; accepted: at least one image that can be read in "
            "each. Add images, remove the folder from every split, or check the permissions."
        ) from error
    below = len(os.path.join(folder, ""))
    names = np.array([os.fsencode(path[below:]) for path, _ in files])
    return FileImages(str(folder), names, np.array([label for _, label in files], np.int64), sizes)
