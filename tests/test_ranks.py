"""Several processes that train together: they give what one gives, one of them writes and speaks, and none waits for ever."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from command_line import refused
from faults import happened
from processes import REPOSITORY, Ended, ranked
from recording import write_images
from together import STEPS, Until, fresh, trained
from torch import Tensor

from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import Run
from nas.runs.records import read_record, read_training

Processes = Callable[..., Ended]
SPACE = """
format: search space 1
frame: {resolution: 32, channels: 3, classes: 10}
patch: 4
stages:
  - {width: [16, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2]}
"""
RECIPE = """
format: recipe 1
bf16: never
supernet: {steps: 8, batch_size: 8, lr: 1.0e-3}
search: {trials: 3, population: 2, batch_size: 100}
retrain: {steps: 8, batch_size: 8, lr: 1.0e-3, drop_path: 0.2, augmentation: {mixup: 0.2}}
"""
NETWORK = """
format: architecture 1
architecture: {frame: {resolution: 32, channels: 3, classes: 10}, patch: 4, stages: [{width: 16, mixers: [conv], mlp_ratio: 1, kernel: 3}]}
"""
TRAIN = "train --space tiny.yaml --recipe plain.yaml --resolution 16 --device cpu --run r"
RETRAIN = "retrain net.yaml --recipe plain.yaml --resolution 16 --device cpu --run r"
# What happens to a process: before a step of its optimiser, of which it has taken so many.
AT_STEP = """
from torch.optim.optimizer import register_optimizer_step_pre_hook
steps = []
def before(*_):
    steps.append(0)
    if len(steps) == {step} and number in {who}:
        {what}
register_optimizer_step_pre_hook(before)
"""
OFTEN = "import nas.training.loop; nas.training.loop.CHECKPOINT_SECONDS = 0.0\n"


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with ranked() as run:
        yield run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("tiny", SPACE), ("plain", RECIPE), ("net", NETWORK)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def command(line: str, before: str = "") -> str:
    """Code that runs a command of this program, after some other code."""
    return f"import os, signal, sys, time, launch\n{before}\nsys.argv = ['launch.py', *{shlex.split(line)}]\nsys.exit(launch.main())"


def at_step(step: int, what: str, who: tuple[int, ...] = (1,)) -> str:
    return AT_STEP.format(step=step, what=what, who=who)


def training(kind: str, more: str = "", save: str = "weights") -> str:
    """Code that trains together, and leaves each process's weights."""
    return f"""
import torch, together
from pathlib import Path
from nas.training.ranks import joined
with joined() as ranks:
    torch.save(together.trained({kind!r}, ranks, {more}), f"{save}{{number}}.pt")
"""


def weights(folder: Path, number: int = 0) -> dict[str, Tensor]:
    return dict(torch.load(folder / f"weights{number}.pt"))


def assert_as_close_as_rounding(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor], within: float = 1e-3) -> None:
    """Sums in another order: the weights differ by less than a thousandth of the way that they went."""
    apart, way = 0.0, 0.0
    assert one.keys() == other.keys()
    for name, value in one.items():
        if value.is_floating_point():
            apart += float((value - other[name]).square().sum())
            way += float((value - start[name]).square().sum())
        else:
            assert torch.equal(value, other[name]), name
    assert way > 0 and (apart / way) ** 0.5 < within, (apart / way) ** 0.5


# ---- the same training -------------------------------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(("kind", "count"), [("supernet", 2), ("network", 3), pytest.param("batch norm", 2, marks=pytest.mark.slow)])
def test_several_processes_give_what_one_gives(kind: str, count: int, processes: Processes, tmp_path: Path) -> None:
    """Also with uneven parts, with all that is drawn at random, and with gradients that go in several messages, as those of large networks do;
    every process has the same weights to the bit."""
    steps = 10 if kind == "batch norm" else STEPS  # of which rounding grows soon
    small = "import nas.training.ranks\nnas.training.ranks.BUCKET = 1000\n" if kind == "network" else ""
    ended = processes(small + training(kind, f"steps={steps}"), tmp_path, count)
    assert ended.statuses == [0] * count, ended.err
    first, *others = (weights(tmp_path, number) for number in range(count))
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())
    assert_as_close_as_rounding(first, trained(kind, steps=steps), fresh(kind))


