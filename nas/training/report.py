"""How a training is shown, logged and stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor, nn

from nas.progress import Progress
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.training.loop import Watch

Batches = Iterable[tuple[Tensor, Tensor]]


class Report(Watch):
    """Shows a training on stderr, logs it to the run's metrics.jsonl, and asks whether to stop.

    Attributes:
        kind: of the lines in metrics.jsonl, "supernet" or "retrain".
    """

    def __init__(self, run: Run, kind: str, stop: Callable[[], bool] = lambda: False) -> None:
        self.kind, self._run, self._stop = kind, run, stop

    @contextlib.contextmanager
    def training(self, steps: int, judge: Callable[[nn.Module], Mapping[str, float]] | None = None) -> Iterator[Report]:
        """Watches a training of so many steps; `judge` gives the figures of its rungs, by name."""
        self._judge = judge
        with Progress(self.kind, steps, "step") as self._progress:
            yield self

    def begin(self, done: int) -> None:
        self._progress.skip(done)

    def step(self, done: int, loss: float, lr: float) -> None:
        self._progress.reach(done, f"loss {loss:.3f}")
        self._run.log(self.kind, step=done, loss=round(loss, 5), lr=lr)

    def skipped(self, count: int) -> None:
        print(
            f"{self.kind}: {count} of {self._progress.total} steps were skipped, since their loss or gradients were not finite.", flush=True
        )

    def rung(self, done: int, model: nn.Module) -> None:
        if self._judge:
            self._run.log(f"{self.kind} rung", step=done, **self._judge(model))

    def rungs(self) -> list[tuple[int, float]]:
        """(steps done, accuracy) at the rungs so far, those of earlier sittings included."""
        return sorted({line["step"]: line["accuracy"] for line in self._run.metrics(f"{self.kind} rung")}.items())

    def stop(self) -> bool:
        return self._stop()

    def evaluated(self, split: str, num_images: int, batches: Batches) -> Batches:
        """The batches of a split, shown as they are done; large networks take minutes for a test."""
        with Progress(split, num_images, "image") as progress:
            for images, targets in batches:
                if self.stop():
                    raise Stopped(f"{split} stopped after {progress.done} of {progress.total} images")
                yield images, targets
                progress.advance(len(targets))
