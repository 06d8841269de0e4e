"""What a training tells whoever started it."""

from __future__ import annotations

from torch import nn


class Watch:
    """What a training tells whoever started it, and asks. This one is silent and never stops; override what is wanted.

    Of several processes the first one's is told; each one's is asked.
    """

    def begin(self, done: int) -> None:
        """Before the first step, with how many an earlier sitting has done."""

    def step(self, done: int, loss: float, lr: float) -> None:
        """After every step on a CPU and every tenth on a GPU, where reading the loss waits."""

    def skipped(self, count: int) -> None:
        """At the end, where so many steps left the weights alone since their loss or gradients were not finite."""

    def rung(self, done: int, model: nn.Module) -> None:
        """At each of the phase's rungs, or where the course looks, with the model to evaluate."""

    def stop(self) -> bool:
        """Asked before every step; True ends the training there, with a checkpoint."""
        return False


class Asked(Watch):
    """Asks another one, and tells it nothing."""

    def __init__(self, asked: Watch) -> None:
        self.stop = asked.stop  # type: ignore[method-assign]
