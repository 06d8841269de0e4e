"""Machines that are not as one expects: a clock that is set back, no home, hardly any shared memory, few open files; and signals that warn.

Each command runs in a process of its own, which makes its surroundings so. It ends as everywhere, or says in a line what it needs.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from endings import BUDGET, RECIPE, SPACE, end
from faults import happened
from image_files import write_parquet
from often import often
from processes import REPOSITORY, forks
from recording import write_images

CODE = """
import os, signal, sys, threading, time
out = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(out, 1), os.dup2(out, 2)
os.environ["PYTHONPATH"] = {path!r}
import launch
{hook}
sys.argv = ["launch.py", *{words!r}]
sys.exit(launch.main())
"""
# The clock of all that asks for the time goes back by an hour after the so many-th question; what measures how long something takes goes on.
BACK = """
import datetime, nas.runs.folder, nas.searching.optuna_study, nas.searching.fidelity
asked, real_time = [0], time.time
def back():
    asked[0] += 1
    return -3600.0 if asked[0] > 20 else 0.0
time.time = lambda: real_time() + back()
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(seconds=back())
class Module:
    datetime, UTC, timedelta = Clock, datetime.UTC, datetime.timedelta
for module in (nas.runs.folder, nas.searching.optuna_study, nas.searching.fidelity):
    module.datetime = Module
