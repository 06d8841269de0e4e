"""What a step of the supernet trains: every mixer of a block equally often, at one size, and both ends."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from nas.networks.architecture import Architecture
from nas.networks.mixers import NO_MIXER
from nas.spaces.decisions import SearchSpace
from nas.training.paths import paths_of_step

SPACE_FOLDER = Path(__file__).parents[1] / "search_spaces"
SPACE_FILES = sorted(SPACE_FOLDER.glob("*.yaml"))
STEPS = 600


@cache
def read(path: Path) -> SearchSpace:
    return SearchSpace.read(path)


@pytest.fixture(params=SPACE_FILES, ids=lambda path: path.stem)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return read(request.param)


@cache
def steps_of_cifar() -> list[list[Architecture]]:
    space = read(SPACE_FOLDER / "cifar.yaml")
    return [paths_of_step(space, seed=0, step=step) for step in range(STEPS)]


def longest(space: SearchSpace) -> int:
    return max(len(options) for options in space.mixer_decisions.values())


def shares(architecture: Architecture, i: int, paths: list[Architecture]) -> bool:
    """Whether the stage was drawn to share its mixer: where there is none to share it does not show, but in the step's other paths."""
    stage = architecture.stages[i]
    return stage.sharing or (set(stage.mixers) == {NO_MIXER} and any(path.stages[i].sharing for path in paths))


def sizes(architecture: Architecture, paths: list[Architecture]) -> list[tuple[object, ...]]:
    """What a step draws once. Sharing at depth one and the options of mixers that are not there do not show."""
    return [
        (stage.width, stage.depth, stage.mlp_ratio, stage.cpe, shares(architecture, i, paths))
        for i, stage in enumerate(architecture.stages)
    ]


def places(architecture: Architecture, paths: list[Architecture]) -> list[tuple[int, int | str, str]]:
    """(stage, block or 'shared', mixer) of every block that the architecture trains."""
    found: list[tuple[int, int | str, str]] = []
    for i, stage in enumerate(architecture.stages):
        one = shares(architecture, i, paths)
        found += [(i, "shared", stage.mixers[0])] if one else [(i, j, mixer) for j, mixer in enumerate(stage.mixers)]
    return found


def test_the_paths_are_a_function_of_seed_and_step(space: SearchSpace) -> None:
    for step in (0, 1, 999):
        assert paths_of_step(space, 7, step) == paths_of_step(space, 7, step)
    drawn = {tuple(path.key for path in paths_of_step(space, seed, step)) for seed in range(5) for step in range(20)}
    assert len(drawn) == 100


def test_m_paths_of_one_size_use_every_mixer_of_a_block_once(space: SearchSpace) -> None:
    """A list shorter than the longest begins a new order: each of its mixers runs as often as the others, or once more."""
    m = longest(space)
    for step in range(100):
        paths = paths_of_step(space, 0, step)[:-2]
        assert len(paths) == m
        assert all(sizes(path, paths) == sizes(paths[0], paths) for path in paths)
        used: dict[tuple[int, int | str], Counter[str]] = {}
        for i, block, mixer in (place for path in paths for place in places(path, paths)):
            used.setdefault((i, block), Counter())[mixer] += 1
        for (i, block), counts in used.items():
            known = space.mixer_decisions.get(f"s{i}.b{0 if block == 'shared' else block}.mixer")
            if known is None:  # fixed
                continue
            assert set(counts) == set(known)
            assert set(counts.values()) <= {m // len(known), -(-m // len(known))}


def test_the_largest_and_the_smallest_size_run_last_with_the_pattern_of_one_of_the_paths(space: SearchSpace) -> None:
    first, last = (
        {name: options[end] for name, options in space.decisions.items() if name not in space.mixer_decisions} for end in (0, -1)
    )
    for step in range(100):
        *paths, largest, smallest = paths_of_step(space, 0, step)
        # at the largest size nothing of a pattern is cut off or shared
        pattern = {name: value for name, value in space.encode(largest).items() if name in space.mixer_decisions}
        assert space.decode({**last, **pattern}) == largest
        assert space.decode({**first, **pattern}) == smallest
        assert any(all(mixer == mixer_at(largest, i, block) for i, block, mixer in places(path, paths)) for path in paths)


def mixer_at(largest: Architecture, i: int, block: int | str) -> str:
    """The mixer of the same decision; the first block's serves all where it is shared."""
    return largest.stages[i].mixers[0 if block == "shared" else int(block)]


def test_updates_over_600_steps() -> None:
    """Among the mixers of a place the m paths differ by nothing where its list is the longest.

    A shorter list (7 of 8 in the first stage) gets one extra turn a step, drawn evenly; the two ends draw one of the m patterns evenly. Those
    counts are binomial: the bounds are four standard deviations.
    """
    space = read(SPACE_FOLDER / "cifar.yaml")
    m = longest(space)
    active: Counter[tuple[int, int | str]] = Counter()
    by_paths: Counter[tuple[int, int | str, str]] = Counter()
    by_ends: Counter[tuple[int, int | str, str]] = Counter()
    for *paths, largest, smallest in steps_of_cifar():
        active.update({place[:2] for place in places(paths[0], paths)})
        by_paths.update(place for path in paths for place in places(path, paths))
        by_ends.update(places(largest, []) + places(smallest, []))
    assert {place[:2] for place in by_paths} == {(i, block) for i in range(3) for block in (0, 1, "shared")}
    for (i, block), steps in active.items():
        mixers = space.mixer_decisions[f"s{i}.b{0 if block == 'shared' else block}.mixer"]
        k = len(mixers)
        for mixer in mixers:
            count, extra = by_paths[i, block, mixer], (m % k) / k
            if k == m:
                assert count == steps
            assert steps * (m // k) <= count <= steps * -(-m // k)
            assert abs(count - steps * m / k) <= 4 * math.sqrt(steps * extra * (1 - extra))
            # the largest size has all blocks and shares nothing, the smallest has the first block of each stage
            ends = {0: 2, 1: 1, "shared": 0}[block]
            assert abs(by_ends[i, block, mixer] - ends * STEPS / k) <= 4 * ends * math.sqrt(STEPS / k)


def test_a_size_is_drawn_evenly() -> None:
    space = read(SPACE_FOLDER / "cifar.yaml")
    for i in range(3):
        for field in ("width", "depth", "mlp_ratio", "cpe"):
            options = space.decisions[f"s{i}.{field}"]
            counts = Counter(getattr(paths[0].stages[i], field) for paths in steps_of_cifar())
            assert set(counts) == set(options)
            assert all(abs(count - STEPS / len(options)) <= 4 * math.sqrt(STEPS / len(options)) for count in counts.values())
