"""Image sets that the `datasets` library reads: Parquet in one file or in shards, and those of the Hugging Face hub.

It copies a set once to its cache (`--data-root`, or where $HF_HOME says), images still encoded, and maps the copy into memory: any image is
found at once, and all processes share what was read.
"""

import glob
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data.images import Images, Labels, one_line, open_file
from nas.data.splits import Found, assemble, split_of

HUB = "hfds/"  # timm's word for the hub's data sets
IMAGE_COLUMNS = "img", "image"
LABEL_COLUMNS = "label", "labels", "fine_label"


@dataclass(frozen=True)
class LibraryImages(Images):
    """A column of a `datasets.Dataset`, of structs that hold the bytes of an image file or its path."""

    rows: Any
    column: str
    labels: Labels
    name: str  # for messages
    folder: Path | None  # what a row names lies below it; None: a set of the hub, whose files are in the library's cache

    def open(self, index: int) -> Image.Image:
        entry = self.rows[int(index)][self.column] or {}
        if entry.get("bytes") is not None:
            return Image.open(io.BytesIO(entry["bytes"]))
        if entry.get("path") is None:
            raise ValueError("no bytes in the row")
        path = Path(entry["path"])
        if self.folder is not None:  # a set from elsewhere must not read what else there is on this machine
            path = (self.folder / path).resolve()
            if not path.is_relative_to(self.folder):
                raise ValueError(f"no bytes in the row, and {entry['path']!r} is not below the folder of the set")
        return open_file(str(path))

    def place(self, index: int) -> str:
        return f"{self.name}: row {index}"

    def content(self) -> Iterator[bytes | memoryview]:
        import pyarrow as pa
        import pyarrow.compute as pc

        for chunk in self.rows.data.column(self.column).chunks:
            encoded = pc.struct_field(chunk, "bytes")
            lengths = pc.binary_length(encoded.cast(pa.binary()) if pa.types.is_null(encoded.type) else encoded)  # null: none anywhere
            yield pc.fill_null(lengths, -1).to_numpy().astype(np.int64).tobytes()
            if lengths.null_count:  # files, which are known by their names
                yield "\n".join(os.path.basename(str(path)) for path in pc.struct_field(chunk, "path").to_pylist()).encode()


def parquet_files(folder: Path) -> list[Path]:
    """Returns the Parquet files of a data set, those of train first: in the folder itself, or in the one folder below it that has any.

    Raises:
        ValueError: Several folders below have some, or some of the files that `-of-00012` speaks of are missing.
    """
    found = [path for pattern in ("*.parquet", "*/*.parquet") for path in sorted(folder.glob(pattern)) if split_of(path.name)]
    files = [path for path in found if path.parent == found[0].parent]
    if len(files) < len(found) and found[0].parent != folder:
        several = ", ".join(sorted({path.parent.name for path in found}))
        raise ValueError(f"{folder}: several data sets: got {several}; accepted: one. Name one of these folders.")
    numbered = [match.groups() for path in files if (match := re.fullmatch(r"(.*)-\d+-of-(\d+)\.parquet", path.name))]
    for prefix, total in sorted(set(numbered)):
        if (there := numbered.count((prefix, total))) != int(total):
            raise ValueError(f"{files[0].parent}: missing: got {there} of {prefix}-*-of-{total}.parquet; accepted: {int(total)}. Add them.")
    return sorted(files, key=lambda path: split_of(path.name) != "train")


