"""What networks are worth with a supernet's weights after a few steps on their own; each is fine-tuned once in a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple

from nas.cost.latency import memory_errors
from nas.data import Kept
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.runs.folder import Run
from nas.runs.interrupt import heeded
from nas.searching.search import MEMORY, Evaluation
from nas.searching.trained_alone import NOT_FINITE, REMEDIES, remedy, with_phase
from nas.spaces.supernet import Supernet
from nas.training.fine_tune import fine_tune
from nas.training.loop import NotFinite, evaluate
from nas.training.setting import Setting


class Tuned(NamedTuple):
    """What fine-tuning a network gave.

    Attributes:
        evaluation: of the held-out images.
        seconds: that it took.
        failed: why the first try failed, where there was a second one by `remedy`.
    """

    evaluation: Evaluation
    seconds: float
    failed: str | None = None


@dataclass(frozen=True)
class FineTuned:
    """Fine-tunes networks with the recipe's number of steps, and keeps their accuracies in the run's log: they take as long as all other scores.

    A loss that is not finite, and memory that runs out, are met once with a remedy and are failures the second time.

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
    def known(self) -> dict[str, Tuned]:
        """By key, what fine-tuning gave."""
        lines, steps = self.run.metrics("fine-tuned"), self.setting.recipe.search.fine_tune
        return {
            line["key"]: Tuned(Evaluation(line["accuracy"], line["failure"]), line["seconds"], line.get("failed"))
            for line in lines
            if line["steps"] == steps
        }

    def evaluation(self, supernet: Supernet, architecture: Architecture, stop: Callable[[], bool] = lambda: False) -> Evaluation:
        """Of the held-out images; found out now if it is not known.

        Raises:
            Stopped: `stop` became true.
        """
        if architecture.key not in self.known:
            begun, failed = time.monotonic(), None
            found = self._found_out(supernet, architecture, failed, stop)
            if found.failure:
                failed = found.failure
                found = self._found_out(supernet, architecture, failed, stop)
            tuned = self.known[architecture.key] = Tuned(found, round(time.monotonic() - begun, 1), failed)
            told = {"steps": self.setting.recipe.search.fine_tune, "seconds": tuned.seconds, **({"failed": failed} if failed else {})}
            self.run.log("fine-tuned", key=architecture.key, **told, **asdict(found))
        return self.known[architecture.key].evaluation

    def network(self, supernet: Supernet, architecture: Architecture, stop: Callable[[], bool] = lambda: False) -> Network:
        """The network that was evaluated, fine-tuned once more in the same way: its weights are kept nowhere.

        Raises:
            Stopped: `stop` became true.
        """
        tuned = self.known.get(architecture.key)
        return self._tune(supernet, architecture, tuned.failed if tuned else None, stop)

    def _found_out(self, supernet: Supernet, architecture: Architecture, failed: str | None, stop: Callable[[], bool]) -> Evaluation:
        try:
            with memory_errors():
                network = self._tune(supernet, architecture, failed, stop)
                return Evaluation(evaluate(network, heeded(self.held_out, stop, lambda: "fine-tuning stopped"), self.setting.autocast))
        except MemoryError:
            return Evaluation(failure=MEMORY)
        except NotFinite:
            return Evaluation(failure=NOT_FINITE)

    def _tune(self, supernet: Supernet, architecture: Architecture, failed: str | None, stop: Callable[[], bool]) -> Network:
        setting, steps = self.setting, self.setting.recipe.search.fine_tune
        if failed:
            setting = with_phase(setting, "supernet", remedy(setting.recipe.supernet, steps, failed))
            steps *= REMEDIES[failed]
        return fine_tune(supernet, architecture, setting, steps, stop)
