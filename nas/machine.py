"""What this machine offers, and how this program was started on it."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import shlex
import sys
import time
from pathlib import Path

DISTURBED = 0.25  # cores that others keep busy, from where on a time is no longer believed


def cores() -> int:
    """Cores this process may use."""
    # Not everywhere (macOS has no affinity); where it is, a container or `taskset` may allow fewer cores than there are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place_among_processes() -> tuple[int, int]:
    """Number of this process and count of all, where torchrun or a like launcher started several for one command; else 0 of 1.

    Raises:
        ValueError: a launcher that says something else.
    """
    said = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")}
    if not all(said.values()):
        return 0, 1
    number, count = (int(each) if each.isdecimal() else -1 for each in said.values())
    if not 0 <= number < count:
        got = ", ".join(f"{name}={each}" for name, each in said.items())
        raise ValueError(
            f"environment: no place among processes: got {got}; accepted: what torchrun sets, RANK below WORLD_SIZE. Unset both."
        )
    return number, count


def cpu_model() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.M)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


@functools.cache  # asked at every step
def cpu_bf16() -> frozenset[str] | None:
    """The processor's instructions for bfloat16, as Linux calls them; None where the system does not tell, as macOS."""
    with contextlib.suppress(OSError):
        told = re.search(r"^(?:flags|Features)\s*: (.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.M)
        return None if told is None else frozenset({"avx512_bf16", "amx_bf16", "bf16"}).intersection(told[1].split())
    return None


class OtherLoad:
    """How many cores other processes kept busy since this was made; Linux alone tells.

    A container's limit is not looked at: what the whole machine does is what disturbs.
    """

    def __init__(self) -> None:
        self._begun = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Seconds of all cores' work, of this process's, and of the clock."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
            return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK"), time.process_time(), time.monotonic()
        return None

    def cores(self) -> float | None:
        """On average; None where the system does not tell."""
        now = self._now()
        if self._begun is None or now is None:
            return None
        whole, own, seconds = (after - before for before, after in zip(self._begun, now, strict=True))
        return max(0.0, whole - own) / seconds if seconds > 0.1 else None


def let_threads_sleep() -> None:
    """Lets OpenMP's threads spin only shortly while they wait for each other, then sleep: spinning on, a training collapses on a shared machine.

    Of what was measured (docs/results.md) 4,000 turns lose little both on an idle machine and on a shared one. Acts on what is loaded afterwards,
    torch among it, and only where the user has said nothing.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "4000"


def program(word: str | None = None) -> str:
    """How this program was started, or is by a command's first word: `python launch.py`, `python -m nas` or `hybrid-nas`."""
    called = Path(sys.argv[0] if word is None else word)
    if called.name == "__main__.py":
        return "python -m nas"
    return f"python {shlex.quote(str(called))}" if called.suffix == ".py" else called.name


def program_digest() -> str:
    """Of this package's files and the version of torch: what machines that work together have to have the same."""
    told, package = hashlib.sha256(importlib.metadata.version("torch").encode()), Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        told.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return told.hexdigest()[:12]


def masked(text: str) -> str:
    """The same without the passwords of addresses in it, such as postgresql://me:secret@host/studies: for whatever is shown or written."""
    text = re.sub(r"(://[^\s:/@]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&](?:\w*password|passwd)=)[^\s&'\"]*", r"\1***", text)


def again(command: str) -> str:
    """A command line as a run recorded it, the same way."""
    word, _, rest = command.partition(" ")
    return f"{program(word)} {rest}"


def deletion(path: Path, others: bool = False) -> str:
    """What deletes a file, and with `others` all whose names begin with its name, to be pasted into a shell."""
    return f"rm {shlex.quote(str(path))}{'*' * others}"


def pasted(*words: object) -> str:
    """A command line of this program, to be pasted into a shell."""
    return f"{program()} {shlex.join(map(str, words))}"
