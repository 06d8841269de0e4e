"""Sets that a library knows: scikit-learn's digits, torchvision's by name, tar files by timm.

torchvision says which images there are and what they show; its files and arrays are then read as any others, so that a broken one is named
and no list of a million paths is copied into worker processes.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data.folder import FileImages
from nas.data.images import ArrayImages, Images, Labels, check_classes, one_line
from nas.data.splits import Found, assemble, split_of, stratified

# What torchvision calls the training and the test split ("" where it asks whether `train`) of each classification set whose labels can be
# had without decoding every image. timm's `torch/` names are eight of them.
SETS = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS"), ""),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), "trainval test"),
    **dict.fromkeys(("ImageNet", "Imagenette"), "train val"),
    **dict.fromkeys(("Country211", "DTD", "Flowers102", "Food101", "GTSRB", "RenderedSST2", "STL10", "SVHN", "StanfordCars"), "train test"),
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

    options: list[dict[str, Any]] = [{"split": word} for word in SETS[name].split()] or [{"train": True}, {"train": False}]
    quiet = {} if name == "ImageNet" else {"download": False}  # ImageNet alone does not know the word
    sets, splits = [], []
    for split, option in zip(("train", "test"), options, strict=True):
        try:
            sets.append(getattr(datasets, name)(str(root), **option, **quiet))
            splits.append((split, _from_torchvision(sets[-1], f"{name} in {root}")))
        except Exception as error:  # each data set has its own way to say that a file is missing or damaged
            reason = one_line(error).removesuffix(" You can use download=True to download it").rstrip(".")
            raise ValueError(
                f"{root}: {name} cannot be opened: got {reason}; accepted: the unpacked files that torchvision keeps in --data-root. "
                f"Run torchvision.datasets.{name}({str(root)!r}, download=True) once, or correct --data-root."
            ) from error
    names = getattr(sets[0], "classes", None) or range(int(splits[0][1].labels.max(initial=-1)) + 1)
    # ImageNet gives the synonyms of each class as a tuple.
    return assemble(name.lower(), tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names), splits)


def _from_torchvision(split: Any, place: str) -> ArrayImages | FileImages:
    has = split.__dict__
    samples = has.get("_samples") or has.get("samples") or []
    labels = next((has[key] for key in ("targets", "labels", "_labels") if key in has), None)
    labels = np.asarray([label for _, label in samples] if labels is None else labels, np.int64)
    if "data" in has:
        pixels = np.asarray(split.data)
        return ArrayImages(pixels.transpose(0, 2, 3, 1) if pixels.ndim == 4 and pixels.shape[1] == 3 else pixels, labels, place)
    paths = has.get("_image_files") or has.get("_images") or [path for path, _ in samples]
    names = np.array([os.fsencode(os.path.relpath(path, split.root)) for path in paths])
    return FileImages(str(split.root), names, labels, np.array([os.stat(path).st_size for path in paths], np.int64))


def _member_that_is_no_file(path: Path) -> str | None:
    """Returns the name of the first image in a tar file that is a link, a FIFO or a device: timm passes over these without a word."""
    from timm.data.readers.img_extensions import get_img_extensions

    with tarfile.open(path, "r:") as archive:
        odd = (member.name for member in archive if not (member.isfile() or member.isdir()))
        return next((name for name in odd if os.path.splitext(name)[1].lower() in get_img_extensions(as_set=True)), None)


@dataclass(frozen=True)
class TarImages(Images):
    """Images that timm finds in a tar file. (Its `wds/` reads from front to back: no image could be held out, no batch be of a seed and step.)"""

    reader: Any
    labels: Labels

    def open(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.reader[index][0].read()))

    def place(self, index: int) -> str:
        return f"{self.reader.root}: {self.reader.filename(index)}"

    def content(self) -> Iterator[bytes | memoryview]:
        for member, file, _ in self.reader.samples:
            yield os.fsencode(f"{file}/{member.name}/{member.size}")


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
            odd = _member_that_is_no_file(path)
        except Exception as error:  # what tarfile raises, OSError, ValueError where there is no image
            raise ValueError(
                f"{path}: unreadable: got {one_line(error)}; accepted: a tar file without compression, of images in class folders. "
                "Write or copy it again."
            ) from error
        if odd:
            raise ValueError(
                f"{path}: {odd}: no file: got a link, a FIFO or a device; accepted: files alone. Leave it out, or pack with "
                "tar --dereference --hard-dereference."
            )
        # timm sorts by the numbers in names; here classes and images are in the order that they have in folders.
        names = tuple(sorted(reader.class_name_to_idx))
        labels = np.array([names.index(name) for name in reader.class_name_to_idx], np.int64)[reader.targets]
        order = sorted(range(len(labels)), key=lambda index: (labels[index], reader.samples[index][0].path))
        reader.samples = reader.samples[order]
        classes = classes or names
        check_classes(str(path), names, classes)
        splits.append((str(split_of(path.name)), TarImages(reader, labels[order])))
    return assemble(str(folder.resolve()), classes, splits)
