"""How a training is shown, logged and stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn

from nas.progress import Progress
from nas.runs.folder import Run
from nas.training.loop import Watch

Batches = Iterable[tuple[Tensor, Tensor]]


class Stopped(Exception):
    """A command was interrupted and has left everything in order."""


class Report:
    """Shows a training on stderr, logs it to the run's metrics.jsonl, and asks whether to stop.

    Attributes:
        kind: of the lines in metrics.jsonl, "supernet" or "retrain".
    """

    def __init__(self, run: Run, kind: str, stop: Callable[[], bool] = lambda: False) -> None:
        self.kind, self.stop, self._run = kind, stop, run

    @contextlib.contextmanager
    def training(self, steps: int, accuracy_of: Callable[[nn.Module], float] | None = None) -> Iterator[Watch]:
        """The watch of a training of so many steps; `accuracy_of` gives the figures of its rungs."""
        with Progress(self.kind, steps, "step") as progress:
            yield _Shown(self._run, self.kind, progress, self.stop, accuracy_of)

    @contextlib.contextmanager
    def evaluation(self, split: str, num_images: int) -> Iterator[Callable[[Batches], Batches]]:
        """What shows the batches of a split as they are done; large networks take minutes for a test."""
        with Progress(split, num_images, "image") as progress:

            def watched(batches: Batches) -> Batches:
                for images, targets in batches:
                    if self.stop():
                        raise Stopped(f"{split} stopped after {progress.done} of {progress.total} images")
                    yield images, targets
                    progress.advance(len(targets))

            yield watched

    def rungs(self) -> list[tuple[int, float]]:
        """(steps done, accuracy) at the rungs so far, those of earlier sittings included."""
        return sorted({line["step"]: line["accuracy"] for line in self._run.metrics(f"{self.kind} rung")}.items())


class _Shown(Watch):
    """A training on the progress display and in the run's log."""

    def __init__(
        self, run: Run, kind: str, progress: Progress, stop: Callable[[], bool], accuracy_of: Callable[[nn.Module], float] | None
    ) -> None:
        self._run, self._kind, self._progress, self._stop, self._accuracy_of = run, kind, progress, stop, accuracy_of

    def step(self, done: int, loss: float, lr: float) -> None:
        if done - self._progress.done > 1 and self._progress.done == 0:
            self._progress.resume(done - 1)
        self._progress.advance(done - self._progress.done, f"loss {loss:.3f}")
        self._run.log(self._kind, step=done, loss=round(loss, 5), lr=lr)

    def rung(self, done: int, model: nn.Module) -> None:
        if self._accuracy_of:
            self._run.log(f"{self._kind} rung", step=done, accuracy=self._accuracy_of(model))

    def stop(self) -> bool:
        return self._stop()
