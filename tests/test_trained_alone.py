"""Networks trained alone: what they are trained and judged on, and that a figure is the same however often the training was broken off."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from errors import refused
from recording import SIDE, Recording, numbers, read_number, recording, write_images
from torch import Tensor, nn

from nas.networks.architecture import Architecture, Frame, Stage
from nas.progress import Progress
from nas.runs.interrupt import Stopped
from nas.searching import trained_alone
from nas.searching.search import MEMORY, Evaluation
from nas.searching.trained_alone import DIED, NOT_FINITE, SHARES, Alone
from nas.training import loop
from nas.training.given import Given
from nas.training.loop import IN_A_ROW
from nas.training.recipe import Phase
from nas.training.setting import Setting, open_setting

NETWORK = Architecture(Frame(32, 3, 10), 4, (Stage(8, ("conv", "s2_shift"), 1.0, kernel=3),))
RATE, BATCH = 8e-3, 8
PER_EPOCH = len(numbers("train")) // BATCH
SEED = 3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """More wait for each other longer than such a network takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def opened(folder: Path, **options: Any) -> Setting:
    found = open_setting(Given(data=str(folder), device="cpu", **({"resolution": SIDE} | options)), 4, SIDE)
    phase = Phase(epochs=40, batch_size=BATCH, lr=RATE, warmup=0.2, drop_path=0.2, augmentation={"flip": True})  # type: ignore[arg-type]
    return replace(found, recipe=found.recipe.model_copy(update={"retrain": phase}))


def altered(setting: Setting, **values: Any) -> Setting:
    """With other values in the recipe's phase of retraining."""
    return replace(setting, recipe=setting.recipe.model_copy(update={"retrain": setting.recipe.retrain.model_copy(update=values)}))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def setting(images: Path) -> Setting:
    return opened(images)


@pytest.fixture
def alone(setting: Setting, tmp_path: Path) -> Alone:
    return Alone.on_held_out(setting, tmp_path / "alone", 9)


def right(seen: Recording, images: Path) -> float:
    """The share of right answers of the evaluation after the last step, read off the logits and the names of the files."""
    classes = {int(path.stem): int(path.parent.name) for path in images.rglob("*.png")}
    passes = [one for one, steps in zip(seen.evaluations, seen.steps_before, strict=True) if steps == len(seen.steps)]
    answers = [
        (number, answer)
        for one in passes
        for number, answer in zip(one.numbers, one.logits.argmax(1).tolist(), strict=True)
        if number is not None
    ]
    return sum(classes[number] == answer for number, answer in answers) / len(answers)


def logits_at(seen: Recording) -> dict[int, Tensor]:
    """What was answered to the images that judge, by the steps done."""
    found: dict[int, list[Tensor]] = {}
    for one, steps in zip(seen.evaluations, seen.steps_before, strict=True):
        found.setdefault(steps, []).append(one.logits)
    return {steps: torch.cat(each) for steps, each in found.items()}


def left(alone: Alone) -> set[str]:
    return {path.name for path in alone.folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Nothing that a command does about errors or signals is done."""


@pytest.mark.whole
@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_while_it_tidies_up_a_training_ends_when_it_is_called_again(
    alone: Alone, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Before the so many-th of the files that it leaves to nobody is removed: weights, checkpoint, and the one before."""
    whole = Alone.on_held_out(setting, tmp_path / "whole", 9)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    expected, removed, real = whole.train(NETWORK, SEED), list[Path](), Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.exists() and path.parent == alone.place(NETWORK, SEED).folder:
            removed.append(path)
            if len(removed) == number:
                raise Killed
        real(path, missing_ok)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Path, "unlink", unlink)
        alone.train(NETWORK, SEED)
    assert alone.known(NETWORK, SEED).ended is None and "result.json" in left(alone)
    with recording() as seen:
        again = alone.train(NETWORK, SEED)
    assert not seen.steps and (again.ended, again.rungs, again.steps) == (expected.ended, expected.rungs, expected.steps)
    assert left(alone) == left(whole) == {"result.json", "metrics.jsonl"}


# ---- images --------------------------------------------------------------------------------------------------------


