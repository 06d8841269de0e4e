"""What a command says before it begins, what it chooses by the data, and that a user's word on batch, rate and mirroring reaches the training."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from command_line import refused, run, succeed
from often import often
from PIL import Image
from recording import SIDE, recording, write_images
from torch import Tensor, nn

from nas.cost.latency import Milliseconds, pinned
from nas.data import Augmentation
from nas.data.parts import Part
from nas.networks.weight_files import load_weights
from nas.progress import Progress
from nas.quantities import parse_budgets
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching.supernet_run import usual_space
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training import plan
from nas.training.given import Given
from nas.training.plan import rough, step_seconds
from nas.training.recipe import Phase, Recipe, read_recipe
from nas.training.report import Report
from nas.training.setting import _usual_resolution, open_setting, open_source, shipped
from nas.yaml_files import read_yaml, write_yaml

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
supernet: {steps: 4, batch_size: 8, lr: 1.0e-3, augmentation: {flip: true}}
search: {trials: 3, population: 2, batch_size: 12}
retrain: {steps: 4, batch_size: 8, lr: 1.0e-3, augmentation: {flip: true}}
"""
NETWORK = """
format: architecture 1
architecture: {frame: {resolution: 32, channels: 3, classes: 10}, patch: 4, stages: [{width: 16, mixers: [conv], mlp_ratio: 1, kernel: 3}]}
"""
WITH = "--device cpu --data images --space tiny.yaml --recipe plain.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    (tmp_path / "tiny.yaml").write_text(SPACE)
    (tmp_path / "plain.yaml").write_text(RECIPE)
    return tmp_path


# ---- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [f"train {WITH}", f"search {WITH} --budget 600kMACs", f"retrain net.yaml {WITH}"])
def test_a_dry_run_tells_the_images_and_the_steps_and_leaves_nothing(command: str, folder: Path) -> None:
    (folder / "net.yaml").write_text(NETWORK)
    command = command.replace("--space tiny.yaml ", "") if command.startswith("retrain") else command
    before = sorted(folder.rglob("*"))
    with recording() as seen:
        said = succeed(f"{command} --dry-run --batch-size 6 --no-flip", folder)
    assert not seen.steps and sorted(folder.rglob("*")) == before
    train, per_epoch = (88, 14) if command.startswith("retrain") else (48, 8)
    assert f"4 classes: {train} to train on" in said and "24 to test" in said and f"{SIDE} px as they are" in said
    assert f"4 steps of 6 images ({4 / per_epoch:.3g} epochs), rate 0.001" in said and "not mirrored" in said
    assert not command.startswith("search") or "40 held out" in said
    with recording() as seen:
        told = succeed(f"{command} --batch-size 6 --no-flip", folder)
    assert "4 steps of 6 images" in told, "told before it begins, too"
    split = "train" if command.startswith("retrain") else "fit"
    phases = {(which, batch, how.flip) for which, batch, _, how in seen.batches}
    assert (split, 6, False) in phases and not any(flip for _, _, flip in phases)


def test_images_that_are_scaled_are_told_with_what_networks_then_cost(folder: Path) -> None:
    said = succeed(f"train {WITH} --dry-run --resolution 24", folder)
    assert f"{SIDE} px, scaled to 24 px (--resolution {SIDE} for their own size)" in said
    assert "as they are" in succeed(f"train {WITH} --dry-run --resolution {SIDE}", folder), "what is advised is accepted"
    lines = [line for line in said.splitlines() if re.match(r"\s+(smallest|largest) ", line)]
    counts = [re.findall(r"([\d.]+) ([kM])MACs at (\d+) px", line) for line in lines]
    assert len(lines) == 2
    for (first, prefix, at), (second, other, used) in counts:
        assert (at, used) == ("32", "24")
        ratio = float(second) * {"k": 1, "M": 1000}[other] / (float(first) * {"k": 1, "M": 1000}[prefix])
        assert (24 / 32) ** 2 / 3 < ratio < (24 / 32) ** 2, "by the area, and the stem by grey images"


def test_images_of_other_sizes_and_shapes_are_told(folder: Path) -> None:
    """The median shorter side is that of the resolution, and yet they are not used as they are."""
    for number, path in enumerate(sorted((folder / "images").rglob("*.png"))):
        Image.open(path).resize((SIDE, 3 * SIDE) if number % 2 else (SIDE, SIDE)).save(path)
    told = plan_of(f"train {WITH} --dry-run", folder)
    assert (
        "as they are" not in told["images"][0]
        and f"some {SIDE} to {3 * SIDE} px a side, of each the square in the middle" in told["images"][0]
    )
    assert "no random crop" in told["supernet"][0]


def test_the_images_own_size_is_advised_where_the_space_has_it(folder: Path, tmp_path: Path) -> None:
    """The sides of the grid, 12 at 48 px, divide no width of permute."""
    data = coloured(tmp_path / "large", ["cat", "dog"], side=48)
    (folder / "sided.yaml").write_text(SPACE.replace("s2_shift", "permute"))
    for space, advised in (("tiny", True), ("sided", False)):
        said = succeed(f"train --device cpu --data {data} --space {space}.yaml --recipe plain.yaml --dry-run", folder)
        assert "48 px, scaled to 32 px" in said and ("--resolution 48 " in said) == advised


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "no random crop, not mirrored"),
        ({"crop": "pad", "flip": True}, "padded and cropped, mirrored"),
        ({"crop": "resized", "crop_scale": (0.35, 1.0)}, "cropped to 35% or more, not mirrored"),
        ({"randaugment": (2, 9)}, "no random crop, not mirrored, RandAugment"),
        ({"erasing": 0.25, "mixup": 0.8}, "no random crop, not mirrored, erasing, mixup"),
        ({"cutmix": 1.0}, "no random crop, not mirrored, cutmix"),
    ],
)  # fmt: skip
def test_what_a_training_does_to_its_images_is_told(changes: dict[str, Any], told: str) -> None:
    phase = Phase(steps=300, batch_size=8, lr=1e-3, augmentation=Augmentation(**changes))
    assert plan.phase_line(phase, 300, 120) == f"300 steps of 8 images (2.5 epochs), rate 0.001; {told}"


