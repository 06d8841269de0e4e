"""What this machine offers, and how this program was started on it."""

import os
import shlex
import sys
from pathlib import Path


def cores() -> int:
    """Cores this process may use."""
    # Not everywhere (macOS has no affinity); where it is, a container or `taskset` may allow fewer cores than there are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def let_threads_sleep() -> None:
    """Lets OpenMP's threads spin only shortly while they wait for each other, then sleep: spinning on, a training collapses on a shared machine.

    Of what was measured (docs/results.md) 4,000 turns lose little both on an idle machine and on a shared one. Acts on what is loaded afterwards,
    torch among it, and only where the user has said nothing.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "4000"


def program() -> str:
    """How this program was started: `python launch.py`, `python -m nas` or `hybrid-nas`."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m nas"
    return f"python {shlex.quote(str(called))}" if called.suffix == ".py" else called.name


def pasted(*words: object) -> str:
    """A command line of this program, to be pasted into a shell."""
    return f"{program()} {shlex.join(map(str, words))}"
