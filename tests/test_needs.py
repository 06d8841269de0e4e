"""`plan`: for images that are here or not, and what it says held against what a run then does and leaves."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import refused, succeed
from finished import RECIPE, SPACE, WITH
from recording import recording, write_images
from torch import Tensor, nn
from torch.profiler import profile

from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.runs.checkpoint import load_checkpoint
from nas.runs.records import Begun
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training import plan
from nas.training.given import Given
from nas.training.plan import step_seconds, training_bytes
from nas.training.recipe import Phase
from nas.training.setting import Setting, open_setting

UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    (tmp_path / "tiny.yaml").write_text(SPACE)
    (tmp_path / "plain.yaml").write_text(RECIPE.replace("batch_size: 12}", "batch_size: 12, finalist_epochs: 1}"))
    return tmp_path


def lines_of(said: str) -> dict[str, str]:
    return {found[1]: found[2] for line in said.splitlines() if (found := re.match(r"  (\w+) +(.+)", line))}


def sizes(line: str) -> list[float]:
    return [float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+) (B|kB|MB|GB)\b", line)]


def bytes_of(saved: Any) -> int:
    """Of the tensors in a checkpoint."""
    if isinstance(saved, Tensor):
        return saved.nbytes
    return sum(map(bytes_of, saved.values() if isinstance(saved, dict) else saved)) if isinstance(saved, (dict, list, tuple)) else 0


def setting_of(resolution: int, bf16: str = "never") -> Setting:
    setting = open_setting(Given(images=200, classes=4, resolution=resolution, device="cpu", loaders=0), 4, resolution)
    return replace(setting, recipe=setting.recipe.model_copy(update={"bf16": bf16}))


# ---- images that are not here ------------------------------------------------------------------------------------------


def test_images_that_are_not_here_are_planned_like_those_that_are(folder: Path) -> None:
    command = f"{WITH} --budget 200kMACs --finalists 2 --resolution 16"
    here = lines_of(succeed(f"plan {command}", folder))
    dry = lines_of(succeed(f"search {command} --dry-run", folder))
    away = lines_of(succeed(f"plan {command.replace('--data images', '--images 120 --classes 4')}", folder))
    assert not (folder / "runs").exists(), "nothing is begun"
    assert {"samples", "memory", "storage"} <= here.keys() == away.keys()
    for name in ("supernet", "finalists", "retrain"):
        assert here[name] == dry[name], "said once"
    assert here["supernet"].split(";")[0].partition(" (")[0] == away["supernet"].split(";")[0].partition(" (")[0]
    assert "96 to train on, 24 held out" in away["images"]
    assert "--images" in refused(f"plan {WITH} --budget 200kMACs --images 120", folder)
    assert "--images" in refused("plan --budget 200kMACs --space tiny.yaml --images 12 --classes 4", folder)
    with pytest.raises(ValueError, match=r"^--images: .*--run"):
        Given(images=120).or_else(Begun(data="photos"))


@pytest.mark.whole
def test_imagenet_is_planned_by_its_numbers_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """1,281,167 images in 1,000 classes: 5,000 are held out; 120 epochs of batches of 256, and 300 of 1,024."""
    monkeypatch.setattr("nas.searching.plan.step_seconds", lambda *_: 0.36)
    monkeypatch.setattr("nas.searching.plan._network_seconds", lambda *_: (0.36, 1e-3))
    monkeypatch.setattr("nas.searching.needs.training_bytes", lambda *_: 1e9)  # steps of its largest networks
    told = lines_of(succeed("plan --images 1281167 --classes 1000 --budget 4.5GMACs --device cpu --devices 8", tmp_path))
    per_epoch = (1_281_167 - 5_000) // 256, 1_281_167 // 1024
    assert "1000 classes: 1,276,167 to train on, 5,000 held out" in told["images"] and "scaled to 224 px" in told["images"]
    assert f"{120 * per_epoch[0]:,} steps of 256" in told["supernet"] and f"{300 * per_epoch[1]:,} steps of 1024" in told["retrain"]
    assert f"{120 * per_epoch[0] * 256 / 1e6:.3g} million images by the supernet" in told["samples"]
    assert "on each device" in told["memory"] and told["devices"].startswith("8:")
    assert "supernet 2.5 days" in told["time"] and "1000 evaluations 10 minutes" in told["time"], (
        "a share of each batch, evaluations beside each other"
    )


def test_made_up_photographs_take_what_photographs_take() -> None:
    source = setting_of(224).source
    assert source.resolution == 375 and source.channels == 3
    images, _ = source.split("fit")
    sizes = [len(images._files[number]) for number in range(16)]  # type: ignore[attr-defined]
    assert 60_000 < sum(sizes) / 16 < 200_000, "ImageNet's have 110 kB on average"
    assert setting_of(32).source.resolution == 32


# ---- held against what is ----------------------------------------------------------------------------------------------


class PerImage(nn.Module):
    """Takes a hundredth of a second by its clock, and 2 ms for each image; remembers how many it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.seen, self.clock = nn.Parameter(torch.ones(1)), list[int](), 0.0

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        self.clock += 0.01 + 0.002 * len(images)
        return images.mean((1, 2, 3))[:, None] * self.scale + torch.zeros(4)


