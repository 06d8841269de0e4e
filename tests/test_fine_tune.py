"""Fine-tuning inherited weights: where it begins, what it sees, and that the supernet stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import CLASSES, SIDE, Recording, numbers, recording, write_images

from nas.networks.architecture import Architecture, Frame
from nas.networks.network import Network
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching import inherited
from nas.searching.inherited import FineTuned
from nas.searching.trained_alone import NOT_FINITE
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training.fine_tune import RATE, fine_tune
from nas.training.given import Given
from nas.training.loop import NotFinite, evaluate
from nas.training.recipe import Phase
from nas.training.setting import Setting, open_setting

SPACE = """
format: search space 1
frame: {resolution: 32, channels: 1, classes: 4}
patch: 4
stages:
  - {width: [16, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2]}
  - {width: 32, depth: 2, mixer: [conv, attention], mlp_ratio: 1, head_width: 16}
"""
STEPS, RATE_OF_SUPERNET = 12, 4e-3
PHASE = {"epochs": 30, "batch_size": 8, "lr": RATE_OF_SUPERNET, "warmup": 0.25, "ema": True, "clip_norm": 1.0, "weight_decay": 0.1,
         "augmentation": {"flip": True}}  # fmt: skip


@pytest.fixture(scope="module")
def supernet(tmp_path_factory: pytest.TempPathFactory) -> Supernet:
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(SPACE)
    torch.manual_seed(4)
    return Supernet(SearchSpace.read(path).at(Frame(SIDE, 1, CLASSES)))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = write_images(tmp_path_factory.mktemp("images"))
    found = open_setting(Given(data=str(folder), device="cpu", resolution=SIDE), 8, SIDE)
    # The other phase is as different as can be.
    other = Phase(steps=3, batch_size=6, lr=0.1, label_smoothing=0.1, drop_path=0.3)
    return replace(found, recipe=found.recipe.model_copy(update={"supernet": Phase(**PHASE), "retrain": other, "bf16": "never"}))


def architecture(supernet: Supernet) -> Architecture:
    space = supernet.space
    values = {name: options[0] for name, options in space.decisions.items()}
    values |= dict.fromkeys(space.mixer_decisions, "conv")
    return space.decode(values).at(Frame(64, 3, 7))  # counted in another frame


def tuned(supernet: Supernet, setting: Setting, steps: int = STEPS) -> tuple[Network, Recording]:
    with recording() as seen:
        return fine_tune(supernet, architecture(supernet), setting, steps), seen


def test_a_wish_to_stop_is_heeded_between_its_steps(supernet: Supernet, setting: Setting) -> None:
    wishes = iter([False, False, True])
    with recording() as seen, pytest.raises(Stopped, match="fine-tuning"):
        fine_tune(supernet, architecture(supernet), setting, STEPS, lambda: next(wishes))
    assert len(seen.steps) == 2


def test_it_begins_with_the_supernets_part_and_leaves_the_supernet_alone(supernet: Supernet, setting: Setting) -> None:
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    network, seen = tuned(supernet, setting)
    first = seen.steps[0].passes[0]
    supernet.train()
    with torch.no_grad():
        assert torch.equal(supernet(first.images, architecture(supernet).at(setting.frame)), first.logits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    assert all(parameter.grad is None for parameter in supernet.parameters())
    assert any(not torch.equal(value, seen.initial[name]) for name, value in network.state_dict().items()), "and it has moved"
    assert not network.training and network.architecture == architecture(supernet).at(setting.frame)


def test_it_takes_so_many_steps_as_the_supernets_phase_has_them_at_a_quarter_of_the_rate(supernet: Supernet, setting: Setting) -> None:
    network, seen = tuned(supernet, setting)
    assert len(seen.steps) == STEPS and all(step.module is network for step in seen.steps), "and not an average of it"
    warmup = 3  # a quarter of the steps
    highest = RATE * RATE_OF_SUPERNET
    assert RATE == 0.25
    assert [step.lr for step in seen.steps[:warmup]] == pytest.approx([highest * k / warmup for k in (1, 5 / 3, 7 / 3)])
    assert seen.steps[warmup].lr == max(step.lr for step in seen.steps) and seen.steps[warmup].lr > 0.8 * highest
    assert seen.steps[-1].lr < 0.05 * highest
    assert {smoothing for step in seen.steps for _, smoothing in step.losses} == {0.0}
    assert set(seen.steps[0].decay.values()) == {0.0, 0.1}


def test_it_sees_the_images_that_are_not_held_out_with_the_supernets_augmentation(supernet: Supernet, setting: Setting) -> None:
    _, seen = tuned(supernet, setting)
    assert seen.batches == [("fit", 8, setting.seed, Phase(**PHASE).augmentation)] and not seen.evaluated_splits
    passes = [one for step in seen.steps for one in step.passes]
    assert {number for one in passes for number in one.numbers} == numbers("train")  # val/ is held out
    assert any(any(one.mirrored) for one in passes) and not all(all(one.mirrored) for one in passes)


def test_a_seed_is_a_network(supernet: Supernet, setting: Setting) -> None:
    torch.manual_seed(1)
    network, seen = tuned(supernet, setting)
    torch.manual_seed(2)
    again, seen_again = tuned(supernet, setting)
    other, seen_otherwise = tuned(supernet, replace(setting, seed=9))
    drawn, drawn_again, drawn_otherwise = (
        [step.passes[0].random_seed for step in each.steps] for each in (seen, seen_again, seen_otherwise)
    )
    assert drawn == drawn_again and not set(drawn) & set(drawn_otherwise), "of what a layer may draw"
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())


def test_nothing_is_written(supernet: Supernet, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tuned(supernet, setting, steps=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", ["memory", "not finite", "twice"])
def test_what_fails_is_fine_tuned_once_more_by_the_remedy(
    failure: str, supernet: Supernet, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the network that is kept in the end is that one, whoever asks for it, in a later sitting too."""
    asked: list[tuple[float, int, int]] = []

    def struck(supernet: Supernet, architecture: Architecture, setting: Setting, steps: int, stop: Any) -> Network:
        phase = setting.recipe.supernet
        asked.append((phase.lr, phase.batch_size, steps))
        if phase.lr == RATE_OF_SUPERNET or failure == "twice":
            raise MemoryError if failure == "memory" else NotFinite("a loss")
        return fine_tune(supernet, architecture, setting, steps)

    monkeypatch.setattr(inherited, "fine_tune", struck)
    found = FineTuned(setting, Run("r", tmp_path)).evaluation(supernet, architecture(supernet))
    batch, steps = (4, 80) if failure == "memory" else (8, 40)
    assert asked == [(RATE_OF_SUPERNET, 8, 40), (RATE_OF_SUPERNET / 2, batch, steps)]
    if failure == "twice":
        assert found.accuracy is None and found.failure == NOT_FINITE
        assert FineTuned(setting, Run("r", tmp_path)).evaluation(supernet, architecture(supernet)) == found and len(asked) == 2
        return
    later = FineTuned(setting, Run("r", tmp_path))
    assert later.evaluation(supernet, architecture(supernet)) == found and len(asked) == 2
    network = later.network(supernet, architecture(supernet))
    assert asked[2] == asked[1] and evaluate(network, later.held_out, setting.autocast) == found.accuracy
