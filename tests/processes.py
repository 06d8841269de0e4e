"""Another Python process, for tests that kill one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


@contextmanager
def another_process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed its first line, `ready`; killed at the end of the block."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


# Imports take a process five seconds: this one has done them, and each piece of code runs in a fork of it.
FORKS = """
import json, os, signal, sys
sys.path[0] = os.getcwd()
import launch, nas.searching.finals, optuna, sklearn.datasets, timm.optim, torch._dynamo
print("ready", flush=True)
for line in sys.stdin:
    code, folder = json.loads(line)
    if (child := os.fork()) == 0:
        signal.alarm(240)
        os.chdir(folder)
        os.dup2(2, 1)
        try:
            exec(code, {})
        finally:
            os._exit(sys.exc_info()[0] is not None)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def forks() -> Iterator[Callable[[str, Path], int]]:
    """Runs a piece of code in a process of its own and a folder: gives its exit status, -9 where it was killed."""
    with another_process(FORKS) as process:

        def run(code: str, folder: Path) -> int:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps([code, str(folder)]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
