"""The training loop: what it optimises, and that a training continued is the one never interrupted."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from errors import refused
from faults import happened
from pydantic import ValidationError
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

import nas.training.loop
from nas.cost import cost
from nas.data import Augmentation, Data, open_data
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.runs.checkpoint import load_checkpoint
from nas.runs.interrupt import Stopped
from nas.spaces.decisions import SearchSpace
from nas.spaces.levels import Levels
from nas.spaces.supernet import Supernet
from nas.training.loop import IN_A_ROW, Course, NotFinite, evaluate, train_model
from nas.training.paths import path_of_step
from nas.training.ranks import Lost, Ranks
from nas.training.recipe import Phase, Recipe
from nas.training.watch import Watch

REPOSITORY = Path(__file__).parents[1]
CPU = torch.device("cpu")
STEPS = 4
PLAIN = Phase(steps=STEPS, batch_size=4, lr=1e-3)
EVERYTHING = Phase(
    steps=STEPS,
    batch_size=8,
    lr=1e-3,
    warmup=0.3,
    clip_norm=1.0,
    label_smoothing=0.1,
    drop_path=0.3,
    ema=True,
    augmentation=Augmentation(crop="pad", flip=True, randaugment=(2, 5), erasing=0.25, mixup=0.8, cutmix=1.0),
)
# Every mixer kind in one network, so that every kind of parameter is there.
ARCHITECTURE = Architecture(
    Frame(32, 1, 10),
    2,
    (
        Stage(32, ("conv", "s2_shift", "as_shift"), 2.0, cpe=True, kernel=3),
        Stage(64, ("attention", "token_mlp", "permute"), 2.0, cpe=True, head_width=16),
    ),
)


class Told(Watch):
    """Calls functions with what the loop tells."""

    def __init__(self, report: Callable[[int, float, float], Any], rung: Callable[[int, nn.Module], Any], stop: Callable[[], bool]) -> None:
        self.step, self.rung, self.stop = report, rung, stop  # type: ignore[method-assign]


def train(
    model: nn.Module, batches: Any, phase: Phase, *, steps: int, seed: int, path: Any = lambda step: (), checkpoint: Path | None = None,
    identity: str = "", report: Any = lambda *_: None, rung: Any = lambda *_: None, stop: Any = lambda: False,
) -> tuple[nn.Module, int]:  # fmt: skip
    course = Course(phase, steps, seed, checkpoint=checkpoint, identity=identity)
    return train_model(model, batches, course, Told(report, rung, stop), path)


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("digits").load(32, CPU)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.read(REPOSITORY / "search_spaces/cifar.yaml").at(ARCHITECTURE.frame)


@dataclass
class Training:
    """A training that can be begun any number of times."""

    make: Callable[[], nn.Module]
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    phase: Phase
    path: Callable[[int], tuple[Any, ...]] = lambda step: ()
    losses: dict[int, float] = field(default_factory=dict)

    def run(self, checkpoint: Path | None = None, until: int = STEPS, identity: str = "this") -> tuple[nn.Module, int]:
        """From the checkpoint, if there is one, and stopped before step `until`, if that is not the last."""
        torch.manual_seed(0)
        done = 0

        def report(step: int, loss: float, lr: float) -> None:
            nonlocal done
            done = step
            self.losses[step] = loss

        saved = load_checkpoint(checkpoint) if checkpoint else None
        done = saved["step"] if saved else 0
        return train(
            self.make(),
            self.batches,
            self.phase,
            steps=STEPS,
            seed=0,
            path=self.path,
            checkpoint=checkpoint,
            identity=identity,
            report=report,
            stop=lambda: done >= until,
        )


@pytest.fixture(params=["supernet", "network"])
def training(request: pytest.FixtureRequest, digits: Data, space: SearchSpace) -> Training:
    if request.param == "supernet":
        phase = PLAIN.model_copy(update={"clip_norm": 1.0, "augmentation": Augmentation(crop="pad")})
        batches = digits.batches("fit", phase.batch_size, 0, phase.augmentation)
        return Training(lambda: Supernet(space), batches, phase, lambda step: (path_of_step(space, Levels.whole(space, cost), 0, step),))
    batches = digits.batches("train", EVERYTHING.batch_size, 0, EVERYTHING.augmentation)
    return Training(lambda: Network(ARCHITECTURE, EVERYTHING.drop_path), batches, EVERYTHING)


def assert_equal(one: Any, other: Any, place: str = "") -> None:
    """Equal to the last bit, however deep."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_equal(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, place=f"{place}[{index}]")
    else:
        assert one == other, place


