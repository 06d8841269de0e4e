"""Image sets as files: `train/<class>/...` beside `val/<class>/...`, `test/<class>/...` or both."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import Images, Labels, check_classes, error_text
from nas.data.splits import Found, assemble, split_of

# Those of torchvision's ImageFolder, so that a set has the same images under both.
EXTENSIONS = ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"


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
        raise ValueError(
            f"{folder}: unreadable: got {error_text(error)}; accepted: a folder you may read. Check the path and its permissions."
        ) from error


def _classes(split: os.DirEntry[str]) -> tuple[str, ...]:
    classes = tuple(entry.name for entry in scan(split.path) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{split.path}: empty: got no class folder; accepted: one folder of images per class. Add the images.")
    return classes


def _images(folder: Path, split: os.DirEntry[str], classes: tuple[str, ...]) -> FileImages:
    listed = [_list_class(folder, f"{split.name}/{name}") for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(files) for files in listed])
    names, sizes = zip(*(file for files in listed for file in files), strict=True)
    return FileImages(str(folder), np.array(names), labels, np.array(sizes, np.int64))


def _list_class(folder: Path, name: str) -> list[tuple[bytes, int]]:
    """Returns the image files of a class, as names below `folder` and sizes, in ImageFolder's order.

    Not by torchvision's ImageFolder or timm's reader: for a million files they take two to three times as long with the sizes, which they
    do not give, and they pass over folders that they may not read. Every folder is read once.
    """
    left, listed = [name], []
    while left:
        entries = scan(os.path.join(folder, parent := left.pop()))
        left += [f"{parent}/{entry.name}" for entry in entries if entry.is_dir()]
        files = [entry for entry in entries if entry.name.lower().endswith(EXTENSIONS) and not entry.is_dir()]
        listed.append((parent, [(os.fsencode(f"{parent}/{entry.name}"), entry.stat().st_size) for entry in files]))
    found = [file for _, files in sorted(listed) for file in files]
    if not found:
        raise ValueError(
            f"{folder / name}: class without images: got 0 image files; accepted: at least one of {', '.join(EXTENSIONS)}. "
            "Add images, or remove the folder from every split."
        )
    return found
