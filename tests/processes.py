"""Another Python process, for tests that kill one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

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


@contextmanager
def forked(work: Callable[[], None]) -> Iterator[int]:
    """The number of a process that works beside this one, and has imported what this one has; killed at the end of the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which a test that uses this has not
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(sys.exc_info()[0] is not None)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


# Imports take a process five seconds: this one has done them, and each piece of code runs in a fork of it, which is killed after so many seconds.
FORKS = """
import json, os, signal, sys, time, traceback
sys.path[0] = os.getcwd()
import launch, nas.searching.finals, nas.searching.plan, optuna, sklearn.datasets, tensorboardX, timm.optim, torch._dynamo{also}
print("ready", flush=True)
for line in sys.stdin:
    code, folder, seconds = json.loads(line)
    if (child := os.fork()) == 0:
        signal.alarm(600)
        os.chdir(folder)
        os.dup2(2, 1)
        status = 1
        try:
            exec(code, {{}})
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    end = time.monotonic() + (seconds or 0)
    while seconds and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.001)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def forks(*also: str) -> Iterator[Callable[..., int]]:
    """Runs a piece of code in a process of its own and a folder, and kills it after so many seconds, if it is told: gives its exit status, -9
    where it was killed. `also` are modules that it finds imported."""
    with another_process(FORKS.format(also="".join(f", {name}" for name in also))) as process:

        def run(code: str, folder: Path, seconds: float | None = None) -> int:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps([code, str(folder), seconds]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run


# As torchrun starts them, without its three imports of torch: forks of one process, each with its place in the environment, and what each says in
# a file of its own. The first has the store.
RANKED = """
import json, os, signal, sys, traceback
sys.path[0] = os.getcwd()
sys.path.insert(1, os.path.join(os.getcwd(), "tests"))
import launch, nas.searching.plan, nas.training.ranks, sklearn.datasets, timm.optim, timm.utils, torch._dynamo, torchvision.transforms.v2
print("ready", flush=True)
for line in sys.stdin:
    code, folder, count, store = json.loads(line)
    children = []
    for number in range(count):
        if (child := os.fork()) == 0:
            signal.alarm(240)
            os.chdir(folder)
            places = {"RANK": number, "WORLD_SIZE": count, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": count}
            os.environ |= {**store, **{name: str(place) for name, place in places.items()}}
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{name}{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            status = 1
            try:
                exec(code, {"number": number, "count": count})
                status = 0
            except SystemExit as ended:
                status = ended.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


class Ended(NamedTuple):
    """How processes ended: the exit status of each, -9 where it was killed, and what each said."""

    statuses: list[int]
    out: list[str]
    err: list[str]


@contextmanager
def ranked() -> Iterator[Callable[..., Ended]]:
    """Runs a piece of code, which knows its `number` and the `count`, in several processes that a launcher like torchrun would start.

    With a port the launcher has the store there, as torchrun has."""
    with another_process(RANKED) as process:

        def run(code: str, folder: Path, count: int = 2, port: int | None = None) -> Ended:
            assert process.stdin is not None and process.stdout is not None
            store = {} if port is None else {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                store |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free.getsockname()[1])}
            process.stdin.write(json.dumps([code, str(folder), count, store]) + "\n")
            process.stdin.flush()
            statuses = json.loads(process.stdout.readline())
            said = [[(folder / f"{name}{number}").read_text() for number in range(count)] for name in ("out", "err")]
            return Ended(statuses, *said)

        yield run
