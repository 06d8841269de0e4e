"""What the commands hand on: which images, paths, weights, augmentation, precision, threads and seeds the loops really receive.

Each command runs once as a user gives it, on images that carry numbers (`recording.py`), and the laws look at what was recorded.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import math
import os
import shutil
import signal
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pytest
import torch
from command_line import refused, run, succeed
from PIL import Image
from recording import CLASSES, SIDE, Clock, Pass, Recording, numbers, recording, write_images
from studies import stored
from torch import Tensor
from tracing import trace

from nas.cost import cost
from nas.data import Data, DataSource
from nas.machine import cores
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.networks.trained import load_network
from nas.networks.weight_files import load_weights
from nas.runs.folder import Run
from nas.searching.search_run import SearchRun
from nas.spaces.decisions import SearchSpace
from nas.spaces.levels import Levels
from nas.spaces.supernet import Supernet
from nas.training.paths import path_of_step
from nas.yaml_files import read_yaml

SPACE = """
format: search space 1
frame: {resolution: 32, channels: 3, classes: 10}
patch: 4
stages:
  - {width: [16, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2]}
  - {width: 32, depth: 2, mixer: [conv, attention], mlp_ratio: 1, head_width: 16}
"""
RECIPE = """
format: recipe 1
bf16: never
supernet:
  {steps: 6, batch_size: 8, lr: 1.0e-3, warmup: 0.5, weight_decay: 0.1, clip_norm: 0.02, label_smoothing: 0.05, augmentation: {flip: true}}
search: {trials: 5, population: 4, batch_size: 12}
retrain:
  steps: 30  # an average of the weights is their last value in less than 20
  batch_size: 6
  lr: 4.0e-3
  min_lr: 1.0e-4
  warmup: 0.2
  weight_decay: 0.2
  clip_norm: 0.01
  label_smoothing: 0.1
  drop_path: 0.3
  ema: true
  augmentation: {mixup: 0.2}
