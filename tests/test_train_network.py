"""The one function that trains a network: what it opens, what it leaves, and that a continued training is the uninterrupted one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import refused
from event_files import events

from nas.data import Data
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.networks.trained import begin_with, load_network
from nas.networks.weight_files import load_weights
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.training.given import Given
from nas.training.recipe import Phase
from nas.training.report import Report
from nas.training.setting import Setting, open_setting
from nas.training.train_network import TrainingResult, train_network

ARCHITECTURE = Architecture(Frame(32, 3, 100), 4, (Stage(8, ("conv", "s2_shift"), 1.0, kernel=3), Stage(16, ("conv",), 2.0, kernel=3)))
PHASE = Phase(steps=6, batch_size=16, lr=1e-2, drop_path=0.1, ema=True, rungs=(2, 4))


@pytest.fixture(scope="module")
def setting() -> Setting:
    found = open_setting(Given(data="digits", device="cpu", resolution=16), ARCHITECTURE.stride, 32)
    return replace(found, recipe=found.recipe.model_copy(update={"retrain": PHASE}))


def trained(
    setting: Setting, folder: Path, *, fit: str = "fit", on: str | None = "held_out", seed: int = 1, until: int = 99
) -> TrainingResult:
    """Trains in a folder; Ctrl-C comes after `until` steps."""
    run = Run(folder.name, folder.parent)
    run.folder.mkdir(parents=True, exist_ok=True)
    stop = lambda: any(line["step"] >= until for line in run.metrics("retrain"))  # noqa: E731
    return train_network(ARCHITECTURE, setting, fit=fit, evaluate_on=on, seed=seed, folder=run, report=Report(run, "retrain", stop))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that are opened, in order."""
    splits: list[str] = []
    for name in ("batches", "evaluation_batches"):
        real = getattr(Data, name)
        monkeypatch.setattr(Data, name, lambda self, split, *args, real=real: (splits.append(split), real(self, split, *args))[1])
    return splits


def test_no_split_is_opened_that_was_not_asked_for(setting: Setting, tmp_path: Path, opened: list[str]) -> None:
    assert trained(setting, tmp_path / "a", fit="fit", on=None).accuracy is None
    assert opened == ["fit"]
    opened.clear()
    result = trained(setting, tmp_path / "b", fit="train", on="held_out")
    assert opened == ["train", *["held_out"] * 3] and result.images == setting.images.size("held_out")  # two rungs and the end
    plain = replace(setting, recipe=setting.recipe.model_copy(update={"retrain": PHASE.model_copy(update={"rungs": ()})}))
    opened.clear()
    assert trained(plain, tmp_path / "c", on="test").images == 359
    assert opened == ["fit", "test"]


def test_rungs_never_open_the_test_split(setting: Setting, tmp_path: Path, opened: list[str]) -> None:
    with pytest.raises(ValueError, match="rungs"):
        trained(setting, tmp_path / "a", on="test")
    assert "test" not in opened


def test_the_accuracy_is_that_of_the_weights_that_it_leaves(setting: Setting, tmp_path: Path) -> None:
    result = trained(setting, tmp_path / "a")
    network = load_network(tmp_path / "a/weights.safetensors")
    assert (network.architecture.frame.resolution, network.architecture.frame.classes) == (16, 10)
    right = total = 0
    with torch.no_grad():
        for images, labels in setting.images.evaluation_batches("held_out", 50):
            right += int((network(images).argmax(1) == labels).sum())
            total += len(labels)
    assert (result.accuracy, result.images) == (right / total, total) and result.steps == 6
    assert result.epochs == pytest.approx(6 * 16 / setting.images.size("fit"), rel=0.1)


def test_a_training_stopped_between_rungs_ends_as_the_uninterrupted_one(setting: Setting, tmp_path: Path) -> None:
    whole = trained(setting, tmp_path / "whole")
    assert [step for step, _ in whole.rungs] == [2, 4]
    for until in (1, 3):
        with pytest.raises(Stopped):
            trained(setting, tmp_path / "cut", until=until)
        assert not (tmp_path / "cut/weights.safetensors").exists()
    assert trained(setting, tmp_path / "cut") == whole
    tensors = [load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("whole", "cut")]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_the_seed_is_the_one_given_and_not_the_settings(setting: Setting, tmp_path: Path) -> None:
    def weights(name: str, setting: Setting, seed: int) -> dict[str, Any]:
        trained(setting, tmp_path / name, on=None, seed=seed)
        return load_weights(tmp_path / name / "weights.safetensors")[0]

    one, same, other = weights("a", setting, 1), weights("b", replace(setting, seed=5), 1), weights("c", setting, 2)
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not torch.equal(one["head.fc.weight"], other["head.fc.weight"])


