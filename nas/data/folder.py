"""Image sets as files: `train/<class>/...` beside `val/<class>/...`, `test/<class>/...` or both."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import Images, Labels, check_classes, error_text, open_file
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
        return open_file(self.place(index))

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
    # What ImageFolder lists by, so that a set has the same images under both.
    from torchvision.datasets.folder import IMG_EXTENSIONS

    read: dict[tuple[int, int], str] = {}
    by_class = [[path for path in _files(split.path, name, read) if path.lower().endswith(IMG_EXTENSIONS)] for name in classes]
    if empty := [name for name, paths in zip(classes, by_class, strict=True) if not paths]:
        raise ValueError(
            f"{split.path}: not one folder of images per class: got none for the classes {', '.join(empty)}; accepted: at least one file in each "
            f"that ends in {', '.join(IMG_EXTENSIONS)}. Add images, or remove the folder from every split."
        )
    paths = [path for those in by_class for path in those]
    below = len(os.path.join(folder, ""))
    names = np.array([os.fsencode(path[below:]) for path in paths])
    labels = np.repeat(np.arange(len(classes)), [len(those) for those in by_class])
    return FileImages(str(folder), names, labels, np.array([_size(path) for path in paths], np.int64))


def _files(split: str, name: str, read: dict[tuple[int, int], str]) -> list[str]:
    """Lists the files of a class in ImageFolder's order, by way of links too.

    A link to a folder above would bring in all other classes, and itself again: 24 images were 344.

    Args:
        split: Folder of the split.
        name: The class.
        read: By device and inode, the folders of the split that were read; these are added.

    Raises:
        ValueError: A folder that cannot be read, that is above the class, or that was read before.
    """
    top, found = os.path.join(split, name), []
    try:
        above = {_identity(each): str(each) for each in (*Path(top).absolute().parents, *Path(top).resolve().parents)}
        # os.walk would pass over folders that cannot be read.
        for folder, folders, files in os.walk(top, onerror=_raise, followlinks=True):
            folders.sort()  # so that of two links the first is read, and the second named
            if first := above.get(_identity(folder)) or read.get(_identity(folder)):
                raise ValueError(
                    f"{folder}: a folder that is reached twice: got the same as {first}; accepted: links to files, and to folders elsewhere. "
                    "Remove the link."
                )
            read[_identity(folder)] = folder
            found.append((folder, sorted(files)))
    except OSError as error:
        raise ValueError(
            f"{error.filename}: unreadable: got {error_text(error)}; accepted: folders you may read. Check permissions."
        ) from error
    return [os.path.join(folder, file) for folder, files in sorted(found) for file in files]


def _raise(error: OSError) -> None:
    raise error


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _size(path: str) -> int:
    """Returns a file's bytes; -1 where a link leads nowhere, which is said when all images are looked at."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