def open_parquet(folder: Path, files: list[Path], cache: Path | None) -> Found:
    """Opens what `parquet_files` found.

    Raises:
        ValueError: A file that is damaged, has no image or label column or other ones than the first, labels that are not 0..n-1, or a class
            without images.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, load_dataset

    by_split: dict[str, list[str]] = {}
    first: Features | None = None
    for path in files:
        by_split.setdefault(str(split_of(path.name)), []).append(glob.escape(str(path.resolve())))
        try:
            these = Features.from_arrow_schema(pq.read_schema(path))
        except (pa.ArrowException, OSError) as error:  # the library would not say which file it is
            raise ValueError(f"{path}: unreadable: got {one_line(error)}; accepted: a whole Parquet file. Copy it again.") from error
        # Classes in another order would be read as if they were in the first's.
        first = first or these
        if these != first:
            name = next(name for name in {**first, **these} if first.get(name) != these.get(name))
            got, accepted = (str(each.get(name, "none"))[:200] for each in (these, first))
            raise ValueError(f"{path}: column {name!r} differs: got {got}; accepted: {accepted}, as in {files[0].name}. Write both again.")
    folder = folder.resolve()
    return _opened(str(folder), lambda: load_dataset("parquet", data_files=by_split, cache_dir=cache and str(cache)), folder)


def open_hub(data: str, cache: Path | None) -> Found:
    """Opens a data set on the hub, `hfds/OWNER/NAME` or `hfds/OWNER/NAME/CONFIGURATION`; it is downloaded once.

    Raises:
        ValueError: It cannot be had; and what `open_parquet` raises.
    """
    from datasets import load_dataset

    owner, name, *configuration = *data.removeprefix(HUB).split("/"), ""
    return _opened(data, lambda: load_dataset(f"{owner}/{name}", *filter(None, configuration), cache_dir=cache and str(cache)))


def _opened(place: str, load: Callable[[], Mapping[str, Any]], folder: Path | None = None) -> Found:
    import datasets

    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # its errors are raised too
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        sets = load()
    except Exception as error:  # the library's own, the network's, the disk's
        why = one_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        if isinstance(error, OSError) and error.filename and not str(error.filename).startswith(place):
            accepted = "a folder that can be written, for the library's copy. Set HF_HOME to one, or give --data-root"
            raise ValueError(f"{place}: cannot be copied: got {why}; accepted: {accepted}.") from error
        raise ValueError(
            f"{place}: cannot be had: got {why}; accepted: whole Parquet files, or hfds/OWNER/NAME of a set on the hub. "
            "Copy the files again, or correct the name or the connection."
        ) from error
    splits = [(split, *_columns(f"{place}: {name}", rows, folder)) for name, rows in sets.items() if (split := split_of(name))]
    # A test without labels is none: so the hub has those whose labels are secret.
    those = [(split, images) for split, images, _ in splits if split != "test" or not (images.labels == -1).all()]
    counted = range(1 + max((int(images.labels.max(initial=-1)) for _, images in those), default=0))
    return assemble(place, next((names for _, _, names in splits if names), tuple(map(str, counted))), those)


def _columns(place: str, rows: Any, folder: Path | None) -> tuple[LibraryImages, tuple[str, ...]]:
    """Returns the images of a split, and the names of its classes where it has any."""
    import datasets
    import pyarrow as pa

    schema, features = rows.data.schema, rows.features
    pictures = [column.name for column in schema if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0]
    pictures = [name for name in IMAGE_COLUMNS if name in pictures][:1] or pictures
    labelled = [name for name in LABEL_COLUMNS if name in schema.names and pa.types.is_integer(schema.field(name).type)]
    if len(pictures) != 1 or not labelled:
        raise ValueError(
            f"{place}: no {'image' if len(pictures) != 1 else 'label'} column: got {', '.join(schema.names)}; accepted: images, as structs of bytes and "
            f"path, and integers in one of {', '.join(LABEL_COLUMNS)}. Rename or add it."
        )
    labels = rows.data.column(labelled[0])
    if labels.null_count:
        raise ValueError(f"{place}: missing label: got {labels.null_count} empty rows of {labelled[0]!r}; accepted: a label in every row.")
    images = rows.select_columns(pictures)
    if not isinstance(features[pictures[0]], dict):
        images = images.cast_column(pictures[0], datasets.Image(decode=False))
    return LibraryImages(images, pictures[0], labels.to_numpy().astype(np.int64), place, folder), tuple(
        getattr(features[labelled[0]], "names", ())
    )
