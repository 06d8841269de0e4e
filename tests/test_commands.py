"""The commands as a user gives them: what they leave, what they say, what interrupts them and what they refuse."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from command_line import refused, run, succeed
from PIL import Image
from processes import forks
from sklearn.datasets import load_digits
from studies import stored

from nas.machine import cores
from nas.networks.weight_files import load_weights
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import Run
from nas.runs.records import read_run
from nas.searching.search_run import SearchRun
from nas.yaml_files import read_yaml, write_yaml

REPOSITORY = Path(__file__).parents[1]
SPACE = """
format: search space 1
frame: {resolution: 32, channels: 3, classes: 10}
patch: 4
stages:
  - {width: [16, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2], kernel: [3, 5]}
  - {width: [32, 64], depth: [1, 2], mixer: [conv, attention], mlp_ratio: [1, 2], head_width: 16, sharing: [false, true]}
"""
RUN = Path("runs/tiny-digits-digits-0-smoke")
SEARCH = "search --space tiny.yaml --smoke --steps 4 --budget 1MMACs"
RETRAIN = "retrain runs/best.yaml --smoke --steps 4"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands run: a space of two small stages."""
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(SPACE)
    succeed(SEARCH, folder)
    succeed(RETRAIN, folder)
    return folder


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A folder in which a search and a retraining are done; one's own copy."""
    return shutil.copytree(finished_once, tmp_path / "finished")


# What each part of a command calls, whoever calls it: the places at which tests interrupt, kill or forbid.
STEP = "nas.training.report:Report.step"
TRAIN = "nas.spaces.supernet:Supernet.forward"
EVALUATE = "nas.spaces.supernet:Supernet.subnet"
TEST = "nas.data.batches:Data.evaluation_batches"
RUN_NETWORK = "nas.networks.network:Network.forward"


def place(target: str) -> tuple[Any, str]:
    """The class of a target, and the method's name."""
    module, _, path = target.partition(":")
    owner, _, name = path.partition(".")
    return getattr(importlib.import_module(module), owner), name


def no_work(monkeypatch: pytest.MonkeyPatch, *targets: str) -> None:
    """Makes these fail the test when they are called."""
    for target in targets:
        monkeypatch.setattr(*place(target), lambda *args, target=target, **options: pytest.fail(f"{target} was called"))


def trials(folder: Path, run_folder: Path, study: str) -> list[Any]:
    """What is in a study, without times."""
    with stored(folder / run_folder / "study.db", study) as found:
        return [(each.number, each.state.name, each.params, each.values, each.user_attrs["arch_key"]) for each in found.trials]


def tree(folder: Path) -> dict[str, bytes]:
    """All files with their content; a lock says nothing."""
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names if name != ".lock"]
    return {path: Path(path).read_bytes() for path in paths}


# ---- the four commands on images ---------------------------------------------------------------------------------------


def digit_images(count: int, side: int = 12) -> list[tuple[bytes, int]]:
    """PNG files of the first digits, a few of each class."""
    digits = load_digits()
    files = []
    for pixels, label in zip(digits.images[:count], digits.target[:count], strict=True):
        buffer = io.BytesIO()
        Image.fromarray((pixels * 15).astype(np.uint8)).resize((side, side)).save(buffer, "PNG")
        files.append((buffer.getvalue(), int(label)))
    return files


def write_image_folder(folder: Path) -> Path:
    for number, (content, label) in enumerate(digit_images(120)):
        path = folder / ("val" if number % 3 == 2 else "train") / f"digit {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_parquet_folder(folder: Path) -> Path:
    folder.mkdir()
    images = digit_images(120)
    for name, part in (("train", images[:80]), ("test", images[80:])):
        rows = {"image": [{"bytes": content, "path": None} for content, _ in part], "label": [label for _, label in part]}
        pq.write_table(pa.table(rows), folder / f"{name}.parquet")
    return folder


