"""What a search needs besides time: samples, memory of a device, room on the disk. By arithmetic, and by steps of two and four images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nas.cost import cost
from nas.cost.latency import built
from nas.networks.network import Network
from nas.quantities import format_quantity
from nas.searching.plan import Ladder, shared
from nas.searching.search_run import SearchRun
from nas.spaces.supernet import Supernet
from nas.training.plan import training_bytes
from nas.training.recipe import Phase
from nas.training.train_supernet import supernet_steps

TRIAL = 6_000  # bytes of a trial in a study's file, about


def needs(searches: Sequence[SearchRun], devices: int) -> dict[str, str]:
    """Lines of a plan, by what they are of."""
    first = searches[0]
    opened, setting, recipe = first.supernet, first.supernet.setting, first.supernet.setting.recipe
    ladders = [Ladder.of(each) for each in searches]
    supernet = built(partial(Supernet, opened.trained_space), setting.device)
    largest = opened.ends(opened.range)["largest"].at(setting.frame)
    by_hand = max((each for ladder in ladders for each in ladder.by_hand), key=lambda each: cost(each).activations, default=largest)
    network = built(partial(Network, by_hand.at(setting.frame)), setting.device)
    retraining = recipe.retrain.num_steps(setting.images.steps_per_epoch("train", recipe.retrain.batch_size))
    trained = supernet_steps(setting) if first.request.trials else 0
    samples = {
        "the supernet": trained * recipe.supernet.batch_size,
        "finalists": sum(each.steps for each in ladders) * recipe.retrain.batch_size,
        "retraining": len(searches) * retraining * recipe.retrain.batch_size,
    }
    told, memory = shared(recipe.supernet, devices), dict[str, float]()
    if trained:
        memory[f"the supernet's training ({told.batch_size} images)"] = training_bytes(supernet, setting, told, told.batch_size, (largest,))
    alone = shared(recipe.retrain, devices)
    memory[f"retraining ({alone.batch_size})"] = training_bytes(network, setting, alone, alone.batch_size)
    params = cost(by_hand).params
    networks = sum(len(each.by_hand) + first.finalists for each in ladders) if first.finalists else 0
    storage = {
        "supernet": checkpoint_bytes(sum(each.numel() for each in supernet.parameters()), recipe.supernet) if trained else 0,
        f"{networks} networks trained alone, at most": networks * checkpoint_bytes(params, recipe.retrain.model_copy(update={"ema": True})),
        "retraining": len(searches) * (checkpoint_bytes(params, recipe.retrain) + 4 * params),
        "studies": sum(each.request.trials for each in searches) * TRIAL,
    }
    lines = {
        "samples": ", ".join(f"{_count(num)} images by {name}" for name, num in samples.items() if num),
        "memory": f"{', '.join(f'{_bytes(size)} in {name}' for name, size in memory.items())}{' on each device' * (devices > 1)}, besides what torch takes itself",
        "storage": ", ".join(f"{_bytes(size)} {name}" for name, size in storage.items() if size),
    }
    if devices > 1:
        gradients = {"supernet": sum(each.nbytes for each in supernet.parameters()), "network": 4 * params}
        told_of = " or ".join(f"{_bytes(size)} ({name})" for name, size in gradients.items())
        lines["devices"] = (
            f"{devices}: each computes its part of a batch; exchanging gradients, {told_of} a step at most, is not in the time"
        )
    return lines


def checkpoint_bytes(params: int, phase: Phase) -> int:
    """Of a training's last two checkpoints: weights, AdamW's two moments, and averaged weights where the phase has them."""
    return 2 * 4 * params * (3 + phase.ema)


def _bytes(size: float) -> str:
    return format_quantity("memory_bytes", size)


def _count(num: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if num >= size:
            return f"{num / size:.3g} {unit}"
    return f"{num:.0f}"
