"""Data sets that torchvision knows by name, read from files that are there already: nothing is downloaded."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import Found, check_labels, one_line, survey

_TRAIN_FLAG: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})


def _splits(train: str, test: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"split": train}, {"split": test}


# What torchvision calls the training and the test split of each classification set whose labels can be had without
# decoding every image.
SETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "CIFAR10": _TRAIN_FLAG,
    "CIFAR100": _TRAIN_FLAG,
    "Country211": _splits("train", "test"),
    "DTD": _splits("train", "test"),
    "FGVCAircraft": _splits("trainval", "test"),
    "FashionMNIST": _TRAIN_FLAG,
    "Flowers102": _splits("train", "test"),
    "Food101": _splits("train", "test"),
    "GTSRB": _splits("train", "test"),
    "ImageNet": _splits("train", "val"),
    "Imagenette": _splits("train", "val"),
    "KMNIST": _TRAIN_FLAG,
    "MNIST": _TRAIN_FLAG,
    "OxfordIIITPet": _splits("trainval", "test"),
    "RenderedSST2": _splits("train", "test"),
    "STL10": _splits("train", "test"),
    "SVHN": _splits("train", "test"),
    "StanfordCars": _splits("train", "test"),
    "USPS": _TRAIN_FLAG,
}


@dataclass(frozen=True)
class TorchvisionImages:
    """One split of a torchvision data set."""

    dataset: Any
    labels: NDArray[np.int64]
    name: str

    def prepare(self) -> None:
        pass

    def open(self, index: int) -> Image.Image:
        image = self.dataset[index][0]
        assert isinstance(image, Image.Image), type(image)
        return image

    def place(self, index: int) -> str:
        return f"{self.name}: image {index}"


def open_torchvision(name: str, root: Path) -> Found:
    """Opens one of `SETS` from the folder that torchvision's `root` names.

    Raises:
        ValueError: The files are not there, or are damaged.
    """
    train = _open_split(name, root, 0)
    classes = _classes(train)
    check_labels(train.name, train.labels, classes, every_class=True)
    return Found(name.lower(), classes, train, partial(_open_test, name, root, classes), survey(train))


def _open_test(name: str, root: Path, classes: tuple[str, ...]) -> TorchvisionImages:
    test = _open_split(name, root, 1)
    check_labels(test.name, test.labels, classes, every_class=False)
    return test


def _open_split(name: str, root: Path, which: int) -> TorchvisionImages:
    from torchvision import datasets

    try:
        dataset = (
            getattr(datasets, name)(str(root), **SETS[name][which], download=False)
            if name != "ImageNet"
            else (datasets.ImageNet(str(root), **SETS[name][which]))
        )
    except Exception as error:  # each data set has its own way to say that a file is missing or damaged
        reason = one_line(error).removesuffix(" You can use download=True to download it").rstrip(".")
        raise ValueError(
            f"{root}: {name} cannot be opened: got {reason}; accepted: the unpacked files that torchvision keeps in "
            f"--data-root. Run torchvision.datasets.{name}({str(root)!r}, download=True) once, or correct --data-root."
        ) from error
    return TorchvisionImages(dataset, _labels(dataset), f"{name} in {root}")


def _labels(dataset: Any) -> NDArray[np.int64]:
    for attribute in ("targets", "labels", "_labels"):
        if hasattr(dataset, attribute):
            return np.asarray(getattr(dataset, attribute), np.int64)
    return np.array([label for _, label in dataset._samples], np.int64)


def _classes(images: TorchvisionImages) -> tuple[str, ...]:
    names = getattr(images.dataset, "classes", None)
    if names is None:
        return tuple(str(label) for label in range(int(images.labels.max(initial=-1)) + 1))
    # ImageNet gives the synonyms of each class as a tuple.
    return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
