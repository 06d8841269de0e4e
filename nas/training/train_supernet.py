"""Training a supernet, the sibling of `train_network`: the same loop with a path of its own in each step. What a path is, only the caller knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from nas.runs.checkpoint import as_written, load_checkpoint
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.training.loop import Course, evaluate, train_model
from nas.training.report import Report
from nas.training.setting import Setting

CHECKPOINT = "supernet.pt"
LOOKS = 10  # at the networks of some sizes, in a training


def supernet_steps(setting: Setting) -> int:
    """Steps of a supernet's training in all."""
    return setting.recipe.supernet.num_steps(setting.images.steps_per_epoch("fit", setting.recipe.supernet.batch_size))


def load_supernet(model: nn.Module, setting: Setting, identity: str, folder: Run) -> bool:
    """Loads the weights of a finished training into the model; False where there is none of this identity.

    Where the last checkpoint is damaged it is the one before that is found, from which the end is trained again.
    """
    path = folder.folder / CHECKPOINT
    state = load_checkpoint(path, map_location=setting.device)
    if state is None or state.get("identity") != identity or state.get("step") != supernet_steps(setting):
        return False
    with as_written(path):
        model.load_state_dict(state["ema"] if "ema" in state else state["model"])
    return True


def train_supernet(
    model: nn.Module,
    setting: Setting,
    identity: str,
    path: Callable[[int], tuple[Any, ...]],
    judged: Mapping[str, tuple[Any, ...]],
    folder: Run,
    report: Report,
) -> None:
    """Trains a supernet on the images that are not held out, with the recipe's `supernet` phase; continues from its checkpoint.

    Several processes, those of the setting, train it together, and the first one judges networks.

    Args:
        model: with fresh weights, on the setting's device.
        identity: what the checkpoint must be of.
        path: further arguments of `model` for a step.
        judged: by name the further arguments of networks whose held-out accuracy is logged ten times.
        folder: the run that the checkpoint belongs to.
        report: shows, logs and stops it.

    Raises:
        ValueError: the data cannot be used, or the loss is no longer finite.
        Stopped: interrupted; a checkpoint is there.
    """
    phase, steps = setting.recipe.supernet, supernet_steps(setting)
    batches = setting.images.batches("fit", phase.batch_size, setting.seed, phase.augmentation)
    looks = tuple(sorted({max(1, round(steps * look / LOOKS)) for look in range(1, LOOKS + 1)}))
    course = Course(phase, steps, setting.seed, setting.autocast, folder.folder / CHECKPOINT, identity, looks, setting.ranks)

    def accuracies(model: nn.Module) -> dict[str, float]:
        held_out = setting.images.kept("held_out", setting.recipe.search.batch_size)
        return {name: evaluate(model, report.heeded(held_out), setting.autocast, each) for name, each in judged.items()}

    with report.training(steps, accuracies if judged else None) as watch:
        _, done = train_model(model, batches, course, watch, path)
    if done < steps:
        raise Stopped(f"supernet stopped at step {done} of {steps}")