def test_a_long_step_is_foretold_by_shorter_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "LONG_STEP", 0.1)
    model, phase, setting = PerImage(), Phase(steps=1, batch_size=160, lr=1e-3), setting_of(16)
    monkeypatch.setattr(time, "perf_counter", lambda: model.clock)
    assert step_seconds(model, setting, phase, "fit") == pytest.approx(0.01 + 0.002 * 160)
    assert max(model.seen) <= 50


def allocated_at_most(step: Any) -> int:
    """By torch's own allocator, what a step has allocated at once at most."""
    with profile(profile_memory=True) as seen:
        step()
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    now, most = 0, 0
    for event in sorted(
        (each for each in seen.profiler.kineto_results.events() if each.name() == "[memory]"), key=lambda each: each.start_ns()
    ):
        now += event.nbytes()
        most = max(most, now)
    return most


def loss_of(setting: Setting, model: nn.Module, targets: Tensor, *given: Any, **more: Any) -> Tensor:
    with setting.autocast():
        return nn.functional.cross_entropy(model(*given, **more), targets)


NETWORKS = {
    mixer: Architecture(Frame(32, 3, 10), 4, (Stage(32, (mixer,) * 2, 2.0, **how), Stage(64, (mixer,) * 2, 2.0, **how)))
    for mixer, how in {"conv": {"kernel": 3}, "attention": {"head_width": 16}, "token_mlp": {}, "s2_shift": {}}.items()
}


@pytest.mark.parametrize(
    ("mixer", "how"), [*((mixer, {}) for mixer in NETWORKS), ("conv", {"accumulate": 2}), ("conv", {"recompute": True})]
)
@pytest.mark.parametrize("bf16", ["never", "always"])
def test_memory_of_a_step_is_what_torch_allocates(mixer: str, how: dict[str, Any], bf16: str) -> None:
    torch.manual_seed(0)
    network, setting, phase = Network(NETWORKS[mixer]), setting_of(32, bf16), Phase(steps=1, batch_size=64, lr=1e-3, **how)
    x, targets = torch.randn(64 // phase.accumulate, 3, 32, 32), torch.arange(64 // phase.accumulate) % 4
    kept = 3 * sum(each.nbytes for each in network.parameters())
    told = training_bytes(network, setting, phase, 64) - kept - x.nbytes
    network.zero_grad(set_to_none=True)
    real = allocated_at_most(lambda: loss_of(setting, network, targets, x, recompute=phase.recompute).backward())
    assert told == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("bf16", ["never", "always"])
def test_memory_of_a_supernets_step_is_what_torch_allocates(folder: Path, bf16: str) -> None:
    space = SearchSpace.read(folder / "tiny.yaml").at(Frame(16, 3, 4))
    supernet, setting, phase = Supernet(space), setting_of(16, bf16), Phase(steps=1, batch_size=64, lr=1e-3, ema=True)
    largest = space.largest(lambda architecture: architecture.stages[0].width * architecture.stages[0].depth)
    x, targets = torch.randn(64, 3, 16, 16), torch.arange(64) % 4
    kept = 4 * sum(each.nbytes for each in supernet.parameters())
    told = training_bytes(supernet, setting, phase, 64, (largest,)) - kept - x.nbytes
    supernet.zero_grad(set_to_none=True)
    real = allocated_at_most(lambda: loss_of(setting, supernet, targets, x, largest).backward())
    assert told == pytest.approx(real, rel=0.1)


def test_samples_and_room_on_the_disk_are_what_a_run_takes(folder: Path) -> None:
    command = f"{WITH} --budget 200kMACs --run a --finalists 0"
    told = lines_of(succeed(f"plan {command.replace('--run a', '')}", folder))
    with recording() as seen:
        succeed(f"search {command}", folder)
        taken = sum(len(step.numbers) for step in seen.steps)
        assert re.match(rf"{taken} images by the supernet", told["samples"])
        succeed("retrain runs/best.yaml --device cpu --run r", folder)
        assert f"{sum(len(step.numbers) for step in seen.steps) - taken} images by retraining" in told["samples"]
    supernet, retraining, studies = sizes(told["storage"])
    saved = load_checkpoint(folder / "runs/a/supernet.pt")
    assert 2 * bytes_of(saved) == pytest.approx(supernet, rel=0.02)
    left = (
        sum(bytes_of(load_checkpoint(path)) for path in (folder / "runs/r").glob("*.pt*"))
        + (folder / "runs/r/weights.safetensors").stat().st_size
    )
    assert left <= 1.2 * retraining
    assert (folder / "runs/a/study.db").stat().st_size < 200_000 + studies