"""
SUPERNET, RETRAIN = ({"steps": 6, "batch": 8, "lr": 1e-3, "min_lr": 0.0, "warmup": 3, "decay": 0.1, "clip": 0.02, "smoothing": 0.05},
                     {"steps": 30, "batch": 6, "lr": 4e-3, "min_lr": 1e-4, "warmup": 6, "decay": 0.2, "clip": 0.01, "smoothing": 0.1})  # fmt: skip
FIT, HELD_OUT, TEST = numbers("train"), numbers("val"), numbers("test")
WITH = "--device cpu --data images --space tiny.yaml --recipe plain.yaml"
BUDGETS = "--budget 600kMACs --budget 10000s"


def write_inputs(folder: Path) -> Path:
    write_images(folder / "images")
    files = {"tiny": SPACE, "plain": RECIPE, "bf16": RECIPE.replace("never", "always"), "raw": RECIPE.replace("ema: true", "ema: false")}
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def blank_test_images(folder: Path) -> dict[Path, bytes]:
    """Makes the test images show nothing, at the same size in bytes; gives what they were."""
    images = {path: path.read_bytes() for path in (folder / "images/test").rglob("*.png")}
    for path, content in images.items():
        Image.new("L", (SIDE, SIDE)).save(path)
        path.write_bytes(path.read_bytes().ljust(len(content), b"\0"))
    return images


class Searched(NamedTuple):
    folder: Path
    seen: Recording
    space: SearchSpace  # at the images' frame
    trials: list[optuna.trial.FrozenTrial]  # those evaluated


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def searched(inputs: Path) -> Searched:
    clock, test_images = Clock(), blank_test_images(inputs)
    with pytest.MonkeyPatch.context() as patch, pretended_threads(patch, 7), recording(before_pass=clock.before_pass) as seen:
        patch.setattr("time.perf_counter", clock)
        patch.setattr(SearchRun, "check_measured", lambda self: None)  # by this clock no pass is short
        succeed(f"search {WITH} {BUDGETS} --seed 3 --run found --target cpu,batch=2", inputs)
    for path, content in test_images.items():
        path.write_bytes(content)
    (inputs / "winner.yaml").write_bytes((inputs / "runs/best.yaml").read_bytes())  # later searches write their own there
    return Searched(inputs, seen, space_of_images(inputs), evaluated(inputs, "found"))


@contextlib.contextmanager
def pretended_threads(patch: pytest.MonkeyPatch, count: int) -> Iterator[None]:
    """torch says that it has so many threads, and that it changes them, and goes on as it was: real ones wait for each other."""
    threads = [count]
    patch.setattr(torch, "get_num_threads", lambda: threads[-1])
    patch.setattr(torch, "set_num_threads", threads.append)
    yield
    assert threads[-1] == count, "put back"


@pytest.fixture(scope="module")
def retrained(searched: Searched) -> Recording:
    with recording() as seen:
        succeed("retrain winner.yaml --device cpu --seed 5 --run final", searched.folder)
    return seen


def space_of_images(folder: Path) -> SearchSpace:
    space = SearchSpace.read(folder / "tiny.yaml")
    return space.at(Frame(SIDE, 1, CLASSES))


def evaluated(folder: Path, run_name: str) -> list[optuna.trial.FrozenTrial]:
    """The trials of the last search whose networks were evaluated, each network once."""
    with stored(folder / "runs" / run_name / "study.db", read_yaml(folder / "runs/best.yaml")["study"]) as study:
        return [trial for trial in study.trials if trial.values and "repeat_of" not in trial.user_attrs]


def by_network(passes: list[Pass]) -> list[list[Pass]]:
    """Passes of the same network that follow one another."""
    return [list(group) for _, group in itertools.groupby(passes, key=lambda one: id(one.module))]


def weights_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# ---- search ------------------------------------------------------------------------------------------------------------


def test_the_supernet_is_trained_on_fit_images_alone(searched: Searched) -> None:
    steps = searched.seen.steps
    assert len(steps) == SUPERNET["steps"]
    seen = [number for step in steps for number in step.numbers]
    assert set(seen) <= FIT
    assert len(set(seen)) == len(seen) == SUPERNET["steps"] * SUPERNET["batch"], "an epoch shows each image once"
    assert all(len(step.passes) == 1 and step.passes[0].numbers == step.numbers for step in steps), "each update has images of its own"


def test_the_supernet_is_trained_with_the_augmentation_of_its_phase(searched: Searched) -> None:
    mirrored = Counter(flag for step in searched.seen.steps for flag in step.passes[0].mirrored)
    assert mirrored[True] >= 10 and mirrored[False] >= 10, "of 48"
    assert len({tuple(step.passes[0].mirrored) for step in searched.seen.steps}) >= 3, "drawn anew in each step"
    assert all(not targets.is_floating_point() for step in searched.seen.steps for targets, _ in step.losses), "its recipe mixes nothing"


def test_each_step_trains_the_path_of_that_step_around_the_budget(searched: Searched) -> None:
    trained = [step.passes[0].architecture for step in searched.seen.steps]
    space = SearchSpace.read(searched.folder / "tiny.yaml")
    levels = Levels({"macs": (300_000, 720_000)})
    assert trained == [path_of_step(space, levels, 3, step).at(searched.space.frame) for step in range(SUPERNET["steps"])]
    assert len(set(trained)) > SUPERNET["steps"] // 2
    assert all(step.passes[0].training for step in searched.seen.steps)


def candidates_of(searched: Searched) -> list[Pass]:
    """The passes of candidates: the supernet itself is looked at while it is trained."""
    return [one for one in searched.seen.evaluations if isinstance(one.module, Network)]


def test_the_supernet_is_looked_at_in_three_sizes_while_it_is_trained(searched: Searched) -> None:
    """On all held-out images, with the weights that it then has; the log says their shares, and what was drawn."""
    looks = [
        (before, one)
        for before, one in zip(searched.seen.steps_before, searched.seen.evaluations, strict=True)
        if isinstance(one.module, Supernet)
    ]
    labels = {number: label for number, (_, label) in read_files(searched.folder, "val").items()}
    lines = [json.loads(line) for line in (searched.folder / "runs/found/metrics.jsonl").read_text().splitlines()]
    curves = {line["step"]: line for line in lines if line["kind"] == "supernet rung"}
    assert sorted(curves) == sorted({before for before, _ in looks}) == list(range(1, SUPERNET["steps"] + 1))
    for step, line in curves.items():
        correct: dict[int, list[bool]] = {}
        for before, one in looks:
            if before == step:
                hits = (one.logits.argmax(1).tolist(), one.numbers)
                correct.setdefault(cost(one.architecture.at(searched.space.frame)).macs, []).extend(
                    guess == labels[number] for guess, number in zip(*hits, strict=True)
                )
        sizes = [sum(correct[macs]) / len(correct[macs]) for macs in sorted(correct)]
        assert [line[name] for name in ("smallest", "median", "largest")] == pytest.approx(sizes)
        assert all(len(each) == len(HELD_OUT) for each in correct.values())
    (drawn,) = (line for line in lines if line["kind"] == "supernet drawn")
    assert sum(drawn["costs"]) == SUPERNET["steps"] and all(sum(each.values()) == SUPERNET["steps"] for each in drawn["mixers"].values())


def test_every_candidate_is_evaluated_once_on_all_held_out_images_as_they_are(searched: Searched) -> None:
    candidates = by_network(candidates_of(searched))
    assert len(candidates) == len(searched.trials) == 5
    for passes in candidates:
        seen = [number for one in passes for number in one.numbers]
        assert sorted(seen, key=str) == sorted(HELD_OUT, key=str)
        assert not any(flag for one in passes for flag in one.mirrored)
        assert not any(one.training for one in passes)
    before = zip(searched.seen.steps_before, searched.seen.evaluations, strict=True)
    assert {steps for steps, one in before if isinstance(one.module, Network)} == {SUPERNET["steps"]}, "after the training"
    kept = {number: image for passes in candidates[:1] for one in passes for number, image in zip(one.numbers, one.images, strict=True)}
    assert_files(searched.folder, "val", kept)


def assert_files(folder: Path, split: str, seen: dict[Any, Tensor]) -> None:
    """The images are the files' but for one shift and one scale."""
    files = read_files(folder, split)
    pairs = [(files[number][0].flatten(), image.flatten().double()) for number, image in seen.items()]
    raw, given = (torch.cat(list(part)) for part in zip(*pairs, strict=True))
    slope = torch.linalg.lstsq(torch.stack([raw, torch.ones_like(raw)], 1), given[:, None])
    torch.testing.assert_close(torch.stack([raw, torch.ones_like(raw)], 1) @ slope.solution, given[:, None], atol=1e-5, rtol=0)


