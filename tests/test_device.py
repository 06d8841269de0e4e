"""What goes to a device at each step of a training, and what is waited for. torch's device `meta` stands in for a GPU: its tensors have no values,
so that whatever reads one back, which on a GPU is a wait, is an error."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from image_files import equal
from together import FRAME, MADE, MIXED, network, supernet
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import nas.training.loop
from nas.data import Augmentation, Data, open_data
from nas.data.parts import WHOLE, Part
from nas.data.transfer import moved
from nas.machine import cpu_bf16
from nas.networks.architecture import Stage
from nas.networks.mixers import MIXERS
from nas.networks.precision import autocast, bf16_note, float32, has_bf16
from nas.training.loop import Course, evaluate, train_model
from nas.training.ranks import ALONE
from nas.training.setting import open_device
from nas.training.watch import Watch

CPU, META, CUDA = map(torch.device, ("cpu", "meta", "cuda"))
DRAWN = MIXED.model_copy(update={"randaugment": None})  # whose operations are torchvision's, and copy numbers of their own
ALL_MIXERS = Stage(32, tuple(MIXERS), 1.0, cpe=True, kernel=3, head_width=16)


class Copies(TorchDispatchMode):
    """Counts what is copied from the CPU to another device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten.lift_fresh):
            tensors = [each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)]
            kinds = [each.device.type for each in tensors]
            # `torch.tensor(numbers, device=...)` shows itself by its result alone
            self.count += ("cpu" in kinds and set(kinds) != {"cpu"}) or (
                func.overloadpacket == torch.ops.aten.lift_fresh and "cpu" not in kinds
            )
        return out


def digits(device: torch.device = META, memory_limit: int = 2**30, part: Part = WHOLE, side: int = FRAME.resolution) -> Data:
    data = open_data("digits").load(side, device, 0, memory_limit, part)
    assert data.mean  # found out before the pixels go where nothing comes back from
    return data


def test_several_tensors_reach_a_gpu_in_one_copy_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = torch.tensor([3, 2**40]), torch.tensor([True, False, True]), torch.rand(3, 4)[:, ::2], torch.tensor([]), torch.tensor(7.5)
    asked: list[Any] = []

    def to(self: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        asked.append((device, non_blocking, hasattr(self, "pinned")))
        return self.clone()

    def pin_memory(self: Tensor) -> Tensor:
        pinned = self.clone()
        pinned.pinned = True  # type: ignore[attr-defined]
        return pinned

    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    got = moved(CUDA, *tensors)
    assert asked == [(CUDA, True, True)]
    assert [(each.dtype, each.shape) for each in got] == [(each.dtype, each.shape) for each in tensors]
    assert all(map(torch.equal, got, tensors))
    assert moved(CPU, *tensors) == tensors and len(asked) == 1


@pytest.mark.parametrize(
    ("augmentation", "memory_limit", "copies"),
    [
        (Augmentation(), 2**30, 1),  # which images: pixels and labels are there
        (DRAWN, 2**30, 2),
        (DRAWN.model_copy(update={"crop": "resized"}), 2**30, 2),
        (DRAWN, 0, 3),  # pixels and labels, by loaders
    ],
)
@pytest.mark.parametrize("part", [WHOLE, Part(1, 3)])
def test_a_batch_is_a_few_copies_and_no_wait(augmentation: Augmentation, memory_limit: int, copies: int, part: Part) -> None:
    batches = digits(META, memory_limit, part, side=8).batches("fit", 14, 0, augmentation)(
        0
    )  # as they are: boxes are cut from pixels there
    next(batches)  # what is kept there for all batches is copied now
    with Copies() as seen:
        x, targets = list(itertools.islice(batches, 4))[-1]
    assert x.device == targets.device == META
    assert seen.count == 4 * copies


def steps_on_meta(
    made: tuple[nn.Module, Callable[[int], tuple[Any, ...]]],
    monkeypatch: pytest.MonkeyPatch,
    ranks: Any = ALONE,
    steps: int = 4,
    **how: Any,
) -> tuple[int, list[int]]:
    """Copies in a step, and after which steps the loop looked."""
    (model, path), phase = made, MADE["network"][1].model_copy(update={"steps": 99, "augmentation": DRAWN, **how})
    batches = digits(part=ranks.part).batches("fit", phase.batch_size, 0, phase.augmentation)
    looks: list[int] = []
    monkeypatch.setattr(nas.training.loop._State, "looked_at", lambda self: (looks.append(self.done), 0.0)[1])
    monkeypatch.setattr(sys.modules["torch.optim.optimizer"], "_get_fused_kernels_supported_devices", lambda: ["meta"])
    monkeypatch.setattr(nas.training.loop, "CHECKPOINT_SECONDS", float("inf"))  # nothing but steps
    real = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device=CPU: real())  # timm's averaged weights want one, which they do not use

    class Enough(Exception):
        """Ends a training that cannot end on `meta`: it would tell how many steps were skipped."""

    with Copies() as seen:

        def counted(start: int) -> Iterator[tuple[Tensor, Tensor]]:
            for step, batch in enumerate(batches(start)):
                if step == 2:
                    seen.count = 0
                if step == steps:
                    raise Enough
                yield batch

        with pytest.raises(Enough):
            train_model(model.to(META), counted, Course(phase, 99, 0, ranks=ranks), Watch(), path)
    assert seen.count % (steps - 2) < 3, "a batch more is made than is trained"
    return seen.count // (steps - 2), looks


