"""Random YAML files and random command lines: never a traceback, never a hang, and nothing outside the folder that a user works in.

Each is run as `launch.py` runs it, in this process; what would work for long ends where the work would begin. YAML files are shipped or tested
ones with a few places changed, command lines are words that fit with some that do not. A case is a function of its number: whoever sees a failure
can make the same case again.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import os
import random
import resource
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from command_line import run, succeed
from faults import happened
from finished import RECIPE, SPACE, finished_search
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas.commands import COMMANDS
from nas.runs.interrupt import Stopped
from nas.training.loop import train_model
from nas.training.plan import TIMED

REPOSITORY = Path(__file__).parents[1]
CPU_SECONDS = 60.0  # of one case, after which it hangs
FEW, MANY = 30, 5_000
WORKED = 300  # accepted cases of which some steps are done
cases = st.integers(0, 2**32 - 1)


def some(count: int) -> Callable[..., Any]:
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


# ---- a run to work on, and where work would begin ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search, a retrained network, and files of every kind that a command may be given."""
    folder = finished_search(tmp_path_factory.mktemp("random"))
    succeed("retrain runs/best.yaml --device cpu --data images --recipe plain.yaml --run trained", folder)
    shutil.copy(REPOSITORY / "search_spaces/presets/as_mlp_t.yaml", folder)
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("..")
    (folder / "text").write_text("just words\n")
    (folder / "bytes").write_bytes(bytes(range(256)))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_work(finished: Path) -> Iterator[None]:
    """What trains, times, serves or exports ends at once; and no case takes the memory of the machine."""

    def begins(*_: Any, **__: Any) -> Any:
        raise Stopped("stopped where work begins")

    patch = pytest.MonkeyPatch()
    for name in (
        "nas.training.train_supernet:train_model", "nas.training.train_network:train_model", "nas.training.plan:train_model",
        "nas.searching.tune:train_beside", "nas.searching.ray_cluster:RaySession.start", "nas.searching.dashboard:serve",
        "nas.searching.search_run:measure_latency", "nas.cost.measured:measure_latency", "nas.cost.latency:measure_latency",
        "nas.searching.latency_table:measure_space", "nas.export.exporting:export", "nas.searching.needs:training_bytes",
    ):  # fmt: skip
        module, _, path = name.partition(":")
        owner, _, attribute = path.rpartition(".")
        place = importlib.import_module(module)
        patch.setattr(getattr(place, owner) if owner else place, attribute, begins)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 6 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
    patch.undo()


class Hangs(BaseException):
    """A case took too long."""


@contextmanager
def in_time() -> Iterator[None]:
    """By the processor's time: the machine may be busy. And by the clock, where it waits for something."""

    def late(number: int, frame: object) -> None:
        raise Hangs

    before = [signal.signal(number, late) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 10 * CPU_SECONDS)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