def read_files(folder: Path, split: str) -> dict[int, tuple[Tensor, int]]:
    """Pixels in 0..1 and label of each image, read by Pillow, by number."""
    paths = (folder / "images" / split).rglob("*.png")
    return {int(path.stem): (torch.from_numpy(np.asarray(Image.open(path)) / 255.0), int(path.parent.name)) for path in paths}


def test_the_test_split_is_not_opened_before_a_retraining_ends(searched: Searched, retrained: Recording) -> None:
    """Its images showed nothing while the search ran."""
    assert "test" not in searched.seen.evaluated_splits + [split for split, *_ in searched.seen.batches]
    assert retrained.evaluated_splits == ["test"]
    assert {split for split, *_ in retrained.batches} == {"train"}


def test_candidates_are_sub_networks_with_the_trained_weights(searched: Searched) -> None:
    supernet = searched.seen.steps[-1].module
    assert isinstance(supernet, Supernet)
    assert not weights_equal(dict(supernet.state_dict()), searched.seen.initial)
    asked = {trial.user_attrs["arch_key"]: searched.space.decode(trial.params) for trial in searched.trials}
    candidates = by_network(candidates_of(searched))
    assert {passes[0].architecture.key for passes in candidates} == {architecture.key for architecture in asked.values()}
    supernet.eval()
    for one in candidates_of(searched):
        with torch.no_grad():
            torch.testing.assert_close(one.logits, supernet(one.images, one.architecture))