@pytest.mark.slow
def test_in_bfloat16_several_processes_give_what_one_gives_to_its_rounding(processes: Processes, tmp_path: Path) -> None:
    """Gradients of weights have eight bits before they are summed."""
    ended = processes(training("network", "bf16=True"), tmp_path, 2)
    assert ended.statuses == [0, 0], ended.err
    one, other = weights(tmp_path, 0), weights(tmp_path, 1)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    alone = trained("network", bf16=True)
    assert not all(torch.equal(value, trained("network")[name]) for name, value in alone.items()), "it is another training"
    assert_as_close_as_rounding(one, alone, fresh("network"), within=0.1)


# Leaves the weights that a training begins with.
STARTS = """
import torch
from nas.training.loop import _State
real = _State.restore
def restore(self):
    torch.save(self.model.state_dict(), "start.pt")
    return real(self)
_State.restore = restore
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), [("train", "supernet.pt"), ("retrain", "checkpoint.pt")])
def test_a_command_on_two_processes_gives_what_it_gives_on_one(name: str, file: str, processes: Processes, folder: Path) -> None:
    found = []
    for count in (1, 2):
        here = shutil.copytree(folder, folder / str(count), ignore=lambda *_: ["1", "2"])
        ended = processes(command({"train": TRAIN, "retrain": RETRAIN}[name], STARTS), here, count)
        assert ended.statuses == [0] * count, ended
        state = load_checkpoint(here / "runs/r" / file)
        assert state and state["step"] == 8
        found.append(state["model"])
    assert_as_close_as_rounding(*found, torch.load(folder / "1/start.pt"))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("kind", ["supernet", "network", "batch norm"])
def test_two_gpus_give_what_one_gives(kind: str, processes: Processes, tmp_path: Path) -> None:
    """By NCCL. On GPUs sums have no fixed order at all."""
    ended = processes(training(kind, "steps=10, device=f'cuda:{number}'"), tmp_path, 2)
    assert ended.statuses == [0, 0], ended.err
    one, other = weights(tmp_path, 0), weights(tmp_path, 1)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert_as_close_as_rounding(one, trained(kind, steps=10, device="cuda:0"), fresh(kind), within=1e-2)


@pytest.mark.slow
def test_parts_of_parts_and_recomputing_change_nothing(processes: Processes, tmp_path: Path) -> None:
    """Three processes do four or six images of fourteen each, in three goes."""
    ended = processes(training("network", "accumulate=3, recompute=True"), tmp_path, 3)
    assert ended.statuses == [0] * 3, ended.err
    assert_as_close_as_rounding(weights(tmp_path), trained("network"), fresh("network"))
    assert processes(training("batch norm", "accumulate=3", "parts"), tmp_path, 3).statuses == [0] * 3, "as many goes everywhere"


@pytest.mark.whole
def test_a_training_goes_on_with_another_number_of_processes(processes: Processes, tmp_path: Path) -> None:
    more = "checkpoint=Path('c.pt'), watch=together.Until({})"
    assert processes(training("supernet", more.format(4)), tmp_path, 2).statuses == [0, 0]
    trained("supernet", checkpoint=tmp_path / "c.pt", watch=Until(8))
    found = load_checkpoint(tmp_path / "c.pt")
    assert found and found["step"] == 8
    assert processes(training("supernet", more.format(STEPS)), tmp_path, 3).statuses == [0] * 3
    assert_as_close_as_rounding(weights(tmp_path), trained("supernet"), fresh("supernet"))


@pytest.mark.whole
def test_a_step_that_is_not_finite_on_one_process_is_skipped_by_all(processes: Processes, tmp_path: Path) -> None:
    code = """
import torch, together
from nas.data import Data
from nas.training.watch import Watch
from nas.training.ranks import joined
real = Data.batches
def batches(self, *given):
    made = real(self, *given)
    return lambda start: ((x * (float("nan") if step == 3 and number == 1 else 1), y) for step, (x, y) in enumerate(made(start), start))
Data.batches = batches
told = []
watch = Watch()
watch.skipped = told.append
with joined() as ranks:
    torch.save(together.trained("supernet", ranks, watch=watch), f"weights{number}.pt")
    assert told == [1] * ranks.first
"""
    ended = processes(code, tmp_path)
    assert ended.statuses == [0, 0], ended.err
    one, other = weights(tmp_path, 0), weights(tmp_path, 1)
    assert all(torch.equal(value, other[name]) and value.isfinite().all() for name, value in one.items())


@pytest.mark.slow
def test_what_only_the_first_does_may_take_longer_than_any_message(processes: Processes, tmp_path: Path) -> None:
    slow = """
