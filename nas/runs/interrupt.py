"""Ctrl-C and SIGTERM as a wish to stop at the next clean point."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a wish that a long loop can look at; the second stops at once.

        with Interrupt() as interrupt:
            for step in steps:
                ...
                if interrupt.requested:
                    save_checkpoint(...)
                    break

    `exit_status` is what a shell expects of a process that a signal ended: 130 or 143; 0 when nothing came. Inside another Interrupt it sets
    the outer one too. Outside the main thread it does nothing: signals never come there.
    """

    def __init__(self) -> None:
        self.requested = False
        self.exit_status = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self._note(number)
        with contextlib.suppress(OSError):  # not print: a handler may interrupt a print, which is not reentrant
            os.write(2, b"\nStopping at the next clean point; once more to stop at once.\n")

    def _note(self, number: int) -> None:
        self.requested, self.exit_status = True, 128 + number
        outer = getattr(self._before.get(number), "__self__", None)
        if isinstance(outer, Interrupt):
            outer._note(number)