"""
NO_HOME = """
for name in ("HF_DATASETS_CACHE", "HF_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
"""
# A mount of its own, which ends with the process: nothing of it is seen outside.
TINY_SHM = """
import ctypes, subprocess
assert ctypes.CDLL(None).unshare(0x20000) == 0, "nobody but root has mounts of his own"
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size={size}", "none", "/dev/shm"], check=True)
"""
NO_SHM = TINY_SHM.format(size="4k") + 'subprocess.run(["mount", "-o", "remount,ro", "/dev/shm"], check=True)\n'
FEW_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
# Images are streamed by processes, as those of a large set are.
STREAMED = "from nas.data.sources import DataSource\nDataSource.load.__defaults__ = (None, 0, *DataSource.load.__defaults__[2:])\n"

SURROUNDINGS = {
    "clock set back by an hour": BACK,
    "no HOME": NO_HOME + "os.environ.pop('HOME', None)\n",
    "HOME read-only": NO_HOME + "os.environ['HOME'] = '/proc'\n",  # where root cannot write either
    "/dev/shm of 64 kB": TINY_SHM.format(size="64k"),
    "no /dev/shm": NO_SHM,
    "64 open files": FEW_FILES,
}
WITH = "--device cpu --data {images} --recipe plain.yaml --space tiny.yaml --loaders 2 --run found"
COMMANDS = {
    "train": (None, f"train {WITH} --budget {BUDGET}", ""),
    "train, streamed": (None, f"train {WITH} --budget {BUDGET}", STREAMED),
    "train on Parquet files": (None, f"train {WITH} --budget {BUDGET}".replace("{images}", "{images}/rows"), ""),
    "search": ("train", f"search {WITH} --budget {BUDGET}", ""),
    "search --workers 1": ("train", f"search {WITH} --budget {BUDGET} --workers 1", ""),
    "retrain": ("search", "retrain runs/best.yaml --device cpu --recipe plain.yaml --loaders 2 --run trained", ""),
    "report": ("search", "report found", ""),
    "search --finalists 1": ("search", f"search {WITH} --budget {BUDGET} --finalists 1", ""),
    "fidelity": ("train", f"fidelity {WITH} --budget {BUDGET} --networks 10 --alone-epochs 0.5", ""),
    "compare": (
        "search",
        "compare runs/best.yaml --device cpu --recipe plain.yaml --loaders 2 --steps 6 --random 1 --seeds 1 --run compared",
        "",
    ),
}
WARNED_ALONE = ("fidelity", "compare")  # commands that nothing but signals is tried on here


class Ended(NamedTuple):
    status: int
    said: str
    folder: Path


Runs = Callable[..., Ended]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Runs a command by its name in a folder that the one before it has left, or in the given one."""
    base, done = tmp_path_factory.mktemp("surroundings"), dict[str, Path]()
    images = write_images(base / "images")
    (images / "rows").mkdir()
    for split, count in (("train", 60), ("test", 12)):
        write_parquet(images / "rows" / f"{split}.parquet", [0, 1, 2, 3] * (count // 4), ["a", "b", "c", "d"])
    images.joinpath("rows").rename(base / "rows")

    with forks() as fork:

        def begin(name: str | None, folder: Path) -> Path:
            if name is not None:
                return shutil.copytree(usual(name).folder, folder)
            folder.mkdir()
            (folder / "tiny.yaml").write_text(SPACE.replace("channels: 1", "channels: 3") if "Parquet" in folder.name else SPACE)
            (folder / "plain.yaml").write_text(RECIPE)
            return folder

        def usual(name: str) -> Ended:
            if name not in done:
                ended = run(name, begin(COMMANDS[name][0], base / name.replace(" ", "_")))
                assert ended.status == 0, ended
                done[name] = ended.folder
            return Ended(0, "", done[name])

        def run(name: str, folder: Path, hook: str = "") -> Ended:
            _, line, always = COMMANDS[name]
            words = line.format(images=images).replace("images/rows", "rows").split()
            path = f"{REPOSITORY}:{REPOSITORY}/tests"
            status = fork(CODE.format(path=path, hook=always + hook, words=words), folder)
            return Ended(status, (folder / "said").read_text(), folder)

        def either(name: str, folder: Path | None = None, hook: str = "") -> Ended:
            if folder is None:
                return usual(name)
            return run(name, folder if folder.exists() else begin(COMMANDS[name][0], folder), hook)

        yield either


def assert_works_or_says_why(runs: Runs, name: str, surroundings: str, folder: Path) -> None:
    ended = runs(name, folder, SURROUNDINGS[surroundings])
    assert "Traceback" not in ended.said and "Exception" not in ended.said, ended.said
    assert ended.status in (0, 2), ended
    if ended.status == 2:
        (last,) = [line for line in ended.said.splitlines() if line.startswith("launch.py: ")]
        assert last.endswith((".", "?")) and "got" in last and any(word in last for word in surroundings.split() if len(word) > 2), last
        assert runs(name, folder).status == 0, "where all is as usual the same command goes on"
    finished, expected = end(folder), end(runs(name).folder)
    assert finished.keys() == expected.keys()
    for file in expected:
        assert finished[file] == expected[file], file
    happened(surroundings, name, "works, with the same end" if ended.status == 0 else "one line says what it needs; then it goes on")


@pytest.mark.whole
@pytest.mark.parametrize("surroundings", often(SURROUNDINGS, lambda name: name in ("HOME read-only", "64 open files")))
def test_it_works_or_says_what_it_needs(surroundings: str, runs: Runs, tmp_path: Path) -> None:
    assert_works_or_says_why(runs, "train, streamed", surroundings, tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train, streamed", *WARNED_ALONE)])
def test_every_command_works_or_says_what_it_needs(name: str, surroundings: str, runs: Runs, tmp_path: Path) -> None:
    assert_works_or_says_why(runs, name, surroundings, tmp_path / ("Parquet" if "Parquet" in name else "here"))


# ---- signals that warn ---------------------------------------------------------------------------------------------------

SECONDS = (
    30.0  # what a cluster leaves at least between its warning and the end; a step takes milliseconds here, and the machine may be busy
)
# Before the so many-th line of the log.
WARNED = """
from nas.runs.folder import Run
real, calls = Run.log, [0]
def log(self, kind, **more):
    calls[0] += 1
    if calls[0] == {after}:
        open("warned", "w").close()
        os.kill(os.getpid(), {number})
    return real(self, kind, **more)
Run.log = log
"""


# Before the so many-th trial is told.
TOLD = """
from nas.searching.optuna_study import OptunaStudy
real, calls = OptunaStudy.tell, [0]
def tell(self, trial):
    calls[0] += 1
    if calls[0] == {after}:
        open("warned", "w").close()
        os.kill(os.getpid(), {number})
    return real(self, trial)
OptunaStudy.tell = tell
"""
# Once a worker has logged a training.
BESIDE_WARNED = """
import glob, threading
def warn():
    while not glob.glob("runs/*/alone/*/metrics.jsonl"):
        time.sleep(0.02)
    open("warned", "w").close()
    os.kill(os.getpid(), {number})
threading.Thread(target=warn, daemon=True).start()
"""
# The same to every process of the command, as a batch system does it.
ALL_WARNED = "os.setsid()\n" + BESIDE_WARNED.replace("os.kill(os.getpid(), ", "os.killpg(0, ")


def assert_stops_in_time(runs: Runs, name: str, number: signal.Signals, folder: Path, after: int = 7, warned: str = WARNED) -> None:
    """With a checkpoint, and a status that says which signal came; then it ends as if uninterrupted."""
    ended = runs(name, folder, warned.format(after=after, number=int(number)))
    seconds = time.time() - (folder / "warned").stat().st_mtime
    assert ended.status == 128 + number and "the same command continues." in ended.said and seconds < SECONDS, ended
    assert runs(name, folder).status == 0
    finished, expected = end(folder), end(runs(name).folder)
    assert finished.keys() == expected.keys()
    for file in expected:
        assert finished[file] == expected[file], file
    happened(number.name, name, f"stops at once with a checkpoint, status {128 + number}; the same command ends as if uninterrupted")


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


@pytest.mark.whole
@pytest.mark.parametrize("number", often(SIGNALS, signal.SIGUSR1.__eq__))
def test_a_warned_command_stops_with_a_checkpoint_and_goes_on(number: signal.Signals, runs: Runs, tmp_path: Path) -> None:
    assert_stops_in_time(runs, "train", number, tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("name", "after", "warned"),
    [
        ("retrain", 7, WARNED),
        ("search", 3, TOLD),
        ("search --workers 1", 3, TOLD),
        ("search --finalists 1", 3, WARNED),
        ("fidelity", 0, BESIDE_WARNED),
        ("compare", 0, BESIDE_WARNED),
    ],
    ids=lambda each: each if isinstance(each, str) and len(each) < 30 else "",
)
def test_every_warned_command_stops_and_goes_on(
    name: str, after: int, warned: str, number: signal.Signals, runs: Runs, tmp_path: Path
) -> None:
    assert_stops_in_time(runs, name, number, tmp_path / "here", after, warned)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_warning_to_all_processes_of_a_command_stops_it_in_order_too(number: signal.Signals, runs: Runs, tmp_path: Path) -> None:
    """Ray's among them, which would be gone at once."""
    assert_stops_in_time(runs, "search --finalists 1", number, tmp_path / "here", warned=ALL_WARNED)


# ---- two of one run ------------------------------------------------------------------------------------------------------

# Before the so many-th call of what it does while it holds the run, a command is begun a second time, in a process of its own.
TWICE = """
import importlib
place = getattr(importlib.import_module({module!r}), {owner!r})
real, calls = getattr(place, {name!r}), [0]
def second(self, *given, **more):
    calls[0] += 1
    if calls[0] == {call}:
        if (other := os.fork()) == 0:
            os.dup2(os.open("second", os.O_WRONLY | os.O_CREAT), 2)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            status = 1
            try:
                status = launch.main()
            except SystemExit as ended:
                status = ended.code
            finally:
                sys.stderr.flush()
                os._exit(status)
        open("status", "w").write(str(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])))
    return real(self, *given, **more)
setattr(place, {name!r}, second)
"""
HOLDS = {
    "train": ("nas.runs.folder:Run.log", 5),
    "search": ("nas.searching.optuna_study:OptunaStudy.tell", 3),
    "retrain": ("nas.runs.folder:Run.log", 5),
    "fidelity": ("nas.searching.inherited:FineTuned.evaluation", 3),
    "compare": ("nas.searching.comparison:Comparison.latencies", 1),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", ["train", *(pytest.param(each, marks=pytest.mark.slow) for each in HOLDS if each != "train")])
def test_a_second_process_on_a_run_is_refused_and_the_first_one_ends_as_alone(name: str, runs: Runs, tmp_path: Path) -> None:
    folder, (place, call) = tmp_path / "here", HOLDS[name]
    module, _, path = place.partition(":")
    owner, _, method = path.partition(".")
    assert runs(name, folder, TWICE.format(module=module, owner=owner, name=method, call=call)).status == 0
    assert (folder / "status").read_text() == "2"
    said = (folder / "second").read_text().splitlines()[-1]
    assert said.startswith("launch.py: ") and "in use by process" in said and "give another --run" in said
    assert end(folder) == end(runs(name).folder)
    happened("two processes on one run", name, "the second is refused in one line; the first ends as alone")
