"""Sets that a library knows: scikit-learn's digits, torchvision's by name, tar files by timm, the hub's by `datasets`.

The libraries say which images there are and what they show. Opening one is left to timm and `datasets`, but not to
torchvision: its files and arrays are read as any others, so that a broken one is named and their lists are not copied.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data.folder import FileImages
from nas.data.images import ArrayImages, Images, Labels, check_classes, one_line, opened
from nas.data.parquet import LABEL_COLUMNS
from nas.data.splits import Found, assemble, split_of, stratified

HUB = "hfds/"  # timm's word for the hub's data sets
_FLAG: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})


def _splits(train: str, test: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"split": train}, {"split": test}


# What torchvision calls the training and the test split of each classification set whose labels can be had without decoding every image.
# timm's `torch/` names are eight of them.
SETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS"), _FLAG),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), _splits("trainval", "test")),
    **dict.fromkeys(("ImageNet", "Imagenette"), _splits("train", "val")),
    **dict.fromkeys(("Country211", "DTD", "Flowers102", "Food101", "GTSRB"), _splits("train", "test")),
    **dict.fromkeys(("RenderedSST2", "STL10", "SVHN", "StanfordCars"), _splits("train", "test")),
}


def open_digits() -> Found:
    """Opens scikit-learn's 1,797 handwritten digits of 8x8 pixels; a fixed stratified fifth is set aside as the test split.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # stored as 0..16
    labels = digits.target.astype(np.int64)
    train, test = (ArrayImages(pixels[index], labels[index], "digits") for index in stratified(labels, round(len(labels) / 5)))
    return assemble("digits", tuple(map(str, digits.target_names)), [("train", train), ("test", test)])


def open_torchvision(name: str, root: Path) -> Found:
    """Opens one of `SETS` from the folder that torchvision's `root` names; nothing is downloaded.

    Raises:
        ValueError: The files are not there, or are damaged.
    """
    from torchvision import datasets

    splits = []
    for options in SETS[name]:
        try:
            # ImageNet alone does not know the word.
            splits.append(getattr(datasets, name)(str(root), **options, **({} if name == "ImageNet" else {"download": False})))
        except Exception as error:  # each data set has its own way to say that a file is missing or damaged
            reason = one_line(error).removesuffix(" You can use download=True to download it").rstrip(".")
            raise ValueError(
                f"{root}: {name} cannot be opened: got {reason}; accepted: the unpacked files that torchvision keeps in --data-root. "
                f"Run torchvision.datasets.{name}({str(root)!r}, download=True) once, or correct --data-root."
            ) from error
    train, test = (_from_torchvision(split, f"{name} in {root}") for split in splits)
    names = getattr(splits[0], "classes", None) or range(int(train.labels.max(initial=-1)) + 1)
    # ImageNet gives the synonyms of each class as a tuple.
    classes = tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)
    return assemble(name.lower(), classes, [("train", train), ("test", test)])


def _from_torchvision(split: Any, place: str) -> ArrayImages | FileImages:
    has = split.__dict__
    samples = has.get("_samples") or has.get("samples") or []
    labels = next((has[key] for key in ("targets", "labels", "_labels") if key in has), None)
    labels = np.asarray([label for _, label in samples] if labels is None else labels, np.int64)
    if "data" in has:
        pixels = np.asarray(split.data)
        return ArrayImages(pixels.transpose(0, 2, 3, 1) if pixels.ndim == 4 and pixels.shape[1] == 3 else pixels, labels, place)
    paths = has.get("_image_files") or has.get("_images") or [path for path, _ in samples]
    return FileImages(str(split.root), np.array([os.fsencode(os.path.relpath(path, split.root)) for path in paths]), labels)


