"""Checkpoints that a kill or a flipped bit cannot take away: written whole, checked when read, with the one before kept."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.yaml_files import check_room, write_atomically

if TYPE_CHECKING:
    import torch

_MAGIC = b"nas-sha2"
_TRAILER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint atomically, with a checksum behind it, and keeps the one before as ``<name>.previous``.

    Killed at any point, one of the two is whole. Only the holder of the run's lock may write.

    Args:
        path: the file. Other tools' `torch.load` reads it too: the checksum behind the archive does not disturb it.
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
    check_room(path, len(content))
    # A damaged file never replaces a good previous one.
    keep = path.exists() and isinstance(_verified(path), memoryview)
    trailer = _MAGIC + hashlib.sha256(content).digest()
    write_atomically(path, content, trailer, previous=_previous(path) if keep else None)


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any] | None:
    """Reads a checkpoint, or the one before if it is damaged, which is said on stderr; None when there is neither.

    Raises:
        ValueError: one line, when what is there cannot be used; says what to do.
    """
    import torch

    problems: list[str] = []
    for candidate in (path, _previous(path)):
        content = _verified(candidate)
        if isinstance(content, memoryview):
            if problems:
                print(f"{'; '.join(problems)}. Using the one before, {candidate}.", file=sys.stderr)
            try:
                return dict(torch.load(io.BytesIO(content), map_location=map_location, weights_only=True))
            except pickle.UnpicklingError:
                what = "holds more than tensors, numbers and text; it is not opened, since it could run code"
                raise _error(f"{candidate}: {what}. Delete it, or use a checkpoint that this program wrote.") from None
        problems.append(f"{candidate}: {content}")
    if not path.exists() and not _previous(path).exists():
        return None
    raise _error(f"{'; '.join(problems)}. Delete {path.name}* in {path.parent} to begin anew, or restore one from a copy.")


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _verified(path: Path) -> memoryview | str:
    """A checkpoint's content without its trailer, or what is wrong with it."""
    try:
        raw = memoryview(path.read_bytes())
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    content, trailer = raw[:-_TRAILER_BYTES], bytes(raw[-_TRAILER_BYTES:])
    if trailer[: len(_MAGIC)] != _MAGIC:
        return "damaged: cut short, or not a checkpoint"
    if trailer[len(_MAGIC) :] != hashlib.sha256(content).digest():
        return "damaged: the checksum does not match"
    return content


def _error(message: str) -> ValueError:
    return ValueError(" ".join(message.splitlines()))