def test_images_whose_size_the_networks_cannot_have_are_scaled_to_the_next_one(folder: Path, tmp_path: Path) -> None:
    """The sides of the grid, 5 to 7, divide no width of permute; who asks for such a size is told which ones there are."""
    data = coloured(tmp_path / "large", ["cat", "dog"], side=20)
    (folder / "sided.yaml").write_text(SPACE.replace("s2_shift", "permute"))
    (folder / "net.yaml").write_text(NETWORK.replace("mixers: [conv], mlp_ratio: 1, kernel: 3", "mixers: [permute], mlp_ratio: 1"))
    for begin in ("train --space sided.yaml", "retrain net.yaml"):
        command = f"{begin} --device cpu --data {data} --recipe plain.yaml --dry-run"
        told = succeed(command, folder)
        assert "20 px, scaled to 32 px\n" in told and "scaled to 32 px, the next size that the networks can have: " in told
        for side in (18, 20):
            said = refused(f"{command} --resolution {side}", folder)
            assert f"got {side} (" in said and "accepted next to it: 16 and 32. Give --resolution 16." in said
        assert "scaled to 16 px" in succeed(f"{command} --resolution 16", folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar_small", "cifar", "photos", "hybrid", "spach"])
def test_every_shipped_space_takes_images_of_any_size(name: str) -> None:
    space, taken = SearchSpace.read(shipped("search_spaces", name, "--space")), set()
    for side in (1, *range(space.stride, 301, space.stride), 300):
        found, notes = _usual_resolution(SimpleNamespace(resolution=side), space.stride, space.frame.resolution, space.at_side)  # type: ignore[arg-type]
        assert min(side, space.frame.resolution) <= found <= space.frame.resolution
        assert bool(notes) == (found - side >= space.stride)
        taken.add(found)
    for side in taken:
        space.at_side(side)


def test_seconds_of_a_step_are_those_between_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that each pass moves, the first one, which warms up, by far more."""
    now = [0.0]
    monkeypatch.setattr(plan.time, "perf_counter", lambda: now[0])  # type: ignore[attr-defined]

    class Slow(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            now[0] += 100.0 if not now[0] else 0.25
            return super().forward(x.flatten(1))

    setting = open_setting(Given(data=str(folder / "images"), recipe=str(folder / "plain.yaml"), device="cpu"), 8, 32)
    model = Slow(setting.source.channels * SIDE**2, 4)
    assert step_seconds(model, setting, setting.recipe.retrain, "train") == pytest.approx(0.25)


@pytest.mark.parametrize("image_seconds", [0.001, 0.06, 7.0])
def test_what_is_timed_can_be_shared_by_any_number_of_processes(image_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By steps whose seconds are those of their images: of a batch that all have a part of, nobody is asked for one that some have none of."""
    asked = list[int]()

    def timed(model: nn.Module, setting: object, phase: Phase, *about: object) -> float:
        asked.append(phase.batch_size)
        return phase.batch_size * image_seconds

    monkeypatch.setattr(plan, "_timed", timed)
    for count in range(1, 10):
        for batch in (*range(2 * count, 90, 2), 1024):
            asked.clear()
            setting: Any = SimpleNamespace(device=torch.device("cpu"), ranks=SimpleNamespace(count=count))
            seconds = step_seconds(nn.Identity(), setting, Phase(steps=100, batch_size=batch, lr=1.0), "fit")
            assert seconds == pytest.approx(batch * image_seconds)
            for images in asked:
                assert 0 < images <= batch and images % 2 == 0, "images may be mixed in pairs"
                assert Part(count - 1, count).rows(images)


def test_a_long_training_is_timed_and_its_parts_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "long.yaml").write_text(RECIPE.replace("steps: 4", "steps: 40000"))
    said = succeed(f"search {WITH.replace('plain', 'long')} --budget 600kMACs --dry-run", folder)
    (time,) = (line for line in said.splitlines() if line.startswith("  time"))
    assert re.search(r"about .* in all: supernet .*, 3 evaluations .*, retraining the winner .* \(by a few steps timed on this cpu\)", time)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(20, "under a minute"), (60, "a minute"), (130, "2.2 minutes"), (1380, "23 minutes"), (12600, "3.5 hours"), (1.0e6, "12 days")],
)
def test_durations_are_told_as_roughly_as_they_are_known(seconds: float, said: str) -> None:
    assert rough(seconds) == said


# ---- by the data ------------------------------------------------------------------------------------------------------

PHASE = Phase(epochs=10, batch_size=64, lr=1e-3, augmentation=Augmentation(flip="auto"))


def recipe(**more: object) -> Recipe:
    steps = Phase(steps=1000, batch_size=64, lr=1e-3)
    return Recipe.model_validate(
        {"format": "recipe 1", "supernet": steps, "search": {"trials": 1, "finalist_epochs": 6}, "retrain": PHASE, **more}
    )