import time
from datetime import timedelta
import nas.training.ranks
from nas.training.watch import Watch
nas.training.ranks.PATIENCE = timedelta(seconds=2)
watch = Watch()
watch.rung = lambda done, model: time.sleep(5)
"""
    ended = processes(slow + training("network", "watch=watch, rungs=(2,), steps=4"), tmp_path)
    assert ended.statuses == [0, 0], ended.err


@pytest.mark.slow
def test_what_earlier_processes_of_the_same_launcher_left_is_nobodys(processes: Processes, tmp_path: Path) -> None:
    """Where a node comes or goes torchrun starts all anew, and its store keeps what those before have said."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    said = "from nas.training.ranks import joined\nwith joined() as ranks:\n    assert ranks.of_first(lambda: {0}) == {0}"
    for each in ("'begun'", "'begun anew'"):
        ended = processes(said.format(each), tmp_path, port=store.port)
        assert ended.statuses == [0, 0], ended.err


def test_processes_that_do_not_train_the_same_are_told_apart(processes: Processes, folder: Path) -> None:
    ended = processes(command(TRAIN).replace("'--run'", "'--seed', str(number), '--run'"), folder)
    assert ended.statuses == [2, 2] and not ended.err[0]
    assert "process 1 of 2" in ended.err[1] and "seed 1" in ended.err[1] and len(ended.err[1].splitlines()) == 1


@pytest.mark.whole
@pytest.mark.parametrize("line", [TRAIN, RETRAIN])
def test_other_images_or_another_program_on_one_machine_are_refused_at_once(line: str, processes: Processes, folder: Path) -> None:
    """As many images and steps, so that nothing else tells them apart: on one machine a file was copied in part."""
    write_images(folder / "images")
    elsewhere = """
import shutil
if number:
    shutil.copytree(".", "there", ignore=shutil.ignore_patterns("there", "out*", "err*", "runs"))
    os.chdir("there")
    with open("images/train/0/0.png", "ab") as file:
        file.write(b"more")
"""
    other = "import nas.training.setting\nif number:\n    nas.training.setting.program_digest = lambda: 'another'"
    for before, said in ((elsewhere, "the first one does: images: got "), (other, "the first one does: program: got another; ")):
        ended = processes(command(f"{line} --data images", before), folder)
        assert ended.statuses == [2, 2] and not ended.err[0], ended
        assert f"process 1 of 2, on {platform.node()}, does not train what {said}" in ended.err[1] and len(ended.err[1].splitlines()) == 1
        assert not (folder / "runs/r").exists()


def test_parameters_that_only_one_process_moved_are_noticed(processes: Processes, tmp_path: Path) -> None:
    code = """
import itertools, torch
from torch import nn
from nas.training.loop import Course, train_model
from nas.training.watch import Watch
from nas.training.ranks import joined
from nas.training.recipe import Phase
class Either(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)
    def forward(self, x, other):
        return (self.other if other else self.one)(x)
batches = lambda start: ((torch.ones(4, 4), torch.zeros(4, dtype=torch.int64)) for _ in itertools.count())
with joined() as ranks:
    phase = Phase(steps=4, batch_size=8, lr=1e-3)
    train_model(Either(), batches, Course(phase, 4, 0, ranks=ranks), Watch(), lambda step: (step == 2 and number == 1,))
"""
    ended = processes(code, tmp_path)
    assert 0 not in ended.statuses and "step 3: processes moved different parameters" in "".join(ended.err)


# ---- one writes and speaks ---------------------------------------------------------------------------------------------


def lines(folder: Path, kind: str) -> list[int]:
    return [line["step"] for line in Run("r", folder / "runs").metrics(kind)]


