"""What holds on a GPU as it does on a CPU, and what a GPU has of its own: `pytest -m gpu -n 0`."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import succeed
from together import EVERYTHING, FRAME, MADE, MIXED, network, supernet
from torch import Tensor, nn

from nas.cost.latency import timed
from nas.cost.targets import Target
from nas.data import open_data
from nas.networks.architecture import Architecture, Stage
from nas.networks.mixers import MIXERS
from nas.networks.weight_files import load_weights
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching.evaluating import open_evaluator
from nas.searching.ray_cluster import Crew
from nas.spaces.supernet import Supernet
from nas.training.given import Given
from nas.training.loop import Course, evaluate, train_model
from nas.training.recipe import Phase
from nas.training.report import Report
from nas.training.setting import Setting, open_setting
from nas.training.train_network import TrainingResult, train_network
from nas.training.watch import Watch

pytestmark = pytest.mark.gpu
CPU, GPU = torch.device("cpu"), torch.device("cuda")
ALL_MIXERS = Stage(32, tuple(MIXERS), 1.0, cpe=True, kernel=3, head_width=16)
DRAWN = MIXED.model_copy(update={"randaugment": None})  # whose operations copy numbers of their own
Made = tuple[nn.Module, Callable[[int], tuple[Any, ...]]]


def ampere() -> bool:
    return torch.cuda.get_device_capability() >= (8, 0)


# ---- training ----------------------------------------------------------------------------------------------------------


class Losses(Watch):
    def __init__(self) -> None:
        self.told: dict[int, float] = {}

    def step(self, done: int, loss: float, lr: float) -> None:
        self.told[done] = loss


def losses(make: Callable[[], Made], phase: Phase, steps: int, device: torch.device) -> dict[int, float]:
    """After each tenth step and the last."""
    torch.manual_seed(0)
    model, path = make()
    batches = open_data("digits").load(FRAME.resolution, device, 0).batches("fit", phase.batch_size, 0, phase.augmentation)
    watch = Losses()
    train_model(model.to(device), batches, Course(phase, steps, 0), watch, path)
    return {done: loss for done, loss in watch.told.items() if done % 10 == 0 or done == steps}


@pytest.mark.parametrize("kind", ["supernet", "every mixer", "batch norm"])
def test_steps_give_the_losses_of_a_cpu(kind: str) -> None:
    """TF32 has three decimal digits. Without drop path, which a GPU draws for itself."""
    every = (lambda: network((ALL_MIXERS,)), EVERYTHING.model_copy(update={"drop_path": 0.0}))
    make, phase = every if kind == "every mixer" else MADE[kind]
    for steps, within in ((1, 5e-3), (20, 5e-2)):
        assert losses(make, phase, steps, GPU) == pytest.approx(losses(make, phase, steps, CPU), rel=within)


@pytest.mark.parametrize("crop", ["pad", "resized"])
@pytest.mark.parametrize("memory_limit", [2**30, 0], ids=["memory", "streaming"])
def test_batches_are_those_of_a_cpu(crop: str, memory_limit: int) -> None:
    made = []
    for device in (CPU, GPU):
        data = open_data("digits").load(8, device, 0, memory_limit)  # their own side: boxes are cut out there
        batches = data.batches("fit", 14, 0, DRAWN.model_copy(update={"crop": crop}))(3)
        made.append([[each.cpu() for each in next(batches)] for _ in range(4)])
    for (x, target), (other, of_other) in zip(*made, strict=True):
        assert torch.allclose(x, other, atol=0.05 if crop == "resized" else 1e-5)  # a box's pixels are rounded: by one level in 255
        assert torch.allclose(target, of_other, atol=1e-6)


def waiting(mode: str) -> None:
    """What is to be done where something waits for the GPU: "error" or "default", nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prototype, it says, that may not see every wait
        torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize("kind", ["supernet", "every mixer"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_wait_for_nothing_but_every_tenth_time(kind: str, accumulate: int) -> None:
    model, path = supernet() if kind == "supernet" else network((ALL_MIXERS,), 0.3)
    phase = EVERYTHING.model_copy(update={"augmentation": DRAWN, "accumulate": accumulate})
    source = open_data("digits").load(FRAME.resolution, GPU, 0).batches("fit", phase.batch_size, 0, phase.augmentation)(0)
    seen: list[int] = []

    def batches(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(start, 25):
            waiting("error" if step >= 2 and step % 10 != 9 else "default")  # also for the making of the batch
            yield next(source)
            seen.append(step)

    try:
        train_model(model.to(GPU), batches, Course(phase, 21, 0), Watch(), path)
    except RuntimeError as error:
        pytest.fail(f"step {len(seen)}: {error}")
    finally:
        waiting("default")
    assert seen[:20] == [*range(20)]


@pytest.mark.parametrize(("memory_limit", "copies"), [(2**30, 2), (0, 3)], ids=["memory", "streaming"])
def test_a_batch_is_copied_in_a_few_pieces_from_pinned_memory(memory_limit: int, copies: int) -> None:
    from torch.profiler import ProfilerActivity, profile

    batches = open_data("digits").load(FRAME.resolution, GPU, 0, memory_limit).batches("fit", 14, 0, DRAWN)(0)
    next(batches)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as told:
        for _ in range(10):
            next(batches)
        torch.cuda.synchronize()
    names = [event.name for event in told.events() if event.name.startswith(("Memcpy HtoD", "Memcpy DtoH"))]
    assert len(names) == 10 * copies and all("HtoD (Pinned" in name for name in names), names


def test_memory_that_runs_out_is_one_line_of_advice() -> None:
    module = network((Stage(256, ("conv",) * 4, 4.0, kernel=3),))[0].to(GPU)
    images, labels = torch.randn(4096, 1, 16, 16, device=GPU), torch.zeros(4096, dtype=torch.long, device=GPU)
    phase = Phase(steps=2, batch_size=4096, lr=1e-3)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
        with pytest.raises(MemoryError, match=r"^training: out of memory in a step of 4096 images: .*--accumulate 2") as raised:
            train_model(module, lambda start: iter([(images, labels)] * 2), Course(phase, 2, 0), Watch())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "\n" not in str(raised.value)


# ---- a network trained to its end --------------------------------------------------------------------------------------

ALONE = Architecture(FRAME, 4, (Stage(16, ("conv", "s2_shift"), 1.0, kernel=3), Stage(32, ("attention",), 2.0, head_width=16)))


@pytest.fixture(scope="module")
def setting() -> Setting:
    found = open_setting(Given(data="digits", device="cuda", resolution=16), ALONE.stride, 32)
    phase = Phase(steps=40, batch_size=32, lr=3e-3, drop_path=0.1, ema=True, rungs=(10, 25))
    return replace(found, recipe=found.recipe.model_copy(update={"retrain": phase, "bf16": "never"}))


def retrained(setting: Setting, folder: Path, until: int = 99) -> TrainingResult:
    """Stopped at the first look after so many steps, if that is before the end."""
    run = Run(folder.name, folder.parent)
    run.folder.mkdir(parents=True, exist_ok=True)
    stop = lambda: any(line["step"] >= until for line in run.metrics("retrain"))  # noqa: E731
    return train_network(ALONE, setting, fit="fit", evaluate_on="held_out", seed=1, folder=run, report=Report(run, "retrain", stop))


def test_a_stopped_training_ends_as_the_uninterrupted_one(setting: Setting, tmp_path: Path) -> None:
    """To rounding: a GPU adds in no fixed order."""
    whole = retrained(setting, tmp_path / "whole")
    with pytest.raises(Stopped):
        retrained(setting, tmp_path / "cut", until=20)
    again = retrained(setting, tmp_path / "cut")
    assert again.steps == whole.steps and again.accuracy == pytest.approx(whole.accuracy, abs=3 / whole.images)
    one, other = (load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("whole", "cut"))
    apart = sum(float((value - other[name]).square().sum()) for name, value in one.items())
    assert (apart / sum(float(value.square().sum()) for value in one.values())) ** 0.5 < 1e-2


# ---- evaluating --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_supernet() -> Supernet:
    model, path = supernet()
    phase = MADE["supernet"][1].model_copy(update={"batch_size": 32, "lr": 3e-3})
    batches = open_data("digits").load(FRAME.resolution, GPU, 0).batches("fit", 32, 0, phase.augmentation)
    train_model(model.to(GPU), batches, Course(phase, 100, 0), Watch(), path)
    assert isinstance(model, Supernet)
    return model


def accuracies(model: Supernet, recipe: Any, device: torch.device, workers: int = 0) -> list[float]:
    networks = [path[0] for path in map(supernet()[1], range(8))]
    kept = open_data("digits").load(FRAME.resolution, device, 0).kept("held_out", 50)
    with open_evaluator(model.to(device), kept, recipe, device, Crew(workers)) as evaluator:
        found = [each.accuracy for each in evaluator.evaluate(networks)]
    assert all(each is not None for each in found)
    return [each for each in found if each is not None]


def test_evaluations_are_those_of_a_cpu_but_for_a_few_images(trained_supernet: Supernet, setting: Setting) -> None:
    """By the supernet itself on a GPU, by copies on a CPU."""
    on_gpu, on_cpu = (accuracies(trained_supernet, setting.recipe, device) for device in (GPU, CPU))
    assert len(set(on_gpu)) > 1 and on_gpu == pytest.approx(on_cpu, abs=3 / 287)


def test_two_ray_workers_share_a_gpu(trained_supernet: Supernet, setting: Setting) -> None:
    alone = accuracies(trained_supernet, setting.recipe, GPU)
    assert accuracies(trained_supernet, setting.recipe, GPU, workers=2) == pytest.approx(alone, abs=1 / 287)


# ---- precision and time ------------------------------------------------------------------------------------------------


class Noted(nn.Module):
    """Keeps what a module gave."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.given = module, torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.given = self.module(x)
        return self.given.flatten(1)


def error(noted: Noted, x: Tensor) -> float:
    """Of what it gave, relative to the same in double precision."""
    exact = noted.module.double()(x.double())
    noted.module.float()
    return float((noted.given.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("module", [nn.Linear(2048, 512, bias=False), nn.Conv2d(256, 64, 3, bias=False)], ids=["product", "convolution"])
def test_tf32_is_for_training_and_never_for_what_is_measured_in_fp32(module: nn.Module) -> None:
    noted = Noted(module.to(GPU))
    x = torch.randn(128, 2048, device=GPU) if isinstance(module, nn.Linear) else torch.randn(8, 256, 16, 16, device=GPU)
    with torch.no_grad():
        Target("cuda").prepare(noted, x)()
        assert error(noted, x) < 1e-4
        evaluate(noted, [(x, torch.zeros(len(x), dtype=torch.long, device=GPU))])
        assert error(noted, x) < 2e-3
        if ampere() and isinstance(module, nn.Linear):  # of convolutions cuDNN chooses the algorithm
            assert error(noted, x) > 1e-4
    assert torch.get_float32_matmul_precision() == "highest"


def test_bf16_runs_where_the_gpu_has_it(setting: Setting) -> None:
    recipe = setting.recipe.model_copy(update={"bf16": "gpu"})
    with recipe.autocast(GPU):
        logits = nn.Linear(16, 16).to(GPU)(torch.randn(16, 16, device=GPU))
    assert logits.dtype == (torch.bfloat16 if ampere() else torch.float32)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch.compile would rather have TF32
@pytest.mark.parametrize("runtime", ["eager", "compile"])
def test_a_latency_is_until_the_work_is_done(runtime: str) -> None:
    """Events, which the GPU itself notes, tell what it takes; to ask for it takes a thousandth of that."""
    module, x = nn.Linear(8192, 8192, bias=False).to(GPU), torch.randn(8192, 8192, device=GPU)
    taken = timed(Target("cuda", runtime).prepare(module, x), warmup=3, runs=9)
    by_events = []
    with torch.inference_mode():
        for _ in range(9):
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            module(x)
            ended.record()
            torch.cuda.synchronize()
            by_events.append(begun.elapsed_time(ended))
    assert 0.7 * statistics.median(by_events) < taken < 2 * statistics.median(by_events)


# ---- commands ----------------------------------------------------------------------------------------------------------


def test_a_gpu_is_taken_where_nobody_says_a_device(tmp_path: Path) -> None:
    """A search, a retraining, a prediction's test and a profile, as a user types them."""
    (tmp_path / "tiny.yaml").write_text(SPACE)
    said = succeed("search --space tiny.yaml --data digits --budget 1MMACs --smoke --run found", tmp_path)
    assert "Winner:" in said and torch.cuda.max_memory_allocated() > 0
    assert "Test accuracy:" in succeed("retrain runs/best.yaml --smoke --run alone", tmp_path)
    assert "accuracy" in succeed("evaluate runs/alone --data digits", tmp_path).lower()
    assert "ms" in succeed("profile runs/best.yaml --target cuda", tmp_path)


SPACE = """
format: search space 1
frame: {resolution: 16, channels: 1, classes: 10}
patch: 4
stages:
  - {width: [16, 32], depth: [1, 2], mixer: [conv, attention], mlp_ratio: [1, 2], kernel: [3, 5], head_width: 16}
"""
