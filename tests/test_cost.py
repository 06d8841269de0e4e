"""The cost of a network by arithmetic is, to the integer, what tracing finds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tracing import torch_macs, trace

from nas.cost import cost, stage_costs
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.quantities import Cost
from nas.spaces.decisions import SearchSpace

HERE = Path(__file__).parent
SPACE_FILES = [*sorted((HERE.parent / "search_spaces").glob("*.yaml")), *sorted((HERE / "spaces").glob("*.yaml"))]


def draw(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    rng = random.Random(seed)
    return [space.decode(space.random(rng)) for _ in range(count)]


def image_shape(frame: Frame) -> tuple[int, ...]:
    return 1, frame.channels, frame.resolution, frame.resolution


def at_another_frame(space: SearchSpace) -> SearchSpace:
    """The space for one channel and another resolution, the largest of these that its mixers take."""
    for resolution in (64, 48, 32, 16):
        if resolution != space.frame.resolution:
            try:
                return space.at(Frame(resolution, channels=1, classes=7))
            except ValueError:
                continue
    pytest.fail("no other resolution fits")


@pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)
def test_cost_equals_tracing(path: Path) -> None:
    space = SearchSpace.read(path)
    mixers_alone = [space.decode({**space.random(random.Random(0)), **pattern}) for pattern in space.patterns().values()]
    for architecture in [*mixers_alone, *draw(space, 3, seed=1), *draw(at_another_frame(space), 1, seed=2)]:
        traced = trace(lambda architecture=architecture: Network(architecture), *image_shape(architecture.frame))
        assert cost(architecture) == traced, architecture


@pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)
def test_tracing_counts_what_torch_counts(path: Path) -> None:
    """The tracer uses torch's formulas, operation by operation; here torch's counter does all of it."""
    for architecture in draw(SearchSpace.read(path), 2, seed=3):
        assert cost(architecture).macs == torch_macs(
            lambda architecture=architecture: Network(architecture), *image_shape(architecture.frame)
        )


@pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)
def test_parts_add_up(path: Path) -> None:
    for architecture in draw(SearchSpace.read(path), 50, seed=4):
        parts = stage_costs(architecture)
        assert list(parts) == ["stem", *(f"stages.{i}" for i in range(len(architecture.stages))), "head"]
        assert Cost(*map(sum, zip(*parts.values(), strict=True))) == cost(architecture)


def test_sharing_saves_parameters_and_nothing_else() -> None:
    def network(mixer: str, sharing: bool, depth: int) -> Cost:
        stage = Stage(32, (mixer,) * depth, 2.0, sharing=sharing, kernel=3, head_width=16)
        return cost(Architecture(Frame(32, 3, 10), 4, (stage,)))

    for mixer, own in (("conv", 32 * 9 + 32), ("s2_shift", 2 * (32 * 32 + 32)), ("attention", 4 * (32 * 32 + 32))):
        apart, shared = network(mixer, False, 3), network(mixer, True, 3)
        assert (shared.macs, shared.activations) == (apart.macs, apart.activations)
        assert apart.params - shared.params == 2 * own


def test_a_network_by_hand() -> None:
    stage = Stage(8, ("conv",), 2.0, kernel=3)
    stem, conv, mlp, head = 16 * 8 * (3 * 4 * 4), 16 * 8 * 9, 2 * 16 * 8 * 16, 8 * 10
    norms = 4 * (8 + 8) + 8  # after the stem, before mixer, channel MLP and head; and the scale
    params = (3 * 16 * 8 + 8) + (9 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + (8 * 10 + 10) + norms
    expected = Cost(stem + conv + mlp + head, params, activations=16 * 8 + 16 * 8 + 16 * (16 + 8) + 10)
    assert cost(Architecture(Frame(16, 3, 10), 4, (stage,))) == expected