def test_on_held_out_trains_on_the_other_images_and_is_judged_on_all_held_out_ones_as_they_are(alone: Alone, images: Path) -> None:
    with recording() as seen:
        known = alone.train(NETWORK, SEED)
    assert seen.batches == [("fit", BATCH, SEED, alone.phase.augmentation)]
    assert len(seen.steps) == alone.steps == 9 * PER_EPOCH
    assert {number for step in seen.steps for number in step.numbers} == numbers("train")  # val/ is held out
    judged = [PER_EPOCH * k for k in (*range(1, 8), 9)]
    assert seen.evaluated_splits == ["held_out"] * 8 and sorted(set(seen.steps_before)) == judged
    for steps in set(seen.steps_before):
        passes = [one for one, before in zip(seen.evaluations, seen.steps_before, strict=True) if before == steps]
        assert sorted(number or 0 for one in passes for number in one.numbers) == sorted(numbers("val"))
        assert not any(one.training or any(one.mirrored) for one in passes)
    assert known.ended == Evaluation(right(seen, images)) and not known.remedied
    assert [step for step, _ in known.rungs] == judged[:-1]


def test_on_test_trains_on_all_training_images_and_opens_the_test_images_once(setting: Setting, tmp_path: Path, images: Path) -> None:
    alone = Alone.on_test(altered(setting, epochs=2), tmp_path)
    with recording() as seen:
        known = alone.train(NETWORK, SEED)
    assert {number for step in seen.steps for number in step.numbers} == numbers("train") | numbers("val")
    assert seen.evaluated_splits == ["test"] and set(seen.steps_before) == {len(seen.steps)}
    assert {number for one in seen.evaluations for number in one.numbers} == numbers("test")
    assert known.ended == Evaluation(right(seen, images)) and known.rungs == ()
    assert alone.accuracy(NETWORK, SEED, alone.steps) == known.ended.accuracy


# ---- rungs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0.4, 1, 4, 9, 10.5, 12, 40])
def test_rungs_are_whole_epochs_or_ninths_and_a_ladder_has_those_nearest_to_its_shares(
    setting: Setting, tmp_path: Path, epochs: float
) -> None:
    alone = Alone.on_held_out(setting, tmp_path, epochs)
    steps = round(epochs * PER_EPOCH)
    wanted = [PER_EPOCH * k for k in range(1, 99)] if epochs >= 9 else [round(steps * k / 9) for k in range(1, 9)]
    last = round(0.8 * steps)
    assert alone.steps == steps and alone.phase.ema
    assert list(alone.phase.rungs) == sorted({mark for mark in wanted if 0 < mark <= last and mark < steps})
    marks = [*alone.phase.rungs, steps]
    for mark, share in zip(alone.ladder, (1 / 9, 1 / 3, 1), strict=True):
        assert mark in marks and all(abs(mark - share * steps) <= abs(other - share * steps) for other in marks)
    assert alone.ladder == sorted(alone.ladder) and alone.ladder[-1] == steps and SHARES == (1 / 9, 1 / 3, 1)
    warm = round(0.5 * alone.phase.rungs[0])
    rates = [alone.phase.learning_rate(step, steps) for step in range(warm, steps)]
    assert set(rates[: last - warm]) == {RATE} and rates[last - warm :] == pytest.approx(
        [RATE * (steps - step) / (steps - last) for step in range(last, steps)]
    ), "constant for four fifths, then in a line towards 0"


def test_a_figure_at_a_rung_does_not_depend_on_the_length_of_the_schedule(setting: Setting, tmp_path: Path) -> None:
    answered = []
    for epochs in (9, 12):
        with recording() as seen:
            Alone.on_held_out(setting, tmp_path / str(epochs), epochs).train(NETWORK, SEED, until=3 * PER_EPOCH)
        answered.append(logits_at(seen))
    assert answered[0].keys() == answered[1].keys() == {PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH}
    assert all(torch.equal(answered[0][steps], answered[1][steps]) for steps in answered[0])


# ---- broken off ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[int, Tensor]]:
    """A training in one go: what is known of it, and its answers."""
    with recording() as seen:
        known = Alone.on_held_out(setting, tmp_path_factory.mktemp("whole"), 9).train(NETWORK, SEED)
    return known, logits_at(seen)


def assert_same(known: Any, answered: dict[int, Tensor], whole: tuple[Any, dict[int, Tensor]]) -> None:
    assert (known.ended, known.rungs) == (whole[0].ended, whole[0].rungs)
    assert answered.keys() == whole[1].keys() and all(torch.equal(answered[steps], whole[1][steps]) for steps in answered)