@pytest.mark.whole
def test_one_process_writes_and_speaks(processes: Processes, folder: Path) -> None:
    for line, kind in ((TRAIN, "supernet"), (RETRAIN.replace("run r", "run n"), "retrain")):
        timed = "import nas.training.plan, nas.searching.plan as p; nas.training.plan.WORTH_TIMING = p.WORTH_TIMING = 2"
        ended = processes(command(line, timed), folder, 3)
        assert ended.statuses == [0] * 3, ended.err
        run = Run(line.split()[-1], folder / "runs")
        assert [each["step"] for each in run.metrics(kind)] == list(range(1, 9))
        assert len(run.recorded()["invocations"]) == 1 and len(list((run.folder / "events").iterdir())) == 1
        assert not any((*ended.out[1:], *ended.err[1:]))
        assert "on 3 processes, cpu" in ended.out[0] and "time " in ended.out[0]
    result = read_training(folder / "runs/n/result.yaml").result
    assert f"{result.test_accuracy:.2%} of {result.test_images} images" in ended.out[0]
    assert read_record(Run("r", folder / "runs")).supernet_finished
    again = processes(command(RETRAIN.replace("run r", "run n")), folder)
    assert again.statuses == [0, 0] and "is done" in again.out[0] and not again.out[1]


@pytest.mark.whole
def test_a_mistake_is_said_once(processes: Processes, folder: Path) -> None:
    for line in (
        TRAIN.replace("tiny", "tinny"),
        TRAIN + " --batch-size 2000",
        TRAIN + " --batch-size 2",
        "train --bogus",
        "search --budget 1MMACs",
    ):
        ended = processes(command(line), folder, 2 if "2000" in line else 3)
        assert set(ended.statuses) == {2} and len("".join(ended.err).splitlines()) == 1 and not "".join(ended.out), (line, ended)
        assert not (folder / "runs/r").exists()


def test_what_torchrun_does_not_say_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "RANK=2, WORLD_SIZE=2" in refused("runs", folder)


def test_a_run_that_another_holds_is_refused_once(processes: Processes, folder: Path) -> None:
    with Run("r", folder / "runs").lock():
        ended = processes(command(TRAIN), folder)
    assert ended.statuses == [2, 2] and "in use by process" in ended.err[0] and not ended.err[1]
    assert not (folder / "runs/r/run.yaml").exists()


@pytest.mark.slow
def test_a_folder_that_only_the_first_sees_is_refused(processes: Processes, folder: Path) -> None:
    elsewhere = "import nas.training.ranks as r; r.SEEN = 1.0\nif number: os.mkdir('there'); [os.link(f, f'there/{f}') for f in ('tiny.yaml', 'plain.yaml')]; os.chdir('there')"
    ended = processes(command(TRAIN, elsewhere), folder)
    assert ended.statuses == [2, 2] and "one that all see" in ended.err[1] and not ended.err[0].strip().endswith("see.")


# ---- stopped, broken, killed -------------------------------------------------------------------------------------------


def uninterrupted(processes: Processes, folder: Path, line: str, name: str) -> dict[str, Tensor]:
    assert processes(command(line.replace("--run r", "--run whole")), folder).statuses == [0, 0]
    found = load_checkpoint(folder / "runs/whole" / name)
    assert found
    return dict(found["model"])


@pytest.mark.whole
@pytest.mark.parametrize(
    ("number", "who", "statuses"),
    [
        ("SIGTERM", (1,), [130, 143]),
        pytest.param("SIGINT", (0,), [130, 130], marks=pytest.mark.slow),
        pytest.param("SIGUSR1", (0, 1), [138, 138], marks=pytest.mark.slow),
    ],
    ids=["one of them", "the first", "all"],
)
def test_a_signal_to_any_process_stops_all_at_one_step(
    number: str, who: tuple[int, ...], statuses: list[int], processes: Processes, folder: Path
) -> None:
    """Twice, as from a cluster and its launcher; with a checkpoint, from which the same command goes on to what it would have been."""
    twice = f"os.kill(os.getpid(), signal.{number}); os.kill(os.getpid(), signal.{number})"
    ended = processes(command(TRAIN, at_step(4, twice, who)), folder)
    assert ended.statuses == statuses, ended
    told = re.search(
        r"Supernet stopped at step ([45]) of 8; the same command continues", ended.out[0]
    )  # in the look after step 4, or behind it
    found = load_checkpoint(folder / "runs/r/supernet.pt")
    assert told and found and found["step"] == int(told[1]) == len(lines(folder, "supernet")) and not ended.out[1] and not ended.err[1]
    assert processes(command(TRAIN), folder).statuses == [0, 0]
    found, whole = load_checkpoint(folder / "runs/r/supernet.pt"), uninterrupted(processes, folder, TRAIN, "supernet.pt")
    assert found and all(torch.equal(found["model"][name], value) for name, value in whole.items())