# ---- interrupted -------------------------------------------------------------------------------------------------------


def test_continued_equals_uninterrupted_bit_for_bit(training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights, average, optimiser and losses; also where the last checkpoint was damaged and the one before is used."""
    whole, done = training.run(tmp_path / "whole.pt")
    assert done == STEPS
    losses = dict(training.losses)

    checkpoint = tmp_path / "cut.pt"
    for until in (1, 3):
        assert training.run(checkpoint, until)[1] == until
    damaged = bytearray(checkpoint.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    checkpoint.write_bytes(damaged)
    training.losses.clear()
    continued, done = training.run(checkpoint)

    assert done == STEPS and f"{checkpoint}: damaged" in capsys.readouterr().err
    assert training.losses == {step: loss for step, loss in losses.items() if step > 1}, "from the checkpoint before"
    assert_equal(whole.state_dict(), continued.state_dict())
    assert_equal(load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(checkpoint))


# ---- small models: what the loop does ----------------------------------------------------------------------------------


class Scaled(nn.Module):
    """A linear classifier of 4 numbers into 3 classes whose logits a path may scale."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.other = nn.Linear(4, 3)

    def forward(self, x: Tensor, factor: float = 1.0, other: bool = False) -> Tensor:
        return factor * (self.other if other else self.linear)(x)


def points(start: int) -> Iterator[tuple[Tensor, Tensor]]:
    for step in itertools.count(start):
        draw = torch.Generator().manual_seed(step)
        yield torch.randn(6, 4, generator=draw), torch.randint(3, (6,), generator=draw)


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    training = Training(Scaled, points, PLAIN.model_copy(update={"ema": True}))
    whole, _ = training.run(tmp_path / "whole.pt")
    training.losses.clear()
    again, done = training.run(tmp_path / "whole.pt")
    assert done == STEPS and not training.losses
    assert_equal(whole.state_dict(), again.state_dict())


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    training = Training(Scaled, points, PLAIN)
    training.run(tmp_path / "a.pt", identity="this")
    before = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(ValueError, match=r"got this; accepted that.*--run") as raised:
        training.run(tmp_path / "a.pt", identity="that")
    assert "\n" not in str(raised.value)
    assert (tmp_path / "a.pt").read_bytes() == before


WEIGHTS = {"linear.weight": torch.zeros(3, 4), "linear.bias": torch.zeros(3)}  # of a part of it


@pytest.mark.parametrize(
    "change",
    [
        lambda state: WEIGHTS, lambda state: {**state, "model": WEIGHTS}, lambda state: {**state, "model": torch.zeros(3)}, lambda state: {**state, "step": "x"},
        lambda state: {**state, "optimizer": {}}, *(lambda state, name=name: state.pop(name) and state for name in ("optimizer", "model", "ema", "step")),
    ],
)  # fmt: skip
def test_what_another_program_wrote_under_its_name_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    training = Training(Scaled, points, PLAIN.model_copy(update={"ema": True}))
    training.run(tmp_path / "a.pt", until=2)
    found = load_checkpoint(tmp_path / "a.pt")
    assert found
    torch.save(change(found), tmp_path / "a.pt")
    with refused(tmp_path / "a.pt", "a checkpoint of"):
        train(Scaled(), points, training.phase, steps=STEPS, seed=0, checkpoint=tmp_path / "a.pt", identity="this")


def broken_at(steps: Container[int], how: float = math.nan) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    return lambda start: ((x * (how if step in steps else 1.0), y) for step, (x, y) in enumerate(points(start), start))


class Steep(Scaled):
    """A finite loss whose gradient is not finite where the input is zero."""

    def forward(self, x: Tensor, *path: Any) -> Tensor:
        return super().forward(x, *path) + (x.abs() * self.linear.weight.sum().square()).sqrt().sum()


class Normed(Scaled):
    """With statistics that the forward pass moves."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, *path: Any) -> Tensor:
        return super().forward(self.norm(x), *path)


@pytest.mark.parametrize(
    ("model", "how"),
    [(Scaled, math.nan), (Scaled, math.inf), (Steep, 0.0), (Normed, math.inf)],
    ids=["nan", "infinite", "gradients", "statistics"],
)
def test_a_step_that_is_not_finite_changes_nothing(model: Callable[[], nn.Module], how: float, tmp_path: Path) -> None:
    """Weights and the optimiser's state are what they were before; it is counted, also over an interruption, and the training goes on."""
    training = Training(model, broken_at({2, 3}, how), PLAIN)
    training.run(tmp_path / "a.pt", until=2)
    before = load_checkpoint(tmp_path / "a.pt")
    training.run(tmp_path / "a.pt")
    after = load_checkpoint(tmp_path / "a.pt")
    assert before and after and after["step"] == STEPS and (before["skipped"], after["skipped"]) == (0, 2)
    states = [(each["model"], each["optimizer"]["state"]) for each in (before, after)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    told: list[int] = []
    averaged = PLAIN.model_copy(update={"ema": True})
    trained, done = train_model(model(), broken_at({2, 3}, how), Course(averaged, 8, 0, checkpoint=tmp_path / "b.pt"), Skips(told))
    assert done == 8 and told == [2] and all(tensor.isfinite().all() for tensor in trained.state_dict().values())
    train_model(model(), broken_at({2, 3}, how), Course(averaged, 8, 0, checkpoint=tmp_path / "b.pt"), Skips(told))
    assert told == [2, 2], "an earlier sitting's count too"
    happened("NaN or infinite loss or gradient in two steps", "a training", "the steps are skipped and counted, and the training goes on")


class Skips(Watch):
    def __init__(self, told: list[int]) -> None:
        self.skipped = told.append  # type: ignore[method-assign]


def test_memory_that_runs_out_while_a_batch_is_made_wants_fewer_or_smaller_images() -> None:
    """Parts of a step and blocks that are run twice, which help a step, are made of the same batch."""

    def full(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from itertools.islice(points(start), 2)
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    with pytest.raises(
        MemoryError, match=r"out of memory while a batch .* another --run NAME a lower --resolution .* --batch-size"
    ) as raised:
        train_model(Scaled(), full, Course(PLAIN, STEPS, 0), Watch())
    assert not re.search("--accumulate|--recompute|\n", str(raised.value))


@pytest.mark.whole
@pytest.mark.parametrize("last", [IN_A_ROW, 10**6])
def test_a_training_stops_after_too_many_such_steps_and_keeps_the_last_good_checkpoint(last: int, tmp_path: Path) -> None:
    class Counts(Watch):
        def step(self, done: int, loss: float, lr: float) -> None:
            seen.append(done)

    seen: list[int] = []
    torch.manual_seed(0)
    model, steps = Scaled(), 400
    # ten in a row; or, by themselves, more than one in twenty
    broken = range(100, 110) if last == IN_A_ROW else range(0, last, 3)
    with pytest.raises(NotFinite, match=r"not finite .* got lr 0\.001") as raised:
        train_model(model, broken_at(broken), Course(PLAIN, steps, 0, checkpoint=tmp_path / "a.pt"), Counts())
    assert "\n" not in str(raised.value) and not (tmp_path / "a.pt").exists()
    assert seen[-1] == (109 if last == IN_A_ROW else 60)
    seen.clear()
    train_model(Scaled(), broken_at(range(100, 109)), Course(PLAIN, steps, 0), Counts())
    assert seen[-1] == steps
    happened(
        "NaN or infinite loss or gradient in too many steps",
        "a training",
        "it stops in one line that says where, and keeps its last good checkpoint",
    )


def test_advice_after_a_rate_that_was_too_high_is_advice_that_works() -> None:
    """Half of the rate where the loss grew beyond bounds: told with its option, by its value."""
    steep = PLAIN.model_copy(update={"lr": 1e30})
    with pytest.raises(NotFinite, match=r"--lr 5e\+29"):
        train_model(Scaled(), points, Course(steep, 40, 0), Watch())


def test_each_step_is_the_gradient_of_its_own_path_on_its_own_images() -> None:
    path = [(1.0,), (0.5,), (2.0, False)]
    torch.manual_seed(0)
    model = Scaled()
    phase, states = PLAIN.model_copy(update={"label_smoothing": 0.1}), [copy.deepcopy(model)]
    gradients: list[list[Tensor]] = []

    def report(step: int, loss: float, lr: float) -> None:
        gradients.append([parameter.grad.clone() for parameter in model.linear.parameters()])
        states.append(copy.deepcopy(model))

    train(model, points, phase, steps=3, seed=0, path=lambda step: path[step], report=report)
    for step, (images, targets) in zip(range(3), points(0), strict=False):
        F.cross_entropy(states[step](images, *path[step]), targets, label_smoothing=0.1).backward()
        for one, other in zip(gradients[step], states[step].linear.parameters(), strict=True):
            torch.testing.assert_close(one, other.grad)


def test_what_no_path_uses_does_not_move() -> None:
    """Neither by decay nor by what Adam remembers from a step in which it ran."""
    model = Scaled()
    states = []
    train(
        model, points, PLAIN, steps=3, seed=0, path=lambda step: (1.0, step == 0),
        report=lambda step, loss, lr: states.append(copy.deepcopy(model.state_dict())),
    )  # fmt: skip
    assert_equal(states[0]["other.weight"], states[2]["other.weight"])
    assert not torch.equal(states[0]["linear.weight"], states[2]["linear.weight"])


def test_clipping_bounds_the_gradient_of_the_whole_step() -> None:
    model = Scaled()
    train(model, points, PLAIN.model_copy(update={"clip_norm": 1e-3}), steps=1, seed=0, path=lambda step: (9.0,))
    norm = torch.cat([parameter.grad.flatten() for parameter in model.linear.parameters()]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-3)  # the quotient has a small constant in it


@pytest.mark.parametrize(("lr", "min_lr", "warmup"), [(0.5, 0.1, 0.25), (1e-3, 0.0, 0.0), (2e-3, 1e-5, 0.1)])
def test_the_learning_rate_is_that_of_timms_cosine_with_warm_up(lr: float, min_lr: float, warmup: float) -> None:
    phase, steps = Phase(steps=40, batch_size=2, lr=lr, min_lr=min_lr, warmup=warmup), 40
    rates: list[float] = []
    train(Scaled(), points, phase, steps=steps, seed=0, report=lambda step, loss, lr: rates.append(lr))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    warmed = round(warmup * steps)
    options: dict[str, Any] = {"warmup_t": warmed, "warmup_lr_init": lr / max(1, warmed), "t_in_epochs": False}
    reference = CosineLRScheduler(optimizer, t_initial=steps, lr_min=min_lr, **options)
    expected = []
    for step in range(steps):
        reference.step_update(step)
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(expected, rel=1e-12)


def test_the_rate_of_a_step_is_what_the_optimiser_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *args: (used.extend({group["lr"] for group in self.param_groups}), step(self, *args))[1]
    )
    rates: list[float] = []
    train(Scaled(), points, PLAIN, steps=STEPS, seed=0, report=lambda step, loss, lr: rates.append(lr))
    assert used == rates


@pytest.mark.parametrize("ema", [False, True])
def test_what_a_rung_sees_does_not_depend_on_how_long_the_training_is_to_be(ema: bool) -> None:
    """Else a rung's figure would say more about the schedule than about the network."""
    seen: dict[int, dict[int, Any]] = {}
    for steps in (30, 60):
        torch.manual_seed(0)
        phase = Phase(steps=steps, batch_size=6, lr=0.05, min_lr=1e-4, warmup=0.2, ema=ema, rungs=(10, 20))
        at_rungs = seen[steps] = {}
        rates: list[float] = []
        train(
            Scaled(), points, phase, steps=steps, seed=0, report=lambda step, loss, lr, r=rates: r.append(lr),
            rung=lambda step, model, a=at_rungs: a.update({step: copy.deepcopy(model.state_dict())}),
        )  # fmt: skip
        assert rates[2:20] == [0.05] * 18 and rates[-1] < 0.02 and rates[0] == pytest.approx(0.025)
    assert seen[30].keys() == {10, 20}
    assert_equal(seen[30], seen[60])


def test_a_network_is_trained_on_after_a_rung() -> None:
    """Evaluating switches off what acts in training only."""
    modes: list[bool] = []

    class Mode(Scaled):
        def forward(self, x: Tensor, factor: float = 1.0, other: bool = False) -> Tensor:
            modes.append(self.training)
            return super().forward(x, factor, other)

    phase = PLAIN.model_copy(update={"rungs": (2,)})
    train(Mode(), points, phase, steps=STEPS, seed=0, rung=lambda step, model: model.eval())
    assert modes == [True] * STEPS


@pytest.mark.parametrize("rung", [2, STEPS])
def test_a_look_that_is_stopped_leaves_a_checkpoint_and_whoever_continues_begins_with_it(rung: int, tmp_path: Path) -> None:
    phase, seen = PLAIN.model_copy(update={"rungs": (rung,), "ema": True}), list[tuple[int, Any]]()

    def judged(step: int, model: nn.Module) -> None:
        seen.append((step, copy.deepcopy(model.state_dict())))

    def stopped(step: int, model: nn.Module) -> None:
        raise Stopped("in the middle")

    def sitting(name: str, rung: Callable[[int, nn.Module], None]) -> None:
        torch.manual_seed(0)
        train(Scaled(), points, phase, steps=STEPS, seed=0, checkpoint=tmp_path / name, rung=rung)

    sitting("whole.pt", judged)
    for _ in range(2):
        with pytest.raises(Stopped):
            sitting("cut.pt", stopped)
        found = load_checkpoint(tmp_path / "cut.pt")
        assert found and found["step"] == rung
    sitting("cut.pt", judged)
    assert len(seen) == 2
    assert_equal(*seen)
    assert_equal(load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(tmp_path / "cut.pt"))


class Pair(Ranks):
    """The first of two processes, of which the other does what it does itself, and is lost in a step."""

    def __init__(self, lost_in: int = 0) -> None:
        super().__init__(0, 2)
        self._steps, self._lost_in = 0, lost_in

    def sum(self, tensors: Sequence[Tensor]) -> None:
        self._steps += 1
        if self._steps == self._lost_in:
            raise Lost("the other one is gone.")
        for tensor in tensors:
            tensor += tensor.clone()

    def of_first(self, work: Callable[[], Any]) -> Any:
        return work()

    def share(self, model: nn.Module) -> None:
        pass


@pytest.mark.parametrize("normed", [False, True])
def test_where_another_process_is_lost_the_end_is_that_of_an_uninterrupted_training(normed: bool, tmp_path: Path) -> None:
    """The step that was not done has moved a batch norm's statistics already: they are in no checkpoint."""
    phase = PLAIN.model_copy(update={"batch_size": 12})

    def sitting(name: str, ranks: Ranks) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), *([nn.BatchNorm1d(3)] if normed else []))
        train_model(model, points, Course(phase, STEPS, 0, checkpoint=tmp_path / name, ranks=ranks), Watch())

    sitting("whole.pt", Pair())
    with pytest.raises(Lost):
        sitting("cut.pt", Pair(lost_in=3))
    found = load_checkpoint(tmp_path / "cut.pt")
    assert normed or (found and found["step"] == 2)
    sitting("cut.pt", Pair())
    assert_equal(load_checkpoint(tmp_path / "whole.pt"), load_checkpoint(tmp_path / "cut.pt"))