def test_rung_by_rung_is_in_one_go_and_nothing_is_trained_twice(alone: Alone, whole: tuple[Any, dict[int, Tensor]]) -> None:
    with recording() as seen:
        for until in alone.ladder:
            known = alone.train(NETWORK, SEED, until=until)
            assert len(seen.steps) == until and (known.ended is not None) == (until == alone.steps)
            assert alone.train(NETWORK, SEED, until=alone.ladder[0]) == known, "what is known already"
            assert alone.accuracy(NETWORK, SEED, until) is not None
            assert all(alone.accuracy(NETWORK, SEED, later) is None for later in alone.ladder if later > until)
        assert alone.train(NETWORK, SEED) == known == alone.known(NETWORK, SEED)
    assert len(seen.steps) == alone.steps
    assert_same(known, logits_at(seen), whole)
    for steps, accuracy in (*known.rungs, (alone.steps, known.ended and known.ended.accuracy)):
        assert alone.accuracy(NETWORK, SEED, steps) == accuracy


def test_stopped_anywhere_it_goes_on_to_the_same_figures(alone: Alone, whole: tuple[Any, dict[int, Tensor]]) -> None:
    with recording() as seen:
        for at in (1, PER_EPOCH, 20):  # the second one at a rung
            with pytest.raises(Stopped):
                alone.train(NETWORK, SEED, stop=lambda at=at: len(seen.steps) >= at)  # type: ignore[misc]
            assert len(seen.steps) == at
        known = alone.train(NETWORK, SEED)
    assert len(seen.steps) == alone.steps
    assert_same(known, logits_at(seen), whole)
    sittings = [line["seconds"] for line in alone.place(NETWORK, SEED).metrics("sitting")]
    assert len(sittings) == 4 and known.seconds == pytest.approx(sum(sittings)) and known.seconds > 0


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 60.0])
def test_killed_between_checkpoints_it_goes_on_to_the_same_figures(
    alone: Alone, whole: tuple[Any, dict[int, Tensor]], checkpoint_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checkpoint the rungs before the kill are trained again, to the same figures; what is asked of them is known at once."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", checkpoint_seconds)
    killed_at = 2 * PER_EPOCH + 2

    def kill(step: int) -> None:
        if step == killed_at:
            raise KeyboardInterrupt

    with recording(before_step=kill), pytest.raises(KeyboardInterrupt):
        alone.train(NETWORK, SEED)
    with recording() as seen:
        assert [step for step, _ in alone.train(NETWORK, SEED, until=PER_EPOCH).rungs] == [PER_EPOCH, 2 * PER_EPOCH]
        assert not seen.steps
        known = alone.train(NETWORK, SEED)
    assert (known.ended, known.rungs) == (whole[0].ended, whole[0].rungs)
    done = alone.steps - len(seen.steps)
    assert (done > 0) == (checkpoint_seconds == 0)
    answered = {done + steps: logits for steps, logits in logits_at(seen).items()}
    assert all(torch.equal(logits, whole[1][steps]) for steps, logits in answered.items()) and alone.steps in answered


# ---- whose training it is ------------------------------------------------------------------------------------------


def test_what_changes_the_figures_is_another_training(setting: Setting, images: Path, tmp_path: Path) -> None:
    def place(setting: Setting, *, seed: int = SEED, epochs: float = 9, network: Architecture = NETWORK) -> str:
        return Alone.on_held_out(setting, tmp_path / "alone", epochs).place(network, seed).name

    more = shutil.copytree(images, tmp_path / "more")
    shutil.copy(next((more / "train").rglob("*.png")), more / "train/0/999.png")
    shorter = Architecture(NETWORK.frame, 4, (Stage(8, ("conv",), 1.0, kernel=3),))
    recipe = setting.recipe
    places = [
        place(setting), place(setting, seed=4), place(setting, epochs=10), place(setting, network=shorter),
        place(altered(setting, lr=RATE / 2)), place(altered(setting, drop_path=0.3)), place(altered(setting, batch_size=6)),
        place(altered(setting, augmentation=setting.recipe.supernet.augmentation)),
        place(replace(setting, recipe=recipe.model_copy(update={"bf16": "always"}))),
        place(opened(images, resolution=SIDE * 2)), place(opened(more)), Alone.on_test(setting, tmp_path / "alone").place(NETWORK, SEED).name,
    ]  # fmt: skip
    assert len(set(places)) == len(places)
    splits = {Alone(setting, tmp_path, fit, on).place(NETWORK, SEED).name for fit in ("fit", "train") for on in ("held_out", "test")}
    assert len(splits) == 4
    search = recipe.search.model_copy(update={"trials": 999})
    same = [replace(setting, recipe=recipe.model_copy(update={"search": search})), replace(setting, seed=77, recipe_name="other")]
    same += [opened(shutil.copytree(images, tmp_path / "moved")), altered(setting, accumulate=2), altered(setting, recompute=True)]
    assert {place(each) for each in same} == {places[0]}