def test_with_fewer_images_a_training_has_fewer_steps_and_more_epochs_by_the_square_root() -> None:
    fitted = recipe(images=40_000).fitted(2_500, mirrored=True)
    assert (fitted.retrain.epochs, fitted.supernet.steps, fitted.search.finalist_epochs) == (40, 250, 24)
    assert fitted.retrain.augmentation.flip is True and fitted.supernet.augmentation.flip is False
    assert fitted.fitted(100, mirrored=False) == fitted, "a run goes on as it was begun"
    for images in (40_000, 10**6):
        as_meant = recipe(images=40_000).fitted(images, mirrored=False)
        assert (as_meant.retrain.epochs, as_meant.supernet.steps, as_meant.retrain.batch_size, as_meant.retrain.lr) == (10, 1000, 64, 1e-3)
    assert recipe().fitted(30, mirrored=True).retrain.batch_size == 64, "a recipe that does not say for how many is taken as it is"


def test_a_batch_is_at_most_an_eighth_of_few_images() -> None:
    phase = recipe(images=40_000).fitted(300, mirrored=True).retrain
    assert phase.batch_size == 32 and phase.lr == pytest.approx(1e-3 / math.sqrt(2), rel=1e-2)
    few = {images: recipe(images=40_000).fitted(images, mirrored=True).retrain.batch_size for images in (5, 24, 100, 200)}
    assert few == {5: 4, 24: 16, 100: 16, 200: 16}, "small ones make no difference but time"


def coloured(folder: Path, classes: list[str], mode: str = "RGB", side: int = 48) -> Path:
    for split in ("train", "test"):
        for name in classes:
            for number in range(6):
                path = folder / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new(mode, (side, side), number * 20 if mode == "L" else (number * 20, 30, 90)).save(path)
    return folder


@pytest.mark.parametrize(
    ("classes", "mode", "mirrored"),
    [
        (["cat", "dog"], "RGB", True), (["cat", "dog"], "L", False), (["00014", "00033"], "RGB", False), (["A", "b"], "RGB", False),
        (["turn_left", "turn_right"], "RGB", False), (["leftover", "bright"], "RGB", True), (["n01440764", "n01443537"], "RGB", True),
        (["stop_sign", "yield-sign", "bend"], "RGB", False), (["cat", "dog", "street sign"], "RGB", True),
    ],
)  # fmt: skip
def test_writing_and_signs_are_not_mirrored_unless_the_user_wants_it(classes: list[str], mode: str, mirrored: bool, tmp_path: Path) -> None:
    data = str(coloured(tmp_path, classes, mode))
    for given, wanted in ((None, mirrored), (True, True), (False, False)):
        setting = open_setting(Given(data=data, device="cpu", flip=given), 8, 32)
        assert {setting.recipe.supernet.augmentation.flip, setting.recipe.retrain.augmentation.flip} == {wanted}
        told = [note for note in setting.notes if "mirrored" in note]
        wanted = ("at random; --no-flip" if mirrored else "not mirrored: ") if given is None else None
        assert [wanted in note for note in told] == [True] * (given is None), (
            "what is decided is said, with the option that decides otherwise"
        )


@pytest.mark.parametrize(
    ("side", "num", "name"), [(48, 24, "cifar_cpu"), (65, 24, "photos_cpu"), (48, 300_000, "cifar_cpu"), (224, 199_999, "photos_cpu"), (224, 200_000, "imagenet")]
)  # fmt: skip
def test_the_recipe_is_chosen_by_the_images(side: int, num: int, name: str, tmp_path: Path) -> None:
    given = Given(data=str(coloured(tmp_path, ["cat", "dog"], side=side)), device="cpu")
    source = open_source(given)
    source.num_images = {**source.num_images, "train": num}
    setting = open_setting(given, 8, 32, source=source)
    assert setting.recipe_name == name and any(name in note for note in setting.notes)


@pytest.mark.parametrize(
    ("side", "budgets", "space"),
    [
        (48, ["5MMACs"], "cifar_small"), (48, ["40.5MMACs"], "cifar"), (48, ["1GMACs"], "hybrid"), (48, [], "cifar_small"), (48, ["8ms"], "cifar_small"),
        (48, ["100MMACs"], "photos"), (224, ["1GMACs"], "hybrid"), (224, ["30MMACs"], "photos"), (224, [], "photos"), (224, ["8ms"], "photos"),
        (224, ["5MMACs"], "cifar_small"), (224, ["20GMACs"], "hybrid"), (224, ["4.5GMACs", "5MMACs"], "cifar"), (224, ["100kMACs"], "cifar_small"),
    ],
)  # fmt: skip
def test_the_space_is_chosen_by_images_and_budgets(side: int, budgets: list[str], space: str, tmp_path: Path) -> None:
    source = open_source(Given(data=str(coloured(tmp_path, ["cat", "dog"], side=side))))
    found, notes = usual_space(source, torch.device("cpu"), [each for text in budgets for each in parse_budgets([text])])
    assert found == space and space in notes[0]


