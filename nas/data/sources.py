"""Finds a data set by its name or folder."""

import difflib
import os
from pathlib import Path

import torch

from nas.data.batches import Data
from nas.data.digits import open_digits
from nas.data.folder import open_folder
from nas.data.images import Found, error_text
from nas.data.parquet import open_parquet
from nas.data.torchvision_sets import SETS, open_torchvision

LAYOUTS = "train.parquet and test.parquet, or train/ with val/ or test/ (one folder of images per class)"


class DataSource:
    """A data set that was found: its metadata, before any image is decoded.

    Attributes:
        name: Short and safe in a file name.
        classes: Name of each class, in the order of the labels.
        channels: 1 for grey images, 3 for colour.
        resolution: The images' own side in pixels; for mixed sizes the median shorter side of a fixed sample.
    """

    def __init__(self, found: Found) -> None:
        self.name = found.name
        self.classes = found.classes
        self.channels, self.resolution = found.survey
        self._found = found

    def load(self, resolution: int, device: torch.device, memory_limit: int = 2 * 2**30, workers: int = 2) -> Data:
        """Makes the data ready for batches: takes mean and deviation from 2,000 images, decodes the others when used.

        Args:
            resolution: Side of the square images in pixels.
            device: Where batches go, and where a small set is kept.
            memory_limit: Bytes of decoded uint8 pixels up to which a set is kept on `device`.
            workers: Threads that decode a small set; processes that stream a large one, 0 for none.

        Raises:
            ValueError: Too few images to hold any out, or a broken one among those decoded, named.
        """
        return Data(self._found, resolution, device, memory_limit, workers)


def open_data(data: str, root: Path | None = None) -> DataSource:
    """Finds a data set and reads its metadata.

    Args:
        data: `digits`; a folder with `train.parquet` and `test.parquet`; a folder in ImageFolder layout; or the name
            of a torchvision data set.
        root: The folder of a torchvision data set (`--data-root`); nothing is downloaded into it.

    Raises:
        ValueError: The data set is unknown, missing, unreadable, incomplete or inconsistent.
    """
    if data == "digits":
        return DataSource(open_digits())
    folder = Path(data).expanduser()
    # A torchvision name may happen to be a folder's name too; then --data-root says which is meant.
    if folder.exists() and not (data in SETS and root is not None):
        return DataSource(_open_folder(folder))
    if data in SETS:
        if root is None:
            raise ValueError(
                f"--data {data}: no --data-root: got a torchvision data set without its folder; accepted: the folder "
                "that torchvision calls root. Add --data-root FOLDER."
            )
        root = root.expanduser()
        if not root.is_dir():
            raise ValueError(
                f"--data-root {root}: no such folder: got a path that is not one; accepted: the folder that holds "
                f"{data}. Correct --data-root."
            )
        return DataSource(open_torchvision(data, root))
    if not data or os.sep in data or data.startswith((".", "~")):
        raise ValueError(
            f"--data {data}: no such folder: got {data!r}; accepted: a folder with {LAYOUTS}. Correct the path."
        )
    spellings = {name.lower(): name for name in ("digits", *SETS)}
    near = difflib.get_close_matches(data.lower(), spellings, n=1)
    raise ValueError(
        f"--data {data}: unknown data set or folder: got {data!r}; accepted: digits, a folder with {LAYOUTS}, or with "
        f"--data-root one of {', '.join(SETS)}. "
        + (f"Did you mean {spellings[near[0]]!r}?" if near else "Correct the name or the path.")
    )


def _open_folder(folder: Path) -> Found:
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise ValueError(
            f"{folder}: unreadable: got {error_text(error)}; accepted: a folder with {LAYOUTS}. "
            "Check the path and its permissions."
        ) from error
    if names & {"train.parquet", "test.parquet"}:
        return open_parquet(folder)
    if names & {"train", "val", "test"}:
        return open_folder(folder)
    got = ", ".join(sorted(names)[:5]) or "an empty folder"
    raise ValueError(f"{folder}: no data set in it: got {got}; accepted: {LAYOUTS}. Add the files or correct the path.")
