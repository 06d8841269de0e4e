"""Every command that works for long, killed at random moments and at the worst ones: the same command ends as if it had not been.

The kernel ends the process with SIGKILL, at a moment drawn from the length of the same command uninterrupted, or where it writes: before and
after a file is renamed into its place, and before and after a transaction of a study's file. Then the same command runs to its end, and all that it
leaves is compared with what the uninterrupted one left, but for times.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from endings import BUDGET, RECIPE, SPACE, end
from faults import happened
from processes import REPOSITORY, forks
from recording import write_images

from nas.runs.checkpoint import load_checkpoint

KILLS = int(os.environ.get("NAS_KILLS", "20"))  # of each command, at random moments
WITH = "--device cpu --data {images} --recipe plain.yaml --space tiny.yaml --loaders 1 --run found"
# Checkpoints as often as may be; a thousand draws of an interval take ten seconds, and none of them is looked at here.
CODE = """
import itertools, os, signal, sys, functools
import launch, nas.training.loop, nas.searching.fidelity as fidelity
nas.training.loop.CHECKPOINT_SECONDS = 0.0
fidelity.figures_of = functools.partial(fidelity.figures_of, resamples=20)
os.environ |= {environment!r}
{hook}
sys.argv = ["launch.py", *{words!r}]
sys.exit(launch.main())
"""
# The n-th time that something is about to happen, or has just happened; n = 0: only counted.
WORST = """
calls, dies_at, counted = itertools.count(1), {number}, {counted!r}
def dies():
    n = next(calls)
    if not dies_at:
        open(counted, "w").write(str(n))
    elif n == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
"""
PLACES = {
    "before a rename": "real = os.replace\ndef replace(*a, **k):\n    dies()\n    return real(*a, **k)\nos.replace = replace",
    "after a rename": "real = os.replace\ndef replace(*a, **k):\n    real(*a, **k)\n    dies()\nos.replace = replace",
    "before a commit": "import sqlalchemy as s, sqlalchemy.orm\ns.event.listen(s.orm.Session, 'before_commit', lambda session: dies())",
    "after a commit": "import sqlalchemy as s, sqlalchemy.orm\ns.event.listen(s.orm.Session, 'after_commit', lambda session: dies())",
}


# Networks are trained alone one after the other in this process, as Ray's workers train them beside each other: a start of Ray takes ten seconds.
HERE = """
sys.path.insert(1, {tests!r})
import nas.searching.tune
from test_finals import in_this_process
nas.searching.tune.train_beside = in_this_process()
"""


@dataclass(frozen=True)
class Command:
    """A command, the one whose end it begins from, whether it trains networks alone, and whether Ray works for it."""

    line: str
    after: str | None = None
    alone: bool = False
    ray: bool = False


SEARCH = f"search {WITH} --budget {BUDGET}"
FIDELITY = f"fidelity {WITH} --budget {BUDGET} --networks 10 --alone-epochs 0.5"
RETRAINED = "--device cpu --recipe plain.yaml --loaders 1"
COMMANDS = {
    "train": Command(f"train {WITH} --budget {BUDGET}"),
    "search": Command(SEARCH, "train"),
    "retrain": Command(f"retrain runs/best.yaml {RETRAINED} --run trained", "search"),
    "search --finalists 2": Command(f"{SEARCH} --finalists 2", "search", alone=True),
    "fidelity": Command(FIDELITY, "train", alone=True),
    "compare": Command(f"compare runs/best.yaml {RETRAINED} --steps 6 --random 1 --seeds 1 --run compared", "search", alone=True),
}
WITH_RAY = {
    "search --workers 1, with Ray": Command(f"{SEARCH} --workers 1", "train", ray=True),
    "search --finalists 1, with Ray": Command(f"{SEARCH} --finalists 1", "search", ray=True),
    "fidelity, with Ray": Command(FIDELITY, "train", ray=True),
}
EVERY = COMMANDS | WITH_RAY


def told(name: str) -> str:
    """The command, with where it trains networks alone."""
    return f"{name}, in this process" if EVERY[name].alone and not EVERY[name].ray else name


class Ends:
    """What each command leaves when nothing interrupts it, and how long it takes; each is run once."""

    def __init__(self, folder: Path, held: contextlib.ExitStack) -> None:
        self._folder, self._held = folder, held
        self._forks = dict[bool, Callable[..., int]]()  # with Ray imported, which takes long, or without
        self.images = write_images(folder / "images")
        self._empty = folder / "empty"
        self._empty.mkdir()
        (self._empty / "tiny.yaml").write_text(SPACE)
        (self._empty / "plain.yaml").write_text(RECIPE)
        self._done = dict[str, tuple[Path, float]]()

    def begin(self, name: str, folder: Path) -> Path:
        """A folder in which the command can begin."""
        after = EVERY[name].after
        return shutil.copytree(self._empty if after is None else self.of(after)[0], folder, symlinks=True)

    def of(self, name: str) -> tuple[Path, float]:
        if name not in self._done:
            folder = self.begin(name, self._folder / name.replace(" ", "_"))
            begun = time.monotonic()
            assert self.run(name, folder) == 0
            self._done[name] = folder, time.monotonic() - begun
        return self._done[name]

    def run(self, name: str, folder: Path, hook: str = "", seconds: float | None = None) -> int:
        path = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"}
        words = EVERY[name].line.format(images=self.images).split()
        command = EVERY[name]
        heavy = command.ray or command.alone
        if heavy not in self._forks:
            self._forks[heavy] = self._held.enter_context(forks("ray", "nas.searching.tune") if heavy else forks())
        here = HERE.format(tests=str(REPOSITORY / "tests")) if command.alone and not command.ray else ""
        return self._forks[heavy](CODE.format(environment=path, hook=here + hook, words=words), folder, seconds)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    with contextlib.ExitStack() as held:
        yield Ends(tmp_path_factory.mktemp("killed"), held)


# ---- what is the same ------------------------------------------------------------------------------------------------


def steps_left(folder: Path) -> dict[Path, tuple[int, int]]:
    """By the log of each training that has begun and not ended: lines in it, and steps that its checkpoint has done."""
    found = {}
    for path in folder.glob("runs/**/metrics.jsonl"):
        name = {"found": "supernet.pt"}.get(path.parent.name, "checkpoint.pt")
        state = load_checkpoint(path.with_name(name)) if not path.with_name("result.json").exists() else None
        content = path.read_bytes()
        found[path] = content.count(b"\n") + (content[-1:] != b"\n"), state["step"] if state else 0  # the last line may be torn
    return found


def assert_as_uninterrupted(ends: Ends, name: str, folder: Path) -> None:
    """Runs the command to its end: which is that of an uninterrupted one, and no step is done again that a checkpoint had."""
    left = steps_left(folder)
    assert ends.run(name, folder) == 0
    for path, (lines, done) in left.items():
        again = [json.loads(line) for line in path.read_bytes().split(b"\n")[lines:] if line]
        steps = [line["step"] for line in again if line["kind"] in ("supernet", "retrain", "alone")]
        assert steps == list(range(done + 1, done + 1 + len(steps))), f"{path}: {done} steps were done, and then {steps}"
    whole, after = end(ends.of(name)[0]), end(folder)
    assert whole.keys() == after.keys()
    for file in whole:
        assert after[file] == whole[file], file


def assert_nobody_works(folder: Path) -> None:
    """Whoever worked for a command that was killed has ended with it."""
    end = time.monotonic() + 120  # Ray's agents look now and then whether it is there

    def alive() -> list[str]:
        """Who was started there."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and os.readlink(process / "cwd") == str(folder):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    while (left := alive()) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