def test_classes_without_a_split_are_trained_and_tested_on_apart_by_every_command(folder: Path) -> None:
    """The winner's training, its test, `evaluate` and a run by another path and seed know one test split, and a broken image of it is found first."""
    for path in (folder / "images/train").glob("*/*.png"):
        (folder / "photos" / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(folder / "photos" / path.parent.name / path.name)
    (folder / "net.yaml").write_text(NETWORK)
    (folder / "linked").symlink_to("photos")
    every, tested = {int(path.stem) for path in (folder / "photos").rglob("*.png")}, list[set[object]]()
    for command in ("search --space tiny.yaml --budget 600kMACs --data photos", "retrain net.yaml --data photos --run r",
                    "evaluate r --data photos", "retrain net.yaml --data linked --seed 5"):  # fmt: skip
        with recording() as seen:
            said = succeed(command + " --device cpu" + " --recipe plain.yaml" * ("evaluate" not in command), folder)
        assert "photos is not split" in said or "linked" in command
        trained = {number for step in seen.steps for number in step.numbers}
        if command.startswith("search"):
            chosen_by = {number for each in seen.evaluations for number in each.numbers}
            assert trained and not trained & chosen_by
            searched = trained | chosen_by
        else:
            tested.append({number for each in seen.evaluations for number in each.numbers})
            assert not trained & tested[-1] and trained <= every
    assert tested[0] == tested[1] == tested[2] and 8 <= len(tested[0]) <= 11 and not searched & tested[0]
    write_images(folder / "more")
    for path in list((folder / "more/val").glob("*/*.png"))[:3]:
        path.rename(folder / "photos" / path.parent.name / path.name)
    assert "changed since" in succeed("evaluate r --data photos --device cpu", folder)
    assert "with other images" in refused("retrain net.yaml --data photos --run r --device cpu --recipe plain.yaml", folder)
    (broken,) = (folder / "photos").rglob(f"{min(map(int, map(str, tested[0])))}.png")
    broken.write_bytes(b"no image")
    assert broken.name in refused("train --space tiny.yaml --data photos --device cpu --recipe plain.yaml --run t", folder)


def test_shipped_recipes_are_meant_for_the_sets_they_name() -> None:
    folder = Path(__file__).parents[1] / "recipes"
    meant = {
        name: read_recipe(folder / f"{name}.yaml").images for name in ("cifar", "cifar_cpu", "photos", "photos_cpu", "imagenet", "digits")
    }
    assert meant == {"cifar": 50_000, "cifar_cpu": 50_000, "photos": 10_000, "photos_cpu": 10_000, "imagenet": 1_281_167, "digits": None}
    large = read_recipe(folder / "imagenet.yaml")  # 1e-3 for 1,024 images, and by the square root for a quarter of them
    assert (large.retrain.lr, large.retrain.batch_size, large.supernet.batch_size) == (1e-3, 1024, 256)
    assert large.supernet.lr == pytest.approx(1e-3 * math.sqrt(256 / 1024))


# ---- a user's word ----------------------------------------------------------------------------------------------------


def test_batch_rate_and_mirroring_are_kept_by_a_run_and_its_winner(folder: Path) -> None:
    with recording() as seen:
        succeed(f"search {WITH} --budget 600kMACs --run a --batch-size 4 --lr 0.01 --no-flip --steps 5", folder)
    assert [len(step.numbers) for step in seen.steps] == [4] * 5 and max(step.lr for step in seen.steps) == 0.01
    assert not any(any(each.passes[0].mirrored) for each in seen.steps)
    with recording() as again:
        succeed("train --device cpu --run a", folder)
    assert not again.steps, "what is not said is as it was begun"
    for other in ("--batch-size 6", "--lr 0.02", "--flip"):
        assert "begun with another value" in refused(f"train --device cpu --run a {other}", folder)
    with recording() as retrained:
        succeed("retrain runs/best.yaml --device cpu --run r --lr 0.005", folder)
    assert [len(step.numbers) for step in retrained.steps] == [8] * 4, "the batch was the supernet's"
    assert max(step.lr for step in retrained.steps) == 0.005
    assert not any(any(each.passes[0].mirrored) for each in retrained.steps)
    with recording() as again:
        succeed("retrain runs/best.yaml --device cpu --run r", folder)
        succeed("retrain runs/best.yaml --device cpu --run r --no-flip --lr 0.005", folder)
        for other in ("--batch-size 6", "--lr 0.02", "--flip"):
            assert "begun with another value" in refused(f"retrain runs/best.yaml --device cpu --run r {other}", folder)
    assert not again.steps


def test_the_images_of_the_search_named_again_keep_what_it_was_begun_with(folder: Path) -> None:
    """By any path; other images have a recipe, a resolution and mirroring of their own."""
    succeed(f"search {WITH} --budget 600kMACs --run a --no-flip --resolution 24", folder)
    (folder / "again").symlink_to("images")
    coloured(folder / "others", ["cat", "dog", "eel", "fox"], side=SIDE)
    for data, side, mirrored in (("", 24, False), ("--data images", 24, False), ("--data again", 24, False), ("--data others", SIDE, True)):
        with recording() as seen:
            succeed(f"retrain runs/best.yaml --device cpu --steps 2 --run r{data.replace('--data ', '')} {data}", folder)
        assert {tuple(step.passes[0].images.shape[2:]) for step in seen.steps} == {(side, side)}
        assert {how.flip for *_, how in seen.batches} == {mirrored}, data
        assert (len(seen.steps[0].numbers) == 8) == (side == 24), "the batch of the recipe"


def test_what_the_recipe_has_may_be_said_again(folder: Path) -> None:
    succeed(f"train {WITH} --run a", folder)
    with recording() as again:
        succeed(f"train {WITH} --run a --flip --batch-size 8 --lr 0.001", folder)
    assert not again.steps


def test_how_a_training_is_computed_may_change_and_older_runs_do_not_say_it(folder: Path) -> None:
    succeed(f"train {WITH} --run a", folder)
    record = read_yaml(folder / "runs/a/run.yaml", format="run 1")
    for name in ("accumulate", "recompute"):
        assert record["supernet"]["recipe_content"]["supernet"].pop(name) in (1, False)
    write_yaml(folder / "runs/a/run.yaml", record)
    with recording() as again:
        succeed(f"train {WITH} --run a", folder)
        succeed(f"train {WITH} --run a --accumulate 2 --recompute", folder)
        assert "begun with another value of 'lr'" in refused(f"train {WITH} --run a --accumulate 2 --lr 0.1", folder)
    assert not again.steps


def advised(command: str, told: str, option: str) -> str:
    """The command with an option of a message, and with the other name of the run where the message asks for one before it."""
    before = told.partition(" Take ")[2].partition(option.split()[0])[0]
    assert option.split()[0] in told, told
    return f"{command} {option}" + " --run NAME" * ("another --run NAME" in before)


@pytest.mark.whole
@pytest.mark.parametrize("run_name", ["", " --run r"])
@pytest.mark.parametrize(
    "command",
    [f"train {WITH}", f"retrain net.yaml {WITH.replace('--space tiny.yaml ', '')}", f"search {WITH} --budget 300kMACs --finalists 0"],
    ids=["train", "retrain", "search"],
)
def test_advice_after_a_loss_that_is_not_finite_leads_to_the_end(command: str, run_name: str, folder: Path) -> None:
    (folder / "net.yaml").write_text(NETWORK)
    (folder / "steep.yaml").write_text(RECIPE.replace("steps: 4, batch_size: 8, lr: 1.0e-3", "steps: 12, batch_size: 8, lr: 1.0e+30"))
    command = f"{command.replace('plain', 'steep')}{run_name}"
    told = run(command, folder).err.splitlines()[-1]
    assert re.search(r"a lower rate, such as --lr \S+\.$", told), told
    succeed(advised(command, told, "--lr 0.001"), folder)
    ended = [
        each.parent.name
        for each in (folder / "runs").glob("*/run.yaml")
        if (entries := read_yaml(each, format="run 1")).get("supernet_finished") or entries.get("finished")
    ]
    assert ended == ["NAME"]


def test_advice_after_memory_ran_out_leads_to_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(module: nn.Module, images: Tensor) -> None:
        if torch.is_grad_enabled() and len(images) > 4:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"
            )

    with recording(before_pass=full) as seen:
        told = refused(f"train {WITH}", folder)
        assert "out of memory" in told and "--batch-size 4" in told, told
        succeed(f"train {WITH} --batch-size 4", folder)
    assert [len(step.numbers) for step in seen.steps] == [4] * 4