def test_the_studys_accuracies_are_shares_of_the_held_out_images(searched: Searched) -> None:
    """Counted from the logits of the passes and the folders that the files lie in."""
    labels = {number: label for number, (_, label) in read_files(searched.folder, "val").items()}
    counted = {}
    for passes in by_network(candidates_of(searched)):
        guesses = {n: int(row.argmax()) for one in passes for n, row in zip(one.numbers, one.logits, strict=True)}
        counted[passes[0].architecture.key] = sum(guesses[n] == labels[n] for n in labels) / len(labels)
    stored = {searched.space.decode(trial.params).key: trial.values[0] for trial in searched.trials}
    assert stored == pytest.approx(counted)
    assert read_yaml(searched.folder / "winner.yaml")["found"]["held_out_images"] == len(HELD_OUT)


# ---- latency -----------------------------------------------------------------------------------------------------------


def test_the_study_was_begun_with_the_runs_seed_and_the_recipes_population(searched: Searched) -> None:
    told = [study.user_attrs for study in optuna.get_all_study_summaries(f"sqlite:///{searched.folder / 'runs/found/study.db'}")]
    assert [(each["seed"], each["floor"], each["population"], each["sampler"]) for each in told][:1] == [(3, 0.8, 4, "evolution")]


def test_latency_is_timed_in_the_spaces_frame_with_one_thread_that_nothing_interrupts(searched: Searched) -> None:
    assert searched.seen.timed
    assert {tuple(one.images.shape) for one in searched.seen.timed} == {(2, 3, 32, 32)}
    assert {one.threads for one in searched.seen.timed} == {1}
    assert not any(one.training or one.autocast or one.collecting for one in searched.seen.timed)
    assert gc.isenabled()
    others = [*searched.seen.evaluations, *(one for step in searched.seen.steps for one in step.passes)]
    assert {one.threads for one in others} == {7}


def test_latency_is_the_median_of_the_passes_after_a_warm_up(searched: Searched) -> None:
    """By the clock that was given, on which each pass of a network takes less time than the one before."""
    frame = SearchSpace.read(searched.folder / "tiny.yaml").frame
    reported = {searched.space.decode(trial.params).at(frame).key: trial.user_attrs.get("latency_ms") for trial in searched.trials}
    measured = by_network(searched.seen.timed)
    assert len(measured) >= 2
    for passes in measured[:-1]:  # the last one is the winner's
        seconds = reported[passes[0].architecture.key] / 1000
        counted = {first: statistics.median([Clock.taken(k) for k in range(first, len(passes))]) for first in range(len(passes) - 4)}
        assert [first for first, median in counted.items() if first >= 3 and median == pytest.approx(seconds, abs=2)], (seconds, counted)
    best = read_yaml(searched.folder / "winner.yaml")
    assert measured[-1][0].architecture.to_dict() == best["architecture"]


# ---- retrain -----------------------------------------------------------------------------------------------------------


def test_a_winner_is_retrained_on_all_training_images_and_tested_once_on_the_others(searched: Searched, retrained: Recording) -> None:
    assert len(retrained.steps) == RETRAIN["steps"]
    per_epoch = len(FIT | HELD_OUT) // RETRAIN["batch"]
    shown = Counter(number for step in retrained.steps[:per_epoch] for number in step.numbers)
    assert shown.keys() <= FIT | HELD_OUT and shown.keys() & FIT and shown.keys() & HELD_OUT
    assert sorted(number for one in retrained.evaluations for number in one.numbers if number is not None) == sorted(TEST)
    assert set(retrained.steps_before) == {RETRAIN["steps"]} and not any(one.training for one in retrained.evaluations)
    assert_files(
        searched.folder, "test", {n: image for one in retrained.evaluations for n, image in zip(one.numbers, one.images, strict=True)}
    )
    best = read_yaml(searched.folder / "winner.yaml")["architecture"]
    expected = {**best, "frame": {"resolution": SIDE, "channels": 1, "classes": CLASSES}}
    assert [one.to_dict() for one in {one.architecture for one in retrained.evaluations + retrained.steps[0].passes}] == [expected]
    assert all(len(step.passes) == 1 and step.passes[0].training for step in retrained.steps)


def test_a_retraining_mixes_its_images_as_its_phase_says_anew_each_step(retrained: Recording) -> None:
    targets = [targets for step in retrained.steps for targets, _ in step.losses]
    for soft in targets:
        assert soft.shape == (RETRAIN["batch"], CLASSES) and soft.is_floating_point()
        torch.testing.assert_close(soft.sum(1), torch.ones(RETRAIN["batch"]))
    shares = {round(float(soft.max(1).values.min()), 4) for soft in targets}
    assert len(shares) > RETRAIN["steps"] / 3, "one share of mixing for each batch: most differ"
    assert not any(flag for step in retrained.steps for flag in step.passes[0].mirrored)


