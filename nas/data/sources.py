"""Finds a data set by its name or folder."""

import hashlib
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nas.data.batches import Data
from nas.data.folder import open_folder, scan
from nas.data.huggingface import HUB, open_hub, open_parquet, parquet_files
from nas.data.images import Images, check_names, error_text, regular_file
from nas.data.libraries import SETS, open_digits, open_tar, open_torchvision
from nas.data.parts import WHOLE, Part
from nas.data.splits import Found, JoinedImages, split_indices, split_of
from nas.machine import cores
from nas.yaml_files import did_you_mean

SIGNS = {word + plural for word in ("sign", "letter", "digit", "number") for plural in ("", "s")}
LAYOUTS = "train with val or test, each a folder (of one folder of images per class), Parquet files or tar files, or with folders of images, one per class"


class DataSource:
    """A data set that was found: its metadata, before any image is decoded.

    Attributes:
        name: Short and safe in a file name.
        classes: Name of each class, in the order of the labels.
        channels: 1 for grey images, 3 for colour.
        resolution: The images' own side in pixels; for mixed sizes the median shorter side of a fixed sample.
        sides: The least and the greatest of any image of that sample; equal where all are squares of one size.
        note: What a user should know of its splits; mostly nothing.
    """

    def __init__(self, found: Found) -> None:
        self.name, self.classes, self.note, self._found = found.name, found.classes, found.note, found
        self.channels, self.resolution, *_ = found.survey
        self.sides = found.survey.least, found.survey.greatest
        self.num_images = {"train": len(found.train.labels), "test": len(found.test.labels)}

    @property
    def unmirrored(self) -> str | None:
        """Why a mirrored image may be another thing, in words; None where nothing says so."""
        words = [set(re.split(r"[^a-z]+", name.lower())) for name in self.classes]
        if self.channels == 1:
            return "grey images are often writing"
        if all(name.strip().isdigit() or len(name.strip()) == 1 for name in self.classes):
            return "classes that are numbers or letters are often signs or writing"
        if any({"left", "right"} & each for each in words):
            return "a class is called left or right"
        if 2 * sum(bool(SIGNS & each) for each in words) >= len(words):
            return "most classes are called signs or writing"
        return None

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits over names, sizes and labels of all images of all splits; nothing is decoded.

        Equal for the same files in another place. An image that was replaced by another of as many bytes is not noticed, except in arrays.
        """
        told = hashlib.sha256("\n".join(self.classes).encode())
        for images in (self._found.train, self._found.test):
            for part in (*images.content(), images.labels.tobytes()):
                told.update(len(part).to_bytes(8, "little"))
                told.update(part)
        return told.hexdigest()[:12]

    def split(self, name: str) -> tuple[Images, NDArray[np.int64]]:
        """Returns undecoded images, and which of them a split has: `train`, `fit`, `held_out` or `test`; `all` is whatever there is."""
        if name == "all":
            every = JoinedImages.of(self._found.train, self._found.test)
            return every, np.arange(len(every.labels))
        return self._found.test if name == "test" else self._found.train, split_indices(self._found)[name]

    def load(
        self, resolution: int, device: torch.device, loaders: int | None = None, memory_limit: int = 2 * 2**30, part: Part = WHOLE
    ) -> Data:
        """Gives the data at one resolution; nothing is decoded before it is used, or looked at by `Data.check`.

        Args:
            resolution: Side of the square images in pixels.
            device: Where batches go, and where a small set is kept.
            loaders: Threads that decode a small set, or processes that stream a large one (0: this process alone); None: the cores.
            memory_limit: Bytes of decoded uint8 pixels up to which a set is kept on `device`.
            part: Of every training batch, what this process makes.

        Raises:
            ValueError: Too few images to hold any out.
        """
        return Data(self._found, resolution, device, cores() if loaders is None else loaders, memory_limit, part)


def open_data(data: str, root: Path | None = None) -> DataSource:
    """Finds a data set and reads its metadata.

    Args:
        data: `digits`; a folder with train and val or test as folders, Parquet files or tar files, or with class folders alone; the name of a
            torchvision data set; or `hfds/` and what the `datasets` library opens.
        root: The folder of a torchvision data set (`--data-root`; nothing is downloaded into it), or of the `datasets` library's cache.

    Raises:
        ValueError: The data set is unknown, missing, unreadable, incomplete or inconsistent.
    """
    if data == "digits":
        return DataSource(open_digits())
    folder = Path(data).expanduser()
    check_names("--data", [str(path.resolve()) for path in (folder, root) if path is not None])
    # A torchvision name may happen to be a folder's name too; then --data-root says which is meant.
    if folder.exists() and not (data in SETS and root is not None):
        return DataSource(_open_layout(folder, root))
    if data.startswith(HUB):
        return DataSource(open_hub(data, root))
    if data in SETS:
        if root is None or not root.expanduser().is_dir():
            raise ValueError(
                f"--data {data}: no such folder as --data-root: got {root}; accepted: the folder that torchvision calls root. "
                "Give --data-root FOLDER."
            )
        return DataSource(open_torchvision(data, root.expanduser()))
    raise ValueError(
        f"--data {data}: no such folder, and no known data set: got {data!r}; accepted: digits, a folder with {LAYOUTS}, hfds/OWNER/NAME, or with "
        f"--data-root one of {', '.join(SETS)}.{did_you_mean(data, ('digits', *SETS)) or ' Correct the name or the path.'}"
    )


def _open_layout(folder: Path, cache: Path | None) -> Found:
    names = [entry.name for entry in scan(folder)]
    if files := parquet_files(folder):
        return open_parquet(folder, _regular(files), cache)
    if files := [folder / name for name in names if name.endswith(".tar") and split_of(name)]:
        return open_tar(folder, _regular(files))
    if found := open_folder(folder):
        return found
    got = ", ".join(names[:5]) or "an empty folder"
    raise ValueError(f"{folder}: no data set in it: got {got}; accepted: {LAYOUTS}. Add the files or correct the path.")


def _regular(files: list[Path]) -> list[Path]:
    """Returns the same files; a ValueError where one is none, such as a FIFO, which would be waited for."""
    for path in files:
        try:
            regular_file(path)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: unreadable: got {error_text(error)}; accepted: a file. Replace or remove it.") from error
    return files