@pytest.mark.whole
@pytest.mark.parametrize("advice", ["--accumulate 2", "--recompute", "--batch-size 4", "--resolution 8"])
@pytest.mark.parametrize(
    "command",
    often(
        [f"train {WITH} --run r", f"retrain net.yaml {WITH.replace('--space tiny.yaml ', '')} --run r"],
        lambda line: line.startswith("train"),
    ),
    ids=["train", "retrain"],
)
def test_each_advice_after_memory_ran_out_leads_to_the_end(command: str, advice: str, folder: Path) -> None:
    """Memory is what a forward pass keeps for the backward pass; what fits is a part of what the recipe takes. What only computes otherwise
    goes on with the same run, and is told no more where it is done."""
    (folder / "net.yaml").write_text(NETWORK.replace("[conv]", "[conv, conv, conv]"))
    (folder / "tiny.yaml").write_text(SPACE.replace("depth: [1, 2]", "depth: [3, 4]"))
    kept, most, limit = [0], [0], [float("inf")]

    def keep(tensor: Tensor) -> Tensor:
        kept[0] += tensor.nbytes * (tensor.dim() == 4)  # activations; weights are there anyway
        most[0] = max(most[0], kept[0])
        if kept[0] > limit[0]:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"
            )
        return tensor

    def begin(module: nn.Module, images: Tensor) -> None:
        kept[0] = 0

    with recording(before_pass=begin), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        succeed(command.replace("--run r", "--run unlimited"), folder)
        limit[0] = 0.8 * most[0]
        told = run(command, folder).err.splitlines()[-1]
        assert "out of memory" in told and advice.replace(" 8", "") in told, told
        succeed(advised(command, told, advice), folder)
        limit[0] = 0
        told = run(f"{command.replace('--run r', '--run t')} {advice}", folder).err.splitlines()[-1]
    assert "out of memory" in told and not (advice in ("--accumulate 2", "--recompute") and advice in told), told
    assert advice != "--accumulate 2" or "--accumulate 4" in told