def test_drop_path_rises_linearly_to_the_recipes_rate(retrained: Recording) -> None:
    network = retrained.steps[0].passes[0]
    rates: dict[str, set[float]] = {}
    for name, module in network.module.named_modules():
        if name.endswith("drop_path"):
            rates.setdefault(name.partition(".blocks.")[0] + name.partition(".blocks.")[2][:1], set()).add(
                getattr(module, "drop_prob", 0.0)
            )
    depth = sum(len(stage.mixers) for stage in network.architecture.stages)
    assert len(rates) == depth >= 3 and all(len(each) == 1 for each in rates.values())
    assert [each.pop() for each in rates.values()] == pytest.approx([0.3 * block / (depth - 1) for block in range(depth)])


def test_the_averaged_weights_are_tested_and_saved(searched: Searched, retrained: Recording) -> None:
    raw = dict(retrained.steps[-1].module.state_dict())
    tested = dict(retrained.evaluations[0].module.state_dict())
    assert raw.keys() == tested.keys() and not weights_equal(raw, tested)
    assert weights_equal(tested, load_weights(searched.folder / "runs/final/weights.safetensors")[0])


def test_without_an_average_the_last_weights_are_tested_and_saved(searched: Searched) -> None:
    with recording() as seen:
        succeed("retrain winner.yaml --device cpu --recipe raw.yaml --steps 22 --run raw", searched.folder)
    raw = dict(seen.steps[-1].module.state_dict())
    assert len(seen.steps) == 22
    assert weights_equal(raw, dict(seen.evaluations[0].module.state_dict()))
    assert weights_equal(raw, load_weights(searched.folder / "runs/raw/weights.safetensors")[0])


def test_the_saved_weights_give_the_printed_accuracy_by_hand(searched: Searched, retrained: Recording) -> None:
    """Images read by Pillow and normalised by what the file of weights says."""
    weights = searched.folder / "runs/final/weights.safetensors"
    _, metadata = load_weights(weights)
    (mean,), (std,) = json.loads(metadata["mean"]), json.loads(metadata["std"])
    tested = {n: row for one in retrained.evaluations for n, row in zip(one.numbers, one.logits, strict=True)}
    network, right = load_network(weights), 0
    assert not any(module.training for module in network.modules())
    for number, (pixels, label) in read_files(searched.folder, "test").items():
        with torch.no_grad():
            (logits,) = network(((pixels - mean) / std).float()[None, None])
        torch.testing.assert_close(logits, tested[number], atol=1e-4, rtol=1e-4)
        right += int(logits.argmax()) == label
    assert read_yaml(searched.folder / "runs/final/result.yaml")["result"]["test_accuracy"] == pytest.approx(right / len(TEST), abs=1e-4)
    assert json.loads(metadata["classes"]) == ["0", "1", "2", "3"]


def test_a_retraining_begins_with_fresh_weights(searched: Searched, retrained: Recording) -> None:
    norms = [value for name, value in retrained.initial.items() if "norm" in name]
    assert norms and all(torch.equal(value, torch.full_like(value, float(value.flatten()[0] > 0.5))) for value in norms), "ones and zeros"
    supernet = searched.seen.steps[-1].module.state_dict()
    stem = retrained.initial["stem.patch_embed.weight"]
    assert not torch.allclose(supernet["stem.patch_embed.weight"][: len(stem)], stem, atol=1e-2)


# ---- both trainings ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["supernet", "retrain"])
def training(request: pytest.FixtureRequest, searched: Searched, retrained: Recording) -> tuple[Recording, dict[str, Any]]:
    return (searched.seen, SUPERNET) if request.param == "supernet" else (retrained, RETRAIN)