# ---- killed ----------------------------------------------------------------------------------------------------------


def killed_at_random(ends: Ends, name: str, times: int, tmp_path: Path) -> None:
    """So many times; one that had ended before does not count."""
    _, seconds = ends.of(name)
    rng, done = random.Random(name), 0
    for tries in range(10 * times):
        folder = ends.begin(name, tmp_path / str(tries))
        if ends.run(name, folder, seconds=rng.uniform(0, seconds)) == -signal.SIGKILL:
            assert_nobody_works(folder)
            assert_as_uninterrupted(ends, name, folder)
            happened("SIGKILL at a random moment", told(name), "the same command ends as if uninterrupted, bit for bit")
            done += 1
        shutil.rmtree(folder)
        if done == times:
            return
    pytest.fail(f"killed {done} times only")


def killed_at(ends: Ends, name: str, place: str, hook: str, folder: Path) -> None:
    ends.begin(name, folder)
    assert ends.run(name, folder, hook) == -signal.SIGKILL
    assert_as_uninterrupted(ends, name, folder)
    happened(f"SIGKILL {place}", told(name), "the same command ends as if uninterrupted, bit for bit")
    shutil.rmtree(folder)


def killed_where_it_is_worst(ends: Ends, name: str, place: str, times: int, tmp_path: Path) -> int:
    """Each time at another one of all the calls, the first and the last among them; how many there are."""
    counted = tmp_path / "counted"
    hook = lambda number: WORST.format(number=number, counted=str(counted)) + PLACES[place]  # noqa: E731
    assert ends.run(name, ends.begin(name, tmp_path / "counting"), hook(0)) == 0
    calls = int(counted.read_text()) if counted.exists() else 0
    chosen = {1, calls, *random.Random(name + place).sample(range(1, calls + 1), min(calls, times))} if calls else set()
    for number in sorted(chosen)[: max(times, 2)]:
        killed_at(ends, name, place, hook(number), tmp_path / str(number))
    return calls


@pytest.mark.slow
def test_killed_once_it_ends_as_if_it_had_not_been(ends: Ends, tmp_path: Path) -> None:
    killed_at_random(ends, "search", 1, tmp_path)


@pytest.mark.whole
def test_killed_after_a_checkpoint_it_ends_as_if_it_had_not_been(ends: Ends, tmp_path: Path) -> None:
    """The second one: of the third file that is renamed into its place."""
    hook = WORST.format(number=3, counted="") + PLACES["after a rename"]
    killed_at(ends, "train", "after a rename", hook, tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(name: str, ends: Ends, tmp_path: Path) -> None:
    killed_at_random(ends, name, KILLS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_RAY)
def test_killed_with_its_workers_it_ends_as_if_it_had_not_been(name: str, ends: Ends, tmp_path: Path) -> None:
    killed_at_random(ends, name, max(1, KILLS // 10), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["train", "search", "retrain", "search --finalists 2"])
def test_killed_where_it_writes_it_ends_as_if_it_had_not_been(name: str, place: str, ends: Ends, tmp_path: Path) -> None:
    calls = killed_where_it_is_worst(ends, name, place, max(3, KILLS // 3), tmp_path)
    assert calls > 1 or (name in ("train", "retrain") and "commit" in place)
