"""What the networks of a search are evaluated with: which weights, images, precision and threads, and what counts as a failure."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.data import Kept
from nas.networks.architecture import Architecture, Frame
from nas.networks.mixers import MIXERS
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching import evaluating
from nas.searching.candidates import Looks
from nas.searching.evaluating import Evaluator, evaluator_of, open_evaluator
from nas.searching.finals import Finals
from nas.searching.ladder import Finalist
from nas.searching.ray_cluster import Crew
from nas.searching.search import Evaluation, SearchRequest
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training.loop import evaluate

CPU = torch.device("cpu")
STAGE = {"width": [8, 16], "depth": [1, 2], "mixer": ["conv", "token_mlp"], "mlp_ratio": [1.0, 2.0]}
SPACE = SearchSpace.from_data(
    {"format": "search space 1", "frame": {"resolution": 16, "channels": 3, "classes": 4}, "patch": 4, "stages": [STAGE]}, "toy", "toy.yaml"
)


class Recipe:
    """Stands for a recipe: says whether its autocast is entered."""

    entered: torch.device | None = None

    @contextlib.contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        Recipe.entered = device
        yield
        Recipe.entered = None


def random_networks(num: int) -> list[Architecture]:
    rng = random.Random(0)
    return [SPACE.decode(SPACE.random(rng)) for _ in range(num)]


@pytest.fixture(params=["copied", "itself"], autouse=True)
def itself(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are copied out of the supernet, as on a CPU, or run by it, as on a GPU."""
    monkeypatch.setattr(evaluating, "ITSELF", {"cpu"} if request.param == "itself" else set())


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    """Left in training mode, with weights that tell images apart."""
    torch.manual_seed(0)
    supernet = Supernet(SPACE)
    for parameter in supernet.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter)
    return supernet


@pytest.fixture(scope="module")
def batches(supernet: Supernet) -> Kept:
    """Three batches of unequal sizes, whose classes are as the first random network has them, but for the last image of each."""
    torch.manual_seed(1)
    noise = [torch.randn(num, 3, 16, 16) + 3 * torch.randn(num, 3, 1, 1) for num in (8, 5, 2)]
    return labelled([(128 + 20 * x).clamp(0, 255).to(torch.uint8) for x in noise], supernet.subnet(random_networks(1)[0]))


def labelled(pixels: list[Tensor], network: nn.Module) -> Kept:
    """Batches whose classes are as a network has them, but for the last image of each."""
    unlabelled = Kept(tuple((x, torch.arange(len(x))) for x in pixels), torch.full((3, 1, 1), 128.0), torch.full((3, 1, 1), 20.0))
    with torch.no_grad():
        said = [network.eval()(x).argmax(1) + (numbers == len(x) - 1) for x, numbers in unlabelled]
    return replace(unlabelled, batches=tuple(zip(pixels, said, strict=True)))


def slow_accuracy(supernet: Supernet, batches: Kept, architecture: Architecture) -> float:
    """Image by image through a copy of the network."""
    network = supernet.subnet(architecture).eval()
    with torch.no_grad():
        right = [network(x[None])[0].argmax() == y for images, targets in batches for x, y in zip(images, targets, strict=True)]
    return sum(map(bool, right)) / len(right)


def test_accuracy_is_of_the_subnet_on_all_held_out_images(supernet: Supernet, batches: Kept) -> None:
    networks = random_networks(8)
    with open_evaluator(supernet, batches, Recipe(), CPU, Crew()) as evaluator:  # type: ignore[arg-type]
        accuracies = [each.accuracy for each in evaluator.evaluate(networks)]
        elsewhere = networks[0].at(Frame(32, 1, 10))  # as budgets may be counted in another frame
        assert [*evaluator.evaluate([elsewhere])] == [Evaluation(accuracies[0])]
    assert accuracies == pytest.approx([slow_accuracy(supernet, batches, network) for network in networks])
    assert accuracies[0] == pytest.approx(12 / 15) and len(set(accuracies)) > 2


