"""A mixer from outside the package, with an option of its own, is its file and one line: a space offers it, a supernet holds it, a search finds it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from toy_mixers import TOYS, Pool
from tracing import trace

from nas.cost import cost
from nas.networks.architecture import Architecture, Stage, describe, read_architecture
from nas.networks.mixers import MIXERS, Mixer, Option
from nas.networks.network import Network
from nas.quantities import Cost, parse_budgets
from nas.searching.proposals import Proposal
from nas.searching.search import Evaluation, Instruments, SearchRequest, Stored, Trial, search
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.yaml_files import write_yaml

SPACE = """
format: search space 1
frame: {resolution: 16, channels: 3, classes: 4}
patch: 2
stages:
  - {width: [32, 64], depth: [1, 2], mixer: [conv, toy_grouped], mlp_ratio: 1, group_width: [16, 32], sharing: [false, true]}
  - {width: 64, depth: 1, mixer: [attention, toy_pool, toy_grouped], mlp_ratio: 1}
"""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("toy_pool", "toy_grouped"):
        monkeypatch.setitem(MIXERS, name, TOYS[name])


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    path = tmp_path / "toys.yaml"
    path.write_text(SPACE)
    return SearchSpace.read(path)


def drawn(space: SearchSpace, count: int = 60) -> list[Architecture]:
    rng = random.Random(0)
    return [space.decode(space.random(rng)) for _ in range(count)]


def test_its_option_is_a_decision(space: SearchSpace) -> None:
    assert space.decisions["s0.group_width"] == (16, 32)
    assert not any(name.startswith("s1.") and "mixer" not in name for name in space.decisions)
    for architecture in drawn(space):
        assert space.decode(space.encode(architecture)) == architecture
        read = "toy_grouped" in architecture.stages[0].mixers
        assert architecture.stages[0].option("group_width") in ((16, 32) if read else (8,))
    assert space.patterns()["toy_grouped"]["s0.b1.mixer"] == "toy_grouped"


def test_architectures_with_it_survive_a_file(space: SearchSpace, tmp_path: Path) -> None:
    """At its default the option is left out: the keys of networks do not change when an option with a default comes along."""
    for architecture in drawn(space):
        path = tmp_path / "network.yaml"
        write_yaml(path, {"format": "architecture 1", "architecture": architecture.to_dict()})
        assert read_architecture(path)[0] == architecture
    wide = Stage(32, ("toy_grouped",), 1.0, group_width=16)
    assert wide.to_dict()["group_width"] == 16
    assert "group_width" not in Stage(32, ("toy_grouped",), 1.0, group_width=8).to_dict()
    assert "group_width 16" in "".join(describe(Architecture(space.frame, 2, (wide,))))


def test_a_mistake_in_it_is_named_with_its_place(tmp_path: Path) -> None:
    for wrong, pieces in {
        "group_width: 0": ["stages[0].group_width", "got 0"],
        "group_widht: 8": ["stages[0]", "group_widht"],
        "group_width: [8, 24]": ["stages.0.blocks.0.mixer.toy_grouped: toy_grouped: groups of 24"],
    }.items():
        path = tmp_path / "wrong.yaml"
        path.write_text(SPACE.replace("group_width: [16, 32]", wrong))
        with pytest.raises(ValueError) as raised:
            SearchSpace.read(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert all(piece in str(raised.value) for piece in pieces), raised.value


def test_supernet_cost_and_standalone_network_agree(space: SearchSpace) -> None:
    torch.manual_seed(0)
    supernet, images = Supernet(space).eval(), torch.randn(2, 3, 16, 16)
    for architecture in drawn(space, 20):
        with torch.no_grad():
            assert torch.equal(supernet(images, architecture), supernet.subnet(architecture)(images))
        assert cost(architecture) == trace(lambda architecture=architecture: Network(architecture), 1, 3, 16, 16)


class Falling(Pool):
    @staticmethod
    def cost(width: int, grid: tuple[int, int], window: int = 3) -> Cost:
        return Cost(1000 // window, 0, 0)


def test_an_option_whose_cost_falls_is_refused_unless_it_is_declared_as_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "falling.yaml"
    path.write_text(SPACE.replace("conv, toy_grouped]", "falling]").replace("group_width: [16, 32]", "window: [3, 5]"))
    window = TOYS["toy_pool"].options["window"]
    monkeypatch.delitem(MIXERS, "toy_pool")
    path.write_text(path.read_text().replace("toy_pool, ", ""))
    monkeypatch.setitem(MIXERS, "falling", Mixer(f"{__name__}:Falling", {"window": window}))
    with pytest.raises(AssertionError, match=r"s0\.window: declared to ascend in cost"):
        SearchSpace.read(path)
    monkeypatch.setitem(MIXERS, "falling", Mixer(f"{__name__}:Falling", {"window": Option(window.type, 3, ascending=False)}))
    assert SearchSpace.read(path).decisions["s0.window"] == (3, 5)


class Remembering:
    """A study that suggests what arithmetic proposes, and the rest at random."""

    def __init__(self, space: SearchSpace) -> None:
        self.space, self.stored, self.rng = space, dict[int, Stored](), random.Random(0)

    def ask(self, generation: int, proposals: Sequence[Proposal], num: int) -> list[Proposal]:
        return [*proposals, *(Proposal(self.space.random(self.rng), "") for _ in range(num - len(proposals)))]

    def tell(self, trial: Trial) -> None:
        pass


def test_a_search_finds_it(space: SearchSpace) -> None:
    """Where accuracy is the number of toy mixers, the best network within the budget is made of them."""

    def evaluate(networks: list[Architecture]) -> Iterator[Evaluation]:
        return (Evaluation(sum(mixer == "toy_grouped" for stage in network.stages for mixer in stage.mixers) / 4) for network in networks)

    request = SearchRequest(parse_budgets(["3MMACs"]), trials=40, population=10)
    result = search(space, Remembering(space), request, Instruments(cost, evaluate))
    best = max((trial for trial in result.trials if trial.feasible), key=lambda trial: trial.objectives[0])
    assert {mixer for stage in best.architecture.stages for mixer in stage.mixers} == {"toy_grouped"}
