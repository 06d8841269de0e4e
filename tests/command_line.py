"""Runs the command line in the process of the tests."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import launch


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def run(line: str, folder: Path) -> Outcome:
    """One command, in this process (a new one takes seconds to import torch)."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["launch.py", *shlex.split(line)])
        patch.chdir(folder)
        try:
            status: Any = launch.main()
        except SystemExit as ended:
            status = ended.code
    return Outcome(status, out.getvalue(), err.getvalue())


def succeed(line: str, folder: Path) -> str:
    outcome = run(line, folder)
    assert outcome.status == 0, outcome
    return outcome.out


def refused(line: str, folder: Path) -> str:
    """The one line on stderr of a command that must end with status 2."""
    outcome = run(line, folder)
    assert outcome.status == 2, outcome
    assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("launch.py: "), outcome.err
    return outcome.err
