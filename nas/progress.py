"""The one progress display of everything long: a bar on a terminal, a plain line now and then elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO


class Progress:
    """Counts units of work and shows how many are done, how fast, and how long the rest will take.

    On a terminal a rich bar; elsewhere one line for the first unit, then one about every `every_seconds`, and one at the end.

        with Progress("train supernet", total=120, unit="step", done=30) as progress:
            for ...:
                progress.advance(text="loss 2.31")
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str = "step",
        done: int = 0,
        every_seconds: float = 12.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares a display; it appears with the first `advance`.

        Args:
            title: what is being done.
            total: units in all.
            unit: its name in the singular.
            done: units done before, by an interrupted run; the rate counts only the new ones.
            every_seconds: at least so long between two plain lines.
            stream: where to; stderr, so that stdout stays for results.
            clock: seconds, for tests.
        """
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._stream = stream if stream is not None else sys.stderr
        self._every_seconds, self._clock = every_seconds, clock
        self._begun, self._done_before = clock(), done
        self._text = ""
        self._shown: tuple[float, int] | None = None  # when the last plain line was printed, and how many were done
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._begun = self._clock()
        if self._stream.isatty():
            self._bar, self._task = _rich_bar(self._stream, self.title, self.total, self.done)
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
            self._bar.update(self._task, completed=self.done, status=self.status(now))
        elif self._shown is None or now - self._shown[0] >= self._every_seconds or self.done >= self.total:
            self._print(now)

    def status(self, now: float | None = None) -> str:
        """``30/120 steps, 2.1 steps/s, 0:43 left, loss 2.31``."""
        seconds = (self._clock() if now is None else now) - self._begun
        new = self.done - self._done_before
        parts = [f"{self.done}/{self.total} {self.unit}s"]
        if new > 0 and seconds > 0:
            rate = new / seconds
            parts.append(f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s/{self.unit}")
            left = max(self.total - self.done, 0)
            parts.append(f"{duration(left / rate)} left" if left else f"took {duration(seconds)}")
        return ", ".join([*parts, self._text] if self._text else parts)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown is not None and self._shown[1] != self.done:
            self._print(self._clock())  # stopped early: how far it came

    def _print(self, now: float) -> None:
        self._shown = (now, self.done)
        print(f"{self.title}: {self.status(now)}", file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """``0:43``, ``12:05``, ``3:20:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _rich_bar(stream: TextIO, title: str, total: int, done: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    # markup=False: a name in brackets is a name, not a colour.
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[status]}", markup=False)
    bar = RichProgress(*columns, console=Console(file=stream), refresh_per_second=4)
    return bar, bar.add_task(title, total=total, completed=done, status="")
