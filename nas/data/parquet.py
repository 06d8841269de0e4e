"""Image sets as the `datasets` library writes them: `train.parquet` and `test.parquet`.

One column holds a struct of `bytes` (an encoded image file) and `path`, another the label; the class names are in the
schema's `huggingface` metadata. The encoded bytes of a split are kept in memory once its images are asked for.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import SURVEYED, Found, check_labels, one_line, survey

IMAGE_COLUMNS = "img", "image"
LABEL_COLUMNS = "label", "labels", "fine_label"


@dataclass
class ParquetImages:
    """One Parquet file: labels and encoded images, each read when first used."""

    path: Path
    image_column: str
    label_column: str

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        import pyarrow.parquet as pq

        with _readable(self.path):
            column = pq.read_table(self.path, columns=[self.label_column]).column(0)
        if column.null_count:
            raise ValueError(
                f"{self.path}: missing label: got {column.null_count} empty rows in column {self.label_column!r}; "
                "accepted: a label in every row. Remove or label them."
            )
        return column.to_numpy().astype(np.int64)

    @cached_property
    def encoded(self) -> Any:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        # Not pq.read_table, which flattens the struct.
        with _readable(self.path), pq.ParquetFile(self.path) as file:
            return pc.struct_field(file.read(columns=[f"{self.image_column}.bytes"]).column(0), "bytes")

    def prepare(self) -> None:
        self.encoded  # noqa: B018  # read here, worker processes share it instead of reading a copy each

    def open(self, index: int) -> Image.Image:
        return _image(self.encoded[index].as_py())

    def place(self, index: int) -> str:
        return f"{self.path}: row {index}"


@dataclass
class FirstRows:
    """The first rows of a Parquet file: enough to survey it without reading the rest."""

    images: ParquetImages
    encoded: list[bytes | None]

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.images.labels[: len(self.encoded)]

    def prepare(self) -> None:
        pass

    def open(self, index: int) -> Image.Image:
        return _image(self.encoded[index])

    def place(self, index: int) -> str:
        return self.images.place(index)


def open_parquet(folder: Path) -> Found:
    """Opens a folder with `train.parquet` and `test.parquet`: footers, training labels and the first images.

    Raises:
        ValueError: A file that is missing or not Parquet, a file without an image or label column, labels that are not
            0..n-1, a class without images, or training and test classes that differ.
    """
    train, names = _open_file(folder / "train.parquet")
    test, test_names = _open_file(folder / "test.parquet")
    if test_names != names:
        raise ValueError(
            f"{test.path}: classes differ from train.parquet: got {_list(test_names)}; accepted {_list(names)}. "
            "Write both files with the same class names."
        )
    classes = names or tuple(str(label) for label in range(int(train.labels.max(initial=-1)) + 1))
    check_labels(str(train.path), train.labels, classes, every_class=True)
    _check_footer_labels(test, classes)
    return Found(folder.resolve().name, classes, train, partial(_checked, test, classes), _survey(train))


def _open_file(path: Path) -> tuple[ParquetImages, tuple[str, ...] | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ValueError(
            f"{path}: missing file: got a folder without it; accepted: train.parquet and test.parquet. Add it."
        )
    with _readable(path):
        schema = pq.read_schema(path)
    pictures = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and _is_bytes(field.type.field("bytes").type)
    ]
    named = [name for name in IMAGE_COLUMNS if name in pictures]
    if not named and len(pictures) != 1:
        raise ValueError(
            f"{path}: no image column: got {_list(schema.names)}; accepted: 'img' or 'image', or one other column, "
            "a struct of bytes and path. Write it with the datasets library's Image feature."
        )
    labels = [name for name in LABEL_COLUMNS if name in schema.names and pa.types.is_integer(schema.field(name).type)]
    if not labels:
        raise ValueError(
            f"{path}: no label column: got {_list(schema.names)}; accepted: integers in one of "
            f"{_list(LABEL_COLUMNS)}. Rename or add it."
        )
    return ParquetImages(path, (named or pictures)[0], labels[0]), _class_names(schema.metadata, labels[0])


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """Returns the class names that the `datasets` library leaves in the schema, or None."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _check_footer_labels(test: ParquetImages, classes: tuple[str, ...]) -> None:
    """Checks the range of the test labels by the footer's statistics, so that the test rows stay unread."""
    import pyarrow.parquet as pq

    footer = pq.read_metadata(test.path)
    position = footer.schema.names.index(test.label_column) if test.label_column in footer.schema.names else None
    if footer.num_rows == 0:
        check_labels(str(test.path), np.zeros(0, np.int64), classes, every_class=False)
    for group in range(footer.num_row_groups):
        statistics = footer.row_group(group).column(position).statistics if position is not None else None
        if statistics is not None and statistics.has_min_max:
            extremes = np.array([statistics.min, statistics.max], np.int64)
            check_labels(str(test.path), extremes, classes, every_class=False)


def _checked(images: ParquetImages, classes: tuple[str, ...]) -> ParquetImages:
    check_labels(str(images.path), images.labels, classes, every_class=False)
    return images


def _survey(images: ParquetImages) -> tuple[int, int]:
    import pyarrow.parquet as pq

    with _readable(images.path), pq.ParquetFile(images.path) as file:
        rows = next(file.iter_batches(SURVEYED, columns=[f"{images.image_column}.bytes"])).column(0).to_pylist()
    first = FirstRows(images, [row and row["bytes"] for row in rows])
    return survey(first, range(len(rows)))


def _image(encoded: bytes | None) -> Image.Image:
    if encoded is None:
        raise ValueError("no bytes in the row")
    return Image.open(io.BytesIO(encoded))


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _list(names: Any) -> str:
    return ", ".join(map(str, names)) if names else "none"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what pyarrow raises for a damaged or forbidden file into one line that names it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: unreadable: got {one_line(error)}; accepted: a whole Parquet file. Write or copy it again."
        ) from error