class Silent(nn.Module):
    """A network whose loss has no slope: AdamW then only decays."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return 0 * self.network(images)


def test_weight_decay_spares_norms_scales_and_biases(digits: Data) -> None:
    network = Network(ARCHITECTURE)
    before = copy.deepcopy(network.state_dict())
    phase = Phase(steps=1, batch_size=4, lr=0.01, weight_decay=0.5, warmup=0)
    train(Silent(network), digits.batches("fit", 4, 0, Augmentation()), phase, steps=1, seed=0)
    decayed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    spared = {name for name in before if name.endswith("bias") or "norm" in name or name.split(".")[-1] == "scale" or before[name].ndim < 2}
    assert decayed == before.keys() - spared
    assert any("norm" in name for name in spared) and any("scale" in name for name in spared)
    for name in decayed:
        torch.testing.assert_close(network.state_dict()[name], before[name] * (1 - 0.01 * 0.5))


def test_the_average_of_the_weights_is_what_is_evaluated() -> None:
    """Source: timm's warm-up of the decay, 1 - (1 + step)^(-2/3), up to a decay that averages a twentieth of the run."""
    steps = 60
    for ema in (False, True):
        torch.manual_seed(0)
        model = Scaled()
        average, trace = model.linear.weight.detach().clone(), []
        phase = PLAIN.model_copy(update={"steps": steps, "lr": 0.1, "ema": ema})
        evaluated, _ = train(
            model,
            points,
            phase,
            steps=steps,
            seed=0,
            report=lambda step, loss, lr, m=model, t=trace: t.append(m.linear.weight.detach().clone()),
        )
        for step, weight in enumerate(trace):
            decay = min(1 - 20 / steps, 1 - (1 + step) ** (-2 / 3)) if ema and step else 0.0
            average = decay * average + (1 - decay) * weight
        torch.testing.assert_close(evaluated.linear.weight, average)
        assert (evaluated is model) is not ema


