"""Curves for TensorBoard, in files that it reads."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from nas.yaml_files import one_line_error

SECONDS = 30.0  # between two times that what was added goes to the disk


class Events:
    """An event file, written by whoever adds to it.

    tensorboardX's own writer does that in a thread, behind a queue: where the disk is full the thread dies, and who adds then waits for ever. The
    queue needs /dev/shm too.
    """

    def __init__(self, folder: Path, begin: int) -> None:
        """A file of its own for a sitting that begins with step `begin`: what an earlier one has shown from there on is not shown any more."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder, self._flushed = folder, time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"), f".{begin}")  # two sittings may begin in one second
        except OSError as error:
            raise self._told(error) from None
        self._write(Event(step=begin, session_log=SessionLog(status=SessionLog.START)))

    def add(self, name: str, value: float, step: int) -> None:
        """A point of a curve.

        Raises:
            ValueError: one line, where there is no room.
        """
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        self._write(Event(step=step, wall_time=time.time(), summary=scalar(name, value)))

    def close(self) -> None:
        """What does not go to the disk any more is lost, and no reason to lose a training."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _write(self, event: Any) -> None:
        try:
            self._writer.write_event(event)
            if time.monotonic() - self._flushed > SECONDS:
                self._flushed = time.monotonic()
                self._writer.flush()
        except OSError as error:
            raise self._told(error) from None

    def _told(self, error: OSError) -> ValueError:
        return one_line_error(f"{self._folder}: cannot be written: {error.strerror}. Make room; the same command then continues.")
