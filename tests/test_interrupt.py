"""Interrupts: the first signal asks to stop, the second stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nas.runs.interrupt import Interrupt, Stopped

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_the_first_signal_asks_and_the_second_stops(number: int, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        assert not interrupt.requested
        assert interrupt.exit_status == 0
        os.kill(os.getpid(), number)
        assert interrupt.requested
        assert interrupt.exit_status == status
        assert "once more to stop at once" in capfd.readouterr().err
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) is before


def test_outside_the_main_thread_an_interrupt_does_nothing() -> None:
    before, failures = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        try:
            with Interrupt() as interrupt:
                assert not interrupt.requested
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not failures
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_what_was_stopped_ends_with_the_status_of_its_signal(number: int, status: int) -> None:
    with pytest.raises(Stopped) as stopped, Interrupt():
        os.kill(os.getpid(), number)
        raise Stopped("search stopped after 3 of 9 evaluations")
    assert stopped.value.exit_status == status


# Ctrl-C comes in the middle of the imports.
PRESSED = """
import os, runpy, signal, sys, time
class Pressed:
    def find_spec(name, *_):
        if name == "nas.commands.command_line":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
sys.meta_path.insert(0, Pressed)
"""


@pytest.mark.parametrize(
    "start",
    ["from nas.__main__ import main; sys.exit(main())", "runpy.run_module('nas', run_name='__main__')"],
    ids=["hybrid-nas", "-m nas"],
)
def test_ctrl_c_while_an_installed_command_is_imported_ends_it_quietly(start: str) -> None:
    command, usual = [sys.executable, "-c", PRESSED + start, "presets"], lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, preexec_fn=usual, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.whole
@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.6, 1.2])
def test_ctrl_c_while_a_command_starts_ends_it_quietly(seconds: float, tmp_path: Path) -> None:
    launch = Path(__file__).parents[1] / "launch.py"
    as_from_a_terminal = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - a shell's background job ignores it
    command, pipe = [sys.executable, launch, "train"], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, preexec_fn=as_from_a_terminal) as started:
        time.sleep(seconds)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=60)
    assert started.returncode in (-signal.SIGINT, 130) and "Traceback" not in out + err
