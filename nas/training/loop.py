"""The only training loop: it trains supernets and standalone networks alike."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.cost.latency import memory_errors, room_for_weights
from nas.data import seed_step
from nas.data.parts import Rows
from nas.data.transfer import moved
from nas.networks.precision import float32
from nas.runs.checkpoint import as_written, load_checkpoint, save_checkpoint
from nas.runs.interrupt import Stopped
from nas.training.ranks import ALONE, Lost, Ranks
from nas.training.recipe import Phase
from nas.training.watch import Asked, Watch

CHECKPOINT_SECONDS = 60.0
IN_A_ROW = 10  # steps whose loss or gradients are not finite, after which a training stops
OF_ALL = 0.05  # and so large a share of all steps
OTHER_RUN = "with another --run NAME"  # one is known by what it was begun with
Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Course:
    """What one training is: how, how long, from which seed, and where its checkpoint is.

    Attributes:
        phase: the recipe's part.
        steps: in all.
        seed: of data, augmentation and drop path, together with the step.
        autocast: makes the context of the forward passes.
        checkpoint: written at most once a minute, at the end and when stopped; None: not at all.
        identity: what the checkpoint must be of; another's is refused.
        looks: steps after which `Watch.rung` has the model; None: the phase's rungs.
        ranks: the processes that train it together, on a part of every batch each. The phase's batch is that of all.
    """

    phase: Phase
    steps: int
    seed: int
    autocast: Autocast = nullcontext
    checkpoint: Path | None = None
    identity: str = ""
    looks: tuple[int, ...] | None = None
    ranks: Ranks = ALONE


class NotFinite(ValueError):
    """The loss of a training, or its gradients, are no longer numbers."""


def train_model(
    model: nn.Module, batches: Batches, course: Course, watch: Watch, path: Callable[[int], tuple[Any, ...]] = lambda step: ()
) -> tuple[nn.Module, int]:
    """Trains `model` up to `course.steps`; continues from the checkpoint if there is one.

    Data, paths, augmentation and drop path are functions of (seed, step), so a continued run is the uninterrupted one. A step whose loss or
    gradients are not finite changes no weight and no statistics. Where a batch is done in parts, by several processes or one after the other (`accumulate`), the
    gradients are those of the batch's mean loss, to rounding; only a batch norm that does its part in several goes sees each by itself.

    Args:
        batches: `batches(start_step)` yields (images, targets) from that step on, as `Data.batches` does.
        path: further arguments of `model` for a step.

    Returns:
        The model to evaluate (the averaged one with `phase.ema`) and the number of steps done, less than `steps` when stopped.

    Raises:
        MemoryError: a step does not fit; says what to do.
        NotFinite: too many steps were not finite; the last checkpoint before them is kept.
        Stopped: `Watch.rung` was; the checkpoint is of this step, and whoever continues begins with the look.
        ValueError: the checkpoint is of something else or damaged beyond use, or the processes do not train the same.
    """
    phase, ranks, device = course.phase, course.ranks, next(model.parameters()).device
    ranks.share(model)
    with room_for_weights():
        state = _State(model, course)
    start = state.restore()
    if ranks.count > 1:
        ranks.agree({"training": course.identity, "steps done": start, "steps": course.steps, "recipe": phase, "network": path(start)})
    watch = watch if ranks.first else Asked(watch)
    watch.begin(start)
    looks = phase.rungs if course.looks is None else course.looks
    if again := state.looking:
        state.look(watch)
    model.train()
    with state.kept_when_lost():
        for step, (images, targets) in zip(range(start, course.steps), _made(batches, start) if start < course.steps else (), strict=False):
            wish = watch.stop()
            if state.stopped if ranks.count > 1 else wish:
                break
            lr = state.set_learning_rate(step)
            state.optimizer.zero_grad(set_to_none=True)  # what does not run this step must not move: AdamW moves zeros, and skips None
            with _enough_memory(phase, len(images)), float32(device, tf32=True):
                state.step(state.backward(images, targets, step, path(step)), wish)
            state.done = step + 1
            if state.ema:
                state.ema.update(model, step=state.done)
            at_rung = state.done in looks
            if device.type == "cpu" or state.done % 10 == 0 or state.done == course.steps or at_rung:
                watch.step(state.done, state.looked_at(), lr)
                if at_rung:
                    state.look(watch)
                state.save_now_and_then()
    if state.done > start or again:
        state.looked_at()  # on a GPU up to nine steps were not
        ranks.of_first(state.save)
    if skipped := int(state.skipped[1]):
        watch.skipped(skipped)
    return state.evaluated, state.done


def _made(batches: Batches, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches; where making one takes too much memory, parts of a step and blocks that are run twice would not help."""
    try:
        with memory_errors():
            yield from batches(start)
    except MemoryError as error:
        raise MemoryError(
            f"training: out of memory while a batch of images was made: {str(error)[:200]}. Take {OTHER_RUN} a lower --resolution or fewer images, by "
            "--batch-size."
        ) from None