def ended_once(path: str) -> str:
    """Code by which SIGTERM comes to process 1, which waits for the first one, once a file is there."""
    return f"""
import threading
def when_it_is_there():
    while not os.path.exists({path!r}):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
if number == 1:
    threading.Thread(target=when_it_is_there, daemon=True).start()
"""


@pytest.mark.whole
def test_a_signal_while_the_first_works_alone_stops_all(processes: Processes, folder: Path) -> None:
    """To one of those who wait, while the first one tests the network."""
    slow = """
from nas.data import Data
real = Data.evaluation_batches
def slowly(self, *given):
    for batch in real(self, *given):
        time.sleep(1.2)
        yield batch
Data.evaluation_batches = slowly
"""
    ended = processes(command(RETRAIN, slow + ended_once("runs/r/checkpoint.pt")), folder)
    assert ended.statuses == [130, 143] and "Test stopped after" in ended.out[0], ended
    assert processes(command(RETRAIN), folder).statuses == [0, 0]
    assert lines(folder, "retrain") == list(range(1, 9)), "nothing is trained again"
    happened("a signal to one process of several", "retrain, in its test", "all stop; the same command goes on")


@pytest.mark.slow
def test_a_signal_while_the_first_judges_the_model_stops_all_with_a_checkpoint(processes: Processes, folder: Path) -> None:
    """Nine batches that take a second each: as of an hour on a CPU nobody waits for the last."""
    slow = """
import nas.training.ranks
from nas.data import Kept
nas.training.ranks.LAST = 5.0
real = Kept.__iter__
def slowly(self):
    for batch in real(self):
        open("judging", "w").close()
        time.sleep(1)
        yield batch
Kept.__iter__ = slowly
"""
    ended = processes(command(TRAIN, slow + ended_once("judging")), folder)
    assert ended.statuses == [130, 143] and "at step 1 of 8; the same command continues" in ended.out[0], ended
    assert processes(command(TRAIN), folder).statuses == [0, 0]
    assert lines(folder, "supernet") == lines(folder, "supernet rung") == list(range(1, 9)), "each judged once, and no step done again"
    found, whole = load_checkpoint(folder / "runs/r/supernet.pt"), uninterrupted(processes, folder, TRAIN, "supernet.pt")
    assert found and all(torch.equal(found["model"][name], value) for name, value in whole.items())
    happened("a signal to one process of several", "train, in its look", "all stop with a checkpoint; the same command goes on")


@pytest.mark.whole
@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_ends_all_and_the_same_command_goes_on(killed: int, processes: Processes, folder: Path) -> None:
    """To what it would have been. The first one, if it lives, keeps every step that was done; else there are its checkpoints."""
    before = OFTEN if killed == 0 else ""
    ended = processes(command(TRAIN, before + at_step(5, "os.kill(os.getpid(), signal.SIGKILL)", (killed,))), folder)
    assert ended.statuses == ([2, -9] if killed else [-9, 2]), ended
    said = [line for text in ended.err for line in text.splitlines() if "another process is gone" in line]
    assert len(said) == 1 and "the same command continues" in said[0].lower()
    found = load_checkpoint(folder / "runs/r/supernet.pt")
    assert found and (found["step"] == 5 if killed else 0 < found["step"] < 5)
    assert processes(command(TRAIN), folder).statuses == [0, 0]
    assert sorted(set(lines(folder, "supernet"))) == list(range(1, 9)) and len(lines(folder, "supernet")) <= 8 + 4 * (killed == 0)
    found, whole = load_checkpoint(folder / "runs/r/supernet.pt"), uninterrupted(processes, folder, TRAIN, "supernet.pt")
    assert found and all(torch.equal(found["model"][name], value) for name, value in whole.items())
    happened("a process of several dies", f"train, process {killed}", "all end with one reason; the same command ends as if uninterrupted")


def test_out_of_memory_on_one_process_is_what_all_end_with(processes: Processes, folder: Path) -> None:
    full = """
from nas.spaces.supernet import Supernet
real, passes = Supernet.forward, []
def forward(self, *given, **named):
    passes.append(0)
    if number == 1 and len(passes) == 3:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
    return real(self, *given, **named)
Supernet.forward = forward
"""
    ended = processes(command(TRAIN, full), folder)
    assert ended.statuses == [2, 2] and "out of memory in a step of 4 images" in ended.err[1], ended
    assert "--accumulate 2" in ended.err[1] and "gone" not in ended.err[0] + ended.err[1]
    happened("out of memory on one process of several", "train", "all end with one reason, which says what to do")