def write_nothing(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("write", "data", "resolution", "recipe"),
    [
        (write_nothing, "digits", 32, "digits"),
        (write_image_folder, "images", 16, "cifar_cpu"),
        (write_parquet_folder, "rows", 16, "cifar_cpu"),
    ],
)
def test_the_four_commands_on_real_images(
    write: Callable[[Path], Path], data: str, resolution: int, recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 12 px are raised to the space's stride, to 16; each command takes from the one before what it left."""
    write(folder / data)
    option = "" if data == "digits" else f"--data {data}/"  # as a shell completes it
    assert "Next: " in succeed(f"train --space tiny.yaml --smoke --steps 4 {option}", folder)
    with monkeypatch.context() as patch:
        no_work(patch, TRAIN)
        said = succeed(f"search --space tiny.yaml --smoke --budget 1MMACs {option.rstrip('/')}", folder)
    assert "python launch.py retrain runs/best.yaml" in said
    assert ("a ranking means little" in said) is (data == "digits")

    best = read_yaml(folder / "runs/best.yaml")
    name = f"tiny-{data}-{recipe}-0-smoke"
    assert (folder / "runs" / name / "best.yaml").read_bytes() == (folder / "runs/best.yaml").read_bytes()
    expected = {"format": "architecture 1", "space": "tiny.yaml", "recipe": recipe, "resolution": resolution, "seed": 0}
    expected |= {"run": name, "study": "1MMACs-evolution", "budgets": ["1MMACs"], "device": "cuda" if torch.cuda.is_available() else "cpu"}
    assert expected.items() <= best.items()
    assert best["architecture"]["frame"] == {"resolution": 32, "channels": 3, "classes": 10}, "budgets are counted in the space's frame"
    assert best["command"].startswith("launch.py search --space tiny.yaml") and {"python", "torch", "optuna"} <= best["versions"].keys()
    assert 0.8e6 <= best["costs"]["macs"] <= 1e6

    counted = json.loads(succeed("profile runs/best.yaml --json", folder))
    assert best["costs"].items() <= counted.items()
    assert best["architecture"]["frame"].items() <= counted.items()
    assert f"{counted['params']:,}" in succeed(f"profile {name}", folder)

    said = succeed(RETRAIN, folder)
    (result_file,) = folder.glob("runs/retrain-*/result.yaml")
    result = read_yaml(result_file)
    assert {key: result[key] for key in ("recipe", "resolution")} == {"recipe": recipe, "resolution": resolution}
    assert result["data"] == best["data"] == (data if data == "digits" else str((folder / data).resolve()))
    assert result["data_fingerprint"] == best["data_fingerprint"]
    assert f"Test accuracy: {result['result']['test_accuracy']:.2%} of {result['result']['test_images']} images" in said
    assert result["result"]["test_images"] == (359 if data == "digits" else 40)
    (pasted,) = re.findall(r"^Next: +python launch.py (.*) IMAGE$", said, re.M)
    (folder / "image.png").write_bytes(digit_images(1)[0][0])
    assert "image.png" in succeed(f"{pasted} image.png", folder)
    tensors, metadata = load_weights(result_file.with_name("weights.safetensors"))
    assert sum(tensor.numel() for tensor in tensors.values()) > 0 and len(json.loads(metadata["classes"])) == 10


# ---- the same command again, another budget ----------------------------------------------------------------------------


def test_the_same_command_reprints_its_result_and_computes_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_work(monkeypatch, TRAIN, EVALUATE, RUN_NETWORK)
    before = tree(finished)
    assert "This search is done" in (said := succeed(SEARCH, finished)) and "Winner: " in said
    assert "This retraining is done" in (said := succeed(RETRAIN, finished)) and "Test accuracy: " in said
    assert tree(finished) == before


def test_another_budget_is_another_study_on_the_same_supernet(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_work(monkeypatch, TRAIN)
    first = (finished / "runs/best.yaml").read_bytes()
    succeed("search --space tiny.yaml --smoke --steps 4 --budget 0.7MFLOPs --budget 28kparams", finished)
    best = read_yaml(finished / "runs/best.yaml")
    assert best["budgets"] == ["700kMACs", "28kparams"] and best["study"] == "700kMACs-28kparams-evolution"
    assert best["costs"]["macs"] <= 700_000 and best["costs"]["params"] <= 28_000
    assert trials(finished, RUN, best["study"]) and trials(finished, RUN, "1MMACs-evolution")
    succeed(SEARCH, finished)
    assert (finished / "runs/best.yaml").read_bytes() == first, "runs/best.yaml is the last command's winner"


def test_more_trials_continue_the_study(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_work(monkeypatch, TRAIN)
    before = trials(finished, RUN, "1MMACs-evolution")
    succeed(f"{SEARCH} --trials 6", finished)
    after = trials(finished, RUN, "1MMACs-evolution")
    assert after[: len(before)] == before
    assert len({key for _, state, *_, key in after if state == "COMPLETE"}) == 6


def test_a_latency_budget_is_measured_and_an_impossible_one_loses_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    succeed("search --space tiny.yaml --smoke --steps 4 --budget 1MMACs --budget 10s", finished)
    best = (finished / "runs/best.yaml").read_bytes()
    assert 0 < read_yaml(finished / "runs/best.yaml")["costs"]["latency_ms"] < 10_000

    impossible = "search --space tiny.yaml --smoke --steps 4 --budget 0.001ms"
    assert "no network of space tiny was found that obeys it here" in refused(impossible, finished)
    monkeypatch.setattr(SearchRun, "check_measured", lambda self: None)  # the smallest network is as fast, and no other
    outcome = run(impossible, finished)
    assert outcome.status == 2 and "--budget 1us: no network evaluated obeys it" in outcome.err.splitlines()[-1]
    no_work(monkeypatch, EVALUATE, RUN_NETWORK)  # what was evaluated is stored
    assert "no network evaluated obeys it" in refused(impossible, finished)
    assert (finished / "runs/best.yaml").read_bytes() == best


def test_a_budget_above_the_largest_network_is_said_to_be_no_limit(finished: Path) -> None:
    said = succeed("search --space tiny.yaml --smoke --steps 4 --budget 4.5GFLOPs", finished)
    assert "--budget 4.5GMACs is no limit: the largest network of tiny has" in said or "--budget 4.5GFLOPs is no limit" in said
    assert "0% of the tightest budget" not in said


def test_a_supernet_is_searched_within_what_it_was_trained_for_alone(finished: Path) -> None:
    """Where the user named its run; where nobody did another begins, named after its budget."""
    run_folder, before = finished / RUN, tree(finished / RUN)
    levels = read_run(run_folder).record.supernet.levels  # type: ignore[union-attr]
    assert levels == {"macs": (5e5, 1.2e6)}
    for line in (SEARCH.replace("1MMACs", "1.3MMACs"), "train --space tiny.yaml --smoke --budget 0.6MMACs --budget 3MMACs"):
        said = refused(f"{line} --run {RUN.name}", finished)
        assert "--budget" in said and "500 kMACs to 1.20 MMACs" in said and RUN.name in said
    assert "This search is done" in succeed(f"{SEARCH} --run {RUN.name}", finished)
    said = succeed("train --space tiny.yaml --smoke --steps 1 --budget 1.3MMACs", finished)
    other = finished / "runs/tiny-digits-digits-0-smoke-1.3MMACs"
    assert read_run(other).record.supernet.levels == {"macs": (6.5e5, 1.56e6)} and other.name in said  # type: ignore[union-attr]
    assert (
        tree(run_folder).keys() == before.keys()
        and tree(run_folder)[str(run_folder / "supernet.pt")] == before[str(run_folder / "supernet.pt")]
    )


def test_what_no_budget_rewards_is_said_not_to_be_searched(finished: Path) -> None:
    """Sharing a mixer costs as many multiply-adds as not to, and fewer parameters."""
    said = "Not searched, since no budget rewards it: s1.sharing False.\n"
    for line in ("train --space tiny.yaml --smoke --dry-run --budget", "search --space tiny.yaml --smoke --dry-run --budget"):
        assert said in succeed(f"{line} 1MMACs", finished) and "Not searched" not in succeed(f"{line} 28kparams", finished)


@pytest.mark.parametrize(("largest", "ready"), [(0.31, True), (0.3, False), (0.2, False)])
def test_a_supernet_whose_largest_network_does_not_lead_is_said_not_to_be_ready(largest: float, ready: bool, finished: Path) -> None:
    """By the last look at it."""
    run = Run(RUN.name, finished / "runs")
    run.log("supernet rung", step=3, smallest=0.3, median=0.3, largest=0.61 - largest)
    run.log("supernet rung", step=4, smallest=0.3, median=0.3, largest=largest)
    said = succeed("train --space tiny.yaml --smoke --budget 1MMACs", finished)
    sentence = f"its largest network ({largest:.1%}) does not lead its smallest (30.0%)"
    assert ("not ready" not in said) if ready else (sentence in said)


# ---- interrupted -------------------------------------------------------------------------------------------------------

KILLED = """
import importlib, itertools, os, signal, sys
import launch, nas.training.loop
nas.training.loop.CHECKPOINT_SECONDS = 0.0
owner, name = getattr(importlib.import_module({module!r}), {owner!r}), {name!r}
calls, real = itertools.count(1), getattr(owner, name)
def dies(*args):
    if next(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
setattr(owner, name, dies)
sys.argv = ["launch.py", *{words!r}]
launch.main()
"""


Forked = Callable[[str, Path], int]


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    with forks() as run:
        yield run


def killed(forked: Forked, line: str, folder: Path, target: str) -> None:
    """Runs a command in a process that kills itself when it calls the target for the third time."""
    owner, name = place(target)
    code = KILLED.format(module=owner.__module__, owner=owner.__name__, name=name, words=shlex.split(line))
    assert forked(code, folder) == -signal.SIGKILL


def interrupt_at(monkeypatch: pytest.MonkeyPatch, target: str, call: int) -> None:
    """Presses Ctrl-C while the target is called for the n-th time."""
    real, calls = getattr(*place(target)), iter(range(1, 1000))

    def interrupted(*args: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(*place(target), interrupted)


def assert_same_end(folder: Path, other: Path) -> None:
    """The same supernet, study, winner and retrained weights."""
    states = [load_checkpoint(each / RUN / "supernet.pt") for each in (folder, other)]
    assert states[0] and states[1] and states[0]["step"] == states[1]["step"] == 4
    assert all(torch.equal(tensor, states[1]["model"][name]) for name, tensor in states[0]["model"].items())
    assert trials(folder, RUN, "1MMACs-evolution") == trials(other, RUN, "1MMACs-evolution")
    winners = [read_yaml(each / "runs/best.yaml") for each in (folder, other)]
    assert all(winners[0][key] == winners[1][key] for key in ("architecture", "costs", "found"))
    (weights,) = folder.glob("runs/retrain-*/weights.safetensors")
    assert weights.read_bytes() == (other / weights.relative_to(folder)).read_bytes()
    results = [read_yaml(each / weights.relative_to(folder).with_name("result.yaml"))["result"] for each in (folder, other)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_killed_commands_end_as_if_they_had_not_been_killed(folder: Path, finished_once: Path, forked: Forked) -> None:
    killed(forked, SEARCH, folder, STEP)  # in the supernet's training
    assert (folder / RUN / "supernet.pt").exists() and not (folder / RUN / "study.db").exists()
    killed(forked, SEARCH, folder, EVALUATE)  # among the evaluations
    assert len(trials(folder, RUN, "1MMACs-evolution")) == 2 and not (folder / "runs/best.yaml").exists()
    succeed(SEARCH, folder)
    killed(forked, RETRAIN, folder, STEP)
    assert not list(folder.glob("runs/retrain-*/result.yaml"))
    succeed(RETRAIN, folder)
    assert_same_end(folder, finished_once)


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(folder: Path, finished_once: Path) -> None:
    for line, function, call, where in (
        (SEARCH, STEP, 2, "Supernet stopped at step 2 of 4"),
        (SEARCH, EVALUATE, 2, "Search stopped after 1 of 4 evaluations"),
        (SEARCH, "", 0, ""),
        (RETRAIN, STEP, 3, "Retrain stopped at step 3 of 4"),
        (RETRAIN, TEST, 1, "Test stopped after 0 of 359 images"),
        (RETRAIN, "", 0, ""),
    ):
        with pytest.MonkeyPatch.context() as patch:
            if function:
                interrupt_at(patch, function, call)
            outcome = run(line, folder)
        assert outcome.status == (130 if function else 0), outcome
        assert not function or f"{where}; the same command continues." in outcome.out
    assert_same_end(folder, finished_once)


def test_ctrl_c_before_work_begins_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.training.setting.open_data", pressed)
    outcome = run(SEARCH, folder)
    assert outcome.status == 130 and outcome.err.strip() == "launch.py: stopped; the same command continues."
    assert not (folder / "runs").exists()


@pytest.mark.whole
def test_a_damaged_checkpoint_of_a_finished_supernet_is_named_and_trained_again(
    folder: Path, finished_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one before it used as if it were finished."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, STEP, 2)
        assert run(SEARCH, folder).status == 130
    succeed(SEARCH.replace("search", "train").partition(" --budget")[0], folder)
    (folder / RUN / "supernet.pt").write_bytes(b"damaged")
    outcome = run(SEARCH, folder)
    assert outcome.status == 0 and f"{RUN / 'supernet.pt'}: damaged" in outcome.err and "supernet.pt.previous" in outcome.err
    succeed(RETRAIN, folder)
    assert_same_end(folder, finished_once)


def test_two_processes_do_not_write_to_one_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    with Run(RUN.name, Path("runs")).lock():
        assert f"{RUN}: in use by process {os.getpid()}" in refused(SEARCH, finished)


# ---- bad input ---------------------------------------------------------------------------------------------------------


def test_help_is_quick_and_imports_no_torch() -> None:
    code = "import sys, launch; print({'torch', 'optuna', 'ray', 'numpy', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout == "set()\n"

    def seconds() -> float:  # of processor time: the machine may be busy
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = seconds()
    shown = subprocess.run([sys.executable, "launch.py", "search", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert seconds() - before < 1
    assert "--budget" in shown.stdout and max(map(len, shown.stdout.splitlines())) <= 80


# What the one line says besides what went wrong: the words that the user gave, where they stand, and the nearest name.
MISTAKES: dict[str, tuple[str, ...]] = {
    # the command line
    "": ("search", "retrain"),
    "serach --budget 1GMACs": ("serach", "search"),
    "search": ("search", "--budget", "4.5GFLOPs"),
    "search --bugdet 1GMACs": ("--bugdet", "--budget"),
    "search --budget 1GMACs --trails=3": ("--trails", "--trials"),
    "train --budgte 1GMACs": ("train", "--budgte", "--budget"),
    "train extra": ("extra",),
    "retrain": ("retrain", "FILE"),
    "search --budget 1MMACs --trials 0 --finalists 0": ("--trials", "--finalists"),
    "search --budget 1MMACs --trials 1.5": ("--trials", "1.5"),
    "search --budget 1MMACs --trials": ("--trials",),
    "search --budget 1MMACs --sampler tpee": ("tpee", "nsga2", "tpe"),
    "search --budget 1MMACs --target cpu,batch=0": ("--target", "batch", "0"),
    "train --seed -1": ("--seed", "-1"),
    "train --seed 99999999999999999999": ("--seed",),
    "train --epochs x": ("--epochs", "x"),
    "train --epochs 0": ("--epochs", "0", "more than 0"),
    "train --epochs nan": ("--epochs", "nan"),
    "train --epochs inf": ("--epochs", "inf"),
    "train --epochs 1 --steps 2": ("--steps", "--epochs"),
    "train --device gpu": ("--device", "gpu", "cuda:N", "mean 'cuda'"),
    "train --device cuda:x": ("--device", "cuda:x"),
    "train --resolution 33": ("33", "stride 8", "32 and 40"),
    "train --resolution 1048576": ("--resolution", "1048576", "4096"),
    "retrain spach_trans_xxs --resolution 4096 --device cpu": ("--resolution", "4096 px", "MACs"),  # attention over a million tokens
    "train --loaders -1": ("--loaders", "-1"),
    f"search --budget 1MMACs --workers {cores() + 1}": ("--workers", str(cores() + 1), str(cores())),
    "search --budget 1MMACs --floor 2": ("--floor", "2"),
    "search --budget 1MMACs --floor 1": ("--floor", "1"),  # a network of exactly the budget is nobody's wish
    "search --budget 1MMACs --floor nan": ("--floor", "nan"),
    # budgets
    "search --budget 0": ("--budget", "'0'", "GFLOPs"),
    "search --budget 0GMACs": ("--budget", "0GMACs", "positive"),
    "search --budget=-1GMACs": ("--budget", "-1GMACs", "positive"),
    "search --budget nanGMACs": ("--budget", "nanGMACs"),
    "search --budget infms": ("--budget", "infms"),
    "search --budget abc": ("--budget", "abc"),
    "search --budget ''": ("--budget", "''"),
    "search --budget 4.5GMAX": ("--budget", "GMAX", "GMAC"),
    "search --budget 1GMACs --budget 2GFLOPs": ("--budget", "1GMACs", "2GMACs"),
    "search --budget 1kMACs": ("1kMACs", "tiny", "smallest"),
    # the run's name
    "train --run ../x": ("--run", "../x"),
    "train --run /elsewhere": ("--run", "/elsewhere"),
    "train --run ''": ("--run", "''"),
    "train --run link": ("--run", "link"),
    "train --run file": ("--run", "file"),
    # spaces and recipes
    "train --space hybird": ("--space", "hybird", "'hybrid'"),
    "train --space nowhere.yaml": ("nowhere.yaml",),
    "train --space mixer.yaml": ("mixer.yaml", "stages[1].mixer", "atention", "'attention'"),
    "train --space key.yaml": ("key.yaml", "witdh", "'width'"),
    "train --space heads.yaml": ("heads.yaml", "stages.1", "attention", "width"),
    "train --space empty.yaml": ("empty.yaml",),
    "train --space recipe.yaml": ("recipe.yaml", "recipe 1", "search space"),
    "train --space binary.yaml": ("binary.yaml", "utf-8"),
    "train --space code.yaml": ("code.yaml", "line 1", "tags"),
    "train --recipe digit": ("--recipe", "digit", "'digits'"),
    "train --recipe ''": ("--recipe", "''"),
    "train --recipe tiny.yaml": ("tiny.yaml", "search space"),
    "train --space tiny.yaml --recipe large.yaml": ("5000",),
    # data
    "train --data nowhere": ("--data", "nowhere"),
    "train --data ./nowhere": ("--data", "./nowhere"),
    "train --data ''": (),
    "train --data CIFAR10": ("CIFAR10", "--data-root"),
    "train --data digit": ("digit", "digits"),
    "train --data nothing": ("nothing",),
    "train --data classless": ("bee",),
    "train --data broken": ("2.png",),
    "train --data unreadable": ("train.parquet",),
    # files of architectures
    "retrain nowhere.yaml": ("nowhere.yaml",),
    "retrain .": (".", "folder"),
    "retrain recipe.yaml": ("recipe.yaml", "architecture"),
    "retrain text.yaml": ("text.yaml",),
    "retrain binary.yaml": ("binary.yaml", "utf-8"),
    "retrain runs/best.yaml --data images --batch-size 128": ("128", "80 images"),
    "retrain strange.yaml": ("strange.yaml", "resolution", "big"),
    "retrain permute.yaml --resolution 40": ("stages.0", "permute"),
    "profile mixers.yaml": ("permtue", "permute"),
    "profile nowhere": ("nowhere",),
    "profile nothing": ("nothing/best.yaml",),
    "profile tiny.yaml": ("tiny.yaml", "search space", "architecture"),
    "profile permute.yaml --jsno": ("--jsno", "--json"),
}
PERMUTE = """
format: architecture 1
architecture:
  frame: {resolution: 32, channels: 3, classes: 10}
  patch: 2
  stages: [{width: 32, mixers: [permute], mlp_ratio: 1}]
"""


@pytest.fixture(scope="module")
def mistaken(finished_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, and everything that can be wrong in files."""
    folder = shutil.copytree(finished_once, tmp_path_factory.mktemp("mistakes") / "here")
    (folder / "runs/link").symlink_to(folder)
    (folder / "runs/file").write_text("")
    recipe = (REPOSITORY / "recipes/digits.yaml").read_text()
    files = {
        "mixer": SPACE.replace("[conv, attention]", "[conv, atention]"),
        "key": SPACE.replace("width: [16", "witdh: [16"),
        "heads": SPACE.replace("head_width: 16", "head_width: 24"),
        "empty": "",
        "recipe": recipe,
        "code": "!!python/object/apply:os.system ['touch hacked']",
        "large": recipe.replace("batch_size: 32", "batch_size: 5000"),
        "text": "just words",
        "permute": PERMUTE,
        "mixers": PERMUTE.replace("[permute]", "[permtue]"),
        "strange": PERMUTE + "data: digits\nresolution: big\n",
    }
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "binary.yaml").write_bytes(bytes(range(255, 0, -1)))
    (folder / "nothing").mkdir()
    write_image_folder(folder / "images")
    for name in ("classless", "broken"):
        write_image_folder(folder / name)
    for split in ("train", "val"):
        (folder / "classless" / split / "bee").mkdir()
    (broken,) = (folder / "broken").rglob("2.png")
    broken.rename(folder / "broken/train" / broken.parent.name / "2.png").write_bytes(b"\x89PNG, but no more")
    (folder / "unreadable").mkdir()
    for split in ("train", "test"):
        (folder / f"unreadable/{split}.parquet").write_bytes(b"PAR1 and nothing")
    return folder


@pytest.fixture(scope="module")
def untouched(mistaken: Path) -> dict[str, bytes]:
    return tree(mistaken)


@pytest.mark.parametrize(("line", "words"), MISTAKES.items(), ids=[line or "nothing" for line in MISTAKES])
def test_a_mistake_is_one_line_and_changes_nothing(line: str, words: tuple[str, ...], mistaken: Path, untouched: dict[str, bytes]) -> None:
    command = line.partition(" ")[0]
    if command in ("search", "train") and "--space" not in line:
        line = line.replace(command, f"{command} --space tiny.yaml --smoke", 1)
    said = refused(line, mistaken)
    assert all(word in said for word in words), said
    assert tree(mistaken) == untouched


def test_a_gpu_that_is_not_there_is_refused(mistaken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device: no usable GPU here: got 'cuda'; accepted: cpu or auto" in refused("train --space tiny.yaml --device cuda", mistaken)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (f"{SEARCH} --seed 1 --run {RUN.name}", "seed"),
        (f"train --space tiny.yaml --smoke --steps 4 --seed 1 --run {RUN.name}", "seed"),
        (SEARCH.replace("--steps 4", "--steps 5"), "steps"),
        (SEARCH.replace("--steps 4", "--epochs 5"), "epochs"),
        (f"{SEARCH} --resolution 64 --run {RUN.name}", "resolution"),
        (f"{SEARCH} --recipe cifar_cpu --run {RUN.name}", "bf16"),
        (RETRAIN.replace("--steps 4", "--steps 5"), "steps"),
    ],
)
def test_a_run_is_not_continued_with_what_would_need_another_supernet(line: str, key: str, finished: Path) -> None:
    before = tree(finished)
    assert key in refused(line, finished)
    assert tree(finished) == before


# ---- what a run is -----------------------------------------------------------------------------------------------------


def test_a_changed_space_is_another_space_and_a_moved_one_is_the_same(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finished / "elsewhere").mkdir()
    (finished / "tiny.yaml").rename(finished / "elsewhere/tiny.yaml")
    assert "This search is done" in succeed(SEARCH.replace("tiny.yaml", str(finished / "elsewhere/tiny.yaml")), finished)
    (finished / "tiny.yaml").write_text(SPACE.replace("[16, 32]", "[16, 48]"))
    assert "tiny.yaml" in refused(SEARCH, finished)


def test_the_same_images_by_another_path_are_the_same_run_and_changed_ones_are_not(folder: Path) -> None:
    images = write_image_folder(folder / "images")
    line = "search --space tiny.yaml --smoke --steps 2 --trials 2 --budget 1MMACs --data"
    succeed(f"{line} images", folder)
    assert "This search is done" in succeed(f"{line} {images.resolve()}", folder)
    changed = next(images.glob("train/*/*.png"))
    changed.rename(changed.with_name("renamed.png"))
    said = refused(f"{line} images", folder)
    assert "images" in said and str(images) in said


def test_a_search_of_a_named_run_takes_the_rest_from_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that `train` prints can be pasted, also where nothing was the default."""
    images = write_image_folder(folder / "my images")
    said = succeed(f"train --space tiny.yaml --smoke --steps 3 --seed 7 --resolution 24 --data '{images}' --run mine", folder)
    (pasted,) = re.findall(r"^Next: python launch.py (.*)$", said, re.M)
    no_work(monkeypatch, TRAIN)
    said = succeed(pasted, folder)
    best = read_yaml(folder / "runs/best.yaml")
    assert (best["data"], best["seed"], best["resolution"], best["space"]) == (str(images.resolve()), 7, 24, "tiny.yaml")
    (pasted,) = re.findall(r"^Next: python launch.py (.*)$", said, re.M)
    succeed(f"{pasted} --smoke --steps 1", folder)


@pytest.mark.parametrize(
    ("option", "fact", "value"),
    [
        ("--floor 0.5", "floor", 0.5),
        ("--start small.yaml", "starts", "small.yaml"),
        ("--sampler random", "sampler", "random"),
        ("--trials 5", "", 5),
    ],
)
def test_what_belongs_to_a_study_is_another_study_on_the_same_supernet(
    option: str, fact: str, value: object, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_work(monkeypatch, TRAIN)
    study = next((finished / RUN / "baselines/1MMACs-evolution").glob("*.yaml"))
    shutil.copy(study, finished / "small.yaml")
    before = trials(finished, RUN, "1MMACs-evolution")
    succeed(f"{SEARCH} {option}", finished)
    assert trials(finished, RUN, "1MMACs-evolution")[: len(before)] == before
    assert "This search is done" in succeed(f"{SEARCH} {option}", finished)
    # And it is what was asked for that was searched with, not only a study of another name.
    told = [study.user_attrs for study in optuna.get_all_study_summaries(f"sqlite:///{finished / RUN / 'study.db'}")]
    given = [str(each.get(fact)) for each in told]
    assert not fact or (sum(str(value) in each for each in given) == 1 and len(told) == 2), given
    best = read_yaml(finished / "runs/best.yaml")["found"]
    assert best["evaluations"] == (5 if option == "--trials 5" else 4)


def test_another_search_part_of_the_recipe_is_another_study(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_work(monkeypatch, TRAIN)
    recipe = (REPOSITORY / "recipes/digits.yaml").read_text()
    (finished / "digits.yaml").write_text(recipe.replace("batch_size: 144", "batch_size: 100"))
    succeed(f"{SEARCH} --recipe digits.yaml --run {RUN.name}", finished)
    assert len(read_run(finished / RUN).searches) == 2


def test_records_are_read_back_as_they_were_written(finished: Path) -> None:
    story = read_run(finished / RUN)
    (winner,) = story.searches.values()
    best = read_yaml(finished / "runs/best.yaml")
    assert winner.architecture.to_dict() == best["architecture"] and winner.found.accuracy_supernet == best["found"]["accuracy_supernet"]
    assert story.record.supernet and story.record.supernet.data == "digits" and story.training is None
    (folder,) = (finished / "runs").glob("retrain-*")
    training = read_run(folder).training
    assert training and training.architecture == winner.architecture and training.result.test_images == 359


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "again"),
    [
        (f"{RUN}/run.yaml", "supernet:", "supernet: 3\nonce:", SEARCH, False),
        (f"{RUN}/run.yaml", "searches:", "searches: [1]\nonce:", SEARCH, False),
        (f"{RUN}/run.yaml", "invocations:", "invocations: 3\nonce:", SEARCH + " --trials 5", False),
        (f"{RUN}/1MMACs-evolution.yaml", "reason:", "season:", SEARCH, True),
        (f"{RUN}/1MMACs-evolution.yaml", "costs:", "costs: none\nonce:", SEARCH, True),
        (f"{RUN}/1MMACs-evolution.yaml", "width: ", "width: 1", SEARCH, True),
        ("runs/retrain/result.yaml", "result:", "results:", f"{RETRAIN} --run retrain", True),
        ("runs/retrain/result.yaml", "test_accuracy: 0", "test_accuracy: 7", f"{RETRAIN} --run retrain", True),
        ("runs/retrain/run.yaml", "phase:", "phrase:", f"{RETRAIN} --run retrain", False),
    ],
)
def test_a_record_changed_by_hand_is_named_with_what_can_be_done(
    file: str, old: str, new: str, line: str, again: bool, finished: Path
) -> None:
    """One line; nothing is copied from it; and where it can be made again, deleting it is enough."""
    (trained,) = (finished / "runs").glob("retrain-*")
    trained.rename(finished / "runs/retrain")
    best, whole = (finished / "runs/best.yaml").read_bytes(), read_yaml(finished / file)
    spoil(finished / file, old, new)
    said = refused(line, finished)
    assert file in said and ("again" in said) and ("cannot be made again" in said) is not again
    assert (finished / "runs/best.yaml").read_bytes() == best
    if again:
        (finished / file).unlink()
        succeed(line, finished)
        made = read_yaml(finished / file)
        assert all(made[key] == whole[key] for key in ("architecture", "costs", "found", "result") if key in whole)


def test_a_checkpoint_of_another_space_is_refused(finished: Path) -> None:
    (finished / "other.yaml").write_text(SPACE.replace("[16, 32]", "[16, 48]"))
    other = finished / "runs/other-digits-digits-0-smoke"
    other.mkdir()
    shutil.copy(finished / RUN / "supernet.pt", other / "supernet.pt")
    outcome = run("train --space other.yaml --smoke", finished)
    last = outcome.err.splitlines()[-1]
    assert outcome.status == 2 and last.startswith("launch.py: ") and "a checkpoint of something else: got supernet of tiny" in last
    assert (other / "supernet.pt").read_bytes() == (finished / RUN / "supernet.pt").read_bytes()
    state = load_checkpoint(finished / RUN / "supernet.pt")
    assert state
    for foreign, line in (
        (state["model"], "train --space other.yaml --smoke"),
        ({**state, "model": {}, "ema": {}}, SEARCH.replace("1MMACs", "0.9MMACs")),
    ):
        place = (other if "other" in line else finished / RUN) / "supernet.pt"
        torch.save(foreign, place)
        last = run(line, finished).err.splitlines()[-1]
        assert last.startswith(f"launch.py: {place.relative_to(finished)}: ") and "a checkpoint of" in last, last


def test_data_that_could_not_be_used_bind_no_later_run(folder: Path) -> None:
    """A recipe mended after it was refused is not compared with what never ran."""
    recipe = (REPOSITORY / "recipes/digits.yaml").read_text()
    (folder / "mine.yaml").write_text(recipe.replace("batch_size: 32", "batch_size: 5000"))
    line = "train --space tiny.yaml --recipe mine.yaml --steps 1"
    refused(line, folder)
    (folder / "mine.yaml").write_text(recipe.replace("batch_size: 32", "batch_size: 4"))
    succeed(line, folder)


@pytest.mark.parametrize("name", ["Ziffern äöü", "_digits", "d" * 80])
def test_any_name_of_a_data_folder_makes_a_run(name: str, folder: Path) -> None:
    write_image_folder(folder / name)
    made = []
    for seed in (0, 1):
        succeed(f"train --space tiny.yaml --smoke --steps 1 --seed {seed} --data '{name}'", folder)
        made = [each for each in (folder / "runs").iterdir() if each.is_dir()]
        assert len(made) == seed + 1, "each seed has a run of its own"


def test_a_retraining_has_a_seed_of_its_own_not_the_searchs(finished: Path) -> None:
    path = finished / "runs/best.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 7"))
    assert read_yaml(path)["seed"] == 7
    succeed(f"{RETRAIN} --run again", finished)
    assert read_yaml(finished / "runs/again/result.yaml")["seed"] == 0


def test_a_retraining_keeps_the_length_that_it_was_begun_with(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_work(monkeypatch, RUN_NETWORK)
    assert "This retraining is done" in succeed(RETRAIN.replace(" --steps 4", ""), finished)


def test_what_a_library_says_in_several_lines_is_said_in_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def complain(texts: object) -> None:
        raise OSError("the disk\nsays no")

    monkeypatch.setattr("nas.quantities.parse_budgets", complain)
    assert "the disk says no" in refused("search --space tiny.yaml --budget 1MMACs", folder)


def test_a_network_that_cannot_be_built_is_not_counted(folder: Path) -> None:
    stage = {"width": 30, "mixers": ["s2_shift"], "mlp_ratio": 2.0}
    frame = {"resolution": 32, "channels": 3, "classes": 10}
    write_yaml(folder / "odd.yaml", {"format": "architecture 1", "architecture": {"frame": frame, "patch": 4, "stages": [stage]}})
    assert "s2_shift" in refused("profile odd.yaml", folder)
