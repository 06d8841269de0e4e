"""How every command is started, and how every mistake ends: with one line and exit status 2."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import NoReturn

import click

from nas import __version__
from nas.machine import let_threads_sleep, place_among_processes, program
from nas.runs.interrupt import Stopped

HELP = """Find, under a budget, the image network whose mix of token mixers is best, and train it from scratch.

\b
    {program} search --budget 4.5GFLOPs
    {program} retrain runs/best.yaml

FLOPs are counted as the papers count them: a multiply-add is one, so 4.5GFLOPs and 4.5GMACs are the same budget. With no --data the images
are scikit-learn's digits: that shows the machine working; --data gives a ranking that means something."""


TOGETHER = ("train", "retrain")  # commands that several processes of torchrun run together


def run(commands: Iterable[click.Command]) -> int:
    """Runs the command that `sys.argv` names; the exit status."""
    let_threads_sleep()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file or a class may be bytes that are no text
    known = {str(command.name): command for command in commands}
    group = click.Group("hybrid-nas", known, help=HELP.format(program=program()), no_args_is_help=False)
    version = click.version_option(__version__, "--version", message=f"hybrid-nas {__version__}")
    try:
        _one_for_each(known)
        with _ending_at_once():
            return version(group).main(prog_name=program().split()[-1], standalone_mode=False) or 0
    except click.ClickException as error:
        _fail(_finished(error), by_all=True)
    except Stopped as stop:
        then, stream = ("continues", sys.stdout) if stop.continues else ("begins again", sys.stderr)  # on stdout are answers
        print(f"{str(stop)[0].upper()}{str(stop)[1:]}; the same command {then}.", file=stream, flush=True)
        return stop.exit_status
    except (KeyboardInterrupt, click.Abort):
        print(f"{_name()}: stopped; the same command continues.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if os.environ.get("NAS_TRACEBACK"):  # for whoever looks for a fault in the program
            raise
        _fail(str(error))
    except (RuntimeError, MemoryError) as error:
        # torch's is named only, so that torch is not imported here; a CPU's is a plain RuntimeError
        if type(error).__name__ not in ("OutOfMemoryError", "MemoryError") and "DefaultCPUAllocator" not in str(error):
            raise
        if " Take " in str(error):  # says what to do itself
            _fail(str(error))
        wanted = re.search(r"tried to allocate [\d.]+ ?\w+", str(error), re.IGNORECASE)
        said = wanted[0] if wanted else str(error).split(". ")[0]
        fewer = "fewer images at a time (batch_size under search in the recipe), or with another --run NAME a lower --resolution"
        _fail(f"out of memory: {said}. Take {fewer}.")


def _one_for_each(known: Iterable[str]) -> None:
    """Refuses to run a command several times at once."""
    _, count = place_among_processes()
    if count == 1:
        return
    command = next((word for word in sys.argv[1:] if word in known), "")
    if command and command not in TOGETHER:
        got = f"got {count} processes of a launcher (RANK and WORLD_SIZE in the environment)"
        _fail(f"{command}: runs once: {got}; accepted: {' and '.join(TOGETHER)} together. Start it alone, or unset both.", by_all=True)


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Ctrl-C ends the process, without a traceback, wherever no `Interrupt` has something to leave in order."""
    usual = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _finished(error: click.ClickException) -> str:
    """click's message with the command's name before it and what is accepted behind it."""
    context = getattr(error, "ctx", None)
    command = f"{context.info_name} " if context is not None and context.parent is not None else ""
    said = error.format_message().strip().rstrip(".")
    said = f"{command.strip()}{': ' if command else ''}{said[:1].lower()}{said[1:]}"
    accepted = _accepted(error)
    end = f"; accepted: {accepted.rstrip('.')}." if accepted else "" if said.endswith("?") else "."
    return f"{said}{end} See {_name()} {command}--help."


def _accepted(error: click.ClickException) -> str:
    """What the place of a mistake takes, where click does not say it."""
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return getattr(error.param, "help", None) or f"a word for {error.param.human_readable_name}"
    context = getattr(error, "ctx", None)
    if context is not None and context.parent is None and not isinstance(error, click.NoSuchOption):
        return ", ".join(context.command.commands)
    return ""


def _name() -> str:
    return program().split()[-1]


def _fail(message: str, by_all: bool = False) -> NoReturn:
    """Ends with a message; where all of several processes fail in the same way, the first one says it."""
    if not by_all or place_among_processes()[0] == 0:
        print(f"{_name()}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
