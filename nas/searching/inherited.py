"""What networks are worth with a supernet's weights after a few steps on their own; each is fine-tuned once in a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property

from nas.cost.latency import memory_errors
from nas.data import Kept
from nas.networks.architecture import Architecture
from nas.runs.folder import Run
from nas.runs.interrupt import heeded
from nas.searching.search import Evaluation
from nas.searching.trained_alone import MEMORY, NOT_FINITE
from nas.spaces.supernet import Supernet
from nas.training.fine_tune import fine_tune
from nas.training.loop import NotFinite, evaluate
from nas.training.setting import Setting


@dataclass(frozen=True)
class FineTuned:
    """Fine-tunes networks with the recipe's number of steps, and keeps their accuracies in the run's log: they take as long as all other scores.

    Attributes:
        setting: images, recipe and device.
        run: whose log keeps them.
    """

    setting: Setting
    run: Run

    @cached_property
    def held_out(self) -> Kept:
        """All held-out images and their class numbers."""
        return self.setting.images.kept("held_out", self.setting.recipe.search.batch_size)

    @cached_property
    def known(self) -> dict[str, tuple[Evaluation, float]]:
        """By key: what fine-tuning gave, and its seconds."""
        lines, steps = self.run.metrics("fine-tuned"), self.setting.recipe.search.fine_tune
        return {line["key"]: (Evaluation(line["accuracy"], line["failure"]), line["seconds"]) for line in lines if line["steps"] == steps}

    def evaluation(self, supernet: Supernet, architecture: Architecture, stop: Callable[[], bool] = lambda: False) -> Evaluation:
        """Of the held-out images; found out now if it is not known.

        Raises:
            Stopped: `stop` became true.
        """
        if architecture.key not in self.known:
            steps, begun = self.setting.recipe.search.fine_tune, time.monotonic()
            found = self._found_out(supernet, architecture, steps, stop)
            self.known[architecture.key] = found, (seconds := round(time.monotonic() - begun, 1))
            self.run.log("fine-tuned", key=architecture.key, steps=steps, seconds=seconds, **asdict(found))
        return self.known[architecture.key][0]

    def _found_out(self, supernet: Supernet, architecture: Architecture, steps: int, stop: Callable[[], bool]) -> Evaluation:
        try:
            with memory_errors():
                network = fine_tune(supernet, architecture, self.setting, steps, stop)
                return Evaluation(evaluate(network, heeded(self.held_out, stop, lambda: "fine-tuning stopped"), self.setting.autocast))
        except MemoryError:
            return Evaluation(failure=MEMORY)
        except NotFinite:
            return Evaluation(failure=NOT_FINITE)