def test_the_supernet_itself_gives_the_accuracy_of_the_networks_copied_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every mixer, shared between blocks and not, and of every size; nothing is copied, and nothing left behind."""
    monkeypatch.setattr(evaluating, "ITSELF", {"cpu"})
    stage = {
        "width": [32, 64], "depth": [1, 2, 3], "mixer": list(MIXERS), "mlp_ratio": [1.0, 2.0], "kernel": [3, 5], "head_width": [8, 16],
        "cpe": [False, True], "sharing": [False, True],
    }  # fmt: skip
    frame = {"resolution": 16, "channels": 3, "classes": 7}
    space = SearchSpace.from_data({"format": "search space 1", "frame": frame, "patch": 4, "stages": [stage, stage]}, "all", "all.yaml")
    torch.manual_seed(0)
    supernet, rng = Supernet(space), random.Random(0)
    for parameter in supernet.parameters():
        nn.init.normal_(parameter, std=0.3)
    drawn = [space.decode(space.random(rng)) for _ in range(12)]
    drawn += [space.decode({**space.random(rng), **pattern}) for pattern in space.patterns().values()]
    batches = labelled([torch.randint(256, (num, 3, 16, 16), dtype=torch.uint8) for num in (20, 9)], supernet.subnet(drawn[0]))
    copied = [evaluate(supernet.subnet(network), batches) for network in drawn]
    weights = {name: value.clone() for name, value in supernet.state_dict().items()}
    supernet.subnet = None  # type: ignore[assignment,method-assign]  # who calls it fails
    with open_evaluator(supernet, batches, Recipe(), CPU, Crew()) as evaluator:  # type: ignore[arg-type]
        assert [each.accuracy for each in evaluator.evaluate(drawn)] == copied
    assert len(set(copied)) > 5 and {each for network in drawn for stage in network.stages for each in stage.mixers} == set(MIXERS)
    assert {stage.sharing for network in drawn for stage in network.stages} == {False, True}
    assert all(torch.equal(value, weights[name]) for name, value in supernet.state_dict().items()) and not supernet._forward_hooks


def test_a_wish_to_stop_is_heeded_between_the_batches_of_an_evaluation(supernet: Supernet, batches: Kept) -> None:
    """Of a large network on many images one takes minutes."""
    wishes = iter([False] * (len(batches.batches) + 1) + [True])
    with open_evaluator(supernet, batches, Recipe(), CPU, Crew(), lambda: next(wishes)) as evaluator:  # type: ignore[arg-type]
        found = evaluator.evaluate(random_networks(3))
        assert next(found).accuracy is not None
        with pytest.raises(Stopped):
            next(found)
    assert len(batches.batches) > 1 and not [*wishes]


def test_a_worker_evaluates_as_this_process_does(supernet: Supernet, batches: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Pool:
        """Stands for Ray's workers: keeps what it was made with."""

        def __init__(self, crew: Crew, factory: Any, payload: Any, *, gpu: bool, stop: Any) -> None:
            given.update(crew=crew, factory=factory, payload=payload, gpu=gpu, stop=stop)

        evaluate, settle = "evaluated", "settled"

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None:
            given["closed"] = True

    monkeypatch.setattr(evaluating, "Workers", Pool)
    networks, threads = random_networks(4), torch.get_num_threads()
    with open_evaluator(supernet, batches, Recipe(), CPU, Crew()) as evaluator:  # type: ignore[arg-type]
        expected = list(evaluator.evaluate(networks))
    for workers in (1, 2, 10**6):
        with open_evaluator(supernet, batches, Recipe(), CPU, Crew(workers)) as evaluator:  # type: ignore[arg-type]
            assert evaluator == ("evaluated", "settled") and not given.get("closed")
        assert given.pop("closed") and (given["crew"], given["gpu"]) == (Crew(workers), False)
    with open_evaluator(supernet, batches, Recipe(), torch.device("cuda"), Crew(3), bool):  # type: ignore[arg-type]
        assert given["gpu"] and given["stop"] is bool
    assert given["factory"] is evaluator_of
    try:
        evaluate = evaluator_of({**given["payload"], "device": "cpu"}, 3)
        assert torch.get_num_threads() == 3
        assert [evaluate(network) for network in networks] == expected
    finally:
        torch.set_num_threads(threads)


