"""What a step of the supernet trains: laws that a user relies on, whatever the scheme by which sizes and mixers are drawn."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.networks.mixers import NO_MIXER
from nas.spaces.decisions import SearchSpace
from nas.training.paths import paths_of_step

HERE = Path(__file__).parent
SPACE_FILES = [*sorted((HERE.parent / "search_spaces").glob("*.yaml")), HERE / "spaces" / "conv4.yaml"]
STEPS = 300


@cache
def read(path: Path) -> SearchSpace:
    return SearchSpace.read(path)


@cache
def steps(path: Path) -> list[list[Architecture]]:
    return [paths_of_step(read(path), seed=0, step=step) for step in range(STEPS)]


by_space = pytest.mark.parametrize("path", SPACE_FILES, ids=lambda path: path.stem)


def trained(architecture: Architecture) -> Counter[tuple[int, int | str, str]]:
    """(stage, block or 'shared', mixer) of every mixer that the architecture trains, once per path."""
    stages = enumerate(architecture.stages)
    return Counter(
        (i, "shared" if stage.sharing else j, mixer)
        for i, stage in stages
        for j, mixer in enumerate(stage.mixers[: 1 if stage.sharing else None])
    )


@by_space
def test_the_paths_are_a_function_of_seed_and_step(path: Path) -> None:
    space = read(path)
    for step in (0, 1, 999):
        assert paths_of_step(space, 7, step) == paths_of_step(space, 7, step)
    drawn = [tuple(each.key for each in paths_of_step(space, seed, step)) for seed in range(5) for step in range(20)]
    assert len(set(drawn)) > 20  # other seeds and other steps have other paths


@by_space
def test_every_step_has_as_many_paths_as_the_longest_list_of_mixers_needs(path: Path) -> None:
    """A run says before it begins how many paths a step has."""
    assert len({len(paths) for paths in steps(path)}) == 1
    assert len(steps(path)[0]) >= max(len(options) for options in read(path).mixer_decisions.values())


@by_space
def test_both_ends_of_the_space_are_trained_in_every_step(path: Path) -> None:
    """The sandwich rule: a network with the largest sizes and one with the smallest, whatever their mixers."""
    space = read(path)
    sizes = [name for name in space.decisions if name not in space.mixer_decisions]
    for paths in steps(path)[:100]:
        for end in (0, -1):
            extreme = {name: space.decisions[name][end] for name in sizes}
            assert any(space.decode({**space.encode(each), **extreme}) == each for each in paths)


@by_space
def test_every_mixer_of_a_block_is_trained_equally_often(path: Path) -> None:
    """Over many steps, to a tenth; where blocks share one mixer or have none, `none` is not told apart from not sharing, and is left out."""
    space = read(path)
    counts: Counter[tuple[int, int | str, str]] = Counter()
    for paths in steps(path):
        counts.update(sum(map(trained, paths), Counter()))
    places = {place[:2] for place in counts}
    assert {(i, 0) for i in range(len(space.decode(space.encode(steps(path)[0][0])).stages))} <= places
    for i, block in places:
        offered = space.mixer_decisions.get(f"s{i}.b{0 if block == 'shared' else block}.mixer", ())
        by_mixer = {str(mixer): counts[i, block, str(mixer)] for mixer in offered if mixer != NO_MIXER}
        mean = sum(by_mixer.values()) / max(1, len(by_mixer))
        assert all(abs(count - mean) <= 0.1 * mean + 10 for count in by_mixer.values()), (i, block, by_mixer)


@by_space
def test_every_option_of_every_decision_is_trained(path: Path) -> None:
    """A size that no step trained would be judged by weights that never were its own: each is in at least a tenth of the steps."""
    space = read(path)
    seen: Counter[tuple[str, object]] = Counter()
    for paths in steps(path):
        seen.update({(name, value) for each in paths for name, value in space.encode(each).items()})
    for name, options in space.decisions.items():
        assert all(seen[name, option] >= STEPS / 10 for option in options), (name, seen)


def test_the_paths_of_a_step_spread_over_the_range_of_costs() -> None:
    macs = [[cost(each).macs for each in paths] for paths in steps(HERE.parent / "search_spaces" / "cifar.yaml")]
    assert all(max(each) > 3 * min(each) for each in macs)
