"""Which images are for what: by the names that a layout gives them, and else stratified by class with a fixed seed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import Images, Labels, Survey, check_labels, check_names, survey
from nas.data.seeding import SPLIT, permutation

MAX_HELD_OUT = 5000  # a fifth of the training images is held out for selection, but no more
# What people write, in capitals too -> the split.
NAMES = {
    **dict.fromkeys(("train", "training"), "train"), **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What is known of a data set before anything is decoded."""

    name: str  # short and safe in a file name
    classes: tuple[str, ...]  # in the order of the labels
    train: Images  # held-out ones included
    test: Images
    survey: Survey  # of the training images
    num_fit: int | None  # the training images from this one on are held out by the layout itself; None to choose some
    note: str = ""  # what a user should know of the splits: a sentence or two


@dataclass(frozen=True)
class JoinedImages(Images):
    """The images of two splits, one after the other."""

    parts: tuple[Images, Images]
    labels: Labels

    @staticmethod
    def of(*parts: Images) -> "JoinedImages":
        first, second = parts
        return JoinedImages((first, second), np.concatenate([first.labels, second.labels]))

    def open(self, index: int) -> Image.Image:
        second = index - len(self.parts[0].labels)
        return self.parts[0].open(index) if second < 0 else self.parts[1].open(second)

    def place(self, index: int) -> str:
        second = index - len(self.parts[0].labels)
        return self.parts[0].place(index) if second < 0 else self.parts[1].place(second)

    def content(self) -> Iterator[bytes | memoryview]:
        for images in self.parts:
            yield from images.content()

    def sample(self, count: int) -> NDArray[np.int64]:
        return self.parts[0].sample(count)


def split_of(name: str) -> str | None:
    """Returns the split of a file or folder by the first word of its name (`train-00000-of-00012.parquet`: `train`), or None."""
    return NAMES.get(re.split(r"[-_.]", name, maxsplit=1)[0].lower())


def assemble(place: str, classes: tuple[str, ...], splits: Sequence[tuple[str, Images]]) -> Found:
    """Gives the splits of a data set, by name, their roles. `place` is for messages; its last part is the data set's name.

    Where `val` and `test` are both there, `test` is the test, and `val` the held-out images; else the one that is there is the test, and
    the images to hold out are chosen from `train`.

    Raises:
        ValueError: No `train`, nothing beside it, one of them twice, one class alone, names that are not UTF-8, labels that are no classes, or a class without an image to train on.
    """
    names, images = sorted(name for name, _ in splits), dict(splits)
    if "train" not in names or len(images) == 1 or len(images) < len(names):
        raise ValueError(f"{place}: missing split, or one twice: got {', '.join(names) or 'none'}; accepted: train with val or test.")
    check_names(place, classes)
    if len(classes) == 1:
        raise ValueError(f"{place}: one class alone: got {classes[0]!r}; accepted: two or more, to be told from each other. Add a class.")
    for name, those in splits:
        check_labels(f"{place}: {name}", those.labels, classes)
    train, num_fit = images["train"], None
    empty = _missing(train.labels, classes)
    if empty:  # images of it in val would not help: they are held out
        raise ValueError(
            f"{place}: class without images: got none of class {empty[0]!r} in train; "
            "accepted: at least one image of every class. Add images, or remove the class."
        )
    if len(images) == 3:
        train, num_fit = JoinedImages.of(train, images["val"]), len(train.labels)
    name = place.rstrip("/").rpartition("/")[2]
    note = " ".join(
        _told(split, empty) for split, those in sorted(splits, key=lambda split: split[0]) if (empty := _missing(those.labels, classes))
    )
    return Found(name, classes, train, images.get("test") or images["val"], survey(train), num_fit, note)


def _missing(labels: Labels, classes: Sequence[str]) -> list[str]:
    return [classes[int(label)] for label in np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)]


def _told(split: str, empty: Sequence[str]) -> str:
    others = ["", " and 1 other class", f" and {len(empty) - 1:,} other classes"][min(len(empty) - 1, 2)]
    return f"No image of {empty[0]!r}{others} in {split}: no accuracy there tells of it."


def split_indices(found: Found) -> dict[str, NDArray[np.int64]]:
    """Which images each split has: `held_out`, training images kept for selection, the same in every run; `fit`, the other training images;
    `train`, both together; and `test`.

    Raises:
        ValueError: Too few images to hold any out.
    """
    labels = found.train.labels
    train = np.arange(len(labels))
    fit, held_out = stratified(labels, min(MAX_HELD_OUT, len(labels) // 5)) if found.num_fit is None else np.split(train, [found.num_fit])
    if not len(held_out):
        raise ValueError(
            f"data {found.name}: too few training images to hold any out: got {len(labels)} in "
            f"{len(found.classes)} classes; accepted: 5 or more, and two of some class. Add images."
        )
    return {"fit": fit, "held_out": held_out, "train": train, "test": np.arange(len(found.test.labels))}


def stratified(labels: Labels, count: int, order: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sets `count` images aside so that every class gives its share; returns the indices kept and those set aside, ascending.

    Shares are rounded by largest remainder, so the total is exact; a class keeps at least one image, even where that makes it short. Of each
    class those that come first in `order` are set aside; None: in a random one, the same in every run.
    """
    counts = np.bincount(labels)
    exact = counts * (count / max(1, len(labels)))
    shares = np.floor(exact).astype(np.int64)
    # Ties go to the lower class, so that equal remainders split alike everywhere.
    for label in np.argsort(-(exact - shares), kind="stable")[: count - int(shares.sum())]:
        shares[label] += 1
    shares = np.minimum(shares, np.maximum(counts - 1, 0))
    order = permutation(len(labels), SPLIT) if order is None else order
    by_class = np.split(order[np.argsort(labels[order], kind="stable")], np.cumsum(counts)[:-1])
    aside = np.sort(np.concatenate([those[:share] for those, share in zip(by_class, shares, strict=True)]))
    return np.delete(np.arange(len(labels)), aside), aside
