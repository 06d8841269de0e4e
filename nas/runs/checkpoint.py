"""Checkpoints that a kill or a flipped bit cannot take away: written whole, checked when read, with the one before kept."""

from __future__ import annotations

import contextlib
import io
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.machine import deletion
from nas.yaml_files import one_line_error, write_atomically

if TYPE_CHECKING:
    import torch


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint atomically, and keeps the one before as ``<name>.previous``.

    Killed at any point, one of the two is whole. Only the holder of the run's lock may write.

    Args:
        path: the file, as `torch.save` writes it.
        state: tensors, numbers, text, and lists and dicts of these.

    Raises:
        ValueError: one line, when there is no room or no permission; the old checkpoints stay.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a process killed while it wrote
        leftover.unlink(missing_ok=True)
    # A damaged file never replaces a good previous one. Mapped into memory, the tensors are not read a second time.
    whole = isinstance(_read(path, mmap=True), dict)
    write_atomically(path, content, previous=_previous(path) if whole else None)


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any] | None:
    """Reads a checkpoint, or the one before if it is damaged, which is said on stderr; None when there is neither.

    Raises:
        ValueError: one line, when what is there cannot be used; says what to do.
    """
    problems: list[str] = []
    for candidate in (path, _previous(path)):
        found = _read(candidate, map_location=map_location)
        if isinstance(found, dict):
            if problems:
                print(f"{'; '.join(problems)}. Using the one before, {candidate}.", file=sys.stderr)
            return found
        problems.append(f"{candidate}: {found}")
    if not path.exists() and not _previous(path).exists():
        return None
    raise one_line_error(f"{'; '.join(problems)}. Begin anew ({deletion(path, others=True)}), or restore one from a copy.")


@contextlib.contextmanager
def as_written(path: Path) -> Iterator[None]:
    """For a block that takes a checkpoint apart: whatever another program, or another version, wrote into it ends in one line.

    Raises:
        ValueError: something is missing, or is not what the training has there.
        MemoryError: memory ran out on the way, which is nothing against the checkpoint.
    """
    from nas.cost.latency import memory_errors

    try:
        with memory_errors():
            yield
    except (LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise one_line_error(
            f"{path}: not a checkpoint of this training: got {got}; accepted: what it wrote. Begin anew "
            f"({deletion(path, others=True)}), or restore one from a copy."
        ) from None


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _read(path: Path, **options: Any) -> dict[str, Any] | str:
    """A checkpoint, or what is wrong with it.

    `torch.load` does not look at the CRC-32 that it saves with every record, so a flipped bit of a weight loads as another weight; Python's
    `zipfile` does look. A bit flipped in the directory of the archive ends in an error of either, but for the attributes: a record that they
    call a folder is not read, and its tensor is whatever the memory held.

    Raises:
        ValueError: one line, when it is there but cannot be opened: nothing is known to be wrong with it.
    """
    import torch

    try:
        path.open("rb").close()
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        raise one_line_error(f"{path}: cannot be read: {error.strerror}. Check its permissions; it may be a good checkpoint.") from None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() or any(entry.external_attr for entry in archive.infolist()):
                return "damaged: the checksum of a record does not match"
        return dict(torch.load(path, weights_only=True, **options))
    except Exception:  # a damaged archive may end in any kind; weights_only refuses what could run code
        return "damaged, or not a checkpoint that this program wrote (tensors, numbers and text)"