def test_the_learning_rate_warms_up_and_follows_a_cosine(training: tuple[Recording, dict[str, Any]]) -> None:
    seen, phase = training
    warmup, start = phase["warmup"], phase["lr"] / phase["warmup"]
    expected = [start + (phase["lr"] - start) * step / warmup for step in range(warmup)]
    low, half = phase["min_lr"], (phase["lr"] - phase["min_lr"]) / 2
    expected += [low + half * (1 + math.cos(math.pi * step / phase["steps"])) for step in range(warmup, phase["steps"])]
    assert [step.lr for step in seen.steps] == pytest.approx(expected)


def test_the_log_has_every_step_with_its_learning_rate(searched: Searched, retrained: Recording) -> None:
    for kind, name, seen in (("supernet", "found", searched.seen), ("retrain", "final", retrained)):
        logged = Run(name, searched.folder / "runs").metrics(kind)
        assert [line["step"] for line in logged] == list(range(1, len(seen.steps) + 1))
        assert [line["lr"] for line in logged] == pytest.approx([step.lr for step in seen.steps])


def test_decay_clipping_smoothing_and_batch_size_are_those_of_the_phase(training: tuple[Recording, dict[str, Any]]) -> None:
    seen, phase = training
    for step in seen.steps:
        shapes = {name: parameter.ndim for name, parameter in step.module.named_parameters()}
        assert step.decay.keys() == shapes.keys()
        for name, decay in step.decay.items():
            spared = "norm" in name or name.endswith(("bias", "scale")) or shapes[name] < 2
            assert decay == (0.0 if spared else phase["decay"]), name
        assert step.gradient_norm == pytest.approx(phase["clip"], rel=1e-3)
        assert {smoothing for _, smoothing in step.losses} == {phase["smoothing"]}
        assert {len(one.images) for one in step.passes} == {phase["batch"]}


def test_autocast_runs_nowhere_where_a_recipe_says_never(searched: Searched, retrained: Recording) -> None:
    for seen in (searched.seen, retrained):
        passes = [*seen.evaluations, *(one for step in seen.steps for one in step.passes)]
        assert not any(one.autocast for one in passes) and {one.logits.dtype for one in passes} == {torch.float32}


def test_autocast_runs_everywhere_but_in_timing_where_a_recipe_says_always(inputs: Path) -> None:
    with recording() as seen:
        succeed(f"search {WITH.replace('plain', 'bf16')} {BUDGETS} --steps 1 --trials 2 --run bf16", inputs)
    assert all(one.autocast and one.logits.dtype == torch.bfloat16 for one in [*seen.evaluations, *seen.steps[0].passes])
    assert seen.timed and not any(one.autocast for one in seen.timed)
    with recording() as seen:
        succeed("retrain runs/bf16/best.yaml --device cpu --steps 1 --run bf16-final", inputs)
    assert seen.evaluations and all(one.autocast for one in [*seen.evaluations, *seen.steps[0].passes])


class Begun(NamedTuple):
    initial: dict[str, Tensor]
    images: list[list[int | None]]
    paths: list[list[str]]
    shares: list[Tensor]
    random_seeds: list[int]


def begun(line: str, folder: Path) -> Begun:
    with recording() as seen:
        succeed(line, folder)
    paths = [[one.architecture.key for one in step.passes] for step in seen.steps]
    seeds = [step.passes[0].random_seed for step in seen.steps]
    return Begun(seen.initial, [step.numbers for step in seen.steps], paths, [step.losses[0][0] for step in seen.steps], seeds)


@pytest.mark.parametrize("line", [f"train {WITH}", "retrain winner.yaml --data images --recipe plain.yaml --device cpu"])
def test_a_seed_repeats_and_another_is_another(line: str, searched: Searched) -> None:
    """Weights, images and, of a supernet, paths; the process has drawn other random numbers in between."""
    folder = searched.folder
    one, same, other = (begun(f"{line} --steps 2 --seed {seed} --run {line[:2]}{k}", folder) for k, seed in enumerate((1, 1, 2)))
    assert weights_equal(one.initial, same.initial) and one.images == same.images and one.paths == same.paths
    assert one.random_seeds == same.random_seeds and len({*one.random_seeds, *other.random_seeds}) == 4, "each step has its own"
    assert all(torch.equal(*pair) for pair in zip(one.shares, same.shares, strict=True))
    assert not weights_equal(one.initial, other.initial) and one.images != other.images
    assert one.paths != other.paths or line.startswith("retrain")