@pytest.mark.whole
def test_a_checkpoint_that_cannot_be_written_ends_all(processes: Processes, folder: Path) -> None:
    full = "import nas.training.loop as l\ndef save(path, state):\n    raise ValueError('disk full: got no room; accepted: room. Make some.')\nl.save_checkpoint = save"
    ended = processes(command(TRAIN, full), folder)
    assert ended.statuses == [2, 2] and "disk full" in ended.err[0] and not ended.err[1]
    happened("disk full on one process of several", "train", "all end with one reason")


def test_processes_stop_when_their_launcher_is_gone(processes: Processes, folder: Path) -> None:
    ended = processes(command(TRAIN, at_step(3, "os.getppid = lambda: 1", (0, 1))), folder)
    assert ended.statuses == [130, 130] and re.search("stopped at step [34] of 8", ended.out[0]), ended
    happened("torchrun is gone", "train", "all stop with a checkpoint")


# ---- torchrun itself ---------------------------------------------------------------------------------------------------


@pytest.fixture
def streamed(folder: Path) -> Path:
    """Images that loaders decode: a resolution at which they do not fit into memory would be large, so the limit is small."""
    (folder / "small.py").write_text(
        f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
        "import launch\nfrom nas.data import DataSource\nreal = DataSource.load\n"
        "DataSource.load = lambda self, *given, **named: real(self, *given[:3], 0, **named)\n"
        "sys.argv[0] = 'launch.py'\nsys.exit(launch.main())\n"
    )
    return folder


def torchrun(folder: Path, line: str) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    signals = ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, *signals, "--", "small.py", *shlex.split(line)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(folder: Path, step: int, started: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while not any(each >= step for each in lines(folder, "supernet")):
        assert started.poll() is None and time.monotonic() < until, started.communicate()
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun_signals_deaths_and_the_end(streamed: Path) -> None:
    """Signals to torchrun with loaders at work, the death of a rank, of torchrun itself; each time the same command goes on."""
    line = f"{TRAIN} --steps 400 --loaders 1"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        done = max(lines(streamed, "supernet"), default=0)
        with torchrun(streamed, line) as started:
            wait_for(streamed, done + 3, started)
            started.send_signal(number)
            out, err = started.communicate(timeout=100)
        stopped = [each for each in out.splitlines() if "the same command continues" in each]
        assert len(stopped) == 1 and started.returncode == 1 and "DataLoader" not in err, (out, err)
        found = load_checkpoint(streamed / "runs/r/supernet.pt")
        assert found and found["step"] == max(lines(streamed, "supernet"))
    holder = lambda: int((streamed / "runs/r/.lock").read_text().split()[1])  # noqa: E731
    for writes in (False, True):
        done = max(lines(streamed, "supernet"))
        with torchrun(streamed, line) as started:
            wait_for(streamed, done + 3, started)
            children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(started.pid)], capture_output=True, text=True).stdout.split()
            os.kill(next(int(each) for each in children if (int(each) == holder()) == writes), signal.SIGKILL)
            _, err = started.communicate(timeout=100)
        assert started.returncode == 1 and err.count("another process is gone") == 1, err
        found = load_checkpoint(streamed / "runs/r/supernet.pt")
        assert found and (found["step"] == max(lines(streamed, "supernet")) or writes), "the first one keeps what is done, if it lives"
    done = max(lines(streamed, "supernet"))
    with torchrun(streamed, line) as started:
        wait_for(streamed, done + 3, started)
        first = holder()
        started.kill()
        started.communicate(timeout=100)
    until = time.monotonic() + 60
    while Path(f"/proc/{first}").exists():
        assert time.monotonic() < until, "they stop when torchrun is gone"
        time.sleep(0.2)
    found = load_checkpoint(streamed / "runs/r/supernet.pt")
    assert found and found["step"] == max(lines(streamed, "supernet")) >= done + 3
    with torchrun(streamed, line) as started:
        out, err = started.communicate(timeout=300)
    assert started.returncode == 0 and "The supernet is trained" in out, (out, err)
    for fault, times in (("a signal to torchrun", 3), ("a process of torchrun dies", 2), ("torchrun is killed", 1)):
        happened(fault, "train on 2 processes", "all end; the same command goes on", times)
