"""Runs: names stay inside the root, one process writes at a time, and what a kill tears does not spoil the rest."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from errors import refused
from processes import REPOSITORY, another_process

import nas.runs.folder as folders
from nas.machine import cores
from nas.runs.folder import Run, provenance
from nas.yaml_files import read_yaml, write_yaml

# --------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["a", "hybrid-digits-0", "0.5_x", "x" * 64])
def test_plain_names_are_folders_in_the_root_and_making_a_run_touches_nothing(tmp_path: Path, name: str) -> None:
    assert Run(name, tmp_path / "runs").folder == tmp_path / "runs" / name
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/elsewhere", ".hidden", "-x", "a b", "a\n", "é", "x" * 65, "a\x00", "~root"]
)
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with refused("--run", "accepted: 1 to 64 letters"):
        Run(name, tmp_path)


def test_a_link_does_not_lead_out_of_the_root_and_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "runs" / "circle").symlink_to("circle")
    (tmp_path / "runs" / "best.yaml").write_text("")
    for name in ("out", "dangling", "circle", "best.yaml"):
        with refused("--run", name):
            Run(name, tmp_path / "runs")
    (tmp_path / "linked-root").symlink_to(tmp_path / "runs")  # the root itself may lie on another disk
    assert Run("inside", tmp_path / "linked-root").name == "inside"


# --------------------------------------------------------------------------------------------------------- locks

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
        with refused(f"in use by process {process.pid} on {os.uname().nodename}", f"-c {tmp_path} alone"), run.lock():
            pass
        process.kill()
        process.wait()
        with run.lock():
            pass


def test_a_full_disk_is_told_of_the_file_that_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with refused(f"{tmp_path}/x/.lock: cannot be locked: No space left on device. Make room"), Run("x", tmp_path).lock():
        pass


def test_a_forked_worker_does_not_hold_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    with another_process(HOLD, tmp_path, "forked") as process:
        child = int((tmp_path / "child").read_text())
        try:
            with refused(f"in use by process {process.pid} "), Run("x", tmp_path).lock():
                pass
            process.kill()
            process.wait()
            os.kill(child, 0)  # still there
            with Run("x", tmp_path).lock():
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_worker_that_leaves_the_block_does_not_free_the_lock(tmp_path: Path) -> None:
    parent = os.getpid()
    try:
        with Run("x", tmp_path).lock():
            if (child := os.fork()) == 0:
                raise ZeroDivisionError
            assert os.waitpid(child, 0)[1] == 0
            with refused("in use by"), Run("x", tmp_path).lock():
                pass
    except ZeroDivisionError:
        os._exit(0)
    finally:
        if os.getpid() != parent:
            os._exit(1)


def test_a_lock_ends_with_its_block_even_by_an_error(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    with pytest.raises(ZeroDivisionError), run.lock():
        raise ZeroDivisionError
    with run.lock(), refused(f"process {os.getpid()} "), run.lock():
        pass
    with pytest.raises(FileNotFoundError), run.lock():  # the block's own errors are not taken for the lock's
        (tmp_path / "nowhere").read_text()
    with run.lock():
        pass


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda run: run.lock().__enter__(), lambda run: run.log("x"), lambda run: run.record(seed=0)):
        with refused(tmp_path / "file" / "x", "cannot be"):
            write(Run("x", tmp_path / "file"))


# -------------------------------------------------------------------------------------------- provenance, metrics


def test_record_merges_and_adds_the_provenance_once_per_process(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    assert run.recorded() == {}
    run.record(seed=7, space="hybrid")
    run.record(space="cifar", finished="now")
    data = read_yaml(tmp_path / "x" / "run.yaml", format="run 1")
    assert (data["name"], data["seed"], data["space"], data["finished"]) == ("x", 7, "cifar", "now")
    assert len(data["invocations"]) == 1
    Run("x", tmp_path).record()
    again = Run("x", tmp_path).recorded()
    assert again["seed"] == 7
    assert [each["command"] for each in again["invocations"]] == [data["invocations"][0]["command"]] * 2


def test_provenance_names_command_versions_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["launch.py", "two words", os.fsdecode(b"\xff")])
    found = provenance()
    assert found["command"] == "launch.py 'two words' '?'"
    assert found["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["host"]["cores"] == cores() and found["host"]["cpu"]
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if git.returncode == 0:
        assert found["revision"].removesuffix("-dirty") == git.stdout.strip()
    monkeypatch.setattr(folders, "_git_revision", folders._git_revision.__wrapped__)  # not remembered
    monkeypatch.setenv("PATH", "")  # no git
    assert "revision" not in provenance()


def test_cores_are_those_of_the_process_where_the_system_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS has none
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == provenance()["host"]["cores"] == 6


@pytest.mark.parametrize(
    "text", ["format: recipe 1\n", "format: run 1\ninvocations: 3\n", "format: run 1\ninvocations: {a: 1}\n", "- 1\n", "format: ["]
)
def test_a_record_changed_by_hand_is_one_line_that_names_it(tmp_path: Path, text: str) -> None:
    Run("x", tmp_path).record()
    (tmp_path / "x" / "run.yaml").write_text(text)
    for use in (lambda run: run.recorded(), lambda run: run.record(seed=1)):
        with refused(tmp_path / "x" / "run.yaml"):
            use(Run("x", tmp_path))
    assert (tmp_path / "x" / "run.yaml").read_text() == text


def test_a_record_whose_invocations_were_removed_begins_them_anew(tmp_path: Path) -> None:
    write_yaml(tmp_path / "x" / "run.yaml", {"format": "run 1", "seed": 7})
    Run("x", tmp_path).record()
    assert len(Run("x", tmp_path).recorded()["invocations"]) == 1


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


def test_a_flipped_bit_leaves_a_line_out_and_changes_none(tmp_path: Path) -> None:
    """But where it makes the checksum's name another one, or what stands between lines."""
    run = Run("r", tmp_path)
    for step in (1, 2):
        run.log("step", step=step, loss=0.5, name="a")
    path = tmp_path / "r/metrics.jsonl"
    whole, content = run.metrics(), path.read_bytes()
    assert [line["step"] for line in whole] == [1, 2]
    for at in range(content.index(b"\n")):
        for bit in range(8):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            read = [{name: line[name] for name in line if name in whole[0]} for line in run.metrics()]
            assert read in (whole, whole[1:]), path.read_bytes()


def test_every_line_of_the_log_is_one_json_object(tmp_path: Path) -> None:
    run = Run("x", tmp_path)
    run.log("note", text="two\nlines\u2028and é")
    lines = (tmp_path / "x" / "metrics.jsonl").read_text().split("\n")
    assert len(lines) == 2
    assert json.loads(lines[0])["text"] == "two\nlines\u2028and é"


def test_torch_is_imported_only_by_what_needs_it() -> None:
    code = "import sys, nas.runs.folder, nas.runs.checkpoint, nas.runs.interrupt, nas.yaml_files, nas.progress; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "optuna", "ray", "rich", "numpy"} & set(modules)