@contextlib.contextmanager
def _enough_memory(phase: Phase, images: int) -> Iterator[None]:
    try:
        with memory_errors():
            yield
    except MemoryError as error:
        same = [f"--accumulate {2 * phase.accumulate}, the same in smaller parts"] * (images > phase.accumulate)
        same += ["--recompute, the same with each block run twice"] * (not phase.recompute)
        fewer = f"{OTHER_RUN} fewer images, such as --batch-size {max(2, phase.batch_size // 4 * 2)}, or a lower --resolution"  # even: they may be mixed in pairs
        advice = ", or ".join([*same, fewer])
        at_a_time = f"{images} images" + (f" in {phase.accumulate} parts" if phase.accumulate > 1 else "")
        raise MemoryError(f"training: out of memory in a step of {at_a_time}: {str(error)[:200]}. Take {advice}.") from None


class _State:
    """What a training carries from step to step, in a checkpoint and out of it."""

    def __init__(self, model: nn.Module, course: Course) -> None:
        from timm.optim import create_optimizer_v2
        from timm.utils import ModelEmaV3

        from nas.networks.drop_path import DropPath

        phase, self.course, self.model = course.phase, course, model
        self._parameters = list(model.parameters())  # to go through a supernet's modules for them takes milliseconds
        # fused: 16 instead of 56 ms a step for 26 million parameters on two cores
        self.optimizer = create_optimizer_v2(model, opt="adamw", lr=phase.lr, weight_decay=phase.weight_decay, fused=True)
        # Over the last twentieth of the run; with rungs only the warm-up bounds it, so that a rung does not depend on the length of the run.
        decay = 0.9999 if phase.rungs else max(0.0, min(0.9999, 1 - 20 / course.steps))
        self._buffers = list(model.buffers())
        self._plain = not self._buffers
        self._before: list[Tensor] = []  # what the buffers were before the step
        # Without buffers the state dicts, which it would make of both models at each step, have nothing to add to the parameters.
        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True, exclude_buffers=self._plain) if phase.ema else None
        self.evaluated: nn.Module = self.ema.module if self.ema else model
        self.done, self.loss = 0, torch.zeros(())
        self.looking = False  # whether what is to be judged after the last step was not judged to the end
        self.skipped = torch.zeros(2, device=next(model.parameters()).device)  # steps in a row just now, and in all
        self._drops = [module for module in model.modules() if isinstance(module, DropPath)]
        self.stopped = False  # whether several processes have agreed to stop
        self._told = torch.zeros(3)  # of all processes together in the last step: loss, wishes to stop, marks of which parameters it moved
        self._mark = 0
        self._saved_at, self._save_seconds = time.monotonic(), 0.0

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer} | ({"ema": self.ema.module} if self.ema else {})

    def restore(self) -> int:
        """Loads the checkpoint, if there is one; the number of steps that it had done."""
        path, identity = self.course.checkpoint, self.course.identity
        state = load_checkpoint(path) if path is not None else None
        if path is not None and state is not None:
            if (found := state.get("identity", "nothing that says of what")) != identity:
                raise ValueError(f"{path}: a checkpoint of something else: got {found}; accepted {identity}. Give a new --run.")
            with as_written(path):
                for name, part in self._parts().items():
                    part.load_state_dict(state[name])
                self.done = int(state["step"])
                self.skipped[1], self.looking = state.get("skipped", 0), state.get("looking", False)
        return self.done

    def look(self, watch: Watch) -> None:
        """Lets the first process judge the model; who stops that leaves a checkpoint at once: a look may take as long as a thousand steps."""

        def judged() -> None:
            try:
                watch.rung(self.done, self.evaluated)
            except Stopped:
                self.save()
                raise

        self.looking = True
        self.course.ranks.of_first(judged)
        self.looking = False
        self.model.train()

    def save(self) -> None:
        if self.course.checkpoint is not None:
            begun = time.monotonic()
            parts = {name: part.state_dict() for name, part in self._parts().items()}
            told = {"identity": self.course.identity, "step": self.done, "skipped": int(self.skipped[1]), "looking": self.looking}
            save_checkpoint(self.course.checkpoint, {**told, **parts})
            self._saved_at = time.monotonic()
            self._save_seconds = self._saved_at - begun

    def save_now_and_then(self) -> None:
        """At most once a minute; a large checkpoint takes seconds, and at most a fiftieth of the time goes into them.

        Not while steps are skipped: if they go on the last good one is wanted.
        """
        if (
            self.course.ranks.first
            and time.monotonic() - self._saved_at > max(CHECKPOINT_SECONDS, 50 * self._save_seconds)
            and not self.skipped[0]
        ):
            self.save()

    @contextlib.contextmanager
    def kept_when_lost(self) -> Iterator[None]:
        """Writes a checkpoint where another process is lost in the middle of a step: what came before it is whole here, but for the statistics of a
        batch norm, which the step's own images have moved."""
        begun = self.done
        try:
            yield
        except Lost:
            if self.course.ranks.first and self.done > begun and not self.skipped[0] and self._plain:
                with contextlib.suppress(RuntimeError):  # a GPU may be lost too
                    self.save()
            raise

    def set_learning_rate(self, step: int) -> float:
        lr = self.course.phase.learning_rate(step, self.course.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def backward(self, images: Tensor, targets: Tensor, step: int, path: tuple[Any, ...]) -> Tensor:
        """Adds the gradients of the mean loss of a whole batch, as far as this process's images make them; gives their share of that loss.

        They are done in `phase.accumulate` parts. What is drawn for each image of the batch, drop path, each part draws for all of them.
        """
        phase, ranks = self.course.phase, self.course.ranks
        self._before = [buffer.clone() for buffer in self._buffers]
        count = phase.batch_size if ranks.count > 1 else len(images)
        num = min(phase.accumulate, ranks.part.least(count))  # as many everywhere, as a batch norm's statistics are summed in each
        places = ranks.part.rows(count).places
        if self._drops and (num > 1 or len(images) < count):
            (places,) = moved(images.device, places)
        parts = [each.tensor_split(num) for each in (images, targets, places)]
        further = {"recompute": True} if phase.recompute else {}
        share = torch.zeros((), device=images.device)
        for x, target, rows in zip(*parts, strict=True):
            for drop in self._drops:
                drop.rows = Rows(count, rows) if len(x) < count else None
            seed_step(self.course.seed, step)  # drop path draws from torch's generators
            with self.course.autocast():
                loss = F.cross_entropy(self.model(x, *path, **further), target, label_smoothing=phase.label_smoothing)
            loss = loss * (len(x) / count)
            loss.backward()
            share += loss.detach()
        return share

    def step(self, loss: Tensor, wish: bool) -> None:
        """Moves the weights by their gradients, unless these or the loss are not finite; nothing waits for a GPU to know.

        Then the statistics of a batch norm, which the forward pass has moved already, are put back too.

        `wish` is whether this process is to stop; where there are several, gradients, losses and wishes are summed over all of them in one go.
        """
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if self.course.ranks.count > 1:
            moving = bytes(parameter.grad is not None for parameter in self._parameters)
            self._mark = zlib.crc32(moving) % 4096  # sums stay exact
            self._told = torch.cat([loss.view(1), *moved(loss.device, torch.tensor([float(wish), float(self._mark)]))])
            self.course.ranks.sum([self._told, *gradients])
            loss = self._told[0]
        norm = torch.nn.utils.get_total_norm(gradients)
        if clip := self.course.phase.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, clip, norm)
        broken = 1.0 - (norm.isfinite() & loss.isfinite()).float()
        self.optimizer.found_inf = broken  # type: ignore[attr-defined]  # what GradScaler tells a fused optimiser: with 1 it leaves weights and moments as they are
        self.optimizer.step()
        for buffer, before in zip(self._buffers, self._before, strict=True):
            torch.where(broken.bool(), before, buffer, out=buffer)
        self.skipped.add_(broken)
        self.skipped[0] *= broken
        self.loss = loss

    def looked_at(self) -> float:
        """The last loss; a `NotFinite` where too many steps were skipped. Several processes agree here whether they stop."""
        if self.course.ranks.count > 1:
            _, wishes, marks = self._told.tolist()
            self.stopped = wishes > 0
            if marks != self.course.ranks.count * self._mark:
                raise ValueError(
                    f"training: step {self.done}: processes moved different parameters: got marks of {marks:g} in all; accepted: "
                    f"{self._mark} of each. Run the same program everywhere."
                )
        in_a_row, in_all = self.skipped.tolist()
        steps, phase = self.course.steps, self.course.phase
        if in_a_row >= min(IN_A_ROW, steps) or in_all > max(IN_A_ROW, OF_ALL * steps):
            what = f"the loss or its gradients were not finite in {in_all:g} steps, the last of them step {self.done}"
            raise NotFinite(f"training: {what}: got lr {phase.lr:g}. Take {OTHER_RUN} a lower rate, such as --lr {phase.lr / 2:g}.")
        return self.loss.item()


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], autocast: Autocast = nullcontext, path: tuple[Any, ...] = ()
) -> float:
    """Top-1 accuracy, 0 to 1, over batches of (images, class numbers); 0 without images. Leaves the model in evaluation mode.

    `path` are further arguments of the model, such as the part of a supernet that is to be evaluated.
    """
    model.eval()
    correct, count = None, 0
    for images, targets in batches:
        with autocast(), float32(images.device, tf32=True):
            hits = (model(images, *path).argmax(dim=1) == targets).sum()
        correct = hits if correct is None else correct + hits  # on the device: one wait at the end
        count += len(targets)
    return correct.item() / count if correct is not None else 0.0
