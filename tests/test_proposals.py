"""Networks near a budget: every mixer has its turn, and where hardly any fits they are found all the same."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from errors import refused

from nas.cost import cost
from nas.quantities import parse_budgets
from nas.searching.proposals import Band, draw, stratified
from nas.spaces.decisions import SearchSpace

SPACE = """
format: search space 1
frame: {resolution: 32, channels: 3, classes: 10}
patch: 4
stages:
  - {width: [16, 24, 32, 48, 64], depth: [1, 2, 3], mixer: [conv, s2_shift, token_mlp], mlp_ratio: [1, 2, 3]}
  - {width: [32, 64, 96, 128], depth: [1, 2, 3], mixer: [conv, attention], mlp_ratio: [1, 2, 3], head_width: 16}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    path = tmp_path_factory.mktemp("space") / "tiny.yaml"
    path.write_text(SPACE)
    return SearchSpace.read(path)


def band(space: SearchSpace, budget: str, floor: float) -> Band:
    return Band(space, cost, parse_budgets([budget]), floor)


@pytest.mark.parametrize("num", [6, 13, 20])
def test_every_mixer_has_its_turn_in_every_place(space: SearchSpace, num: int) -> None:
    found = stratified(band(space, "3MMACs", 0.8), num, seed=5)
    for name, options in space.mixer_decisions.items():
        counts = Counter(values[name] for values in found)
        assert set(counts) == set(options) and max(counts.values()) - min(counts.values()) <= 1, (name, counts)
    places = list(space.mixer_decisions)
    assert any([v[places[0]] for v in found] != [v[place] for v in found] for place in places[1:3]), "places do not go together"


def test_all_are_different_and_in_the_band(space: SearchSpace) -> None:
    found = [space.decode(values) for values in stratified(band(space, "3MMACs", 0.8), 30, seed=0)]
    assert len({each.key for each in found}) == 30
    shares = [cost(each).macs / 3e6 for each in found]
    assert min(shares) >= 0.8 and max(shares) <= 1
    wide = [cost(space.decode(values)).macs / 3e6 for values in stratified(band(space, "3MMACs", 0.3), 30, seed=0)]
    assert 0.55 < sum(wide) / 30 < 0.75, "sizes from all of the band"


def test_a_longer_list_begins_with_the_shorter_one_and_a_seed_is_a_list(space: SearchSpace) -> None:
    here = band(space, "3MMACs", 0.8)
    assert stratified(here, 20, seed=1)[:7] == stratified(here, 7, seed=1)
    assert stratified(here, 7, seed=2) != stratified(here, 7, seed=1)


def test_mixers_that_come_into_the_band_at_no_size_give_way(space: SearchSpace) -> None:
    """Near the smallest network only some mixers are that small: the list is full all the same, and in the band."""
    least = cost(space.smallest(lambda each: cost(each).macs)).macs
    here = band(space, f"{round(1.5 * least)}MACs", 0.0)
    found = stratified(here, 12, seed=0)
    assert len({space.decode(values).key for values in found}) == 12 and all(here.used(values) <= 1 for values in found)
    counts = [Counter(values[name] for values in found).values() for name in space.mixer_decisions]
    assert any(max(each) - min(each) > 1 for each in counts), "else nothing was tested"


def test_a_band_without_so_many_networks_is_refused(space: SearchSpace) -> None:
    with refused("got 0 of 3"):
        stratified(band(space, "3MMACs", 0.99999999), 3, seed=0)
    least = cost(space.smallest(lambda each: cost(each).macs)).macs
    with refused("of 50"):
        stratified(band(space, f"{least}MACs", 0.0), 50, seed=0)


@pytest.mark.whole
@pytest.mark.parametrize("share", [0.03, 0.5, 0.9, 0.97])
def test_draws_find_most_of_a_narrow_band_with_few_looks_wherever_it_is(share: float) -> None:
    """By counting all networks. Near the ends few mixers fit at any size, and sixty tries of sizes for each would be thousands of looks."""
    data = {"format": "search space 1", "frame": {"resolution": 32, "channels": 3, "classes": 10}, "patch": 4, "stages": [
        {"width": [16, 32, 64], "depth": [1, 2], "mixer": ["conv", "s2_shift", "token_mlp"], "mlp_ratio": [1, 2]},
        {"width": [32, 64, 128], "depth": [1, 2], "mixer": ["conv", "attention"], "mlp_ratio": [1, 2], "head_width": 16},
    ]}  # fmt: skip
    space = SearchSpace.from_data(data, "small", "here")
    every = {space.decode(dict(zip(space.decisions, options, strict=True))) for options in itertools.product(*space.decisions.values())}
    macs = {each.key: cost(each).macs for each in every}
    most = min(macs.values()) + share * (max(macs.values()) - min(macs.values()))
    there = {key for key, its in macs.items() if 0.93 * most <= its <= most}
    narrow, looks = band(space, f"{most:.0f}MACs", 0.93), list[float]()
    drawn = {space.decode(each.values).key for each in draw(narrow, len(there), set(), random.Random(0))}
    assert drawn <= there and len(drawn) > 0.7 * len(there)
    used = narrow.used
    narrow.used = lambda values: looks.append(used(values)) or looks[-1]  # type: ignore[method-assign, func-returns-value]
    few = len(draw(narrow, len(there) // 3, set(), random.Random(0)))
    assert few == len(there) // 3 and len(looks) < 250 * few
