"""`retrain`: the network of an architecture file, from scratch with the whole recipe, tested once at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import training_options

if TYPE_CHECKING:
    from nas.networks.architecture import Architecture
    from nas.runs.folder import Run
    from nas.runs.records import NetworkRecord
    from nas.training.setting import Setting


@click.command(short_help="Train a network from scratch, and test it.")
@click.argument("file", metavar="FILE")
@training_options("the training")
def retrain(file: str, **options: Any) -> int:
    """Train the network of an architecture file from scratch, and test it.

    FILE is an architecture, such as runs/best.yaml, or a published network, such as as_mlp_t.
    """
    import torch

    from nas.networks.architecture import read_architecture
    from nas.networks.network import Network
    from nas.published.presets import architecture_file
    from nas.runs.folder import Run, default_name
    from nas.runs.interrupt import Interrupt
    from nas.runs.records import Begun, read_record, read_training, same_as_begun
    from nas.training.setting import Given, open_as_found
    from nas.yaml_files import validate

    path = architecture_file(Path(file))
    architecture, entries = read_architecture(path)
    found = validate(Begun, entries, str(path))
    given = Given.of(options)
    setting = open_as_found(given, found.model_copy(update={"seed": None}), architecture)  # the seed is this training's own
    with torch.device("meta"):
        Network(architecture.at(setting.frame))  # geometry at the resolution trained at, before anything is loaded
    name = default_name("retrain", architecture.key, setting.source.name, setting.recipe_name, setting.seed, *given.unusual())
    run = Run(name if options["run"] is None else options["run"])
    with run.lock(), Interrupt() as interrupt:
        begun = read_record(run).retrain
        setting = setting.of_length(options["epochs"], options["steps"], begun)
        wanted = setting.network_record(architecture, path)
        same_as_begun(run, begun, wanted)
        if (run.folder / "result.yaml").exists() and (run.folder / "weights.safetensors").exists():
            print(f"This retraining is done ({run.folder / 'result.yaml'}); its result again:")
        else:
            _train(architecture, setting, run, wanted, lambda: interrupt.requested)
        result = read_training(run.folder / "result.yaml").result
    print(
        f"Test accuracy: {result.test_accuracy:.2%} of {result.test_images} images "
        f"({setting.source.name} at {setting.resolution} px, {result.steps} steps)"
    )
    print(f"Weights: {run.folder / 'weights.safetensors'}")
    return 0


def _train(architecture: Architecture, setting: Setting, run: Run, wanted: NetworkRecord, stop: Callable[[], bool]) -> None:
    from nas.cost import cost
    from nas.networks.architecture import describe
    from nas.quantities import format_quantity
    from nas.runs.folder import now
    from nas.runs.records import write_architecture
    from nas.training.report import Report
    from nas.training.setting import look_at_images
    from nas.training.train_network import train_network

    phase, costs = setting.recipe.retrain, cost(architecture)
    per_epoch = setting.images.steps_per_epoch("train", phase.batch_size)  # data that cannot be used is refused before a run begins
    steps = phase.num_steps(per_epoch)
    look_at_images(setting, run, phase.augmentation, stop)
    run.record(retrain=wanted.model_dump(mode="json", exclude_none=True), architecture=architecture.to_dict())
    print(
        f"Training {architecture.key} ({format_quantity('macs', costs.macs)}, {format_quantity('params', costs.params)} at {architecture.frame.resolution} px) "
        f"from scratch: {setting.images.size('train')} images at {setting.resolution} px, {steps} steps of {phase.batch_size} "
        f"({steps / per_epoch:.3g} epochs), on {setting.device}.",
        flush=True,
    )
    for line in describe(architecture):
        print(f"  {line}")
    report = Report(run, "retrain", stop)
    trained = train_network(architecture, setting, fit="train", evaluate_on="test", seed=setting.seed, folder=run, report=report)
    assert trained.accuracy is not None
    result = {
        "test_accuracy": round(trained.accuracy, 4), "test_images": trained.images,
        "steps": trained.steps, "epochs": round(trained.epochs, 3),
    }  # fmt: skip
    run.log("result", **result)
    entries = {"costs": dict(costs._asdict()), "result": result, "from": wanted.found_at, **setting.record()}
    entries |= {"run": run.name, "device": str(setting.device)}
    write_architecture(run.folder / "result.yaml", architecture, entries, "A network trained from scratch.")
    run.record(finished=now())
