"""How a training is shown, logged and stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor, nn

from nas.progress import Progress
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped, heeded
from nas.training.events import Events
from nas.training.watch import Watch

Batches = Iterable[tuple[Tensor, Tensor]]
WITH_EVENTS = ("supernet", "retrain")
EVERY = 10  # steps between two points of a curve in TensorBoard


class Report(Watch):
    """Shows a training on stderr, logs it to the run's metrics.jsonl, and asks whether to stop.

    Attributes:
        kind: of the lines in metrics.jsonl, "supernet" or "retrain".
    """

    def __init__(self, run: Run, kind: str, stop: Callable[[], bool] = lambda: False) -> None:
        self.kind, self._run, self._stop = kind, run, stop
        self._events: Events | None = None  # for TensorBoard, of trainings that have a run of their own

    @contextlib.contextmanager
    def training(self, steps: int, judge: Callable[[nn.Module], Mapping[str, float]] | None = None) -> Iterator[Report]:
        """Watches a training of so many steps; `judge` gives the figures of its rungs, by name."""
        self._judge = judge
        with contextlib.ExitStack() as self._closing, Progress(self.kind, steps, "step") as self._progress:
            yield self

    def begin(self, done: int) -> None:
        self._progress.skip(done)
        if self.kind in WITH_EVENTS:
            self._events = self._closing.enter_context(contextlib.closing(Events(self._run.folder / "events", done)))

    def step(self, done: int, loss: float, lr: float) -> None:
        self._progress.reach(done, f"loss {loss:.3f}")
        self._run.log(self.kind, step=done, loss=round(loss, 5), lr=lr)
        if self._events and done % EVERY == 0:
            self._events.add("loss", loss, done)
            self._events.add("rate", lr, done)

    def skipped(self, count: int) -> None:
        print(
            f"{self.kind}: {count} of {self._progress.total} steps were skipped, since their loss or gradients were not finite.", flush=True
        )

    def rung(self, done: int, model: nn.Module) -> None:
        if self._judge:
            judged = self._judge(model)
            self._run.log(f"{self.kind} rung", step=done, **judged)
            if self._events:
                for name, accuracy in judged.items():
                    self._events.add(f"held_out/{name}", accuracy, done)

    def rungs(self) -> list[tuple[int, float]]:
        """(steps done, accuracy) at the rungs so far, those of earlier sittings included."""
        return sorted({line["step"]: line["accuracy"] for line in self._run.metrics(f"{self.kind} rung")}.items())

    def stop(self) -> bool:
        return self._stop()

    def heeded(self, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
        """The same batches of a look at a model in training, for as long as nobody wants it to stop."""
        return heeded(batches, self.stop, lambda: f"{self.kind} stopped at step {self._progress.done} of {self._progress.total}")

    def evaluated(self, split: str, num_images: int, batches: Batches) -> Batches:
        """The batches of a split, shown as they are done; large networks take minutes for a test."""
        with Progress(split, num_images, "image") as progress:
            for images, targets in batches:
                if self.stop():
                    raise Stopped(f"{split} stopped after {progress.done} of {progress.total} images")
                yield images, targets
                progress.advance(len(targets))
