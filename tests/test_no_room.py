"""A disk that is full, and a folder that may only be read, while a command writes: one line, what was there stays, and the same command goes on;
and memory that runs out at one network.

The disk is a small one of its own, in memory; it is filled, or turned into one to read from, in the moment before a file is written.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome, run, succeed
from endings import BUDGET, RECIPE, SPACE, end, studies
from faults import happened
from recording import write_images
from studies import stored

from nas.networks.architecture import Frame, read_architecture
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import Run
from nas.spaces.supernet import Supernet

WITH = "--device cpu --data {images} --recipe plain.yaml --space tiny.yaml --loaders 1 --run found"
LINES = {
    "train": f"train {WITH} --budget {BUDGET}",
    "search": f"search {WITH} --budget {BUDGET}",
    "retrain": "retrain runs/best.yaml --device cpu --recipe plain.yaml --loaders 1 --run trained",
}
# By what is written: the command, what writes it, and before which of its calls there is no room any more.
WRITTEN = {
    "run.yaml": ("train", "nas.runs.folder:write_yaml", 1),
    "a first checkpoint": ("train", "nas.training.loop:save_checkpoint", 1),
    "a later checkpoint": ("train", "nas.training.loop:save_checkpoint", 2),
    "the log": ("train", "nas.runs.folder:Run.log", 7),
    "a new study": ("search", "nas.searching.search_run:open_study", 1),
    "a trial": ("search", "nas.searching.optuna_study:OptunaStudy.tell", 5),
    "a baseline": ("search", "nas.searching.search_run:write_architecture", 2),
    "the winner": ("search", "nas.searching.search_run:digest", 1),
    "best.yaml": ("search", "nas.runs.records:winner_path", 2),
    "a checkpoint of a retraining": ("retrain", "nas.training.loop:save_checkpoint", 2),
    "weights": ("retrain", "nas.training.train_network:save_network", 1),
    "result.yaml": ("retrain", "nas.runs.records:write_architecture", 1),
}
OFTEN = ("a later checkpoint", "best.yaml")  # the others in the slow suite
AFTER = {"train": None, "search": "train", "retrain": "search"}


@pytest.fixture(scope="module", autouse=True)
def often() -> Iterator[None]:
    """Checkpoints as often as may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.training.loop.CHECKPOINT_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, Path]:
    """By command, a folder after it; by None one before all."""
    folder = tmp_path_factory.mktemp("whole")
    images = write_images(folder / "images")
    (folder / "none").mkdir()
    (folder / "none/tiny.yaml").write_text(SPACE)
    (folder / "none/plain.yaml").write_text(RECIPE)
    found: dict[str | None, Path] = {None: folder / "none"}
    for name, line in LINES.items():
        found[name] = shutil.copytree(found[AFTER[name]], folder / name)
        LINES[name] = line.format(images=images)
        succeed(LINES[name], found[name])
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], capture_output=True).returncode:
        pytest.skip("nobody but root may mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """For files that are opened from now on."""
    runs = disk / "runs"
    runs.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", runs, runs], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", runs], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", runs], check=True)


FAULTS = {"disk full": full, "read-only folder": read_only}


def content(disk: Path) -> dict[str, Any]:
    """Of all that is in the runs, by file; of studies what they hold: their files change as they are closed."""
    files = (path for path in disk.glob("runs/**/*") if path.is_file() and path.name != ".lock" and not path.name.startswith("study.db-"))
    return {str(path.relative_to(disk)): studies(path) if path.suffix == ".db" else path.read_bytes() for path in files}


def assert_kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Every file is as it was; what grows, a log or a study, may have grown."""
    for file, was in before.items():
        if file.endswith(".db"):
            assert all(after[file][study][1][: len(trials)] == trials for study, (_, trials) in was.items()), file
        elif file.endswith(".jsonl") or "/events/" in file:
            assert after[file].startswith(was), file
        else:
            assert after[file] == was, file


def without_room(
    line: str, disk: Path, fault: Callable[[Path], contextlib.AbstractContextManager[None]], target: str, call: int
) -> tuple[Outcome, dict[str, Any]]:
    """Runs a command on the disk, which the fault meets before the target is called for the n-th time; and what was there then."""
    module, _, path = target.partition(":")
    owner, _, name = path.rpartition(".")
    place: Any = importlib.import_module(module)
    place = getattr(place, owner) if owner else place
    real, calls, before = getattr(place, name), iter(range(1, 10_000)), dict[str, Any]()
    with contextlib.ExitStack() as held, pytest.MonkeyPatch.context() as patch:

        def met(*arguments: Any, **named: Any) -> Any:
            if next(calls) == call:
                before.update(content(disk))
                held.enter_context(fault(disk))
            return real(*arguments, **named)

        patch.setattr(place, name, met)
        outcome = run(line, disk)
        assert next(calls) > call, "the fault did not come"
    return outcome, before


KIND = {"train": ("supernet", "found/supernet.pt"), "retrain": ("retrain", "trained/checkpoint.pt")}


def steps_done(disk: Path, name: str) -> tuple[int, list[int]]:
    """Of the training that a command is: how many its checkpoint has, and all that its log has."""
    if name not in KIND:
        return 0, []
    kind, file = KIND[name]
    state = load_checkpoint(disk / "runs" / file)
    return state["step"] if state else 0, [line["step"] for line in Run(Path(file).parts[0], disk / "runs").metrics(kind)]


def goes_on_with_room(written: str, fault: str, disk: Path, whole: dict[str | None, Path], capfd: pytest.CaptureFixture[str]) -> None:
    name, target, call = WRITTEN[written]
    shutil.copytree(whole[AFTER[name]], disk, dirs_exist_ok=True)
    if name == "search":
        for file in ("runs/best.yaml", "runs/found/best.yaml"):
            (disk / file).write_text("the winner of an earlier search")
    outcome, before = without_room(LINES[name], disk, FAULTS[fault], target, call)
    assert_kept(before, content(disk))
    said = outcome.err + capfd.readouterr().err
    assert outcome.status == 2 and "Traceback" not in said and "Exception" not in said, said
    (last,) = [line for line in said.splitlines() if line.startswith("launch.py: ")]
    why = ("No space left", "full", "ead-only", "readonly", "Check free space and permissions")  # of a new file SQLite says no more
    assert "runs/" in last and last.endswith(".") and any(words in last for words in why), last
    assert not list(disk.glob("runs/**/.*.tmp")), "what was begun is gone"
    done, log = steps_done(disk, name)
    succeed(LINES[name], disk)
    assert steps_done(disk, name)[1][len(log) :] == ([*range(done + 1, 31)] if name in KIND else []), "nothing is done again"
    finished, expected = end(disk), end(whole[name])
    assert finished.keys() == expected.keys()
    for file in expected:
        assert finished[file] == expected[file], file
    happened(fault, f"{name}, at {written}", "one line, status 2; the file before is whole; the same command ends as if uninterrupted")


@pytest.mark.whole
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("written", OFTEN)
def test_without_room_it_is_one_line_and_the_same_command_goes_on(
    written: str, fault: str, disk: Path, whole: dict[str | None, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    goes_on_with_room(written, fault, disk, whole, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("written", [each for each in WRITTEN if each not in OFTEN])
def test_whatever_is_written_without_room_the_same_command_goes_on(
    written: str, fault: str, disk: Path, whole: dict[str | None, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    goes_on_with_room(written, fault, disk, whole, capfd)


@pytest.mark.whole
@pytest.mark.parametrize(
    "ended", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out_at_one_network_is_its_failure_and_the_search_goes_on(
    ended: Exception, whole: dict[str | None, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the winner that there was: there is another one, and the trials before are as they were."""
    folder, study = shutil.copytree(whole["train"], tmp_path / "here"), f"{BUDGET}-evolution"
    best = read_architecture(whole["search"] / "runs/best.yaml")[0].at(Frame(16, 1, 4))
    real = Supernet.forward

    def forward(self: Supernet, images: Any, architecture: Any, **how: Any) -> Any:
        if architecture.key == best.key:
            raise ended
        return real(self, images, architecture, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Supernet, "forward", forward)
        real_subnet = Supernet.subnet
        patch.setattr(Supernet, "subnet", lambda self, each: fails(ended) if each.key == best.key else real_subnet(self, each))
        succeed(LINES["search"], folder)
    assert read_architecture(folder / "runs/best.yaml")[0].key != read_architecture(whole["search"] / "runs/best.yaml")[0].key
    with stored(folder / "runs/found/study.db", study) as found:
        failed = [each for each in found.trials if each.state.name == "FAIL"]
        assert {each.user_attrs["failure"] for each in failed} == {"out of memory"} and len(
            {each.user_attrs["arch_key"] for each in failed}
        ) == 1
        assert sum(each.state.name == "COMPLETE" for each in found.trials) >= 8
    happened("out of memory at one network", "search", "the network is recorded as failed with its reason; the search goes on")


def fails(error: Exception) -> Any:
    raise error
