"""What the networks of a search are worth: accuracy on the held-out images with the supernet's weights, in this process or in workers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas.cost.latency import memory_errors
from nas.data import Kept
from nas.networks.architecture import Architecture
from nas.runs.interrupt import heeded
from nas.searching.ray_cluster import Crew
from nas.searching.ray_workers import Workers
from nas.searching.search import LOGITS, MEMORY, Evaluation
from nas.spaces.supernet import Supernet
from nas.training.loop import evaluate
from nas.training.recipe import Recipe

# Where a supernet itself runs what is evaluated. A copy of the network's weights takes a CPU 8 to 20 ms (cifar) or 40 to 100 (hybrid), once; slices make
# each pass 3% to 4% longer, 8 ms for 250 images of cifar, and there are 20 of them. A GPU does not wait for slices, but for a copy it does.
ITSELF = {"cuda"}


class Evaluator(NamedTuple):
    """What evaluates networks, one after the other in this process or beside each other in workers."""

    evaluate: Callable[[Iterable[Architecture]], Iterator[Evaluation]]  # lazily and in the order of the architectures
    settle: Callable[[], None] = lambda: None  # waits until nothing is at work; in this process nothing ever is

    def alone(self, measure: Callable[[Architecture], float]) -> Callable[[Architecture], float]:
        """The measurement, taken while nothing is at work."""

        def measured(architecture: Architecture) -> float:
            self.settle()
            return measure(architecture)

        return measured


@contextlib.contextmanager
def open_evaluator(
    supernet: Supernet, batches: Kept, recipe: Recipe, device: torch.device, crew: Crew, stop: Callable[[], bool] = lambda: False
) -> Iterator[Evaluator]:
    """Opens what evaluates sub-networks of the supernet.

    Args:
        supernet: trained, on the device.
        batches: all held-out images and their class numbers, on the device.
        recipe: says whether autocast runs.
        device: of this process, or the kind of device of the workers.
        crew: without workers this process evaluates.
        stop: asked between batches, and now and then while workers are waited for.

    Raises:
        ValueError: there is no room for so many workers.
        Stopped: `stop` became true; what evaluates raises it too.
    """
    if not crew.num:
        yield Evaluator(partial(map, partial(evaluate_subnet, supernet, batches, partial(recipe.autocast, device), stop=stop)))
        return
    payload = {
        "space": supernet.space,
        "weights": {name: tensor.cpu().numpy() for name, tensor in supernet.state_dict().items()},
        "batches": _mapped(lambda tensor: tensor.cpu().numpy(), batches),
        "device": device.type,
        "recipe": recipe,
    }
    with Workers(crew, evaluator_of, payload, gpu=device.type == "cuda", stop=stop) as pool:
        yield Evaluator(pool.evaluate, pool.settle)


def evaluator_of(payload: dict[str, Any], threads: int) -> Callable[[Architecture], Evaluation]:
    """In a worker: the supernet and the held-out images, held once."""
    torch.set_num_threads(threads)
    device = torch.device(payload["device"])  # Ray shows a worker its own GPU alone
    supernet = Supernet(payload["space"])
    # Ray's arrays are read-only views of its store; torch wants its own.
    supernet.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in payload["weights"].items()})
    batches = _mapped(lambda array: torch.from_numpy(array.copy()).to(device), payload["batches"])
    return partial(evaluate_subnet, supernet.to(device).eval(), batches, partial(payload["recipe"].autocast, device))


def _mapped(each: Callable[[Any], Any], batches: Any) -> Kept:
    """Batches whose tensors, or arrays, are what `each` makes of them."""
    return Kept(tuple((each(x), each(labels)) for x, labels in batches.batches), each(batches.mean), each(batches.std))


def evaluate_subnet(
    supernet: Supernet, batches: Kept, autocast: Callable[[], Any], architecture: Architecture, stop: Callable[[], bool] = lambda: False
) -> Evaluation:
    """Accuracy of one sub-network with inherited weights; a failure where memory runs out or a logit is not finite.

    On a GPU the supernet itself runs it, on slices of its weights. See `ITSELF`.

    Raises:
        Stopped: `stop`, which is asked between batches, became true.
    """
    finite: list[Tensor] = []
    own = architecture.at(supernet.space.frame)
    with contextlib.ExitStack() as until_done:
        try:
            with memory_errors():
                itself = batches.mean.device.type in ITSELF
                model, path = (supernet, (own,)) if itself else (supernet.subnet(own), ())
                noting = model.register_forward_hook(lambda module, inputs, logits: finite.append(logits.isfinite().all()))
                until_done.callback(noting.remove)
                accuracy = evaluate(model, heeded(batches, stop, lambda: "evaluating stopped"), autocast, path)
        except MemoryError:
            return Evaluation(failure=MEMORY)
    return Evaluation(accuracy) if torch.stack(finite).all() else Evaluation(failure=LOGITS)