def test_a_short_training_writes_one_checkpoint_and_a_long_one_one_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()  # one between any two looks at the clock
    written: list[int] = []
    monkeypatch.setattr(nas.training.loop, "save_checkpoint", lambda path, state: written.append(state["step"]))
    Training(Scaled, points, PLAIN).run(tmp_path / "a.pt")
    assert written == [STEPS]
    written.clear()
    monkeypatch.setattr(nas.training.loop.time, "monotonic", lambda: float(next(seconds)))
    train(Scaled(), points, PLAIN, steps=300, seed=0, checkpoint=tmp_path / "a.pt")
    gaps = [later - earlier for earlier, later in itertools.pairwise(written[:-1])]
    assert written[-1] == 300 and gaps and min(gaps) >= 60


# ---- evaluation and recipes --------------------------------------------------------------------------------------------


def test_evaluate_equals_a_plain_loop(digits: Data) -> None:
    torch.manual_seed(0)
    network = Network(ARCHITECTURE, drop_path=0.5).train()
    accuracy = evaluate(network, itertools.islice(digits.evaluation_batches("held_out", 10), 3))
    assert not network.training
    right = total = 0
    with torch.no_grad():
        for images, targets in itertools.islice(digits.evaluation_batches("held_out", 10), 3):
            for image, target in zip(images, targets, strict=True):
                right += int(network(image[None])[0].argmax() == target)
                total += 1
    assert total == 30 and accuracy == right / total
    assert evaluate(network, []) == 0.0