@pytest.mark.parametrize("line", [f"train {WITH} --budget 600kMACs --seed 3", "retrain winner.yaml --device cpu --seed 5"])
def test_a_continued_training_receives_what_an_uninterrupted_one_does(line: str, searched: Searched, retrained: Recording) -> None:
    whole = searched.seen if line.startswith("train") else retrained

    def press(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    line = f"{line} --run continued-{line[:2]}"
    with recording(before_step=press) as first:
        assert run(line, searched.folder).status == 130
    with recording() as second:
        succeed(line, searched.folder)
    steps = first.steps + second.steps
    assert len(first.steps) == 2 and len(steps) == len(whole.steps)
    for step, expected in zip(steps, whole.steps, strict=True):
        assert (step.numbers, step.lr) == (expected.numbers, expected.lr)
        assert step.passes[0].random_seed == expected.passes[0].random_seed
        assert all(torch.equal(one.images, other.images) for one, other in zip(step.passes, expected.passes, strict=True))
        assert [one.architecture for one in step.passes] == [one.architecture for one in expected.passes]
        assert all(torch.equal(one[0], other[0]) for one, other in zip(step.losses, expected.losses, strict=True))
        assert all(torch.equal(one.logits, other.logits) for one, other in zip(step.passes, expected.passes, strict=True)), "and weights"


def test_length_and_resolution_of_the_command_line_reach_the_run(searched: Searched) -> None:
    for command, images in (("train --space tiny.yaml", len(FIT)), ("retrain winner.yaml", len(FIT | HELD_OUT))):
        batch = SUPERNET["batch"] if command.startswith("train") else RETRAIN["batch"]
        with recording() as seen:
            succeed(
                f"{command} --data images --recipe plain.yaml --device cpu --epochs 0.5 --resolution 24 --run px-{command[:2]}",
                searched.folder,
            )
        # of a recipe with 6 or 30 steps, and images of 16 pixels; noise to the recorder, since they were scaled
        assert len(seen.steps) == round(0.5 * (images // batch))
        assert {tuple(one.images.shape) for step in seen.steps for one in step.passes} == {(batch, 1, 24, 24)}


@pytest.mark.parametrize(("option", "kind"), [("--device cpu", "cpu"), ("--device auto", "cuda"), ("", "cuda")])
def test_the_device_of_the_command_line_is_the_runs(option: str, kind: str, searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that seems to have a GPU; each command is stopped where it loads its data."""
    asked: list[torch.device] = []

    def load(self: DataSource, resolution: int, device: torch.device, *others: Any, **named: Any) -> Data:
        asked.append(torch.device(device))
        raise ValueError("stopped by the test")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("nas.networks.precision.has_bf16", lambda device: True)
    monkeypatch.setattr(DataSource, "load", load)
    for line in (f"train {WITH} --run device", "retrain winner.yaml --run device"):
        assert "stopped by the test" in refused(line.replace("--device cpu", "") + f" {option}", searched.folder)
    assert [device.type for device in asked] == [kind, kind]


# ---- before anything is spent ------------------------------------------------------------------------------------------

COMMANDS = {
    "train": f"train {WITH}",
    "search": f"search {WITH} {BUDGETS}",
    "search without a supernet": f"search {WITH} --budget 600kMACs --trials 0 --finalists 2",
    "search of a trained supernet": f"search {WITH} --budget 500kMACs --trials 3 --seed 3",
    "fidelity": f"fidelity {WITH} --budget 600kMACs --networks 10",
    "retrain": "retrain winner.yaml --data images --recipe plain.yaml --device cpu",
    "compare": "compare winner.yaml --data images --recipe plain.yaml --device cpu --seeds 1 --random 0",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_broken_image_of_any_split_is_named_before_a_step_is_trained(
    command: str, split: str, searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off, so that its header is whole; at its size, so that a trained supernet's images are still these."""
    monkeypatch.setattr("nas.data.batches.MEASURED", 4)  # mean and deviation do not meet it
    broken = max((searched.folder / "images" / split).rglob("*.png"))
    content, name = broken.read_bytes(), f"{command.replace(' ', '-')}-{split}"
    if command == "search of a trained supernet":
        shutil.copytree(searched.folder / "runs/found", searched.folder / "runs" / name)
    broken.write_bytes(content[:-60] + bytes(60))
    try:
        with recording() as seen:
            said = refused(f"{COMMANDS[command]} --run {name}", searched.folder)
    finally:
        broken.write_bytes(content)
    assert said.startswith(f"launch.py: {broken.relative_to(searched.folder)}: broken image: got ")
    assert not seen.steps and not seen.passes and not seen.evaluations and not seen.timed
    left = {path.name for path in (searched.folder / "runs" / name).glob("*")}
    assert left <= {".lock"} or command == "search of a trained supernet", "no run has begun"


# ---- what follows ------------------------------------------------------------------------------------------------------


def test_another_search_takes_the_supernet_as_it_is(searched: Searched) -> None:
    with recording() as seen:
        succeed(f"search {WITH} --budget 500kMACs --trials 3 --seed 3 --run found", searched.folder)
    assert not seen.steps and len(by_network(seen.evaluations)) == 3
    supernet = searched.seen.steps[-1].module.eval()
    with torch.no_grad():
        for one in seen.evaluations:
            torch.testing.assert_close(one.logits, supernet(one.images, one.architecture))


def test_profile_counts_what_retrain_builds(searched: Searched, retrained: Recording) -> None:
    one = retrained.steps[0].passes[0]
    file = {"format": "architecture 1", "architecture": one.architecture.to_dict()}
    (searched.folder / "built.yaml").write_text(json.dumps(file))
    counted = json.loads(succeed("profile built.yaml --json", searched.folder))
    assert counted["params"] == sum(parameter.numel() for parameter in one.module.parameters())
    assert counted["macs"] == trace(lambda: Network(one.architecture), 1, 1, SIDE, SIDE).macs


def test_the_hidden_width_of_a_channel_mlp_is_the_nearest_whole_number() -> None:
    stage = Stage(10, ("conv",), 1.19, kernel=3)
    network = Network(Architecture(Frame(8, 1, 2), 4, (stage,)))
    assert [tuple(value.shape) for name, value in network.named_parameters() if name.endswith("mlp.fc1.weight")] == [(12, 10)]


@pytest.mark.whole
def test_workers_evaluate_the_same_supernet_and_rest_while_a_latency_is_taken(searched: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by Ray itself: which of the tasks given to its workers are done when a timed pass begins."""
    import ray
    from ray.actor import ActorMethod

    tasks: list[Any] = []
    at_work: list[int] = []
    real = ActorMethod.remote

    def remote(self: Any, *given: Any, **named: Any) -> Any:
        tasks.append(real(self, *given, **named))
        return tasks[-1]

    def before_pass(module: Any, images: Tensor) -> None:
        if tasks:
            at_work.append(len(ray.wait(tasks, num_returns=len(tasks), timeout=0)[1]))

    monkeypatch.setattr(ActorMethod, "remote", remote)
    monkeypatch.setattr(SearchRun, "check_measured", lambda self: None)  # before there are workers
    slow = RECIPE.replace("batch_size: 12", "batch_size: 1")  # so that workers would still be at work
    line = f"search {WITH} --budget 650kMACs --budget 10000s --trials 4 --seed 3 --run found --workers {min(2, cores())}"
    (searched.folder / "plain.yaml").write_text(slow)
    try:
        with recording(before_pass=before_pass) as seen:
            succeed(line, searched.folder)
    finally:
        (searched.folder / "plain.yaml").write_text(RECIPE)
    assert not seen.steps and not seen.evaluations and len(tasks) >= 5
    assert len(at_work) == len(seen.timed) > 0 and not any(at_work)
    supernet = searched.seen.steps[-1].module.eval()
    images = torch.stack([image for one in by_network(searched.seen.evaluations)[0] for image in one.images])
    label_of = {number: label for number, (_, label) in read_files(searched.folder, "val").items()}
    labels = torch.tensor([label_of[n] for one in by_network(searched.seen.evaluations)[0] for n in one.numbers])
    found = evaluated(searched.folder, "found")
    assert len(found) == 4
    for trial in found:
        with torch.no_grad():
            right = supernet(images, searched.space.decode(trial.params)).argmax(1) == labels
        assert trial.values[0] == pytest.approx(right.double().mean().item())
