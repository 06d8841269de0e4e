"""The one progress display of everything long: a bar on a terminal, a plain line now and then elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

EVERY_SECONDS = 12.0  # at least so long between two plain lines


class Progress:
    """Counts units of work and shows how many are done, how fast, and how long the rest will take.

    On a terminal a rich bar; elsewhere one line for the first unit, then one now and then, and one at the end.

        with Progress("train supernet", total=120, unit="step", done=30) as progress:
            for ...:
                progress.advance(text="loss 2.31")

    Args:
        title: what is being done.
        total: units in all.
        unit: its name in the singular.
        done: units done before, by an interrupted run; the rate counts only the new ones.
        stream: where to; stderr, so that stdout stays for results.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str = "step",
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._stream, self._clock = stream or sys.stderr, clock
        self._begun, self._done_before, self._text = clock(), done, ""
        self._shown: tuple[float, int] | None = None  # when the last plain line was printed, and how many were done
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._begun = self._clock()
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            # markup=False: a name in brackets is a name, not a colour.
            texts = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[status]"))
            self._bar = RichProgress(next(texts), BarColumn(), next(texts), console=Console(file=self._stream), refresh_per_second=4)
            self._bar.add_task(self.title, total=self.total, completed=self.done, status="")
            self._bar.start()
        return self

    def resume(self, done: int) -> None:
        """Says that `done` units were finished before this process; the rate does not count them."""
        self.done = self._done_before = done

    def advance(self, count: int = 1, text: str | None = None) -> None:
        """Says that `count` more units are done; `text`, such as the loss, stays until there is another."""
        self.done += count
        self._text = self._text if text is None else text
        now = self._clock()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, status=self._status(now))
        elif self._shown is None or now - self._shown[0] >= EVERY_SECONDS or self.done >= self.total:
            self._print(now)

    def _status(self, now: float) -> str:
        """``30/120 steps, 2.1 steps/s, 0:43 left, loss 2.31``."""
        seconds, new, left = now - self._begun, self.done - self._done_before, self.total - self.done
        parts = [f"{self.done}/{self.total} {self.unit}s"]
        if new > 0 and seconds > 0:
            rate = new / seconds
            parts.append(f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}")
            parts.append(f"{duration(left / rate)} left" if left > 0 else f"took {duration(seconds)}")
        return ", ".join([*parts, self._text] if self._text else parts)

    def _print(self, now: float) -> None:
        self._shown = (now, self.done)
        print(f"{self.title}: {self._status(now)}", file=self._stream, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown is not None and self._shown[1] != self.done:
            self._print(self._clock())  # stopped early: how far it came


def duration(seconds: float) -> str:
    """``0:43``, ``12:05``, ``3:20:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
