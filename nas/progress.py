"""The one progress display of everything long: a line that is rewritten on a terminal, a line now and then elsewhere; on stderr."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

EVERY_SECONDS = 12.0  # at least so long between two plain lines
ON_TERMINAL = 0.25  # and between two states of the line on a terminal
MEANINGFUL = 2.0  # seconds of work behind the first unit, which is slow, before a speed means something


class Progress:
    """Counts units of work and shows how many are done, how fast, and how long the rest will take.

        with Progress("train supernet", total=120, unit="step") as progress:
            for ...:
                progress.advance(text="loss 2.31")

    Args:
        title: what is being done.
        total: units in all. Where that turns out to be another number, set it: `progress.total = progress.done` says that all is done.
        unit: its name in the singular.
        stream: where to; stderr, so that stdout stays for results.
        clock: seconds, for tests.
        quiet: nothing is shown of work that takes less than so many seconds.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str = "step",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        quiet: float = 0.0,
    ) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, 0
        self._stream, self._clock, self._begun = stream or sys.stderr, clock, clock()
        self._text, self._quiet = "", quiet
        self._first: tuple[float, int] | None = None  # when the first unit of this process was done, and how many were done then
        self._shown: tuple[float, tuple[int, int]] | None = None  # when a line was last printed, how many were done and of how many
        self._terminal = self._stream.isatty()

    def __enter__(self) -> Progress:
        self._begun = self._clock()
        return self

    def reach(self, done: int, text: str | None = None) -> None:
        """Says that `done` units are done in all."""
        self.advance(done - self.done, text)

    def skip(self, count: int) -> None:
        """Says that `count` more units were done by an earlier process, which do not count as speed."""
        self.done += count
        if self._first:
            self._first = self._first[0], self._first[1] + count

    def advance(self, count: int = 1, text: str | None = None) -> None:
        """Says that `count` more units are done; `text`, such as the loss, stays until there is another."""
        self.done += count
        self._text = self._text if text is None else text
        now = self._clock()
        if self._first is None and count:
            self._first = now, self.done
        if now - self._begun < self._quiet:
            return
        if self._shown is None or now - self._shown[0] >= (ON_TERMINAL if self._terminal else EVERY_SECONDS):
            self._show(now)

    def _show(self, now: float) -> None:
        """``train supernet: 30/120 steps, 2.1 steps/s, 0:43 left, loss 2.31``."""
        left = self.total - self.done
        parts = [f"{self.title}: {self.done}/{self.total} {self.unit}s"]
        since, before = self._first or (now, self.done)
        if self.done > before and (now - since >= MEANINGFUL or left <= 0):
            rate = (self.done - before) / max(now - since, 1e-9)
            parts.append(f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}")
            parts += [f"{duration(left / rate)} left"] * (left > 0)
        parts += [f"took {duration(now - self._begun)}"] * (left <= 0)
        line = ", ".join([*parts, self._text] if self._text else parts)
        if self._terminal:  # back to the beginning of the line and over it; a line that wraps could not be
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=self._stream, flush=True)
        else:
            print(line, file=self._stream, flush=True)
        self._shown = now, (self.done, self.total)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown is not None and self._shown[1] != (self.done, self.total):
            self._show(self._clock())  # how far it came
        if self._shown is not None and self._terminal:
            print(file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """``0:43``, ``12:05``, ``3:20:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
