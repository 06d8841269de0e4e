"""Image sets as Parquet, as the `datasets` library and the hub write them: `train.parquet`, or `data/train-00000-of-00012.parquet`.

One column holds a struct of `bytes` (an encoded image file) and `path`, another the label; the class names are in the schema's
`huggingface` metadata. The least that can be read is a row group: it is read when a row of it is wanted, and the last ones are kept. (The
`datasets` library would first copy the set, uncompressed, to a cache of its own.)
"""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.images import Images, Labels, check_classes, check_labels, one_line, opened
from nas.data.seeding import SPLIT, permutation
from nas.data.splits import Found, assemble, split_of

IMAGE_COLUMNS = "img", "image"
LABEL_COLUMNS = "label", "labels", "fine_label"
KEPT_BYTES = 256 * 2**20  # of row groups, in each process, where a split as a whole is too large to keep
SAMPLED_GROUPS = 100  # row groups that a sample is spread over, at most
_READING = threading.Lock()  # threads that want the same row group wait for one of them to read it


@dataclass(frozen=True)
class Shard:
    """One Parquet file: its image column, the class names in its schema (or none), its labels, and pyarrow's footer."""

    path: Path
    column: str
    classes: tuple[str, ...]
    labels: Labels
    footer: Any


@dataclass
class ParquetImages(Images):
    """The rows of one or several Parquet files below a folder."""

    folder: Path
    shards: list[Shard]
    _kept: dict[int, Any] = field(default_factory=dict, repr=False)  # row group -> its encoded images; the last used is last
    _whole: bool = False  # whether all row groups are kept

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # a worker process that is not a fork reads for itself

    @cached_property
    def labels(self) -> Labels:  # type: ignore[override]
        return np.concatenate([shard.labels for shard in self.shards])

    @cached_property
    def _groups(self) -> list[tuple[Shard, int]]:
        return [(shard, number) for shard in self.shards for number in range(shard.footer.num_row_groups)]

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """The row after the last of each row group."""
        return np.cumsum([shard.footer.row_group(number).num_rows for shard, number in self._groups])

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """Bytes of each row group."""
        return np.array([shard.footer.row_group(number).total_byte_size for shard, number in self._groups])

    def open(self, index: int) -> Image.Image:
        group = int(np.searchsorted(self._ends, index, side="right"))
        with _READING:
            encoded = self._read(group)
        return opened(encoded[int(index) - int(self._ends[group])].as_py())  # counted from the end of the group

    def place(self, index: int) -> str:
        shard, _ = self._groups[int(np.searchsorted(self._ends, index, side="right"))]
        begin = sum(len(other.labels) for other in self.shards[: self.shards.index(shard)])
        return f"{shard.path}: row {index - begin}"

    def content(self) -> Iterator[bytes | memoryview]:
        for shard in self.shards:
            groups = [shard.footer.row_group(number) for number in range(shard.footer.num_row_groups)]
            columns = [group.column(number) for group in groups for number in range(group.num_columns)]
            sizes = [(column.total_uncompressed_size, column.total_compressed_size) for column in columns]
            yield f"{shard.path.relative_to(self.folder)} {sizes}".encode()

    def sample(self, count: int) -> NDArray[np.int64]:
        if len(self._ends) <= SAMPLED_GROUPS:
            return super().sample(count)
        # 2,000 rows anywhere in a large set would mean to read most of it.
        num_groups = min(count, SAMPLED_GROUPS)
        begins = np.concatenate([[0], self._ends[:-1]])
        chosen = np.sort(permutation(len(begins), SPLIT)[:num_groups])
        return np.concatenate([np.arange(begins[k], min(begins[k] + count // num_groups, self._ends[k])) for k in chosen])

    def prepare(self, memory: int) -> None:
        """Reads all row groups where they fit into `memory`: worker processes, which are forks, then share them."""
        if self._sizes.sum() <= memory:
            self._whole = True
            for group in range(len(self._groups)):
                self._read(group)

    def _read(self, group: int) -> Any:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if group in self._kept:
            self._kept[group] = self._kept.pop(group)
            return self._kept[group]
        shard, number = self._groups[group]
        # One thread: pyarrow's pool does not live on in a forked process. Not pq.read_table, which flattens the struct.
        with pq.ParquetFile(shard.path, metadata=shard.footer) as file:
            column = file.read_row_group(number, columns=[f"{shard.column}.bytes"], use_threads=False).column(0)
        self._kept[group] = encoded = pc.struct_field(column, "bytes")
        while not self._whole and len(self._kept) > 2 and self._sizes[list(self._kept)].sum() > KEPT_BYTES:
            self._kept.pop(next(iter(self._kept)))
        return encoded


def parquet_files(folder: Path) -> list[Path]:
    """Returns the Parquet files of a data set: in the folder itself, or in the one folder below it that has any.

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
            raise ValueError(
                f"{files[0].parent}: missing files: got {there} named {prefix}-*-of-{total}.parquet; accepted: {int(total)}. Add the others."
            )
    return files


def open_parquet(folder: Path, files: list[Path], place: str = "") -> Found:
    """Opens a data set of Parquet files: footers, labels and a few images. It is called after the folder, or after `place`.

    Raises:
        ValueError: A file that is not Parquet or has no image or label column, labels that are not 0..n-1, a class without images, or files
            whose classes differ.
    """
    import pyarrow as pa

    shards: dict[str, list[Shard]] = {}
    for path in sorted(files, key=lambda path: split_of(path.name) != "train"):
        try:
            shards.setdefault(str(split_of(path.name)), []).append(_open_file(path))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: unreadable: got {one_line(error)}; accepted: a whole Parquet file. Copy it again.") from error
    if all((shard.labels == -1).all() for shard in shards.get("test", [])):  # how the hub has a test whose labels are secret
        shards.pop("test", None)
    everything = [shard for those in shards.values() for shard in those]
    counted = tuple(map(str, range(1 + max(int(shard.labels.max(initial=-1)) for shard in everything))))
    classes = everything[0].classes or counted
    for shard in everything:
        check_classes(str(shard.path), shard.classes or counted, classes)
        if len(shard.labels):
            check_labels(str(shard.path), shard.labels, classes)
    return assemble(place or str(folder.resolve()), classes, [(split, ParquetImages(folder, those)) for split, those in shards.items()])


def _open_file(path: Path) -> Shard:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    structs = [column for column in schema if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0]
    pictures = [column.name for column in structs if column.type.field("bytes").type in (pa.binary(), pa.large_binary())]
    pictures = [name for name in IMAGE_COLUMNS if name in pictures][:1] or pictures
    labelled = [name for name in LABEL_COLUMNS if name in schema.names and pa.types.is_integer(schema.field(name).type)]
    if len(pictures) != 1 or not labelled:
        raise ValueError(
            f"{path}: no {'image' if len(pictures) != 1 else 'label'} column: got {', '.join(schema.names)}; accepted: a struct of bytes and path, and "
            f"integers in one of {', '.join(LABEL_COLUMNS)}, as the datasets library writes them. Rename or add it."
        )
    with file:
        labels = file.read(columns=labelled[:1], use_threads=False).column(0)
    if labels.null_count:
        raise ValueError(
            f"{path}: missing label: got {labels.null_count} empty rows of {labelled[0]!r}; accepted: a label in every row. Remove them."
        )
    return Shard(path, pictures[0], _class_names(schema.metadata, labelled[0]), labels.to_numpy().astype(np.int64), file.metadata)


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...]:
    """Returns the class names that the `datasets` library leaves in the schema, or none."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