@dataclass(frozen=True)
class TarImages(Images):
    """Images that timm finds in tar files.

    Not in the order of the file: `webdataset`, which timm's `wds/` uses, reads from front to back, so that a batch would not be a function
    of seed and step, and no image could be held out.
    """

    reader: Any
    labels: Labels

    def open(self, index: int) -> Image.Image:
        return opened(self.reader[index][0].read())

    def place(self, index: int) -> str:
        return f"{self.reader.root}: {self.reader.filename(index)}"

    def content(self) -> Iterator[bytes | memoryview]:
        for member, file, _ in self.reader.samples:
            yield f"{file}/{member.name}/{member.size}".encode()


def open_tar(folder: Path, files: list[Path]) -> Found:
    """Opens `train.tar` beside `val.tar` or `test.tar`: images in class folders.

    Raises:
        ValueError: A file that is not an uncompressed tar of images in folders, or classes that differ.
    """
    from timm.data.readers import create_reader

    splits, classes = [], ()
    for path in sorted(files, key=lambda path: split_of(path.name) != "train"):
        try:
            # No cache of open files, which threads and forked processes would share; none of the listing in the user's folder.
            reader = create_reader("", str(path), cache_tarfiles=False, cache_tarinfo=False)
        except Exception as error:  # what tarfile raises, OSError, ValueError where there is no image
            raise ValueError(
                f"{path}: unreadable: got {one_line(error)}; accepted: a tar file without compression, of images in class folders. "
                "Write or copy it again."
            ) from error
        classes = classes or tuple(reader.class_name_to_idx)
        check_classes(str(path), reader.class_name_to_idx, classes)
        splits.append((str(split_of(path.name)), TarImages(reader, np.asarray(reader.targets, np.int64))))
    return assemble(str(folder.resolve()), classes, splits)


@dataclass(frozen=True)
class HubImages(Images):
    """Rows of a `datasets.Dataset`, undecoded."""

    rows: Any
    column: str
    labels: Labels
    name: str

    def open(self, index: int) -> Image.Image:
        image = self.rows[int(index)][self.column]
        return Image.open(image["path"]) if image["path"] and not image["bytes"] else opened(image["bytes"])

    def place(self, index: int) -> str:
        return f"{self.name}: row {index}"

    def content(self) -> Iterator[bytes | memoryview]:
        import pyarrow.compute as pc

        for chunk in self.rows.data.column(self.column).chunks:
            yield str(pc.binary_length(pc.struct_field(chunk, "bytes")).to_pylist()).encode()


def open_hub(data: str, cache: Path | None) -> Found:
    """Opens what `datasets.load_dataset` opens, and downloads by it what is not on the disk yet.

    The library keeps an uncompressed copy on the disk where any image is found at once: for shuffled training on Parquet sets larger than
    the memory. Not by timm's `hfds/` reader, which must be told each set's columns and splits.

    Args:
        data: `hfds/` and a name or folder.
        cache: Where the library keeps its copies (`--data-root`); None for its own place.

    Raises:
        ValueError: The library is not installed or cannot open it, or the set has no images with labels.
    """
    name = data.removeprefix(HUB)
    try:
        import datasets

        loaded = datasets.load_dataset(name, cache_dir=cache and str(cache))
    except Exception as error:  # the library's own, the hub's, the network's
        remedy = "Run `pip install datasets`." if isinstance(error, ImportError) else "Correct the name."
        raise ValueError(
            f"--data {data}: cannot be opened: got {one_line(error)}; accepted: what datasets.load_dataset opens. {remedy}"
        ) from error
    features = next(iter(loaded.values())).features
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [key for key in (*LABEL_COLUMNS, *features) if isinstance(features.get(key), datasets.ClassLabel)]
    if not images or not labels:
        raise ValueError(
            f"--data {data}: no images with labels: got {', '.join(features)}; accepted: a column of Image and one of ClassLabel. "
            "Take another data set."
        )
    splits = [
        (split, HubImages(rows.cast_column(images[0], datasets.Image(decode=False)), images[0], np.array(rows[labels[0]], np.int64), name))
        for key, rows in loaded.items()
        if (split := split_of(key))
    ]
    return assemble(name, tuple(features[labels[0]].names), splits)
