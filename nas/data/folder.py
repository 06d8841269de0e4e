"""Image sets as folders: `train/<class>/...` beside `val/<class>/...`, `test/<class>/...` or both."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import Found, error_text, survey

# Those of torchvision's ImageFolder, so that a set has the same images under both.
EXTENSIONS = ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"


@dataclass(frozen=True)
class FileImages:
    """Images that are files."""

    paths: tuple[str, ...]
    labels: NDArray[np.int64]

    def prepare(self) -> None:
        pass

    def open(self, index: int) -> Image.Image:
        return Image.open(self.paths[index])

    def place(self, index: int) -> str:
        return self.paths[index]


def open_folder(folder: Path) -> Found:
    """Opens a folder in ImageFolder layout: lists its files and reads a few headers.

    Where `val/` and `test/` are both there, `test/` is the test and `val/` the held-out images; else the one that is
    there is the test, and held-out images are chosen from `train/`.

    Raises:
        ValueError: A folder that is missing, unreadable or empty, a class without images, or classes that differ.
    """
    splits = {name: folder / name for name in ("train", "val", "test") if (folder / name).is_dir()}
    if "train" not in splits or len(splits) == 1:
        raise ValueError(
            f"{folder}: missing split: got {', '.join(splits) or 'none'}; accepted: train/ beside val/ or test/, each "
            "with one folder of images per class. Add it."
        )
    listed = {name: _list_split(path) for name, path in splits.items()}
    classes = tuple(listed["train"])
    for name, files in listed.items():
        if tuple(files) != classes:
            odd = sorted(set(files) ^ set(classes))
            raise ValueError(
                f"{splits[name]}: classes differ from train/: got {odd[0]!r} in only one of them ({len(files)} "
                f"classes); accepted: the {len(classes)} classes of train/. Add or remove the class folder."
            )
    train = _images(listed["train"])
    held_out = None
    if len(listed) == 3:
        val = _images(listed["val"])
        held_out = np.arange(len(train.labels), len(train.labels) + len(val.labels))
        train = FileImages(train.paths + val.paths, np.concatenate([train.labels, val.labels]))
    test = _images(listed["test" if "test" in listed else "val"])
    return Found(folder.resolve().name, classes, train, lambda: test, survey(train), held_out)


def _images(files: dict[str, list[str]]) -> FileImages:
    labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(paths) for paths in files.values()])
    return FileImages(tuple(path for paths in files.values() for path in paths), labels)


def _list_split(folder: Path) -> dict[str, list[str]]:
    """Returns the image files of each class folder, both in sorted order."""
    classes = sorted(name for name in _names(folder) if (folder / name).is_dir() and not name.startswith("."))
    if not classes:
        raise ValueError(
            f"{folder}: empty: got no class folder; accepted: one folder of images per class. Add the images."
        )
    return {name: _list_class(folder / name) for name in classes}


def _list_class(folder: Path) -> list[str]:
    _names(folder)  # os.walk passes over a folder that it may not read
    paths = [
        os.path.join(parent, name)
        for parent, _, names in sorted(os.walk(folder, followlinks=True))
        for name in sorted(names)
        if name.lower().endswith(EXTENSIONS)
    ]
    if not paths:
        raise ValueError(
            f"{folder}: class without images: got 0 image files; accepted: at least one of {', '.join(EXTENSIONS)}. "
            "Add images, or remove the folder from every split."
        )
    return paths


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise ValueError(
            f"{folder}: unreadable: got {error_text(error)}; accepted: a folder you may read. Check its permissions."
        ) from error
