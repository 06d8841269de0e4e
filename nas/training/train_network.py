"""Training one network from scratch to a result: the only way to do it, for whoever wants one trained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from nas.cost.latency import built
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.networks.trained import begin_with, load_network, save_network
from nas.runs.folder import CHECKPOINT, WEIGHTS, Run
from nas.runs.interrupt import Stopped
from nas.training.loop import Course, evaluate, train_model
from nas.training.recipe import Phase
from nas.training.report import Report
from nas.training.setting import Setting


@dataclass(frozen=True)
class TrainingResult:
    """What training one network gave.

    Attributes:
        accuracy: share of the evaluation split's images, 0 to 1; None where none was evaluated.
        images: how many images that split has; 0 for none.
        steps: of the training.
        epochs: the same in passes over the split trained on.
        rungs: (steps done, accuracy) at each of the phase's rungs.
    """

    accuracy: float | None
    images: int
    steps: int
    epochs: float
    rungs: tuple[tuple[int, float], ...] = ()


def check_rungs(phase: Phase, evaluate_on: str | None) -> None:
    """Refuses to open the test split at rungs."""
    if phase.rungs and evaluate_on == "test":
        raise ValueError("recipe: retrain.rungs: the test split is opened once, at the end: got rungs with it; accepted: a held-out split.")


def train_network(
    architecture: Architecture, setting: Setting, *, fit: str, evaluate_on: str | None, seed: int, folder: Run, report: Report
) -> TrainingResult:
    """Trains the network of `architecture` with the recipe's `retrain` phase, from fresh weights or those that the setting names, and evaluates it.

    Continues from `checkpoint.pt` in the folder, and leaves `weights.safetensors` there: those that were evaluated. Several processes, those of
    the setting, train it together, and the first one evaluates it.

    Args:
        architecture: the network; trained in the setting's frame.
        setting: images, recipe and device.
        fit: the split to train on: "train" (all training images), or "fit" where the held-out ones are to judge.
        evaluate_on: the split for the result and for the rungs; None evaluates nothing. No other split is opened.
        seed: of weights, data, augmentation and drop path.
        folder: the run that the checkpoint and the weights belong to.
        report: shows, logs and stops it.

    Raises:
        ValueError: the network cannot be built at this resolution, the data cannot be used, or the loss is no longer finite.
        Stopped: interrupted; a checkpoint is there.
    """
    phase, images, batch_size = setting.recipe.retrain, setting.images, setting.recipe.search.batch_size
    check_rungs(phase, evaluate_on)
    trained = architecture.at(setting.frame)
    torch.manual_seed(seed)
    network = built(partial(Network, trained, phase.drop_path), setting.device)
    if setting.init:
        begin_with(network, load_network(setting.init), f"--init {setting.init}")
    per_epoch = images.steps_per_epoch(fit, phase.batch_size)
    steps = phase.num_steps(per_epoch)
    batches = images.batches(fit, phase.batch_size, seed, phase.augmentation)
    course = Course(
        phase, steps, seed, setting.autocast, folder.folder / CHECKPOINT,
        identity=f"network {architecture.key} at {setting.resolution} px, seed {seed}", ranks=setting.ranks,
    )  # fmt: skip

    def accuracy_of(model: nn.Module) -> float:
        return evaluate(model, report.heeded(images.evaluation_batches(str(evaluate_on), batch_size)), setting.autocast)

    with report.training(steps, (lambda model: {"accuracy": accuracy_of(model)}) if evaluate_on else None) as watch:
        model, done = train_model(network, batches, course, watch)
    if done < steps:
        raise Stopped(f"{report.kind} stopped at step {done} of {steps}")

    def tested_and_saved() -> float | None:
        accuracy = None
        if evaluate_on:
            batches_shown = report.evaluated(evaluate_on, images.size(evaluate_on), images.evaluation_batches(evaluate_on, batch_size))
            accuracy = evaluate(model, batches_shown, setting.autocast)
        target = folder.folder / WEIGHTS
        save_network(target, model.state_dict(), trained, images.classes, images.preprocessing, setting.recipe.bf16)
        return accuracy

    accuracy = setting.ranks.of_first(tested_and_saved)
    size = images.size(evaluate_on) if evaluate_on else 0
    return TrainingResult(accuracy, size, steps, steps / per_epoch, tuple(report.rungs()))
