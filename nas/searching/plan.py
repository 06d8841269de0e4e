"""What a supernet's training and a search will do and how long that takes, said before anything is spent."""

from __future__ import annotations

import torch

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.quantities import format_quantity
from nas.searching.finals import ladder_steps
from nas.searching.known_networks import baselines
from nas.searching.search_run import SearchRun
from nas.searching.supernet_run import SupernetRun
from nas.searching.trained_alone import Alone
from nas.spaces.supernet import Supernet
from nas.training.loop import evaluate
from nas.training.plan import WORTH_TIMING, block, data_line, phase_line, step_seconds, time_line
from nas.training.train_supernet import supernet_steps

SPLITS = {"fit": "to train on", "held_out": "held out to choose by", "test": "to test"}


def supernet_plan(opened: SupernetRun) -> list[str]:
    """Of `train`."""
    lines, seconds = _lines(opened), _supernet_seconds(opened)
    if seconds is not None:
        lines["time"] = time_line({"supernet": seconds}, opened.setting.device.type)
    return list(block(lines, (*opened.notes, *opened.setting.notes)))


def search_plan(search: SearchRun) -> list[str]:
    """Of `search`: supernet, evaluations, networks trained alone, and the retraining of the winner behind it."""
    opened, setting = search.supernet, search.supernet.setting
    lines, images, recipe = _lines(opened), setting.images, setting.recipe
    by_hand = [each.architecture for each in baselines(opened.space, search.request.budgets, search.request.floor, setting.frame)]
    per_epoch = images.steps_per_epoch("train", recipe.retrain.batch_size)
    retraining = recipe.retrain.num_steps(per_epoch)
    ladder, num = 0, search.finalists and search.finalists + len(by_hand)
    if num:
        alone = Alone.on_held_out(setting, opened.run.folder, recipe.search.finalist_epochs)
        ladder = ladder_steps(alone, num)
        lines["finalists"] = (
            f"{search.finalists} and {len(by_hand)} drawn by hand, up to {alone.steps:,} steps each, some {ladder:,} steps in all"
        )
    lines["retrain"] = phase_line(recipe.retrain, retraining, per_epoch)
    trials = search.request.trials
    supernet = _supernet_seconds(opened) if trials else 0.0
    if supernet is not None and by_hand and max(retraining, ladder) >= WORTH_TIMING:
        step, image = _network_seconds(opened, by_hand)
        parts = {"supernet": supernet, f"{trials} evaluations": trials * images.size("held_out") * image, "finalists": ladder * step}
        parts = {name: seconds for name, seconds in parts.items() if seconds} | {"retraining the winner": retraining * step}
        lines["time"] = time_line(parts, setting.device.type)
    return list(block(lines, (*opened.notes, *setting.notes)))


def _lines(opened: SupernetRun) -> dict[str, str]:
    """What both begin with."""
    setting, space = opened.setting, opened.space
    lines = {"images": data_line(setting, space.stride, SPLITS)}
    phase = setting.recipe.supernet
    ends = " and ".join(f"{format_quantity(name, low)} to {format_quantity(name, high)}" for name, (low, high) in opened.range.ends.items())
    lines["supernet"] = (
        f"{phase_line(phase, supernet_steps(setting), setting.images.steps_per_epoch('fit', phase.batch_size))}; of {space.name}, {ends}"
    )
    if (setting.resolution, setting.source.channels) != (space.frame.resolution, space.frame.channels):
        for name, network in (
            ("smallest", opened.ends(opened.range).get("smallest")),
            ("largest", opened.ends(opened.range).get("largest")),
        ):
            if network:
                counted, used = cost(network).macs, cost(network.at(setting.frame)).macs
                lines[f"  {name}"] = (
                    f"{format_quantity('macs', counted)} at {space.frame.resolution} px, which budgets count in; "
                    f"{format_quantity('macs', used)} at {setting.resolution} px"
                )
    return lines


def _supernet_seconds(opened: SupernetRun) -> float | None:
    """None where it is not worth timing; nothing is left to do where it is trained."""
    if opened.finished():
        return 0.0
    steps = supernet_steps(opened.setting)
    if steps < WORTH_TIMING:
        return None
    torch.manual_seed(opened.setting.seed)
    supernet = Supernet(opened.trained_space)
    return steps * step_seconds(supernet, opened.setting, opened.setting.recipe.supernet, "fit", opened.path)


def _network_seconds(opened: SupernetRun, by_hand: list[Architecture]) -> tuple[float, float]:
    """Of a network of the budget: a training step, and one image evaluated; the mean of three kinds."""
    import time

    setting, kinds = opened.setting, by_hand[:: max(1, len(by_hand) // 3)][:3]
    steps, images = 0.0, 0.0
    batch = next(setting.images.evaluation_batches("held_out", setting.recipe.search.batch_size))
    for kind in kinds:
        network = Network(kind.at(setting.frame))
        steps += step_seconds(network, setting, setting.recipe.retrain, "fit") / len(kinds)
        evaluate(network, [batch], setting.autocast)
        begun = time.perf_counter()
        evaluate(network, [batch], setting.autocast)
        images += (time.perf_counter() - begun) / len(batch[1]) / len(kinds)
    return steps, images
