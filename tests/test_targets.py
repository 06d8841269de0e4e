"""Targets, latency tables and memory: what is written is what is meant, and sums of parts are held against the whole."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from command_line import succeed
from errors import refused
from often import ONE_OF_EACH, often
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from nas.cost import cost, latency, layer_cost, measured
from nas.cost.latency import Milliseconds
from nas.cost.memory import memory_bytes, peak_elements
from nas.cost.table import Correction, PartModule, Table, error, fit, parts
from nas.cost.targets import Target, conditions, parse_target
from nas.networks.architecture import Architecture, Frame, Stage, read_architecture
from nas.networks.network import Network, attached
from nas.published.presets import preset_names, preset_path
from nas.quantities import parse_budgets
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching import latency_table, search_run
from nas.searching.candidates import Looks
from nas.searching.latency_table import TableRun, distinct_parts, measure_space
from nas.spaces.decisions import SearchSpace
from nas.yaml_files import read_yaml

SPACE = SearchSpace.read(Path("search_spaces/cifar_small.yaml"))


def some_networks(num: int) -> list[Architecture]:
    rng = random.Random(0)
    return [SPACE.decode(SPACE.random(rng)) for _ in range(num)]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("cpu", Target()),
        ("cpu:onnxruntime,batch=4,threads=2", Target("cpu", "onnxruntime", 4, 2)),
        ("CUDA:1:compile, batch=64, dtype=bf16", Target("cuda:1", "compile", 64, 1, "bf16")),
    ],
)
def test_a_target_is_read_as_it_is_written(text: str, meant: Target) -> None:
    assert parse_target(text) == meant == parse_target(str(meant))
    assert not set(meant.slug) & set(" /\\+:*,=")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpu", "cuda"),
        ("cpu:onnx", "onnxruntime"),
        ("cpu:eager,batch=0", "batch"),
        ("cpu:eager,threads=two", "threads"),
        ("cpu:eager,batch=1,batch=2", "twice"),
        ("cuda:eager,threads=2", "threads"),
        ("cpu:onnxruntime,dtype=bf16", "fp32"),
        ("cpu:eager,bach=2", "Did you mean 'batch'?"),
        ("", "cpu"),
    ],
)
def test_what_is_no_target_is_refused_in_a_line(text: str, says: str) -> None:
    with refused("--target", says):
        parse_target(text)


@pytest.mark.parametrize("name", often(preset_names(), ONE_OF_EACH.__contains__))
def test_parts_follow_each_other_and_add_up_to_the_network(name: str) -> None:
    architecture, _ = read_architecture(preset_path(name))
    found = list(parts(architecture))
    with torch.device("meta"):
        x = torch.empty(2, *found[0].shape)
        for part in found:
            assert tuple(x.shape[1:]) == part.shape
            x = PartModule(part)(x)
    assert sum(layer_cost(each).macs for part in found for each in part.layers) == cost(architecture).macs


def test_parts_one_after_the_other_compute_what_the_network_does() -> None:
    for architecture in some_networks(3):
        network, x = Network(architecture).eval(), torch.randn(2, 3, 32, 32)
        expected = network(x)
        for part in parts(architecture):
            module = PartModule(part).eval()
            for spec, layer in zip(part.layers, module.modules_of_layers, strict=True):
                layer.load_state_dict(attached(network, spec.weights).state_dict())
            x = module(x)
        assert torch.equal(x, expected)


def test_a_table_of_a_space_has_every_part_of_its_networks() -> None:
    known = {part.key for part in distinct_parts(SPACE)}
    assert all(part.key in known for each in some_networks(300) for part in parts(each))
    assert len(known) < 150  # and none twice


# ---- what whole networks teach ----------------------------------------------------------------------------------------


def test_a_correction_finds_the_law_behind_the_times_and_leaves_true_sums_alone() -> None:
    rng = random.Random(0)
    totals = [(rng.uniform(1, 3), rng.randint(6, 14)) for _ in range(12)]
    found = fit(totals, [0.8 * total + 0.02 * num + 0.3 for total, num in totals])
    assert (found.scale, found.each, found.start) == pytest.approx((0.8, 0.02, 0.3), abs=1e-6)
    starting = fit(totals, [total - 0.02 * num for total, num in totals])  # each session's start is in each part's time
    assert starting(2.0, 10) == pytest.approx(1.8)
    assert fit(totals, [total * rng.choice((0.999, 1.001)) for total, _ in totals]) == Correction()


def test_the_error_is_of_shares_within_the_limits() -> None:
    assert error([1.04, 0.93, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]) == pytest.approx((0.055, 0.5, 0.75))


def test_a_table_foretells_the_sum_of_its_parts() -> None:
    network = some_networks(1)[0]
    times = {part.key: 0.5 for part in parts(network)}
    num = len(list(parts(network)))
    assert Table(times).latency_ms(network) == pytest.approx(0.5 * num)
    assert Table(times, Correction(2.0, 0.1, 1.0)).latency_ms(network) == pytest.approx(1.1 * num + 1)


# ---- runtimes ------------------------------------------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize("runtime", ["eager", "onnxruntime"])
def test_a_runtime_computes_what_the_network_does(runtime: str) -> None:
    network, x = Network(some_networks(1)[0]).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(x)
    found = Target(runtime=runtime, batch=2).prepare(network, x)()
    torch.testing.assert_close(torch.as_tensor(found[0] if runtime == "onnxruntime" else found), expected, rtol=1e-4, atol=1e-5)


# ---- memory --------------------------------------------------------------------------------------------------------------


def test_memory_by_parts_is_that_of_the_whole_network_traced() -> None:
    for network in some_networks(5):
        with torch.device("meta"):
            live = peak_elements(Network(network).eval(), torch.empty(1, 3, 32, 32))
        assert memory_bytes(network, batch=1) == 4 * (cost(network).params + live)
        assert memory_bytes(network, batch=7, dtype="bf16") == 2 * (cost(network).params + 7 * live)


def test_memory_is_about_what_torch_allocates() -> None:
    network = Architecture(Frame(64, 3, 5), 4, (Stage(64, ("conv", "as_shift", "s2_shift"), 3.0, kernel=3),))
    module = Network(network).eval()
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        module(torch.randn(8, 3, 64, 64))
    now = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    allocated = most + sum(4 * each.numel() for each in module.parameters())
    assert memory_bytes(network, batch=8) == pytest.approx(allocated, rel=0.05)


# ---- the table as a run --------------------------------------------------------------------------------------------------


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[TableRun, list[str]]:
    """A table whose times are by arithmetic, and the log of what was timed: a millisecond for each MMAC, and a tenth for a network."""
    log: list[str] = []

    def of_part(module: PartModule, inputs: Tensor, target: Target, take: Any) -> Milliseconds:
        take(lambda: None)
        part = module.part
        assert inputs.shape == (target.batch, *part.shape)
        log.append(part.key)
        return Milliseconds(1e-6 * sum(layer_cost(each).macs for each in part.layers) + 1e-4)

    def of_network(network: Architecture, target: Target, take: Any) -> Milliseconds:
        take(lambda: None)
        log.append(network.key)
        return Milliseconds(1e-6 * cost(network).macs + 1e-4 * len(list(parts(network))) + 0.1)

    monkeypatch.setattr(latency_table, "measure", of_part)
    monkeypatch.setattr(latency_table, "measure_latency", of_network)
    return TableRun(Target(), tmp_path), log


BUDGETS = parse_budgets(["5MMACs"])


@pytest.mark.whole
def test_a_table_is_measured_once_continued_and_held_against_networks_it_had_not_seen(timed: tuple[TableRun, list[str]]) -> None:
    table, log = timed
    with pytest.raises(Stopped):
        measure_space(table, SPACE, BUDGETS, lambda: len(log) >= 40, check=10)
    found = measure_space(table, SPACE, BUDGETS, lambda: False, check=10)
    assert len(log) == len(set(log)) == len(distinct_parts(SPACE)) + 12 + 10
    assert found.error.median < 1e-6 < found.plain.median and found.tau == pytest.approx(1)
    assert {each.key for each in found.networks}.isdisjoint(table.networks("learn"))
    macs = [cost(each).macs for each in found.networks]
    assert all(4.5e6 <= each <= 5.5e6 for each in macs)
    measure_space(table, SPACE, BUDGETS, lambda: False, check=10)
    assert len(log) == len(distinct_parts(SPACE)) + 22  # nothing again
    later = measure_space(table, SPACE, BUDGETS, lambda: False, check=25)  # a longer list, and what others were learnt from meanwhile
    for each in later.networks[5:8]:
        line = {"role": "learn", "key": each.key, "architecture": each.to_dict(), "ms": 1.0, "conditions": table.digest}
        table.run.log("network", **line)
    unseen = measure_space(table, SPACE, BUDGETS, lambda: False, check=25)
    assert len(unseen.networks) == 22 and {each.key for each in unseen.networks}.isdisjoint(table.networks("learn"))
    assert json.loads(json.dumps(found.entries()))["error"]["within_5"] == 1


def test_a_table_made_elsewhere_or_of_another_space_is_refused_with_the_command(
    timed: tuple[TableRun, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = timed
    with refused("latency table", "measure", "cifar_small"):
        table.table_for(SPACE, "cifar_small")
    measure_space(table, SPACE, BUDGETS, lambda: False, check=10)
    with refused("lacks", "measure", "cifar"):
        table.table_for(SearchSpace.read(Path("search_spaces/cifar.yaml")), "cifar")
    monkeypatch.setattr(latency_table, "conditions", lambda target: {**conditions(target), "torch": "1.0"})
    elsewhere = TableRun(table.target, table.root)
    with refused("torch", "1.0", "measure"):
        elsewhere.table_for(SPACE, "cifar_small")
    assert elsewhere.times() == {} and table.times()


# ---- a limit is a limit --------------------------------------------------------------------------------------------------


@pytest.mark.whole
def test_a_search_on_a_target_evaluates_only_what_the_table_admits_and_its_winner_is_timed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[Architecture, Target]] = []

    def of_network(network: Architecture, target: Target, take: Any = None) -> Milliseconds:
        """The table foretells a millisecond for each MMAC; larger ones without a position encoding turn out to need four times that."""
        timed.append((network, target))
        return Milliseconds((1.0 if obedient(network) else 4.0) * 1e-6 * cost(network).macs)

    def obedient(network: Architecture) -> bool:
        return cost(network).macs < 3e6 or any(stage.cpe for stage in network.stages)

    target = Target("cpu", "eager", 2)
    table = TableRun(target, tmp_path / "runs")
    table.run.record(conditions={table.digest: table.conditions})
    for part in distinct_parts(SPACE):
        table.run.log("part", key=part.key, ms=1e-6 * sum(layer_cost(each).macs for each in part.layers), conditions=table.digest)
    monkeypatch.setattr(latency, "measure_latency", of_network)
    for module in (measured, search_run):
        monkeypatch.setattr(module, "measure_latency", of_network)
    told = succeed(
        "search --space cifar_small --budget 6MMACs --budget 4ms --target cpu:eager,batch=2 --floor 0.2 --sampler random --smoke --trials 12 --run held",
        tmp_path,
    )
    assert "foretold by the table" in told and "together" in told
    record = read_yaml(tmp_path / "runs/best.yaml")
    trials = optuna.load_study(study_name=record["study"], storage=f"sqlite:///{tmp_path / 'runs/held/study.db'}").trials
    foretold = [(each.user_attrs["latency_ms_foretold"], each.state.name == "COMPLETE") for each in trials]
    assert sum(evaluated for _, evaluated in foretold) == 12 and all(value <= 4 for value, evaluated in foretold if evaluated)
    assert all(each.user_attrs["latency_ms_foretold"] == pytest.approx(each.user_attrs["macs_m"], abs=2e-3) for each in trials)
    winner = Architecture.from_dict(record["architecture"], "best.yaml")
    assert record["target"] == "cpu:eager,batch=2,threads=1" and record["costs"]["latency_ms"] <= 4
    assert record["costs"]["latency_ms"] == of_network(winner, target)  # as measured, not as foretold
    assert obedient(winner)
    assert {each for _, each in timed} <= {target, Target("cpu", "eager", 1)}  # one image foretells whether a batch is bearable
    assert len([1 for network, _ in timed if network == winner]) >= 1 and len(timed) < 30  # not one for each candidate


def test_whether_a_network_obeys_is_found_out_again_on_another_machine_alone(tmp_path: Path) -> None:
    network, taken = some_networks(1)[0], list[str]()

    def looks(where: str, ms: float) -> Looks:
        def measure(_: Architecture) -> dict[str, float]:
            taken.append(where)
            return {"latency_ms": ms}

        return Looks(Run("moved", tmp_path), "study", parse_budgets(["8ms"]), measure, lambda: False, where)

    assert looks("here", 5.0).obeys(network) and looks("here", 9.0).obeys(network)
    assert not looks("there", 9.0).obeys(network)
    assert looks("here", 9.0).obeys(network) and taken == ["here", "there"]