# ---- failures ------------------------------------------------------------------------------------------------------


def fails(when: Callable[[nn.Module, Tensor, int], bool], how: Callable[[nn.Module], None]) -> Callable[[nn.Module, Tensor], None]:
    """Spoils a pass of training on a condition of the network, the images and the number of such passes before."""
    passes = [0]

    def before_pass(module: nn.Module, images: Tensor) -> None:
        if torch.is_grad_enabled() and read_number(images[0]) is not None:
            if when(module, images, passes[0]):
                how(module)
            passes[0] += 1

    return before_pass


def spoil(module: nn.Module) -> None:
    with torch.no_grad():
        next(module.parameters()).fill_(torch.nan)


def no_memory(module: nn.Module) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def assert_failed(alone: Alone, reason: str) -> None:
    """It is known to have failed, without any accuracy, and is not tried again."""
    known = alone.known(NETWORK, SEED)
    assert known.ended == Evaluation(failure=reason) and known.seconds > 0
    assert alone.accuracy(NETWORK, SEED, alone.steps) is None
    with recording() as seen:
        assert alone.train(NETWORK, SEED) == alone.train(NETWORK, SEED, until=alone.ladder[0]) == known
    assert not seen.steps and left(alone) <= {"result.json", "metrics.jsonl"}


def test_a_loss_that_is_not_finite_is_tried_once_more_with_half_the_rate(alone: Alone, images: Path) -> None:
    spoilt = PER_EPOCH + 1  # after a rung; from there on no loss is finite
    with recording(before_pass=fails(lambda module, images, number: number == spoilt, spoil)) as seen:
        known = alone.train(NETWORK, SEED, until=alone.ladder[1])
        assert (known.ended, known.remedied, len(seen.steps)) == (None, True, spoilt + IN_A_ROW + alone.ladder[1])
        known = alone.train(NETWORK, SEED)
    assert len(seen.steps) == spoilt + IN_A_ROW + alone.steps
    first, second = seen.steps[: spoilt + IN_A_ROW], seen.steps[spoilt + IN_A_ROW :]
    assert (max(step.lr for step in first), max(step.lr for step in second)) == (RATE, RATE / 2)
    assert known.ended == Evaluation(right(seen, images)) and known.remedied
    assert [step for step, _ in known.rungs] == list(alone.phase.rungs)
    assert left(alone) == {"result.json", "metrics.jsonl"}
    places = [alone.place(NETWORK, SEED, remedied) for remedied in (False, True)]
    assert known.seconds == pytest.approx(sum(line["seconds"] for place in places for line in place.metrics("sitting")))
    assert all(place.metrics("sitting") for place in places)


def test_a_loss_that_is_not_finite_twice_is_a_failure(alone: Alone) -> None:
    with recording(before_pass=fails(lambda module, images, number: number % (2 * IN_A_ROW) == 9, spoil)) as seen:
        alone.train(NETWORK, SEED)
    assert len(seen.steps) == 9 + IN_A_ROW + 10 + IN_A_ROW
    assert_failed(alone, NOT_FINITE)
    assert alone.accuracy(NETWORK, SEED, alone.ladder[0]) is not None, "what the second try had at its first rung stays"


