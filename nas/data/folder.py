"""Image sets as files: `train/<class>/...` beside `val/<class>/...`, `test/<class>/...` or both; or `<class>/...` alone."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import Images, Labels, check_classes, error_text, open_file
from nas.data.splits import Found, assemble, split_of, stratified
from nas.yaml_files import did_you_mean


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


def open_folder(folder: Path) -> Found | None:
    """Opens a folder in ImageFolder layout: lists its files and reads a few headers. None where there are neither splits nor classes in it.

    Raises:
        ValueError: A folder that is missing, unreadable or empty, a class without images, or classes that differ.
    """
    entries = [entry for entry in scan(folder) if entry.is_dir() and not entry.name.startswith(".")]
    named = [(split, entry.path) for entry in entries if (split := split_of(entry.name))]
    # One class among several may be called train too.
    classes = [entry.name for entry in entries if _holds_images(entry.path)] if len(named) < 2 else []
    alone = not named and len(entries) == len(classes) == 1  # which is refused as what it is
    if alone or (len(classes) >= 2 + len(named) and all(os.path.basename(path) in classes for _, path in named)):
        return _open_classes(folder)
    if not named:
        return None
    splits = [(split, path, _classes(path)) for split, path in named]
    of_train = next((classes for split, _, classes in splits if split == "train"), ())
    for _, path, theirs in splits:
        check_classes(path, theirs, of_train or theirs)
    return assemble(str(folder.resolve()), of_train, [(split, _images(folder, path, theirs)) for split, path, theirs in splits])


def _open_classes(folder: Path) -> Found:
    """Opens class folders that no split stands above, and chooses the test split: a fifth of each class.

    Which fifth is a matter of each image's name below the folder, not of its number: where images are added, those that were trained on do not
    become the test, but for the few by which shares grow.
    """
    classes = _classes(str(folder))
    images = _images(folder, str(folder), classes)
    drawn = np.array([int.from_bytes(hashlib.sha256(name).digest()[:8]) for name in images.names.tolist()], np.uint64)
    parts = stratified(images.labels, round(len(images.labels) / 5), np.argsort(drawn, kind="stable"))
    train, test = (FileImages(images.folder, images.names[index], images.labels[index], images.sizes[index]) for index in parts)
    found = assemble(str(folder.resolve()), classes, [("train", train), ("test", test)])
    note = (
        f"{found.name} is not split into train and test: {len(test.labels):,} of its {len(images.labels):,} images, a fifth of each class and always the "
        "same ones, are kept for the test. For a split of your own put the class folders into train/ and, with other images, into test/."
    )
    return replace(found, note=f"{note} {found.note}".rstrip())


def _holds_images(folder: str) -> bool:
    return any(_is_image(entry.path) for entry in scan(folder))


def list_images(paths: Iterable[str]) -> tuple[FileImages, int]:
    """Finds images of no known class: files as they are named, and in folders and below them what has an image's extension.

    Nothing hidden, no path twice, and below a folder no folder twice: links may lead in a circle.

    Returns:
        The images, with labels and sizes of 0, and how many files in folders were left out.

    Raises:
        ValueError: No such file or folder, a folder that cannot be read, or no image in one.
    """
    names: list[str] = []
    left_out = 0
    for path in paths:
        if os.path.isfile(path):
            names.append(path)
            continue
        if not os.path.isdir(path):
            there = os.path.exists(path)  # a pipe or a device
            near = "" if there else did_you_mean(Path(path).name, (each.name for each in Path(path).parent.glob("*")))
            what = "neither a file nor a folder" if there else "no such file or folder"
            raise ValueError(f"{path}: {what}; accepted: images, and folders of images.{near or ' Check the path.'}")
        files = list(_files_below(path, set()))
        images = [name for name in files if _is_image(name)]
        if not images:
            raise ValueError(
                f"{path}: no image in it: got {len(files)} other files; accepted: {', '.join(_extensions())}. Name other files one by one."
            )
        names, left_out = names + images, left_out + len(files) - len(images)
    unique = np.array([os.fsencode(name) for name in dict.fromkeys(names)])
    return FileImages("", unique, *np.zeros((2, len(unique)), np.int64)), left_out


def _files_below(folder: str, been: set[str]) -> Iterator[str]:
    if (real := os.path.realpath(folder)) not in been:
        been.add(real)
        for entry in scan(folder):
            if not entry.is_dir():
                yield entry.path
            elif not entry.name.startswith("."):
                yield from _files_below(entry.path, been)


def _is_image(path: str) -> bool:
    """By its name; a pipe would be waited for, and a link to nothing is an image that is missing."""
    plain = os.path.isfile(path) or not os.path.exists(path)
    return plain and not os.path.basename(path).startswith(".") and path.lower().endswith(_extensions())


def _extensions() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return IMG_EXTENSIONS


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


def _classes(split: str) -> tuple[str, ...]:
    classes = tuple(entry.name for entry in scan(split) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise ValueError(f"{split}: empty: got no class folder; accepted: one folder of images per class. Add the images.")
    return classes


def _images(folder: Path, split: str, classes: tuple[str, ...]) -> FileImages:
    # What ImageFolder lists by, so that a set has the same images under both.
    extensions = _extensions()

    read: dict[tuple[int, int], str] = {}
    by_class = [[path for path in _files(split, name, read) if path.lower().endswith(extensions)] for name in classes]
    if empty := [name for name, paths in zip(classes, by_class, strict=True) if not paths]:
        raise ValueError(
            f"{split}: not one folder of images per class: got none for the classes {', '.join(empty)}; accepted: at least one file in each "
            f"that ends in {', '.join(extensions)}. Add images, or remove the class."
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
