"""Small images, written on the spot in every layout, and how tests look at batches and messages."""

import io
import itertools
import json
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas.data import Augmentation, Data

# A directory of five entries that ends in the first, which has its value behind the end.
DAMAGED_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x1a\0\x05\0\0\0\1\0\0\xff\xff"
EVERYTHING = Augmentation(crop="pad", flip=True, randaugment=(2, 9), erasing=0.25, mixup=0.8, cutmix=1.0)


def write_image(path: Path, seed: int, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random_image(seed, size, mode).save(path)


def random_image(seed: int, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def write_folder(folder: Path, splits: tuple[str, ...] = ("train", "val"), per_class: int = 10, mode: str = "RGB") -> Path:
    seeds = itertools.count()
    for split, name, number in itertools.product(splits, ("ant", "bee"), range(per_class)):
        write_image(folder / split / name / f"{number:03}.png", next(seeds), mode=mode)
    return folder


def write_parquet(path: Path, labels: list[int | None], names: list[str] | None, column: str = "img") -> None:
    rows = []
    for seed in range(len(labels)):
        buffer = io.BytesIO()
        random_image(seed).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(rows, struct_type), "label": pa.array(labels, pa.int64())})
    if names is not None:
        features = {column: {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def write_parquet_set(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / "train.parquet", [0, 1] * 10, ["ant", "bee"])
    write_parquet(folder / "test.parquet", [0, 1, 1], ["ant", "bee"])
    return folder


def write_set(folder: Path, layout: str) -> Path:
    if layout == "parquet":
        return write_parquet_set(folder)
    write_folder(folder)
    for split in ("train", "val") if layout == "tar" else ():
        with tarfile.open(folder / f"{split}.tar", "w") as archive:
            archive.add(folder / split, arcname=".")
        shutil.rmtree(folder / split)
    return folder


def write_fashion_mnist(root: Path) -> Path:
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 10)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return root


def line(call, *arguments, **options) -> str:
    """Returns the message of the ValueError that a call must raise, and checks its form."""
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message and "got " in message and "accepted" in message and message[-1] in ".?", message
    return message


def take(data: Data, count: int, start: int = 0, seed: int = 3, augmentation: Augmentation = EVERYTHING, batch: int = 8):
    return list(itertools.islice(data.batches("fit", batch, seed, augmentation)(start), count))


def equal(ours: list[tuple[Tensor, Tensor]], theirs: list[tuple[Tensor, Tensor]]) -> bool:
    return len(ours) == len(theirs) and all(torch.equal(x, y) and torch.equal(s, t) for (x, s), (y, t) in zip(ours, theirs, strict=True))