@pytest.mark.parametrize("length", [{}, {"epochs": 1.0, "steps": 3}, {"epochs": 0.0}, {"epochs": -1.0}, {"epochs": math.nan}, {"steps": 0}])
def test_a_phase_has_epochs_or_steps(length: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Phase(batch_size=2, lr=0.1, **length)


def test_an_epoch_has_as_many_steps_as_full_batches() -> None:
    assert Phase(batch_size=2, lr=0.1, steps=7).num_steps(100) == 7
    assert Phase(batch_size=2, lr=0.1, epochs=2.5).num_steps(100) == 250
    assert Phase(batch_size=2, lr=0.1, epochs=1e-6).num_steps(100) == 1


@pytest.mark.parametrize(("bf16", "on_cpu"), [("gpu", False), ("never", False), ("auto", False), ("always", True)])
def test_autocast_runs_on_a_cpu_without_bfloat16_by_a_recipes_word_alone(bf16: str, on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.networks.precision.cpu_bf16", frozenset)
    recipe = Recipe(format="recipe 1", bf16=bf16, supernet=PLAIN.model_dump(), search={"trials": 1}, retrain=PLAIN)
    with recipe.autocast(CPU):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == (torch.bfloat16 if on_cpu else torch.float32)


@pytest.mark.parametrize("given", [{"drop_path": 0.1}, {"rungs": [2]}])
def test_what_a_supernet_would_ignore_is_refused(given: dict[str, Any]) -> None:
    phase = PLAIN.model_dump(exclude={"epochs"})
    with pytest.raises(ValidationError, match=f"supernet.{next(iter(given))}"):
        Recipe(format="recipe 1", supernet={**phase, **given}, search={"trials": 1}, retrain=phase)  # type: ignore[arg-type]


# ---- in parts, and with less memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 8, 100])
def test_a_batch_done_in_parts_is_the_batch(parts: int, digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, gradients and what drop path leaves out; also in uneven parts, and where there are more of them than images."""
    batches, sizes = digits.batches("train", EVERYTHING.batch_size, 0, EVERYTHING.augmentation), list[int]()
    found: dict[int, tuple[list[float], dict[str, Tensor]]] = {}
    for accumulate in (1, parts):
        torch.manual_seed(0)
        model, losses = Network(ARCHITECTURE, EVERYTHING.drop_path), list[float]()
        model.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
        phase = EVERYTHING.model_copy(update={"accumulate": accumulate})
        train(model, batches, phase, steps=1, seed=0, report=lambda step, loss, lr, into=losses: into.append(loss))
        found[accumulate] = losses, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    torch.testing.assert_close(found[1][0], found[parts][0], rtol=1e-5, atol=0)
    assert found[1][1].keys() == found[parts][1].keys()
    whole, apart = (torch.cat([grad.flatten() for grad in found[each][1].values()]) for each in (1, parts))
    assert (whole - apart).norm() < 1e-4 * whole.norm()
    assert sizes[0] == 8 == sum(sizes[1:]) and len(sizes[1:]) == min(parts, 8)


def test_recomputed_blocks_give_the_same_gradients_with_less_memory(training: Training) -> None:
    """Also those of drop path, and of a supernet's slices."""
    kept: dict[bool, int] = {}
    weights: dict[bool, Any] = {}
    for recompute in (False, True):
        sizes = list[int]()
        training.phase = training.phase.model_copy(update={"recompute": recompute})
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, into=sizes: (into.append(tensor.nbytes), tensor)[1], lambda tensor: tensor
        ):
            weights[recompute] = training.run(until=1)[0].state_dict()
        kept[recompute] = sum(sizes)
    assert_equal(weights[False], weights[True])
    assert kept[True] < kept[False] / 2


def test_recomputing_does_not_reach_evaluation(digits: Data) -> None:
    network = Network(ARCHITECTURE)
    passes: list[bool] = []
    network.get_submodule("head").register_forward_pre_hook(lambda module, given: passes.append(module.training))
    phase = PLAIN.model_copy(update={"recompute": True, "rungs": (1,)})
    batches = digits.batches("fit", 4, 0, phase.augmentation)
    held_out = itertools.islice(digits.evaluation_batches("held_out", 10), 1)
    train(network, batches, phase, steps=2, seed=0, rung=lambda done, model: evaluate(model, held_out))
    assert passes == [True, False, True]