class FakeSupernet(nn.Module):
    """Does as `run` says, and notes how it is run."""

    space = SimpleNamespace(frame=SPACE.frame)

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.passes: list[tuple[object, ...]] = []

    def subnet(self, architecture: Architecture) -> FakeSupernet:
        assert architecture.frame == SPACE.frame
        return self.train()

    def forward(self, images: Tensor, *path: Architecture) -> Tensor:
        assert [each.frame for each in path] == [SPACE.frame] * ("cpu" in evaluating.ITSELF)
        self.passes.append((self.training, torch.is_inference_mode_enabled(), Recipe.entered))
        return self.run(images)


def evaluations(forward: Callable[[Tensor], Tensor], batches: Any, num: int = 1) -> tuple[list[Evaluation], list[tuple[object, ...]]]:
    fake = FakeSupernet(forward)
    with open_evaluator(fake, batches, Recipe(), CPU, Crew()) as evaluator:  # type: ignore[arg-type]
        results = evaluator.evaluate(random_networks(num))
        assert not fake.passes, "evaluated before it is asked for"
        return list(results), fake.passes


def test_it_runs_in_evaluation_mode_without_gradients_under_the_recipes_autocast(batches: Kept) -> None:
    _, passes = evaluations(lambda images: images.mean((2, 3)), batches)
    assert passes == [(False, True, CPU)] * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("size", [8, 5, 2])
def test_one_logit_that_is_not_finite_is_a_failure(value: float, size: int, batches: Kept) -> None:
    def forward(images: Tensor) -> Tensor:
        logits = images.mean((2, 3))
        if len(images) == size:
            logits[0, 2] = value
        return logits

    assert evaluations(forward, batches)[0] == [Evaluation(failure="logits are not finite")]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_a_failure_and_the_next_network_is_evaluated(error: Exception, batches: Kept) -> None:
    errors = [error]

    def forward(images: Tensor) -> Tensor:
        if errors:
            raise errors.pop()
        return images.mean((2, 3))

    first, second = evaluations(forward, batches, num=2)[0]
    assert first == Evaluation(failure="out of memory") and second.accuracy is not None


def test_a_candidate_that_cannot_be_evaluated_has_no_score_and_the_next_one_is_looked_at(batches: Kept, tmp_path: Path) -> None:
    """What a ladder chooses by is evaluated as a search does it; what was found out is not found out again."""
    faults = [MemoryError(), torch.nan]

    def forward(images: Tensor) -> Tensor:
        fault = faults.pop(0) if faults else 1.0
        if isinstance(fault, MemoryError):
            raise fault
        return images.mean((2, 3)) * fault

    fake, networks = FakeSupernet(forward), list({each.key: each for each in random_networks(8)}.values())[:3]
    looks = Looks(Run("found", tmp_path), "study", (), lambda architecture: {}, lambda: False)
    opened: Any = SimpleNamespace(setting=SimpleNamespace(autocast=partial(Recipe().autocast, CPU), frame=SPACE.frame))
    finals = Finals(opened, "study", SearchRequest((), 0, 2), 3, Crew(), looks)
    finals.__dict__["_tuned"] = SimpleNamespace(held_out=batches)
    candidates = [Finalist("model", each) for each in networks]
    for _ in range(2):
        found = finals._look(fake, candidates, 3, scored=True)  # type: ignore[arg-type]
        assert [each.architecture for each in found] == networks
        assert [each.supernet is None for each in found] == [True, True, False]
    assert len(fake.passes) == 1 + 3 + 3


def test_memory_really_runs_out(batches: Kept) -> None:
    assert evaluations(lambda images: torch.empty(10**17), batches)[0] == [Evaluation(failure="out of memory")]


def test_any_other_error_is_raised(batches: Kept) -> None:
    def forward(images: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        evaluations(forward, batches)


def test_a_measurement_waits_each_time_until_nothing_is_at_work() -> None:
    log: list[object] = []
    evaluator = Evaluator(lambda networks: iter(()), lambda: log.append("settled"))
    measure = evaluator.alone(lambda architecture: (log.append(architecture), 7.5)[1])  # type: ignore[func-returns-value]
    networks = random_networks(2)
    assert [measure(network) for network in networks] == [7.5, 7.5]
    assert log == ["settled", networks[0], "settled", networks[1]]
