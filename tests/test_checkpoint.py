"""Checkpoints: a kill at any moment leaves one to continue from, and no damage goes unnoticed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from errors import refused
from faults import happened
from processes import another_process

from nas.runs.checkpoint import load_checkpoint, save_checkpoint


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
    assert {value.device.type for value in load_checkpoint(path, "meta")["weights"].values()} == {"meta"}


def test_checkpoints_of_other_tools_and_earlier_releases_are_read_too(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    assert torch.load(path, weights_only=True)["step"] == 1
    torch.save(state_of(2), path)
    assert step_of(path) == 2
    content = path.read_bytes()
    path.write_bytes(content + b"nas-sha2" + hashlib.sha256(content).digest())  # release 0.2 wrote a checksum behind the archive
    assert step_of(saved(tmp_path)) == 2 and step_of(saved(tmp_path, 3)) == 3
    assert step_of(tmp_path / "model.ckpt.previous") == 2


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: os.truncate(path, 0), id="emptied"),
        pytest.param(lambda path: os.truncate(path, 20), id="cut to a few bytes"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size // 2), id="cut in half"),
        pytest.param(lambda path: os.truncate(path, path.stat().st_size - 1), id="a byte short"),
        pytest.param(lambda path: flip(path, path.stat().st_size // 2), id="a bit of a weight"),
        pytest.param(lambda path: flip(path, 100), id="a bit of the pickle"),
        pytest.param(
            lambda path: flip(path, path.read_bytes().index(b"PK\x01\x02") + 44), id="a bit of the directory"
        ),  # where a record begins
        pytest.param(lambda path: path.unlink(), id="removed"),
        pytest.param(lambda path: zipfile.ZipFile(path, "w").writestr("some.txt", "a zip of something else"), id="another zip"),
        pytest.param(lambda path: torch.save(torch.zeros(3), path), id="a tensor"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    path = saved(tmp_path, 1, 2)
    damage(path)
    assert step_of(path) == 1
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"{path}: ") and f"{path}.previous" in warning
    # What is damaged must not push out what is good: were the next write cut short, nothing would be left.
    saved(tmp_path, 3)
    assert step_of(path) == 3
    damage(path)
    assert step_of(path) == 1
    happened("a damaged checkpoint", "a checkpoint", "named in one line; the one before is used")


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """All bits of a small archive's directory were tried, and every 37th of its records; over all of both it holds too (a minute)."""
    expected = {"step": 3, "w": torch.arange(40.0).reshape(8, 5), "b": torch.zeros(3)}
    save_checkpoint(tmp_path / "model.ckpt", expected)
    whole = (tmp_path / "model.ckpt").read_bytes()
    directory = whole.index(b"PK\x01\x02")
    attributes = [place + 38 for place in range(directory, len(whole)) if whole.startswith(b"PK\x01\x02", place)]
    bits = {*range(0, 8 * directory, 37), *range(8 * directory, 8 * len(whole), 17), *(8 * place + 4 for place in attributes)}
    path, noticed = tmp_path / "flipped.ckpt", 0
    for bit in sorted(bits):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        try:
            state = load_checkpoint(path)
        except ValueError:
            noticed += 1
            continue
        assert list(state) == list(expected) and state["step"] == 3
        assert all(torch.equal(state[name], expected[name]) for name in ("w", "b")), f"bit {bit}"
    assert noticed > len(bits) / 3  # the rest is padding and what nobody reads
    happened("a flipped bit in a checkpoint", "a checkpoint", "noticed", noticed)
    happened("a flipped bit in a checkpoint", "a checkpoint", "changes nothing that is read", len(bits) - noticed)


def test_when_both_are_damaged_the_line_says_what_to_do(tmp_path: Path) -> None:
    """With a command that can be pasted, after which a training begins anew."""
    folder = tmp_path / "of a run"
    path, other = saved(folder, 1, 2), folder / "other.ckpt"
    save_checkpoint(other, state_of(1))
    for file in (path, Path(f"{path}.previous")):
        flip(file, 100)
    with refused(f"{path}: damaged", f"{path}.previous: damaged", "Begin anew (rm ") as raised:
        load_checkpoint(path)
    (command,) = re.findall(r"Begin anew \((.*?)\),", str(raised.value))
    subprocess.run(["bash", "-c", command], check=True)
    assert load_checkpoint(path) is None and step_of(other) == 1
    happened("both checkpoints damaged", "a checkpoint", "named in one line, with the command that begins anew")


def test_what_cannot_be_opened_is_not_called_damaged_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, 1, 2)
    opened = Path.open

    def without_permission(self: Path, mode: str = "r", *arguments: object) -> object:
        if self == path and mode == "rb":
            raise PermissionError(13, "Permission denied")
        return opened(self, mode, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", without_permission)  # tests may run as root, who may read everything
        for use in (load_checkpoint, lambda path: save_checkpoint(path, state_of(3))):
            with refused(path, "Permission denied", "permissions") as raised:
                use(path)
            assert "rm " not in str(raised.value)
    assert (step_of(path), step_of(Path(f"{path}.previous"))) == (2, 1)


def test_a_checkpoint_with_code_in_it_is_not_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    save_checkpoint(tmp_path / "bad.ckpt", {"bomb": Bomb()})
    with refused(tmp_path / "bad.ckpt", "Begin anew (rm "):
        load_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "exploded").exists()
    happened("a checkpoint with code in it", "a checkpoint", "refused; nothing is executed")


# Saves once more in a child that is killed right before its n-th write, sync or rename, for every n there is.
KILL_EVERYWHERE = """
import os, signal, sys
from pathlib import Path
import torch
import nas.runs.checkpoint, nas.yaml_files
sys.path.insert(0, "tests")
from test_checkpoint import saved

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
            def writelines(self, parts):
                for part in parts:
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
    assert moments >= 6  # the content in halves, sync, two renames, sync of the folder
    steps = [step_of(tmp_path / str(n) / "model.ckpt") for n in range(moments + 1)]
    assert steps[0] == 2
    assert steps[-1] == 3
    assert steps == sorted(steps)
    leftovers = list(tmp_path.glob("*/.*.tmp"))
    assert leftovers
    for n in range(moments + 1):  # the next save works and clears away what the killed one left
        assert step_of(saved(tmp_path / str(n), 4)) == 4
    assert not any(path.exists() for path in leftovers)


def test_a_write_that_fails_halfway_keeps_both_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, 1, 2)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with refused(path, "No space left on device"):
        saved(tmp_path, 3)
    assert step_of(path) == 2
    assert sorted(os.listdir(tmp_path)) == ["model.ckpt", "model.ckpt.previous"]