# ---- beginning with trained weights -----------------------------------------------------------------------------------


def network_for(frame: Frame, seed: int = 0, stages: tuple[Stage, ...] = ARCHITECTURE.stages) -> Network:
    torch.manual_seed(seed)
    return Network(Architecture(frame, 4, stages)).eval()


def test_a_network_begins_with_the_weights_of_another_but_for_a_head_of_other_classes() -> None:
    trained, images = network_for(Frame(32, 3, 5)), torch.randn(2, 3, 48, 48)
    same, other = network_for(Frame(48, 3, 5), seed=1), network_for(Frame(48, 3, 7), seed=1)
    head = other.head.fc.weight.clone()
    assert begin_with(same, trained, "--init w") == [] and len(begin_with(other, trained, "--init w")) == 1
    assert torch.equal(same(images), trained(images)), "convolutions and shifts take any resolution"
    assert torch.equal(other.head.fc.weight, head)
    trained.head = same.head = other.head = torch.nn.Identity()
    assert torch.equal(other(images), trained(images))


def test_a_stem_for_colours_sees_grey_images_as_it_saw_them() -> None:
    """A grey image is one whose three channels are equal."""
    trained, grey = network_for(Frame(32, 3, 5)), network_for(Frame(32, 1, 5), seed=1)
    images = torch.randn(2, 1, 32, 32)
    begin_with(grey, trained, "--init w")
    torch.testing.assert_close(grey(images), trained(images.expand(-1, 3, -1, -1)))
    colours = network_for(Frame(32, 3, 7), seed=2)
    assert begin_with(colours, grey, "--init w") == ["the head, for 7 classes instead of 5"], "and the other way"
    colours.head = grey.head = torch.nn.Identity()
    torch.testing.assert_close(colours(images.expand(-1, 3, -1, -1)), grey(images))


@pytest.mark.parametrize(
    ("frame", "width", "says", "silent_of"),
    [
        (Frame(64, 3, 5), 8, ["token_mlp", "64 px", "--resolution 32"], "channel|colour"),
        (Frame(64, 1, 5), 8, ["token_mlp", "64 px", "--resolution 32"], "channel|colour"),
        (Frame(32, 3, 5), 16, ["another architecture"], "px"),
        (Frame(32, 2, 5), 8, ["stem", "2 channels", "3 channels"], "px|resolution"),
    ],
)
def test_weights_that_cannot_be_taken_are_told_by_what_differs(frame: Frame, width: int, says: list[str], silent_of: str) -> None:
    stages = (Stage(width, ("token_mlp",), 1.0, token_hidden="tokens"),)
    weights = network_for(Frame(32, 3, 5), stages=(Stage(8, ("token_mlp",), 1.0, token_hidden="tokens"),))
    with pytest.raises(ValueError, match=r"^--init w: ") as raised:
        begin_with(network_for(frame, stages=stages), weights, "--init w")
    assert "\n" not in str(raised.value) and all(word in str(raised.value) for word in says)
    assert not re.search(silent_of, str(raised.value))


def test_weights_that_are_no_numbers_are_not_begun_with() -> None:
    """The rate would be blamed for them."""
    weights = network_for(Frame(32, 3, 5))
    with torch.no_grad():
        weights.head.fc.bias[0] = torch.nan
    with refused("--init w: ", "got them in head.fc.bias;"):
        begin_with(network_for(Frame(32, 3, 5)), weights, "--init w")


def test_tensorboard_shows_what_was_logged(setting: Setting, tmp_path: Path) -> None:
    """Also of a training that was stopped and continued."""
    longer = replace(setting, recipe=setting.recipe.model_copy(update={"retrain": PHASE.model_copy(update={"steps": 40, "rungs": (20,)})}))
    with pytest.raises(Stopped):
        trained(longer, tmp_path / "a", until=25)
    trained(longer, tmp_path / "a")
    told, lines = events(tmp_path / "a/events"), Run("a", tmp_path).metrics()
    for tag, kind, name in (("loss", "retrain", "loss"), ("rate", "retrain", "lr"), ("held_out/accuracy", "retrain rung", "accuracy")):
        logged = {line["step"]: line[name] for line in lines if line["kind"] == kind and (line["step"] % 10 == 0)}
        assert told[tag] == pytest.approx(logged, rel=1e-4), tag
    assert set(told["loss"]) == {10, 20, 30, 40}