@pytest.mark.parametrize("steps", [4, 200], ids=["in the training", "in the plan"])
@pytest.mark.parametrize(
    "command", [f"train {WITH}", f"retrain net.yaml {WITH.replace('--space tiny.yaml ', '')}"], ids=["train", "retrain"]
)
def test_advice_after_weights_that_have_no_room_is_a_narrower_network(
    command: str, steps: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer images, or smaller ones, help no weights. On the meta device any network has room."""
    real = nn.Linear.__init__

    def allocated(self: nn.Linear, in_features: int, out_features: int, *more: object, **how: object) -> None:
        if out_features > 100 and torch.get_default_device().type == "cpu":
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
            )
        real(self, in_features, out_features, *more, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(nn.Linear, "__init__", allocated)
    for name, text in (("tiny", SPACE), ("net", NETWORK)):
        (folder / f"{name}.yaml").write_text(text.replace("mlp_ratio: 1", "mlp_ratio: 9").replace("mlp_ratio: [1, 2]", "mlp_ratio: [1, 9]"))
    told = refused(f"{command} --run r --steps {steps}", folder)
    assert "a narrower network" in told and not re.search("images|batch|--resolution", told), told
    (folder / "tiny.yaml").write_text(SPACE)
    (folder / "net.yaml").write_text(NETWORK)
    succeed(f"{command} --steps 4 --run {'NAME' if 'another --run NAME' in told else 'r'}", folder)


def test_fine_tuning_begins_with_the_given_weights_at_a_tenth_of_the_rate(folder: Path) -> None:
    (folder / "net.yaml").write_text(NETWORK)
    succeed("retrain net.yaml --device cpu --data images --recipe plain.yaml --run first", folder)
    weights = load_weights(folder / "runs/first/weights.safetensors")[0]
    coloured(folder / "others", ["a", "b", "c"], "L", SIDE)
    command = "retrain net.yaml --device cpu --data others --recipe plain.yaml --init runs/first/weights.safetensors"
    with recording() as seen:
        said = succeed(command, folder)
    assert "but for the head, for 3 classes instead of 4" in said and "a tenth of the recipe's" in said
    assert seen.initial.keys() == weights.keys() and max(step.lr for step in seen.steps) == pytest.approx(1e-4)
    same = {name for name, tensor in seen.initial.items() if tensor.shape == weights[name].shape and torch.equal(tensor, weights[name])}
    assert weights.keys() - same == {"head.fc.weight", "head.fc.bias"}
    (run,) = (each for each in (folder / "runs").iterdir() if "from" in each.name)
    with recording() as again:
        succeed(command, folder)
        assert "begun with other weights" in refused(command.partition(" --init")[0] + f" --run {run.name}", folder)
        (folder / "wider.yaml").write_text(NETWORK.replace("width: 16", "width: 32"))
        told = refused(command.replace("net.yaml", "wider.yaml"), folder)
        assert "another architecture" in told and told.endswith("Retrain runs/first/result.yaml instead.\n")
    assert not again.steps
    succeed(command.replace("net.yaml", "runs/first/result.yaml") + " --run told", folder)


@pytest.mark.parametrize(
    "of", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB"), MemoryError("Unable to allocate 8 GiB")]
)
def test_advice_after_memory_ran_out_in_the_test_leads_to_the_end(of: Exception, folder: Path) -> None:
    def full(module: nn.Module, images: Tensor) -> None:
        if not torch.is_grad_enabled() and len(images) > 4:
            raise of

    (folder / "net.yaml").write_text(NETWORK)
    (folder / "small.yaml").write_text(RECIPE.replace("batch_size: 12", "batch_size: 4"))
    command = f"retrain net.yaml {WITH.replace('--space tiny.yaml ', '')} --run r"
    with recording(before_pass=full) as seen:
        told = run(command, folder).err.splitlines()[-1]
        assert "out of memory" in told and "8 GiB" in told and "batch_size under search in the recipe" in told
        succeed(command.replace("plain", "small"), folder)
    assert len(seen.steps) == 4, "nothing is trained again"


# ---- what no network can meet -----------------------------------------------------------------------------------------


def test_a_time_that_no_network_meets_is_told_before_anything_is_trained(folder: Path) -> None:
    with recording() as seen:
        told = refused(f"search {WITH} --budget 600kMACs --budget 1us --run a", folder)
    assert "--budget 1us" in told and "accepted: " in told and not seen.steps and not Run("a", folder / "runs").folder.exists()
    assert seen.timed and all(not each.training for each in seen.timed)


def test_a_batch_that_takes_minutes_to_time_is_refused_at_once(folder: Path) -> None:
    told = refused(f"search {WITH} --budget 10s --target cpu,batch=9999999", folder)
    assert "--target" in told and "9999999" in told


def test_timing_before_a_search_is_bounded_as_a_whole_and_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which an image takes 20 ms: 35 passes of two networks take 90 s with 64 images, and 336 s with 240."""
    ahead, real, shown = [0.0], time.perf_counter, list[str]()

    def pass_of(module: nn.Module, images: Tensor) -> None:
        ahead[0] += 0.02 * len(images)

    def progress(*about: Any, **how: Any) -> Progress:
        shown.append(about[0])
        return Progress(*about, **{**how, "clock": lambda: ahead[0]})

    monkeypatch.setattr("time.perf_counter", lambda: real() + ahead[0])
    monkeypatch.setattr("nas.searching.search_run.Progress", progress)
    with recording(before_pass=pass_of):
        told = refused(f"search {WITH} --budget 100s --target cpu,batch=240 --dry-run", folder)
        assert "batch=240" in told and "6 minutes" in told and not shown
        (most,) = re.findall(r"Take fewer images, such as batch=(\d+)\.$", told)
        assert int(most) > 64
        outcome = run(f"search {WITH} --budget 100s --target cpu,batch={most} --dry-run", folder)
    assert outcome.status == 0 and len(shown) == 1
    assert re.search(r"1/2 networks.*\n.*2/2 networks", outcome.err, re.S)


def test_the_command_that_is_told_makes_the_table_of_any_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in a file of the user's, where there is no table yet, and where there is one of other networks."""
    monkeypatch.setattr("nas.searching.latency_table.timed", lambda run, **how: Milliseconds(1.0))
    for text in (SPACE, SPACE.replace("[16, 32]", "[24, 48]")):
        (folder / "tiny.yaml").write_text(text)
        outcome = run(f"search {WITH} --budget 10s --dry-run", folder)
        assert ("latency table lacks" in outcome.err) == (text != SPACE)
        (command,) = re.findall("`python launch.py (.*?)`", outcome.out + outcome.err)
        succeed(command, folder)
        assert "foretold by the table" in succeed(f"search {WITH} --budget 10s --dry-run", folder)


def test_a_sampler_without_a_part_is_told(folder: Path) -> None:
    assert "--sampler nsga2 has no part" in succeed(f"search {WITH} --budget 600kMACs --run a --sampler nsga2 --trials 2", folder)
    assert "has no part" not in run(f"search {WITH} --budget 600kMACs --run a --sampler nsga2 --trials 3", folder).out


def test_a_search_that_ran_out_of_networks_says_so(folder: Path) -> None:
    outcome = run(f"search {WITH} --budget 600kMACs --run a --trials 400", folder)
    evaluated = Counter(
        each.state.name for each in optuna.load_study(study_name="600kMACs-evolution", storage=f"sqlite:///{folder}/runs/a/study.db").trials
    )
    number = evaluated["COMPLETE"]
    assert outcome.status == 0 and 1 < number < 400
    assert f"no more networks to offer within the budget: {number} evaluated" in outcome.out
    assert re.search(rf"search: {number}/{number} evaluations.*took", outcome.err.splitlines()[-1]), outcome.err


# ---- several winners --------------------------------------------------------------------------------------------------


def test_several_winners_are_searched_on_one_supernet(folder: Path) -> None:
    command = f"search {WITH} --winner 600kMACs --winner 500kMACs --run a"
    with recording() as seen:
        said = succeed(command, folder)
    assert len(seen.steps) == 4, "the supernet is trained once"
    winners = {text: read_yaml(folder / f"runs/a/{text}-evolution.yaml") for text in ("600kMACs", "500kMACs")}
    for text, found in winners.items():
        limit = float(text.removesuffix("kMACs")) * 1000
        assert 0.8 * limit <= found["costs"]["macs"] <= limit and found["budgets"] == [text]
    assert (
        said.count("Winner: ") == 2 and (folder / "runs/best.yaml").read_bytes() == (folder / "runs/a/500kMACs-evolution.yaml").read_bytes()
    )
    with recording() as again:
        assert succeed(command, folder).count("its result again") == 2
        succeed("search --device cpu --run a --budget 550kMACs", folder)
    assert not again.steps, "it is for all that lies between them"
    assert "--budget" in refused("search --device cpu", folder)


def plan_of(command: str, folder: Path) -> dict[str, list[str]]:
    """The lines of a plan by what they are of."""
    lines = [re.match(r"  (\w+(?: and \w+)*) +(.+)", line) for line in succeed(command, folder).splitlines()]
    found: dict[str, list[str]] = {}
    for line in filter(None, lines):
        found.setdefault(line[1], []).append(line[2])
    return found


def hours(text: str) -> float:
    number, unit = re.match(r"about ([\d.]+) (minutes|hours|days)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"minutes": 1 / 60, "hours": 1, "days": 24}[unit]


@pytest.mark.parametrize("budgets", [["600kMACs"], ["600kMACs", "500kMACs", "400kMACs"]])
def test_the_hours_of_several_winners_are_those_of_one_supernet_and_of_each_search(
    budgets: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 36 seconds, so that a hundred take an hour."""
    timed = list[str]()
    monkeypatch.setattr("nas.searching.plan.step_seconds", lambda model, *_: timed.append(type(model).__name__) or 36.0)
    (folder / "long.yaml").write_text(RECIPE.replace("steps: 4", "steps: 3000", 1).replace("steps: 4", "steps: 700"))
    asked = " ".join(f"--winner {each}" for each in [*budgets, "0.6MMACs"]) if budgets[1:] else f"--budget {budgets[0]}"
    told = plan_of(f"search {WITH.replace('plain', 'long')} {asked} --finalists 4 --dry-run", folder)
    assert all(len(lines) == 1 for lines in told.values()) and timed.count("Supernet") == 1, "each thing is said and timed once"
    rows = [told[each][0] for each in (budgets if budgets[1:] else ["finalists"])]
    ladders = [int(re.search(r"some ([\d,]+) steps in all", row)[1].replace(",", "")) for row in rows]  # type: ignore[index]
    assert set(told) >= {"images", "supernet", "retrain", "time"} and all(ladders)
    tuned = [40 * (int(re.search(r"(\d+) drawn by hand", row)[1]) + 2) for row in rows]  # type: ignore[index] # one favourite of two
    assert hours(told["time"][0]) == pytest.approx((3000 + sum(tuned) + sum(ladders) + 700 * len(budgets)) / 100, rel=0.1)
    if budgets[1:]:
        assert [hours(row.rpartition("; ")[2]) for row in rows] == pytest.approx(
            [(steps + of) / 100 for steps, of in zip(ladders, tuned, strict=True)], rel=0.1
        )


def test_finalists_beside_each_other_take_what_a_step_takes_with_their_share_of_the_cores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.searching.plan.cores", lambda: 4)
    monkeypatch.setattr("nas.searching.ray_cluster.cores", lambda: 4)
    monkeypatch.setattr("nas.searching.plan.step_seconds", lambda *_: {1: 120.0, 2: 100.0}.get(torch.get_num_threads(), 36.0))
    (folder / "long.yaml").write_text(RECIPE.replace("retrain: {steps: 4", "retrain: {steps: 700"))
    asked = f"search {WITH.replace('plain', 'long')} --budget 600kMACs --finalists 4 --trials 0 --dry-run"
    with pinned(3):
        for workers, seconds in ((0, 36), (1, 36), (2, 50), (4, 30)):
            told = plan_of(f"{asked} --workers {workers}", folder)
            steps = int(re.search(r"some ([\d,]+) steps in all", told["finalists"][0])[1].replace(",", ""))  # type: ignore[index]
            assert hours(told["time"][0]) == pytest.approx((seconds * steps + 36 * 700) / 3600, rel=0.1), workers


def test_what_is_done_already_takes_no_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.searching.plan.step_seconds", lambda *_: 36.0)
    (folder / "long.yaml").write_text(RECIPE.replace("retrain: {steps: 4", "retrain: {steps: 700"))
    command = f"search {WITH.replace('plain', 'long')} --run a"
    succeed(f"{command} --winner 600kMACs --winner 400kMACs --finalists 0", folder)
    told = plan_of(f"{command} --winner 600kMACs --winner 500kMACs --finalists 0 --dry-run", folder)
    assert "already" in told["600kMACs"][0] and "already" not in told["500kMACs"][0] and "already" in told["supernet"][0]
    assert hours(told["time"][0]) == pytest.approx(7, rel=0.1), "one retraining"
    told = plan_of(f"{command} --budget 600kMACs --finalists 0 --dry-run", folder)
    assert "time" not in told


def test_a_search_says_what_will_be_done_when_it_begins_and_when_it_is_asked_for_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not its supernet is trained already; one that was interrupted has said it."""
    monkeypatch.setattr("nas.searching.plan.step_seconds", lambda *_: 36.0)
    (folder / "long.yaml").write_text(RECIPE.replace("retrain: {steps: 4", "retrain: {steps: 700"))
    succeed(f"train {WITH.replace('plain', 'long')} --run a --budget 600kMACs", folder)
    command = "search --device cpu --run a --budget 600kMACs --finalists 0"
    for trials, told in ((3, True), (3, False), (4, True)):
        said = succeed(f"{command} --trials {trials}", folder)
        assert ("trained already" in said and "about 7 hours" in said) == told == ("What will be done" in said), trials
    with monkeypatch.context() as at_once:
        at_once.setattr("nas.searching.search_run.choose_winner", lambda *_, **__: (_ for _ in ()).throw(Stopped("stopped")))
        assert run(f"{command} --sampler random", folder).status == 130
    assert "What will be done" not in succeed(f"{command} --sampler random", folder)


def test_hours_of_networks_trained_alone_are_those_of_what_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.searching.plan.step_seconds", lambda model, *_: 360.0 if isinstance(model, Supernet) else 36.0)
    (folder / "long.yaml").write_text(
        RECIPE.replace("supernet: {steps: 4", "supernet: {steps: 100").replace("retrain: {steps: 4", "retrain: {steps: 700")
    )
    more = "  - {width: [32, 48], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2, 3]}\n"
    (folder / "wide.yaml").write_text(SPACE + more)
    before = sorted(folder.rglob("*"))
    command = f"fidelity {WITH.replace('plain', 'long').replace('tiny', 'wide')} --budget 900kMACs --networks 10 --alone-epochs 20 --seeds 2 --run a --dry-run"
    told = plan_of(command, folder)
    assert "20 of 20 trainings" in told["alone"][0] and "120 steps" in told["alone"][0] and sorted(folder.rglob("*")) == before
    assert hours(told["time"][0]) == pytest.approx((100 * 360 + 20 * 120 * 36) / 3600, rel=0.1)
    succeed(f"search {WITH} --budget 500kMACs --run b", folder)
    before = sorted(folder.rglob("*"))
    told = plan_of("compare runs/best.yaml --random 0 --seeds 2 --recipe long.yaml --device cpu --dry-run", folder)
    left, every = map(int, re.match(r"(\d+) of (\d+) trainings left, each 700 steps", told["alone"][0]).groups())  # type: ignore[union-attr]
    assert (
        left == every > 2 and every % 2 == 0 and sorted(folder.rglob("*")) == before and "88 to train on, 24 to test" in told["images"][0]
    )
    assert hours(told["time"][0].removeprefix("networks alone ")) == pytest.approx(every * 7, rel=0.1)


def test_of_a_supernet_that_was_broken_off_the_rest_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.searching.plan.step_seconds", lambda *_: 36.0)
    (folder / "long.yaml").write_text(RECIPE.replace("supernet: {steps: 4", "supernet: {steps: 3000"))
    command = f"train {WITH.replace('plain', 'long')} --run a --device cpu"
    real = Report.step

    def broken_off(report: Report, done: int, loss: float, lr: float) -> None:
        real(report, done, loss, lr)
        if done == 8:
            report.stop = lambda: True  # type: ignore[method-assign]

    monkeypatch.setattr(Report, "step", broken_off)
    assert run(command, folder).status == 130
    told = plan_of(f"{command} --dry-run", folder)
    assert "8 steps done already" in told["supernet"][0] and hours(told["time"][0].removeprefix("supernet ")) == pytest.approx(
        (3000 - 8) / 100, rel=0.1
    )


def test_each_of_several_winners_is_told_how_many_networks_obey_all_of_its_budgets(folder: Path) -> None:
    lines = succeed(f"search {WITH} --winner 600kMACs --winner 300kMACs --budget 8kparams --dry-run", folder).splitlines()
    found = dict(re.fullmatch(r" +(\d+kMACs and 8kparams) +(\d+)% obey all .*", line).groups() for line in lines if "obey all" in line)  # type: ignore[union-attr]
    assert found.keys() == {"600kMACs and 8kparams", "300kMACs and 8kparams"}
    assert int(found["600kMACs and 8kparams"]) > int(found["300kMACs and 8kparams"]) > 0