def test_without_memory_it_is_tried_once_more_with_twice_the_steps_of_half_the_images(alone: Alone, images: Path) -> None:
    with recording(before_pass=fails(lambda module, images, number: len(images) > BATCH // 2, no_memory)) as seen:
        known = alone.train(NETWORK, SEED, until=alone.ladder[0])
        assert len(seen.steps) == 2 * alone.ladder[0] and known.ended is None and known.remedied
        assert alone.accuracy(NETWORK, SEED, alone.ladder[0]) is not None
        known = alone.train(NETWORK, SEED)
    assert len(seen.steps) == 2 * alone.steps and {len(step.numbers) for step in seen.steps} == {BATCH // 2}
    assert max(step.lr for step in seen.steps) == RATE / 2
    assert known.ended == Evaluation(right(seen, images)) and known.remedied
    assert [step for step, _ in known.rungs] == list(alone.phase.rungs), "in steps of the schedule that was asked for"
    assert sorted(set(seen.steps_before)) == [2 * step for step in (*alone.phase.rungs, alone.steps)]
    assert left(alone) == {"result.json", "metrics.jsonl"}


def test_who_ended_its_worker_is_tried_once_more_as_without_memory(alone: Alone) -> None:
    """A system that is out of memory ends whoever uses it."""
    alone.train(NETWORK, SEED, until=alone.ladder[0])
    alone.fail(NETWORK, SEED, DIED)
    assert alone.known(NETWORK, SEED).ended is None and alone.accuracy(NETWORK, SEED, alone.ladder[0]) is None
    with recording() as seen:
        alone.train(NETWORK, SEED, until=alone.ladder[0])
    assert [len(step.numbers) for step in seen.steps] == [BATCH // 2] * 2 * alone.ladder[0]
    assert alone.steps_done(NETWORK, SEED) == alone.ladder[0]
    alone.fail(NETWORK, SEED, DIED)
    assert_failed(alone, DIED)


def test_without_memory_twice_is_a_failure_and_halves_can_be_mixed_in_pairs(setting: Setting, tmp_path: Path) -> None:
    mixed = altered(setting, batch_size=6, augmentation=setting.recipe.retrain.augmentation.model_copy(update={"mixup": 0.5}))
    alone, sizes = Alone.on_held_out(mixed, tmp_path, 1), list[int]()

    def never(module: nn.Module, images: Tensor) -> None:
        if torch.is_grad_enabled():
            sizes.append(len(images))
            no_memory(module)

    with recording(before_pass=never):
        alone.train(NETWORK, SEED)
    assert sizes == [6, 2]
    assert_failed(alone, MEMORY)


def test_a_training_that_cannot_be_had_is_recorded_with_its_reason_but_never_over_a_result(alone: Alone) -> None:
    alone.train(NETWORK, SEED, until=alone.ladder[0])
    alone.fail(NETWORK, SEED, reason="struck by lightning")
    assert alone.accuracy(NETWORK, SEED, alone.ladder[0]) is not None
    assert_failed(alone, "struck by lightning")
    ended = alone.train(NETWORK, SEED + 1).ended
    alone.fail(NETWORK, SEED + 1, reason="struck by lightning")
    assert alone.known(NETWORK, SEED + 1).ended == ended and ended and ended.accuracy is not None


def test_only_new_steps_count_as_speed_whoever_is_asked_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_alone, "LOOK", 0.0)
    first, second = NETWORK, replace(NETWORK, patch=2)
    steps = {first.key: 70, second.key: 50}
    known = cast(Alone, SimpleNamespace(steps=100, steps_done=lambda architecture, seed: steps[architecture.key]))
    seconds, stream, jobs = [0.0], io.StringIO(), [(first, 0)]
    with Progress("finalists", 200, clock=lambda: seconds[0], stream=stream) as progress:
        trained_alone.Shown(progress, known, jobs)()
        show = trained_alone.Shown(progress, known, jobs)  # every lot of trainings has its own
        show()
        jobs.append((second, 0))
        for seconds[0], steps[first.key] in ((20.0, 80), (40.0, 90)):
            show()
    assert progress.done == 140 and "140/200 steps, 2 s/step" in stream.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"accuracy": null, "failure": null}', b'{"accuracy": 7.0, "failure": null}', b"\xff"]
)
def test_a_result_that_was_damaged_is_named_with_what_to_do(content: bytes, alone: Alone) -> None:
    place = alone.place(NETWORK, 0)
    place.folder.mkdir(parents=True)
    (place.folder / "result.json").write_bytes(content)
    with refused(place.folder / "result.json", "damaged", f"(rm {place.folder}/result.json)"):
        alone.known(NETWORK, 0)