def own_copy(finished: Path, folder: Path) -> Path:
    """The finished folder for one case to spoil, with the same images."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        finished, folder / "here", symlinks=True, ignore=lambda _, names: [each for each in names if each in ("images", "fifo")]
    )
    (folder / "here/images").symlink_to(finished / "images")
    os.mkfifo(folder / "here/fifo")
    return folder / "here"


def assert_ends_well(line: str, folder: Path) -> str:
    """With an answer, where work would begin, or with one finished line; and nothing is beside the folder. How it ended."""
    with in_time():
        outcome = run(line, folder)
    assert outcome.status in (0, 2, 130), (line, outcome)
    assert "Traceback" not in outcome.out + outcome.err, (line, outcome)
    if outcome.status == 2:
        last = outcome.err.splitlines()[-1]
        assert last.startswith("launch.py: ") and len(last) < 12_000, (line, outcome)
    assert os.listdir(folder.parent) == [folder.name], line
    return {0: "an answer", 2: "refused in a line", 130: "stopped where work begins"}[outcome.status]


# ---- YAML ------------------------------------------------------------------------------------------------------------------

SCALARS: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 10**18, 10**30, -(10**30), 0.0, -0.5, 0.3, 1e-30, 1e300, float("inf"), float("nan"), "", "conv",
    "attention", "s2_shift", "permute", "auto", "search space 1", "recipe 1", "architecture 1", "~", "../x", "a: b", "x" * 3000, "\u0085", "é", "1e3",
]  # fmt: skip
COLLECTIONS: list[Any] = [
    [],
    {},
    [[]],
    [None],
    [1, 1],
    [0],
    [[1, 2], [3]],
    {"a": 1},
    {"": {}},
    [16, 32, 64],
    ["conv", "conv"],
    [True, False],
]
PLACES = {  # what is done with a file of a kind
    "space": ["train --dry-run --device cpu --data images --recipe plain.yaml --space spoilt.yaml", "search --budget 200kMACs --dry-run --device cpu --data images --recipe plain.yaml --space spoilt.yaml"],
    "recipe": ["train --dry-run --device cpu --data images --space tiny.yaml --recipe spoilt.yaml", "retrain runs/best.yaml --dry-run --device cpu --data images --recipe spoilt.yaml"],
    "architecture": ["profile spoilt.yaml", "show spoilt.yaml", "retrain spoilt.yaml --dry-run --device cpu --data images --recipe plain.yaml", "compare spoilt.yaml --random 1 --device cpu"],
    "run": ["runs", "report spoilt", "train --run spoilt --dry-run", "search --run spoilt --budget 200kMACs", "profile spoilt", "pick spoilt --budget 250kMACs"],
}  # fmt: skip


def nodes(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all places in it."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from nodes(value, (*path, key))


def spoil(data: Any, rng: random.Random) -> Any:
    """The data with one place changed."""
    data = copy.deepcopy(data)
    path = rng.choice([*nodes(data)][1:] or [()])
    if not path:
        return rng.choice(SCALARS + COLLECTIONS)
    owner = data
    for key in path[:-1]:
        owner = owner[key]
    key, value = path[-1], owner[path[-1]]
    kind = rng.randrange(9)
    if kind == 0:
        del owner[key]
    elif kind == 1 and isinstance(owner, dict):
        owner[rng.choice(["", "witdh", str(key) + "s", "__class__", "format", "é"])] = owner.pop(key)
    elif kind == 2 and isinstance(owner, list):
        owner.extend(copy.deepcopy(value) for _ in range(rng.choice([1, 2, 30])))
    elif kind == 3:
        owner[key] = [value] if rng.random() < 0.5 else {"a": value}
    elif kind == 4 and isinstance(value, (int, float)) and not isinstance(value, bool):
        owner[key] = rng.choice([-value, value + 1, value * 2, value * 1000, value / 3, float(value), str(value), [value, value]])
    elif kind == 5 and isinstance(owner, dict):
        owner[rng.choice(["extra", "mixer", "kernel", "rungs", "head_width", "sharing", "clip_norm"])] = rng.choice(SCALARS + COLLECTIONS)
    else:
        owner[key] = copy.deepcopy(rng.choice(SCALARS + COLLECTIONS))
    return data


def spoil_text(text: str, rng: random.Random) -> bytes:
    """The text with some characters changed, as an editor, a cat or a disk does."""
    letters = list(text)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(letters))
        length = rng.choice([1, 1, 1, 5, 40])
        letters[at : at + length] = rng.choice(
            ["", "", ":", "\t", "\n", "- ", "[", "}", "&a ", "*a", "!!python/name:os.system ", "#", "'", "\\", "9" * 400]
        )
    raw = "".join(letters).encode()
    return raw[: rng.randrange(len(raw))] if rng.random() < 0.05 else raw


def spoilt_file(folder: Path, rng: random.Random) -> str:
    """Writes `spoilt.yaml` (or a run `spoilt`), and gives a command that reads it."""
    kind = rng.choice([*PLACES])
    shipped = {
        "space": [SPACE, *((REPOSITORY / f"search_spaces/{name}.yaml").read_text() for name in ("cifar_small", "spach"))],
        "recipe": [RECIPE, *((REPOSITORY / f"recipes/{name}.yaml").read_text() for name in ("cifar", "imagenet"))],
        "architecture": [(folder / "runs/best.yaml").read_text(), (folder / "as_mlp_t.yaml").read_text()],
        "run": [(folder / "runs/found/run.yaml").read_text()],
    }[kind]
    text = rng.choice(shipped)
    target = folder / "spoilt.yaml"
    if kind == "run":
        (folder / "runs/found").rename(folder / "runs/spoilt")
        target = (
            folder
            / "runs/spoilt"
            / rng.choice(["run.yaml", "run.yaml", "best.yaml", "metrics.jsonl", "metrics.jsonl", "200kMACs-evolution.yaml"])
        )
        text = target.read_text()
    if target.suffix == ".jsonl":
        lines = text.splitlines()
        for at in rng.sample(range(len(lines)), 5):
            lines[at] = (
                json.dumps(spoil(json.loads(lines[at]), rng)) if rng.random() < 0.8 else spoil_text(lines[at], rng).decode(errors="replace")
            )
        target.write_text("\n".join(lines) + "\n")
    elif target.suffix == ".yaml" and rng.random() < 0.8:
        data = yaml.safe_load(text)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            data = spoil(data, rng)
        target.write_bytes(yaml.safe_dump(data, allow_unicode=True, sort_keys=False).encode(errors="replace"))
    else:
        target.write_bytes(spoil_text(text, rng))
    return rng.choice(PLACES[kind])


def yaml_case(number: int, finished: Path, folder: Path) -> None:
    rng, here = random.Random(number), own_copy(finished, folder)
    line = spoilt_file(here, rng)
    happened("random YAML", line.split()[0], assert_ends_well(line, here))


# ---- command lines ---------------------------------------------------------------------------------------------------------

WORDS = [
    "", " ", "-", "--", "0", "1", "-1", "2", "3.5", "nan", "inf", "-inf", "1e309", "1e-320", "99999999999999999999", "0x10", "\u0661", "true", "é", "\udcff", "a\nb", "a'b",
    "x" * 5000, "*", "$HOME", "~", "%s", "{}", "..", "../x", "./x", "/nowhere/x", "/dev/null", "/dev/zero", "/proc/self/mem", "fifo", "link", "text", "bytes", "images",
    "images/train", "images/train/0", "tiny.yaml", "plain.yaml", "as_mlp_t.yaml", "as_mlp_t", "runs", "runs/best.yaml", "runs/found", "found", "trained", "runs/found/study.db",
    "runs/found/supernet.pt", "runs/found/metrics.jsonl", "runs/found/run.yaml", "runs/trained", "runs/trained/weights.safetensors", "runs/trained/result.yaml",
    "digits", "CIFAR10", "hfds/a/b", "cifar_small", "hybrid", "cpu", "cuda", "cuda:9", "auto", "cpu:eager", "cpu:onnxruntime,threads=1", "cpu,batch=0", "onnx", "torch", "test",
    "200kMACs", "5MMACs", "4.5GFLOPs", "28Mparams", "8ms", "120img/s", "2GB", "1e300GMACs", "1e-300MACs", "-1ms", "MACs", "5", "random", "tpe", "nsga2", "evolution",
]  # fmt: skip
OUTPUTS = ("--out", "--output", "--gallery")  # written where the user says, outside too
INSIDE = [word for word in WORDS if word not in ("..", "../x", "link")]
OWN = {  # what an option is mostly given
    "--budget": ["200kMACs", "250kMACs", "12kparams", "1GMACs"], "--winner": ["200kMACs"], "--space": ["tiny.yaml"], "--recipe": ["plain.yaml"],
    "--data": ["images", "images", "digits"], "--device": ["cpu"], "--run": ["found", "new", "trained"], "--loaders": ["1", "0"], "--steps": ["1", "20"],
    "--output": ["out.onnx", "out.pt2", "out"], "--out": ["out", "out.svg", "out.png", "out.html"], "--gallery": ["out"], "--trials": ["8", "9", "0"], "--workers": ["0", "1"],
    "--start": ["runs/best.yaml"], "--also": ["runs/best.yaml"], "--init": ["runs/trained/weights.safetensors"], "--storage": ["postgresql://"], "--ray-address": ["127.0.0.1:1"],
    "--port": ["8080"], "--resolution": ["16", "32"], "--target": ["cpu"], "--split": ["test", "train"], "--images": ["100"], "--classes": ["4"],
}  # fmt: skip
ARGUMENTS = {
    "FILE": ["runs/best.yaml", "as_mlp_t", "found"], "FILE...": ["runs/best.yaml", "as_mlp_t"], "RUN": ["found", "trained"], "[RUN]": ["found"], "WEIGHTS": ["trained", "runs/trained/weights.safetensors"],
    "IMAGE...": ["images/train/0", "images"], "PRESET": ["as_mlp_t"],
}  # fmt: skip


def random_line(rng: random.Random) -> str:
    """A command with some of its options, most of their values fitting; here and there a word too many, or one too few."""
    command = rng.choice(COMMANDS)
    words = [str(command.name)]
    for each in command.params:
        fits = rng.random() < 0.85
        if isinstance(each, click.Argument):
            words += [rng.choice(ARGUMENTS[each.metavar or ""] if fits else WORDS)] * (rng.random() < 0.95)
        elif rng.random() < (
            0.9
            if each.opts[0] in ("--space", "--recipe", "--data", "--device")
            else 0.8
            if each.required or each.opts[0] == "--budget"
            else 0.12
        ):
            name = rng.choice(each.opts + each.secondary_opts)
            flag = getattr(each, "is_flag", False)
            value = rng.choice(OWN.get(each.opts[0], ["1", "2", "0.5"]) if fits else WORDS if each.opts[0] not in OUTPUTS else INSIDE)
            words += [name] if flag else [f"{name}={value}"] if rng.random() < 0.5 else [name, value]
    if rng.random() < 0.1:
        words.insert(rng.randrange(len(words) + 1), rng.choice(INSIDE))
    if rng.random() < 0.05:
        del words[rng.randrange(len(words))]
    return shlex.join(words)


def line_case(number: int, finished: Path, folder: Path) -> None:
    line, here = random_line(random.Random(number)), own_copy(finished, folder)
    command = next((word for word in shlex.split(line) if word in {each.name for each in COMMANDS}), "no command")
    happened("random command line", command, assert_ends_well(line, here))


@contextmanager
def a_step_of_work() -> Iterator[list[int]]:
    """Trainings do a step, and the plan those that it times, before they are stopped; gives how many steps there were, by training."""
    did = list[int]()

    def works(model: Any, batches: Any, course: Any, watch: Any, *path: Any) -> Any:
        asked, did_before = iter([False]), watch.stop
        did.append(0)
        if course.steps > TIMED["cpu"]:
            watch.stop = lambda: next(asked, True) or did_before()
        real_step = watch.step

        def step(done: int, *told: float) -> None:
            did[-1] += 1
            real_step(done, *told)

        watch.step = step
        return train_model(model, batches, course, watch, *path)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("training.train_supernet", "training.train_network", "training.plan"):
            patch.setattr(importlib.import_module(f"nas.{name}"), "train_model", works)
        yield did


@pytest.mark.slow
def test_what_is_accepted_of_random_files_and_lines_trains_or_says_why_not(
    finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The first cases that stop where work would begin: once more, with work. One that is at work for a minute is no hang here."""
    folder, worked, numbers = tmp_path_factory.getbasetemp() / "worked", 0, itertools.count()
    while worked < WORKED:
        rng, here = random.Random(number := next(numbers)), own_copy(finished, folder)
        line = spoilt_file(here, rng) if number % 2 else random_line(rng)
        if assert_ends_well(line, here) != "stopped where work begins":
            continue
        again = own_copy(finished, folder)
        line = spoilt_file(again, random.Random(number)) if number % 2 else line
        with a_step_of_work() as did:
            try:
                ending = assert_ends_well(line, again)
            except Hangs:
                assert any(did), line
                ending = "at work for a minute"
        if did:
            worked += 1
            happened("random input that is accepted", line.split()[0], f"{ending}, after {'a step' if any(did) else 'no step'}")


@pytest.mark.whole
@given(cases)
@some(FEW)
def test_any_yaml_ends_well(finished: Path, tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    yaml_case(number, finished, tmp_path_factory.getbasetemp() / "yaml")


@pytest.mark.whole
@given(cases)
@some(FEW)
def test_any_command_line_ends_well(finished: Path, tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    line_case(number, finished, tmp_path_factory.getbasetemp() / "lines")


@pytest.mark.slow
@given(cases)
@some(MANY)
def test_thousands_of_yaml_files_end_well(finished: Path, tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    yaml_case(number, finished, tmp_path_factory.getbasetemp() / "yaml")


@pytest.mark.slow
@given(cases)
@some(MANY)
def test_thousands_of_command_lines_end_well(finished: Path, tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    line_case(number, finished, tmp_path_factory.getbasetemp() / "lines")
