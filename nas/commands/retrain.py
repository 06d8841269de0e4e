"""`retrain`: the network of an architecture file, from scratch with the whole recipe, tested once at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.commands.options import dry_run_option, option, show_plan, training_options

if TYPE_CHECKING:
    from nas.networks.architecture import Architecture
    from nas.runs.folder import Run
    from nas.runs.records import NetworkRecord
    from nas.training.ranks import Ranks
    from nas.training.setting import Setting


@click.command(short_help="Train a network from scratch, and test it.")
@click.argument("file", metavar="FILE")
@option("--init", "WEIGHTS", "Begin with these weights of the same network, trained on other images, or imported: a file, or a run's name.")
@dry_run_option
@training_options("the training")
def retrain(file: str, init: str | None, dry_run: bool, **options: Any) -> int:
    """Train the network of an architecture file from scratch, and test it.

    FILE is an architecture, such as runs/best.yaml, or a published network, such as as_mlp_t. With --init the network begins with the weights of
    a file and is fine-tuned, with a tenth of the recipe's rate; with another number of classes its head is a fresh one. Several GPUs or machines train
    it together where torchrun starts the command: torchrun --nproc-per-node 8 -- launch.py retrain ...
    """
    from nas.training.ranks import joined

    with joined() as ranks:
        return _retrain(file, init, dry_run, options, ranks)


def _retrain(file: str, init: str | None, dry_run: bool, options: dict[str, Any], ranks: Ranks) -> int:
    import torch

    from nas.machine import pasted
    from nas.networks.architecture import read_architecture
    from nas.networks.network import Network
    from nas.networks.trained import begin_with, load_network
    from nas.published.presets import architecture_file
    from nas.runs.folder import WEIGHTS, Run, default_name, told_beside, weights_file
    from nas.runs.records import Begun, digest, read_record, read_training, same_as_begun
    from nas.training.given import Given
    from nas.training.plan import network_plan
    from nas.training.setting import look_at_images, open_as_found
    from nas.yaml_files import validate

    path = architecture_file(Path(file))
    architecture, entries = read_architecture(path)
    found = validate(Begun, entries, str(path))
    given = Given.of(options, trains="retrain", ranks=ranks)
    setting = open_as_found(given, found.model_copy(update={"seed": None}), architecture)  # the seed is this training's own
    weights = weights_file(init) if init is not None else None
    with torch.device("meta"):
        network = Network(architecture.at(setting.frame))  # geometry at the resolution trained at, before anything is loaded
    fresh = begin_with(network.to_empty(device="cpu"), load_network(weights), f"--init {init}", told_beside(weights)) if weights else []
    unusual = [*given.unusual(), *([f"from{digest(weights)}"] if weights else [])]
    name = default_name("retrain", architecture.key, setting.source.name, setting.recipe_name, setting.seed, *unusual)
    run = Run(name if options["run"] is None else options["run"], writes=ranks.first)
    begun = read_record(run).retrain
    setting = setting.beginning_with(weights, given.lr) if weights else setting
    setting = setting.as_begun(begun, given, options["epochs"], options["steps"])
    wanted = setting.network_record(architecture, path)
    same_as_begun(run, begun, wanted)
    setting.agree()
    if dry_run or begun is None:
        look_at_images(setting, run, setting.recipe.retrain.augmentation, remember=False)
        begins = [f"  It begins with {weights}{', but for ' + fresh[0] if fresh else ''}."] if weights else []
        show_plan([*network_plan(architecture, setting), *begins], dry_run)
    if dry_run:
        return 0
    with ranks.holding(run), ranks.interrupt() as stop:
        same_as_begun(run, read_record(run).retrain, wanted)
        if (run.folder / "result.yaml").exists() and (run.folder / WEIGHTS).exists():
            print(f"This retraining is done ({run.folder / 'result.yaml'}); its result again:")
        else:
            _train(architecture, setting, run, wanted, stop)
        if not ranks.first:
            return 0
        result = read_training(run.folder / "result.yaml").result
    print(
        f"Test accuracy: {result.test_accuracy:.2%} of {result.test_images} images "
        f"({setting.source.name} at {setting.resolution} px, {result.steps} steps)"
    )
    weights = run.folder / WEIGHTS
    print(f"Weights: {weights}")
    print(f"Next:    {pasted('predict', weights, 'IMAGE')}")
    return 0


def _train(architecture: Architecture, setting: Setting, run: Run, wanted: NetworkRecord, stop: Callable[[], bool]) -> None:
    from nas.cost import cost
    from nas.networks.architecture import describe
    from nas.runs.folder import now
    from nas.runs.records import write_architecture
    from nas.training.report import Report
    from nas.training.setting import look_at_images
    from nas.training.train_network import train_network

    setting.images.steps_per_epoch("train", setting.recipe.retrain.batch_size)  # data that cannot be used is refused before a run begins
    look_at_images(setting, run, setting.recipe.retrain.augmentation, stop)
    run.record(retrain=wanted.model_dump(mode="json", exclude_none=True), architecture=architecture.to_dict())
    print(f"Training {architecture.key} {'on from given weights' if setting.init else 'from scratch'}, on {setting.where}:", flush=True)
    for line in describe(architecture):
        print(f"  {line}")
    report = Report(run, "retrain", stop)
    trained = train_network(architecture, setting, fit="train", evaluate_on="test", seed=setting.seed, folder=run, report=report)
    if not setting.ranks.first:
        return
    assert trained.accuracy is not None
    result = {
        "test_accuracy": round(trained.accuracy, 4), "test_images": trained.images,
        "steps": trained.steps, "epochs": round(trained.epochs, 3),
    }  # fmt: skip
    run.log("result", **result)
    entries = {
        "costs": dict(cost(architecture)._asdict()),
        "result": result,
        "from": wanted.found_at,
        **({"init": str(setting.init)} if setting.init else {}),
        **setting.record(),
    }
    entries |= {"run": run.name, "device": str(setting.device)}
    write_architecture(run.folder / "result.yaml", architecture, entries, "A network trained from scratch.")
    run.record(finished=now())
