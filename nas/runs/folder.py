"""Run folders: where a run keeps its provenance, metrics and checkpoints, and how it survives being interrupted.

    runs/<name>/run.yaml        what was run, by which command, on which machine, with which versions
    runs/<name>/metrics.jsonl   one JSON object a line, appended as things happen
    runs/<name>/.lock           held while a process writes to the run
    runs/<name>/alone/          networks that are trained alone, a folder each, where a run has such

Nothing here can be lost to a kill: files are written beside their place and renamed, the log is only ever appended to.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nas.machine import cores, cpu_model, masked
from nas.yaml_files import did_you_mean, one_line_error, read_yaml, write_yaml

FORMAT = "run 1"
RUNS = Path("runs")  # where runs are, from where a command is started
TRAINED_ALONE = "alone"  # the folder, in that of a run, of networks trained alone
CHECKPOINT, WEIGHTS = "checkpoint.pt", "weights.safetensors"  # of a network's training, in its folder
CHECKSUM_BYTES = 20
_PACKAGES = ("torch", "torchvision", "timm", "optuna", "ray", "numpy")


class InUse(ValueError):
    """Another process holds a run, or leads a study."""


class Run:
    """One folder under the root. Making a Run checks the name and touches nothing; the first thing written makes the folder.

    Attributes:
        name: the folder's name.
        folder: its path.
        writes: whether this process writes; of several that train together one does, and to the others what would write does nothing.
    """

    def __init__(self, name: str, root: Path = RUNS, writes: bool = True) -> None:
        """Raises a ValueError for a name that is not a plain file name, that leaves the root through a link, or that is a file."""
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            accepted = "1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
            raise one_line_error(f"--run: not a run name: got {name[:80]!r}; accepted: {accepted}. Choose another name.")
        self.name, self.writes = name, writes
        self.folder = Path(root) / name
        try:
            inside = self.folder.resolve().parent == Path(root).resolve() and (self.folder.is_dir() or not self.folder.exists())
        except (OSError, RuntimeError):  # a circle of links is a RuntimeError up to Python 3.12
            inside = False
        if not inside:
            raise one_line_error(f"--run: {self.folder} is a file, or a link out of {root}; accepted: a folder in it. Choose another name.")
        self._invocation_recorded = False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; ends with the process, however that dies, also where a forked worker lives on.

        Raises:
            InUse: another process holds it; says which.
            ValueError: it cannot be locked.
        """
        if not self.writes:
            yield
            return
        path = self.folder / ".lock"
        # A soft lock would be a file that a killed process leaves behind.
        lock = FileLock(path, timeout=0, fallback_to_soft=False)
        with contextlib.ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(lock)
                path.write_text(f"process {os.getpid()} on {platform.node()} since {now()}: {_command()[:1000]}")
            except Timeout:
                holder = path.read_text(errors="replace") or "another process"
                said = f"{self.folder}: in use by {holder}. Wait for it, stop it, or give another --run."
                raise InUse(" ".join(said.splitlines())) from None
            except OSError as error:
                advice = "Make room" if error.errno == errno.ENOSPC else "Check permissions, and that its disk knows locks (NFS 4 does)"
                raise one_line_error(f"{path}: cannot be locked: {error.strerror}. {advice}.") from None
            yield

    def record(self, **entries: Any) -> None:
        """Puts plain values by name into ``run.yaml``, in place of those before; the first call also adds to ``invocations`` who writes."""
        if not self.writes:
            return
        data = self.recorded() or {"format": FORMAT, "name": self.name}
        invocations = data.pop("invocations", [])
        if not self._invocation_recorded:
            invocations = [*invocations, provenance()]
            self._invocation_recorded = True
        write_yaml(self.folder / "run.yaml", {**data, **entries, "invocations": invocations})

    def recorded(self) -> dict[str, Any]:
        """What ``run.yaml`` holds, empty when there is none yet; a ValueError of one line when it is no file of a run."""
        path = self.folder / "run.yaml"
        data = read_yaml(path, format=FORMAT) if path.exists() else {}
        if not isinstance(data.get("invocations", []), list):
            raise one_line_error(
                f"{path}: invocations: got {data['invocations']!r}; accepted: a list. Correct it, or delete the entry: it is only a record."
            )
        return data

    def log(self, kind: str, **numbers: Any) -> None:
        """Appends one line to ``metrics.jsonl``: the kind, the time, the numbers, and a checksum. What is not finite is written as null."""
        if not self.writes:
            return
        finite = {name: None if isinstance(number, float) and not math.isfinite(number) else number for name, number in numbers.items()}
        body = json.dumps({"kind": kind, "time": now(), **finite}, default=float).encode()
        line = body[:-1] + _checksum(body) + b"\n"
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
            raise one_line_error(f"{path}: cannot be written: {error.strerror}. Make room; the same command then continues.") from None

    def metrics(self, kind: str | None = None, last_bytes: int | None = None) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``, all or of one kind, in order; torn and changed lines are left out. A resumed run repeats some steps.

        With `last_bytes` only those at the end: a log of a long training takes a while to read.
        """
        path = self.folder / "metrics.jsonl"
        lines = []
        content = b""
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if last_bytes is not None:
                file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
            content = file.read()
        for text in content.split(b"\n"):
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if not isinstance(line, dict) or kind not in (None, line.get("kind")):
                    continue
                # Earlier versions wrote none.
                if line.pop("crc", None) is None or _checksum(text[:-CHECKSUM_BYTES] + b"}") == text[-CHECKSUM_BYTES:]:
                    lines.append(line)
        return lines


def _checksum(body: bytes) -> bytes:
    """What ends a line in place of its last brace: a flipped bit would be another accuracy, or a key that nobody knows."""
    return b', "crc": "%08x"}' % zlib.crc32(body)


def default_name(*parts: str | int) -> str:
    """The name of a run that nobody named, after what is run: data sets, spaces and recipes by their file's or folder's name."""
    plain = [Path(str(part)) for part in parts]
    name = "-".join(part.stem if part.suffix in (".yaml", ".yml") else part.name for part in plain)
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name).lstrip("._-")
    # Cut, a name would lose its recipe and seed, and two runs would become one.
    return safe if len(safe) <= 64 else f"{safe[:55]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def run_folder(given: str) -> Path:
    """The folder of a run that was begun, by its name or its path.

    Raises:
        ValueError: no such run.
    """
    for folder in (Path(given), RUNS / given):
        if (folder / "run.yaml").is_file():
            return folder
    near = did_you_mean(given, (path.parent.name for path in RUNS.glob("*/run.yaml")))
    raise one_line_error(f"{given}: no run: got no run.yaml there; accepted: the name or folder of a run.{near or ' `runs` lists them.'}")


def weights_file(given: str) -> Path:
    """The file of weights that is meant: by its path, or `weights.safetensors` of a run, by the run's folder or name.

    Raises:
        ValueError: no such file or run, or a run that has none; names the weights that a search left there.
    """
    if Path(given).is_file():
        return Path(given)
    folders = [folder for folder in (Path(given), RUNS / given) if folder.is_dir()]
    if not folders and Path(given).exists():  # a pipe would be waited for
        raise one_line_error(
            f"{given}: neither a file nor a folder; accepted: weights, or the name or folder of a run. Name the file itself."
        )
    if not folders:
        near = did_you_mean(given, (*map(str, Path(given).parent.glob("*.safetensors")), *(run.name for run in RUNS.glob("*/"))))
        raise one_line_error(f"{given}: no such file; accepted: weights, or the name or folder of a run.{near or ' Check the path.'}")
    path = min((folder / WEIGHTS for folder in folders), key=lambda each: not each.exists())
    if not path.exists():
        others = sorted(map(str, path.parent.glob("*.safetensors")))
        advice = f"Name {others[0]}, the winner with the supernet's weights, or retrain it." if others else "Retrain a network first."
        raise one_line_error(f"{path}: no such file; accepted: weights, or a run that trained a network to its end. {advice}")
    return path


def told_beside(weights: Path) -> Path:
    """The file beside weights that says of which network they are, if there is one: of a run that trained a network, or of a search's winner."""
    return weights.with_name("result.yaml") if weights.stem == "weights" else weights.with_suffix(".yaml")


def now() -> str:
    """The time in UTC, to the second: ``2026-01-31T12:00:00+00:00``."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """What a stranger needs to repeat this: command, time, versions, host and, in a git checkout, the revision. Never fails."""
    host = {"name": platform.node(), "system": platform.platform(), "cpu": cpu_model(), "cores": cores()}
    revision = _git_revision()
    found = {"command": _command(), "started": now(), "versions": {**_versions()}, "host": host}
    return found | ({"revision": revision} if revision else {})


@functools.cache  # of what runs: what this process imported does not change
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _command() -> str:
    return masked(shlex.join(sys.argv)).encode(errors="replace").decode()  # bytes in a path that are no UTF-8


@functools.cache  # likewise; a search asks several times
def _git_revision() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # Installed packages may lie in somebody else's repository.
        for command in (
            [*git, "ls-files", "--error-unmatch", __file__],
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        ):
            found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        return found or None
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
