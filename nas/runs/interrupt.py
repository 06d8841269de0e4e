"""Ctrl-C, SIGTERM and SIGUSR1 as a wish to stop at the next clean point."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGUSR1,
)  # a terminal's, a supervisor's, and a cluster's warning that it takes the machine away


class Stopped(Exception):
    """A command was interrupted and has left everything in order: the same command continues, or begins again."""

    exit_status = 130  # what a shell expects; the `Interrupt` around it knows better

    def __init__(self, where: str, continues: bool = True) -> None:
        super().__init__(where)
        self.continues = continues


def heeded(things: Iterable[T], stop: Callable[[], bool], where: Callable[[], str]) -> Iterator[T]:
    """The same things, for as long as nobody wants to stop.

    Raises:
        Stopped: `stop` became true; `where` says what is stopped.
    """
    for each in things:
        if stop():
            raise Stopped(where())
        yield each


@contextlib.contextmanager
def saying(where: Callable[[], str]) -> Iterator[None]:
    """For a block in which something smaller may be stopped: says what of the whole is."""
    try:
        yield
    except Stopped:
        raise Stopped(where()) from None


class Interrupt:
    """Turns the first of `SIGNALS` into a wish that a long loop can look at; the second stops at once.

        with Interrupt() as interrupt:
            for step in steps:
                ...
                if interrupt.requested:
                    save_checkpoint(...)
                    break

    `exit_status` is what a shell expects of a process that a signal ended: 130, 143 or 138; 0 when nothing came. Outside the main thread it does
    nothing: signals never come there.

    Args:
        together: one of several processes of a launcher: each further signal may be the first one once more, from the launcher or from a cluster that
            signals every process, so none stops at once. A launcher ends by force what takes too long.
        quiet: nothing is said.
    """

    def __init__(self, together: bool = False, quiet: bool = False) -> None:
        self._together = together
        self._said = b"" if quiet else b"\nStopping at the next clean point%s.\n" % (b"" if together else b"; once more to stop at once")
        self.requested = False
        self.exit_status = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if isinstance(error, Stopped) and self.requested:
            error.exit_status = self.exit_status

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested and self._together:
            return
        if self.requested:
            raise KeyboardInterrupt
        self.requested, self.exit_status = True, 128 + number
        with contextlib.suppress(OSError):  # not print: a handler may interrupt a print, which is not reentrant
            os.write(2, self._said)
