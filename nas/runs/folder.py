"""Run folders: where a run keeps its provenance, metrics and checkpoints, and how it survives being interrupted.

    runs/<name>/run.yaml        what was run, by which command, on which machine, with which versions
    runs/<name>/metrics.jsonl   one JSON object a line, appended as things happen
    runs/<name>/.lock           held while a process writes to the run

Nothing here can be lost to a kill: files are written beside their place and renamed, the log is only ever appended to.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.yaml_files import read_yaml, write_yaml

if TYPE_CHECKING:
    pass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PACKAGES = ("torch", "torchvision", "timm", "optuna", "ray", "numpy")

# A forked child inherits the lock's descriptor and would hold the lock on after its parent was killed.
_held_locks: set[int] = set()


def _drop_inherited_locks() -> None:
    while _held_locks:
        os.close(_held_locks.pop())


os.register_at_fork(after_in_child=_drop_inherited_locks)


class Run:
    """One folder under the root. Making a Run checks the name and touches nothing; the first thing written makes the folder.

    Attributes:
        name: the folder's name.
        folder: its path.
    """

    def __init__(self, name: str, root: Path = Path("runs")) -> None:
        """Checks that the name is one folder in the root.

        Raises:
            ValueError: a name that is not a plain file name, that leaves the root through a link, or that is a file.
        """
        if not _NAME.fullmatch(name):
            accepted = "1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
            raise _error(f"--run: not a run name: got {name[:80]!r}; accepted: {accepted}. Choose another name.")
        self.name = name
        self.folder = Path(root) / name
        try:
            if self.folder.resolve().parent != Path(root).resolve():
                raise _error(f"--run: leaves {root}: got {name!r}, a link to {self.folder.resolve()}; accepted: a folder in {root}.")
            if self.folder.exists() and not self.folder.is_dir():
                raise _error(f"--run: not a folder: got {name!r}, but {self.folder} is a file. Choose another name.")
        except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError up to Python 3.12
            raise _error(f"--run: {self.folder} cannot be reached: {error}. Choose another name.") from None
        self._invocation_recorded = False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; ends with the process, however that dies. Not to be taken twice.

        Raises:
            ValueError: another process holds it; says which.
        """
        path = self.folder / ".lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _error(f"{path}: cannot be written: {error.strerror}. Check the permissions of {self.folder.parent}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise _error(f"{path}: cannot be locked: {error.strerror}. Keep runs on a local disk.") from None
            raise _error(f"{self.folder}: in use by {holder}. Wait for it, stop it, or choose another name with --run.") from None
        _held_locks.add(descriptor)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()} since {now()}: {_command()[:1000]}".encode(), 0)
            yield
        finally:
            if descriptor in _held_locks:  # not in a forked child, which has closed its copy
                _held_locks.discard(descriptor)
                os.close(descriptor)  # the file stays: removing it would let two processes lock two files of one name

    def record(self, **what: Any) -> None:
        """Merges entries into ``run.yaml``; the first call of a process also adds its provenance to ``invocations``.

        Args:
            what: plain values by name, such as ``seed=0`` or ``finished=now()``; an entry of the same name is replaced.
        """
        data = self.recorded() or {"format": "run 1", "name": self.name}
        invocations = list(data.pop("invocations", None) or [])
        if not self._invocation_recorded:
            invocations.append(provenance())
            self._invocation_recorded = True
        write_yaml(self.folder / "run.yaml", {**data, **what, "invocations": invocations})

    def recorded(self) -> dict[str, Any]:
        """What ``run.yaml`` holds; empty when there is none yet."""
        path = self.folder / "run.yaml"
        return read_yaml(path, format="run 1") if path.exists() else {}

    def log(self, kind: str, **numbers: Any) -> None:
        """Appends one line to ``metrics.jsonl``: the kind, the time, the numbers. What is not finite is written as null."""
        finite = {name: None if isinstance(number, float) and not math.isfinite(number) else number for name, number in numbers.items()}
        line = json.dumps({"kind": kind, "time": now(), **finite}, default=float).encode() + b"\n"
        path = self.folder / "metrics.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a killed process left half a line: it must not swallow this one
                        line = b"\n" + line
                file.write(line)
        except OSError as error:
            raise _error(f"{path}: cannot be written: {error.strerror}. Make room, then run the same command to continue.") from None

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``, all or of one kind, in order; torn lines are left out. A resumed run repeats some steps."""
        path = self.folder / "metrics.jsonl"
        lines = []
        for text in path.read_bytes().split(b"\n") if path.exists() else []:
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict) and kind in (None, line.get("kind")):
                    lines.append(line)
        return lines


# ---------------------------------------------------------------------------------------------------- provenance


def now() -> str:
    """The time in UTC, to the second: ``2026-01-31T12:00:00+00:00``."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """What a stranger needs to repeat this: command, time, versions, host and, in a git checkout, the revision. Never fails."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    host = {"name": platform.node(), "system": platform.platform(), "cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0))}
    found: dict[str, Any] = {"command": _command(), "started": now(), "versions": versions, "host": host}
    revision = _git_revision()
    return {**found, "revision": revision} if revision else found


def _command() -> str:
    return shlex.join(sys.argv).encode(errors="replace").decode()  # bytes in a path that are no UTF-8


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # installed packages may lie in somebody else's repository
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None


def _error(message: str) -> ValueError:
    return ValueError(" ".join(message.splitlines()))
