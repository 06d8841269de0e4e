"""Runs: names stay inside the root, one process writes at a time, and a kill at any moment leaves something to continue from."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from nas.networks.weight_files import load_weights, save_weights
from nas.runs.checkpoint import load_checkpoint, save_checkpoint
from nas.runs.folder import Run, provenance
from nas.runs.interrupt import Interrupt
from nas.yaml_files import read_yaml

REPOSITORY = Path(__file__).parents[1]


def one_line(raised: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(raised.value)
    assert len(message.splitlines()) == 1, message
    return message


# --------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["a", "hybrid-digits-0", "0.5_x", "x" * 64])
def test_plain_names_are_folders_in_the_root_and_making_a_run_touches_nothing(tmp_path: Path, name: str) -> None:
    assert Run(name, tmp_path / "runs").folder == tmp_path / "runs" / name
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/elsewhere", ".hidden", "-x", "a b", "a\n", "é", "x" * 65, "a\x00", "~root"]
)
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a run name") as raised:
        Run(name, tmp_path)
    assert "accepted: 1 to 64 letters" in one_line(raised)


def test_a_link_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "runs" / "circle").symlink_to("circle")
    for name in ("out", "dangling", "circle"):
        with pytest.raises(ValueError, match="--run") as raised:
            Run(name, tmp_path / "runs")
        one_line(raised)
    (tmp_path / "linked-root").symlink_to(tmp_path / "runs")  # the root itself may lie on another disk
    assert Run("inside", tmp_path / "linked-root").name == "inside"


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("")
    with pytest.raises(ValueError, match="is a file") as raised:
        Run("best.yaml", tmp_path)
    one_line(raised)


# --------------------------------------------------------------------------------------------------------- locks


@contextmanager
def another_process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed its first line."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


HOLD = """
import os, sys, time
from pathlib import Path
from nas.runs.folder import Run
with Run("x", Path(sys.argv[1])).lock():
    if sys.argv[2] == "forked" and os.fork() == 0:
        print(os.getpid(), file=open(sys.argv[1] + "/child", "w"), flush=True)
        print("ready", flush=True)
    elif sys.argv[2] == "alone":
        print("ready", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_holds_the_run_and_a_kill_frees_it(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    with another_process(HOLD, tmp_path, "alone") as process:
        with pytest.raises(ValueError, match="in use by process") as raised, run.lock():
            pass
        message = one_line(raised)
        assert f"process {process.pid} on {os.uname().nodename}" in message
        assert f"-c {tmp_path} alone" in message  # its command
        process.kill()
        process.wait()
        with run.lock():
            pass


def test_a_forked_worker_does_not_hold_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    with another_process(HOLD, tmp_path, "forked") as process:
        child = int((tmp_path / "child").read_text())
        try:
            with pytest.raises(ValueError, match=f"in use by process {process.pid} "), Run("x", tmp_path).lock():
                pass
            process.kill()
            process.wait()
            os.kill(child, 0)  # still there
            with Run("x", tmp_path).lock():
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_ends_with_its_block_even_by_an_error(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with run.lock(), pytest.raises(ValueError, match=f"process {os.getpid()} "), run.lock():
        pass
    with run.lock():
        pass


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda run: run.lock().__enter__(), lambda run: run.log("x"), lambda run: run.record(seed=0)):
        with pytest.raises(ValueError, match="cannot be written") as raised:
            write(Run("x", tmp_path / "file"))
        one_line(raised)


# -------------------------------------------------------------------------------------------- provenance, metrics


def test_record_merges_and_adds_the_provenance_once_per_process(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    assert run.recorded() == {}
    run.record(seed=7, space="hybrid")
    run.record(space="cifar", finished="now")
    data = read_yaml(tmp_path / "x" / "run.yaml")
    assert (data["seed"], data["space"], data["finished"]) == (7, "cifar", "now")
    assert len(data["invocations"]) == 1
    Run("x", tmp_path).record()
    again = Run("x", tmp_path).recorded()
    assert again["seed"] == 7
    assert len(again["invocations"]) == 2


def test_provenance_names_command_versions_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    found = provenance()
    assert found["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"command", "started", "versions", "host"} <= set(found)
    assert found["host"]["cores"] >= 1
    monkeypatch.setenv("PATH", "")  # no git
    assert "revision" not in provenance()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    Run("x", tmp_path).record()
    (tmp_path / "x" / "run.yaml").write_text("format: recipe 1\n")
    with pytest.raises(ValueError, match="this is a recipe file") as raised:
        Run("x", tmp_path).record(seed=1)
    assert str(tmp_path / "x" / "run.yaml") in one_line(raised)


def test_metrics_come_back_by_kind_in_order(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    assert run.metrics() == []
    for step in range(3):
        run.log("step", step=step, loss=torch.tensor(0.5) * step)
    run.log("epoch", accuracy=0.5, loss=math.nan, worst=math.inf)
    assert [(line["step"], line["loss"]) for line in run.metrics("step")] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert [line["kind"] for line in run.metrics()] == ["step", "step", "step", "epoch"]
    assert (run.metrics("epoch")[0]["loss"], run.metrics("epoch")[0]["worst"]) == (None, None)  # any JSON reader takes the file


def test_a_torn_line_is_skipped_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    run.log("step", step=0)
    path = tmp_path / "x" / "metrics.jsonl"
    with path.open("ab") as file:
        file.write(b'{"kind": "step", "step": 1, "lo')
    assert [line["step"] for line in run.metrics()] == [0]
    run.log("step", step=2)
    with path.open("ab") as file:
        file.write(b'\xff\xfe\x00\n7\n\n"text"\n')
    run.log("step", step=3)
    assert [line["step"] for line in run.metrics()] == [0, 2, 3]


def test_every_line_of_the_log_is_one_json_object(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    run.log("note", text="two\nlines\u2028and é")
    lines = (tmp_path / "x" / "metrics.jsonl").read_text().split("\n")
    assert len(lines) == 2
    assert json.loads(lines[0])["text"] == "two\nlines\u2028and é"


# --------------------------------------------------------------------------------------------------- checkpoints


def state_of(step: int) -> dict:
    return {"step": step, "weights": {"w": torch.full((64, 64), float(step))}, "rng": torch.get_rng_state(), "losses": [0.5, None, "x"]}


def saved(folder: Path, *steps: int) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for step in steps:
        save_checkpoint(folder / "model.ckpt", state_of(step))
    return folder / "model.ckpt"


def step_of(path: Path) -> int:
    state = load_checkpoint(path)
    assert state is not None
    assert torch.equal(state["weights"]["w"], state_of(state["step"])["weights"]["w"])
    return state["step"]


def cut(path: Path, num_bytes: int) -> None:
    os.truncate(path, num_bytes)


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def test_a_checkpoint_comes_back_whole_and_the_one_before_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert load_checkpoint(tmp_path / "model.ckpt") is None
    path = saved(tmp_path, 1, 2, 3)
    state = load_checkpoint(path)
    assert state is not None
    assert list(state) == list(state_of(3))
    assert torch.equal(state["rng"], state_of(3)["rng"])
    assert sorted(os.listdir(tmp_path)) == ["model.ckpt", "model.ckpt.previous"]
    shutil.copy(tmp_path / "model.ckpt.previous", tmp_path / "copy.ckpt")
    assert step_of(tmp_path / "copy.ckpt") == 2
    assert capfd.readouterr().err == ""


def test_other_tools_read_a_checkpoint_too(tmp_path: Path) -> None:
    assert torch.load(saved(tmp_path, 1), weights_only=True)["step"] == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: cut(path, 0), id="emptied"),
        pytest.param(lambda path: cut(path, 20), id="cut to less than a trailer"),
        pytest.param(lambda path: cut(path, path.stat().st_size // 2), id="cut in half"),
        pytest.param(lambda path: cut(path, path.stat().st_size - 1), id="a byte short"),
        pytest.param(lambda path: flip(path, path.stat().st_size // 2), id="a bit of the content"),
        pytest.param(lambda path: flip(path, -1), id="a bit of the checksum"),
        pytest.param(lambda path: flip(path, -33), id="a bit of the mark"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"more"), id="something behind it"),
        pytest.param(lambda path: path.unlink(), id="removed"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path: Path, capfd: pytest.CaptureFixture[str], damage) -> None:
    path = saved(tmp_path, 1, 2)
    damage(path)
    assert step_of(path) == 1
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"{path}: ")
    assert warning.endswith(f"Using the one before, {path}.previous.")
    # What is damaged must not push out what is good: were the next write cut short, nothing would be left.
    saved(tmp_path, 3)
    assert step_of(path) == 3
    damage(path)
    assert step_of(path) == 1


def test_when_both_are_damaged_the_line_says_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path, 1, 2)
    for file in (path, Path(f"{path}.previous")):
        flip(file, 100)
    with pytest.raises(ValueError, match="the checksum does not match") as raised:
        load_checkpoint(path)
    message = one_line(raised)
    assert message.count("damaged: the checksum") == 2
    assert "Delete model.ckpt*" in message


def test_a_checkpoint_with_code_in_it_is_not_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    save_checkpoint(tmp_path / "bad.ckpt", {"bomb": Bomb()})
    with pytest.raises(ValueError, match="could run code") as raised:
        load_checkpoint(tmp_path / "bad.ckpt")
    one_line(raised)
    assert not (tmp_path / "exploded").exists()


# Saves once more in a child that is killed right before its n-th write, sync or rename, for every n there is.
KILL_EVERYWHERE = """
import os, signal, sys
from pathlib import Path
import torch
import nas.runs.checkpoint, nas.yaml_files
sys.path.insert(0, "tests")
from test_runs import saved

print("ready", flush=True)
for n in range(100):
    folder = Path(sys.argv[1]) / str(n)
    saved(folder, 1, 2)
    child = os.fork()
    if child == 0:
        left = n
        def killing(call):
            def inner(*arguments, **options):
                global left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return call(*arguments, **options)
            return inner
        class File:
            def __init__(self, file): self.file = file
            def __enter__(self): return self
            def __exit__(self, *_): self.file.close()
            def write(self, part):
                half = len(part) // 2
                killing(self.file.write)(part[:half]); self.file.flush()
                killing(self.file.write)(part[half:]); self.file.flush()
            def __getattr__(self, name): return getattr(self.file, name)
        opened = Path.open
        Path.open = lambda path, mode="r", **options: File(opened(path, mode, **options)) if "w" in mode else opened(path, mode, **options)
        os.replace, os.fsync = killing(os.replace), killing(os.fsync)
        saved(folder, 3)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(n, flush=True)
"""


def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    with another_process(KILL_EVERYWHERE, tmp_path) as process:
        output, _ = process.communicate(timeout=60)
    moments = int(output)
    assert moments >= 8  # two parts in halves, sync, two renames, sync of the folder
    steps = [step_of(tmp_path / str(n) / "model.ckpt") for n in range(moments + 1)]
    assert steps[0] == 2
    assert steps[-1] == 3
    assert steps == sorted(steps)
    leftovers = list(tmp_path.glob("*/.*.tmp"))
    assert leftovers
    for n in range(moments + 1):  # the next save works and clears away what the killed one left
        assert step_of(saved(tmp_path / str(n), 4)) == 4
    assert not any(path.exists() for path in leftovers)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, 1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    weights = tmp_path / "w.safetensors"
    for save in (lambda: save_checkpoint(path, state_of(2)), lambda: save_weights(weights, {"w": torch.zeros(3)}, {})):
        with pytest.raises(ValueError, match="no room") as raised:
            save()
        one_line(raised)
    assert step_of(path) == 1
    assert os.listdir(tmp_path) == ["model.ckpt"]


def test_a_write_that_fails_halfway_keeps_both_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, 1, 2)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device") as raised:
        saved(tmp_path, 3)
    one_line(raised)
    assert step_of(path) == 2
    assert sorted(os.listdir(tmp_path)) == ["model.ckpt", "model.ckpt.previous"]


# ------------------------------------------------------------------------------------------------------- weights


def test_weights_come_back_with_their_metadata_shared_and_strided_ones_too(tmp_path: Path) -> None:
    shared = torch.nn.Parameter(torch.randn(4, 3))
    tensors = {"a": shared, "b": shared, "t": torch.randn(3, 5).t(), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_weights(tmp_path / "w.safetensors", tensors, {"architecture": "{}"})
    read, metadata = load_weights(tmp_path / "w.safetensors")
    assert metadata == {"architecture": "{}"}
    assert set(read) == set(tensors)
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_truncated_weights_are_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": torch.zeros(100)}, {})
    cut(path, keep % path.stat().st_size)
    with pytest.raises(ValueError, match="damaged, or not a safetensors file") as raised:
        load_weights(path)
    assert str(path) in one_line(raised)


def test_weights_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04.")
    for name in ("none.safetensors", "pickle.pt", "."):
        with pytest.raises(ValueError, match=r"cannot be read|not a safetensors") as raised:
            load_weights(tmp_path / name)
        one_line(raised)


# ------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_and_the_second_stops(number: int, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        assert not interrupt.requested
        assert interrupt.exit_status == 0
        os.kill(os.getpid(), number)
        assert interrupt.requested
        assert interrupt.exit_status == status
        assert "once more to stop at once" in capfd.readouterr().err
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) is before


def test_an_inner_interrupt_tells_the_outer_one() -> None:
    with Interrupt() as outer:
        with Interrupt() as inner:
            os.kill(os.getpid(), signal.SIGINT)
        assert inner.requested
        assert outer.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_an_interrupt_does_nothing() -> None:
    before, failures = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        try:
            with Interrupt() as interrupt:
                assert not interrupt.requested
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not failures
    assert signal.getsignal(signal.SIGINT) is before


def test_torch_is_imported_only_by_what_needs_it() -> None:
    code = "import sys, nas.runs.folder, nas.runs.checkpoint, nas.runs.interrupt, nas.yaml_files, nas.quantities, nas.pareto, nas.progress; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "optuna", "ray", "rich", "numpy"} & set(modules)
