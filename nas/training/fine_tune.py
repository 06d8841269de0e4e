"""A network that begins with its part of a supernet's weights, and is trained on for a few steps: what it is worth there, once it is on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.runs.interrupt import heeded
from nas.training.loop import Course, train_model
from nas.training.setting import Setting
from nas.training.watch import Watch

RATE = 0.25  # of the supernet's: what all networks share has settled already


class Weights(Protocol):
    """What gives a network the weights that it begins with: a supernet."""

    def subnet(self, architecture: Architecture) -> Network: ...


def fine_tune(
    supernet: Weights, architecture: Architecture, setting: Setting, steps: int, stop: Callable[[], bool] = lambda: False
) -> Network:
    """The network with inherited weights after so many steps on the images that are not held out, with the supernet's recipe otherwise.

    Raises:
        NotFinite: the loss or its gradients are no longer numbers.
        Stopped: `stop` became true; nothing is kept of so few steps.
    """
    network = supernet.subnet(architecture.at(setting.frame))
    phase = setting.recipe.supernet
    phase = phase.model_copy(update={"lr": RATE * phase.lr, "ema": False})  # an average is for long trainings
    batches = setting.images.batches("fit", phase.batch_size, setting.seed, phase.augmentation)
    course = Course(phase, steps, setting.seed, setting.autocast)
    train_model(network, lambda start: heeded(batches(start), stop, lambda: "fine-tuning stopped"), course, Watch())
    return network.eval()