def test_a_training_step_copies_its_batch_alone_and_waits_for_nothing_but_every_tenth_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_on_meta(supernet(), monkeypatch, steps=12) == (2, [10])


def test_no_mixer_copies_or_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_on_meta(network((ALL_MIXERS,), 0.3), monkeypatch) == (2, [])


def test_parts_of_a_batch_and_several_processes_do_not_wait_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """One copy more for which rows of the batch they do, and for processes one of what they tell each other."""
    small = Stage(16, ("conv",), 1.0, kernel=3)
    assert steps_on_meta(network((small,), 0.3), monkeypatch, accumulate=3, recompute=True) == (3, [])
    silent = {name: lambda *_: None for name in ("share", "agree", "sum")}
    two = SimpleNamespace(count=2, part=Part(1, 2), first=True, **silent)
    assert steps_on_meta(network((small,), 0.3), monkeypatch, two) == (4, [])


def test_no_gpu_is_visible_where_a_test_does_not_ask_for_one() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and open_device("auto").type == "cpu"


def test_kept_batches_are_bytes_and_equal_the_others_to_the_bit() -> None:
    data = digits(CPU)
    kept, others = data.kept("held_out", 50), list(data.evaluation_batches("held_out", 50))
    assert {x.dtype for x, _ in kept.batches} == {torch.uint8}
    assert equal(list(kept), others) and equal(list(kept), others), "as often as they are gone through"
    model = nn.Sequential(nn.Flatten(), nn.Linear(FRAME.resolution**2, 10))
    assert evaluate(model, kept) == evaluate(model, others) > 0


@pytest.mark.parametrize(("tf32", "products"), [(True, "high"), (False, "highest")])
def test_a_gpu_multiplies_float32_as_told_within_the_block_alone(tf32: bool, products: str) -> None:
    def now() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    with pytest.raises(KeyError), float32(CUDA, tf32):
        assert now() == (products, tf32)
        raise KeyError
    assert now() == before
    with float32(CPU, tf32):
        assert now() == before


def test_bf16_runs_where_a_gpu_has_it_and_a_sentence_says_where_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for own in (True, False):
        monkeypatch.setattr("nas.networks.precision.has_bf16", lambda device, own=own: own)
        monkeypatch.setattr(torch, "autocast", lambda *of: of)
        wanted = [autocast(bf16, CUDA) == ("cuda", torch.bfloat16) for bf16 in ("gpu", "auto", "always", "never")]
        assert wanted == [own, own, True, False]
        said = [bool(bf16_note(bf16, device)) for device in (CUDA, CPU) for bf16 in ("gpu", "always", "never")]
        assert said == ([False] * 6 if own else [True, True, False, False, True, False])
        assert bool(bf16_note("auto", CUDA)) is not own


# What the system says, whether it has bfloat16 (or may have), and whether `auto` takes it: it was measured with avx512_bf16 alone.
PROCESSORS = [
    ("flags\t\t: fpu avx512f avx512_bf16", True, True),
    ("flags\t\t: fpu amx_bf16 amx_tile", True, False),
    ("Features\t: asimd bf16", True, False),
    ("flags\t\t: fpu avx2 avx512f", False, False),
    ("", True, False),
]


@pytest.mark.parametrize(("told", "own", "taken"), PROCESSORS, ids=["avx512_bf16", "amx", "arm", "without", "untold"])
def test_bf16_runs_where_a_processor_is_known_to_gain_and_a_sentence_says_so(
    told: str, own: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pathlib.Path.read_text", lambda self, **how: f"processor\t: 0\n{told}\n")
    monkeypatch.setattr("nas.networks.precision.has_bf16", has_bf16.__wrapped__)
    monkeypatch.setattr("nas.networks.precision.cpu_bf16", cpu_bf16.__wrapped__)
    monkeypatch.setattr(torch, "autocast", lambda *of: of)
    wanted = [autocast(bf16, CPU) == ("cpu", torch.bfloat16) for bf16 in ("gpu", "auto", "always", "never")]
    assert wanted == [False, taken, True, False] and has_bf16.__wrapped__(CPU) == own
    said = [bool(bf16_note(bf16, CPU)) for bf16 in ("gpu", "auto", "always", "never")]
    assert said == [False, taken, not own, False]
