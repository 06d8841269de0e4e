"""What is said of a supernet's ranking: the figures against twins, and which weights, images and seeds reach the scores and the trainings."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import random
import shutil
import signal
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome, refused, run, succeed
from PIL import Image
from recording import CLASSES, SIDE, Pass, Recording, numbers, recording, write_images
from scipy.stats import kendalltau
from sklearn.datasets import load_digits

import nas.searching.tune
from nas.cost import cost
from nas.networks.architecture import Architecture, Frame, Stage
from nas.networks.network import Network
from nas.pareto import tau_ceiling
from nas.reporting.rankings import as_table, draw
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.searching import fidelity, inherited
from nas.searching.fidelity import SCORES
from nas.searching.search import MEMORY
from nas.searching.trained_alone import Alone
from nas.searching.zero_cost import PROXIES
from nas.training.fine_tune import RATE
from nas.training.given import Given
from nas.training.setting import open_setting

QUICK = 20  # resamples: intervals are tested elsewhere


def figures_of(entries: dict[str, Any]) -> dict[str, Any]:
    return fidelity.figures_of(entries, QUICK)


# ---- the figures, from a list of networks alone --------------------------------------------------------------------------


def made(num: int = 14, seeds: int = 1) -> dict[str, Any]:
    """A file's networks as one might write them by hand; every third is not convolution alone, and the supernet overrates it."""
    draw, networks = random.Random(7), list[dict[str, Any]]()
    for place in range(num):
        first, second = (["conv", "attention"], ["conv", "s2_shift"]) if place % 3 == 0 else (["conv"], ["conv", "conv", "conv"])
        truth = [round(0.5 + 0.2 * draw.random(), 4) for _ in range(seeds)]
        scores = {name: draw.random() for name in SCORES} | {"supernet": truth[0] + 0.1 * draw.random() + (0.1 if place % 3 == 0 else 0)}
        networks.append(
            {"key": f"{place}", "architecture": {"stages": [{"mixers": first}, {"mixers": second}]}, "retrained": truth, **scores}
        )
    return {"networks": networks}


def ranks(values: list[float]) -> list[int]:
    """Of different values, from 0."""
    return [sum(other < value for other in values) for value in values]


def test_figures_are_of_the_mean_over_seeds_and_survive_json() -> None:
    entries = made(seeds=3)
    found = json.loads(json.dumps(figures_of(entries), allow_nan=False))
    truth = [statistics.fmean(each["retrained"]) for each in entries["networks"]]
    for name in SCORES:
        scores = [each[name] for each in entries["networks"]]
        tau, low, high = found["figures"][name]["tau"]
        assert tau == pytest.approx(kendalltau(scores, truth).statistic) and low <= tau <= high
        best = sorted(zip(scores, truth, strict=True), reverse=True)[:5]
        assert found["figures"][name]["regret_5"][0] == pytest.approx(max(truth) - max(accuracy for _, accuracy in best))
    for one, other in itertools.permutations(("supernet", "fine_tuned", "macs"), 2):
        if one != "macs":
            difference = found["figures"][one]["tau"][0] - found["figures"][other]["tau"][0]
            assert found["figures"][f"{one} - {other}"]["tau"][0] == pytest.approx(difference)
    assert found["truth"] == pytest.approx(
        {"mean": statistics.mean(truth), "std": statistics.stdev(truth), "min": min(truth), "max": max(truth)}
    )
    assert found["means"]["supernet"] == pytest.approx(statistics.mean(each["supernet"] for each in entries["networks"]))
    assert set(found["means"]) == {"supernet", "fine_tuned", "ninth", "quarter", "third", "half"}
    assert figures_of(json.loads(json.dumps(entries))) == figures_of(entries)


def test_bias_is_by_the_share_of_a_networks_blocks() -> None:
    """[conv attention][conv s2_shift] is half convolution, a quarter each of the others; stages count by their blocks."""
    entries = made()
    truth, scores = ([each[key] for each in entries["networks"]] for key in ("retrained", "supernet"))
    residuals = [(s - t) / 13 for s, t in zip(ranks(scores), ranks([each[0] for each in truth]), strict=True)]
    thirds = residuals[::3]
    bias = figures_of(entries)["bias"]["supernet"]
    assert bias["attention"] == pytest.approx(statistics.mean(thirds)) == bias["s2_shift"]
    weights = [0.5 if place % 3 == 0 else 1.0 for place in range(14)]
    assert bias["conv"] == pytest.approx(sum(w * r for w, r in zip(weights, residuals, strict=True)) / sum(weights))


def test_bias_is_by_depth_too_in_thirds_that_keep_networks_of_one_depth_together() -> None:
    """Ten networks of 2, 2, 3, 3, 3, 3, 4, 5, 6, 6 blocks: two are overrated by all nine places, and eight underrated for it."""
    entries = made(10)
    depths = (2, 2, 3, 3, 3, 3, 4, 5, 6, 6)
    for place, (entry, depth) in enumerate(zip(entries["networks"], depths, strict=True)):
        stages = [{"mixers": ["conv"] * (depth - 1)}, {"mixers": ["conv"]}]
        entry |= {"architecture": {"stages": stages}, "retrained": [0.5 + place / 100], "supernet": 0.5 + ((place - 2) % 10) / 100}
    bias = figures_of(entries)["bias"]["supernet"]
    assert bias == pytest.approx({"conv": 0, "2 to 3 blocks": (2 * 8 - 4 * 2) / 6 / 9, "4 to 4 blocks": -2 / 9, "5 to 6 blocks": -2 / 9})


def test_a_score_that_underrates_depth_ranks_by_depth_as_it_should() -> None:
    """Each block more costs a score a point that it is worth in truth."""
    entries, draw = made(20), random.Random(3)
    for place, each in enumerate(entries["networks"]):
        blocks, worth = 2 + place % 4, draw.gauss(0.7, 0.005)
        each["architecture"] = {"stages": [{"mixers": ["conv"] * (blocks - 1)}, {"mixers": ["conv"]}]}
        each |= {"supernet": worth - 0.01 * blocks, "retrained": [worth + draw.gauss(0, 0.0003)]}
    found = figures_of(entries)["figures"]
    assert found["supernet"]["tau"][0] < 0.5 and found["supernet_by_depth"]["tau"][0] > 0.9
    assert found["supernet_by_depth - supernet"]["tau"][0] == pytest.approx(
        found["supernet_by_depth"]["tau"][0] - found["supernet"]["tau"][0]
    )


def test_a_network_without_a_truth_does_not_count() -> None:
    entries = made()
    before = figures_of(entries)
    lost = {**entries["networks"][0], "supernet": 0.99, "retrained": [0.99], "ninth": None, "failure": "out of memory"}
    assert figures_of({"networks": [lost, *entries["networks"]]}) == before
    with pytest.raises(ValueError, match="got 9"):
        figures_of({"networks": [*entries["networks"][:9], lost]})


def test_the_agreement_of_seeds_is_that_of_the_first_two_where_both_are_known() -> None:
    entries = made(seeds=2)
    for each in entries["networks"][10:]:
        each["retrained"] = each["retrained"][:1]
    first, second = zip(*(each["retrained"] for each in entries["networks"][:10]), strict=True)
    assert figures_of(entries)["agreement"]["tau"][0] == pytest.approx(kendalltau(first, second).statistic)
    entries["networks"][9]["retrained"] = [0.5]
    assert figures_of(entries)["agreement"] is None, "nine are too few"


def test_a_score_without_noise_ranks_better_than_two_noisy_seeds_agree() -> None:
    """So their agreement is no bound on a ranking; what is said of a score without error comes near to it."""
    draw, entries = random.Random(1), made(60, seeds=2)
    for each in entries["networks"]:
        worth = draw.gauss(0.7, 0.012)
        each |= {"supernet": worth, "retrained": [draw.gauss(worth, 0.006) for _ in range(2)]}
    found = figures_of(entries)
    tau = found["figures"]["supernet"]["tau"][0]
    assert tau > found["agreement"]["tau"][0] + 0.1 and tau == pytest.approx(found["ceiling"], abs=0.1)
    table = "\n".join(as_table({**entries, **found, "seconds": {}}))
    assert "agreement of two seeds" in table and found["ceiling"] == tau_ceiling([each["retrained"] for each in entries["networks"]])
    assert f"without error would have a tau of some {found['ceiling']:.2f}" in table


def test_what_cannot_be_told_is_none_and_no_number() -> None:
    entries = made()
    for each in entries["networks"]:
        each["supernet"] = 0.1
    entries["networks"][3]["gradient_norm"] = None
    found = figures_of(entries)
    assert found["figures"]["supernet"]["tau"] == [None, None, None]
    assert "gradient_norm" not in found["figures"] and "jacobian_covariance" in found["figures"]
    seconds = {"supernet": None, "scores": 1.0, "trainings": 2.0}
    settings = {"space": "a", "data": "b", "budgets": ["5MMACs"], "epochs": 1}
    whole = {**entries, **found, "seconds": seconds, "settings": settings}
    table = "\n".join(as_table(whole))
    assert "- [-, -]" in table and "left out: gradient norm" in table
    with Image.open(io.BytesIO(draw(whole))) as picture:
        assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(10**7)) > 50


# ---- the command ---------------------------------------------------------------------------------------------------------

SPACE = """
format: search space 1
frame: {resolution: 32, channels: 3, classes: 10}
patch: 4
stages:
  - {width: [16, 24, 32, 48], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2, 3]}
  - {width: [32, 48, 64], depth: 2, mixer: [conv, attention], mlp_ratio: [1, 2, 3], head_width: 16, sharing: [false, true]}
"""
RECIPE = """
format: recipe 1
bf16: never
supernet: {steps: 6, batch_size: 8, lr: 1.0e-2, augmentation: {flip: true}}
search: {trials: 5, population: 4, batch_size: 12, fine_tune: 3, finalist_epochs: 5}
retrain: {steps: 30, batch_size: 6, lr: 4.0e-3, augmentation: {mixup: 0.2}}
"""
LIMIT = 1_000_000
FIT, HELD_OUT = numbers("train"), numbers("val")
COMMAND = "fidelity --device cpu --data images --space tiny.yaml --recipe plain.yaml --budget 1MMACs --run told --seed 3 --alone-epochs 1"
FILE = Path("runs/told/fidelity-1MMACs-1-epochs.json")  # the recipe trains finalists for longer
STEPS, RUNGS = 8, 6  # of an epoch of 48 images in batches of 6: judged at seven ninths, two of them the same step, and at the end


def one_after_the_other(alone: Alone, ask: Callable[[], Any], told: Any, *, show: Any, stop: Any, **others: Any) -> None:
    """`train_beside` without Ray, in this process."""
    while (job := ask()) is not None:
        if stop():
            raise Stopped("trainings stopped")
        alone.train(*job, stop=stop)
        told(job)
        show()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "figures_of", partial(fidelity.figures_of, resamples=QUICK))


@pytest.fixture
def in_process(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.searching.tune, "train_beside", one_after_the_other)


class Clock:
    """On which fine-tuning a network takes ten seconds, and nothing else of a scoring any."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._now, self._fine_tune = 0.0, inherited.fine_tune
        patch.setattr(inherited, "fine_tune", self._tuned)
        for module in (fidelity, inherited):
            patch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self._now

    def _tuned(self, *given: Any) -> Network:
        self._now += 10
        return self._fine_tune(*given)


@dataclass
class Told:
    """A command's doings: `proxied` are network weights, images and class numbers that the scores without training were given."""

    folder: Path
    out: str
    found: dict[str, Any]
    seen: Recording
    proxied: list[tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def told_once(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("fidelity")
    write_images(folder / "images")
    (folder / "tiny.yaml").write_text(SPACE)
    (folder / "plain.yaml").write_text(RECIPE)
    proxied = list[Any]()
    with pytest.MonkeyPatch.context() as patch, recording() as seen:
        patch.setattr(nas.searching.tune, "train_beside", one_after_the_other)
        patch.setattr(fidelity, "figures_of", partial(fidelity.figures_of, resamples=QUICK))
        Clock(patch)
        for name, real in list(PROXIES.items()):

            def watched(network: Network, images: Any, targets: Any, real: Any = real) -> float:
                proxied.append(({key: value.clone() for key, value in network.state_dict().items()}, images.clone(), targets.clone()))
                score = real(network, images, targets)
                seen.passes, seen.losses = [], []  # they belong to no training
                return score

            patch.setitem(PROXIES, name, watched)
        out = succeed(f"{COMMAND} --networks 10 --seeds 2", folder)
    return Told(folder, out, json.loads((folder / FILE).read_text()), seen, proxied)


@pytest.fixture
def told(told_once: Told, tmp_path: Path) -> Told:
    """One's own copy of the folder."""
    return replace(told_once, folder=shutil.copytree(told_once.folder, tmp_path / "told"))


def judged(seen: Recording) -> dict[str, list[list[Pass]]]:
    """By the network's key: the passes of each of its evaluations, in order."""
    found: dict[str, list[list[Pass]]] = {}
    for _, passes in itertools.groupby(seen.evaluations, lambda each: id(each.module)):
        for batch in itertools.batched(passes, 4) if hasattr(itertools, "batched") else _fours(passes):
            found.setdefault(batch[0].architecture.key, []).append(list(batch))
    return found


def _fours(passes: Iterator[Pass]) -> Iterator[list[Pass]]:
    while four := list(itertools.islice(passes, 4)):
        yield four


def accuracy(passes: list[Pass]) -> float:
    """Image by image, by the numbers written into them."""
    labels = load_digits(n_class=CLASSES).target
    right = [logits.argmax().item() == labels[number] for each in passes for logits, number in zip(each.logits, each.numbers, strict=True)]
    assert sorted(n for each in passes for n in each.numbers) == sorted(HELD_OUT)  # type: ignore[type-var]
    return sum(right) / len(right)


@pytest.mark.slow
def test_a_second_try_is_told(told_once: Told) -> None:
    found = json.loads(json.dumps(told_once.found))
    found["networks"][2]["second_tries"] = [4]
    said = [line for line in as_table(found) if "first try failed" in line]
    assert len(said) == 1 and said[0].startswith(f"Network {found['networks'][2]['key']}, seed 4: trained with half the learning rate")


def test_the_networks_are_those_around_the_budget_and_every_mixer_is_among_them(told_once: Told) -> None:
    networks = [Architecture.from_dict(each["architecture"], "") for each in told_once.found["networks"]]
    assert len({each.key for each in networks}) == 10
    for network, entry in zip(networks, told_once.found["networks"], strict=True):
        assert 0.9 * LIMIT <= cost(network).macs <= 1.1 * LIMIT
        assert (entry["key"], entry["macs"], entry["params"]) == (network.key, cost(network).macs, cost(network).params)
    assert any(entry["macs"] > LIMIT for entry in told_once.found["networks"])
    assert Counter(network.stages[1].mixers[0] for network in networks) == {"conv": 5, "attention": 5}


def test_no_split_is_opened_but_what_is_trained_on_and_what_judges(told_once: Told) -> None:
    seen = told_once.seen
    assert set(seen.evaluated_splits) == {"held_out"} and {split for split, *_ in seen.batches} == {"fit"}
    assert {number for step in seen.steps for each in step.passes for number in each.numbers if number is not None} <= FIT


def test_every_accuracy_is_of_all_held_out_images_with_the_weights_that_it_says(told_once: Told) -> None:
    """First with the supernet's weights, then fine-tuned, then alone at every rung and at the end, for each seed."""
    seen, frame = told_once.seen, Frame(SIDE, 1, CLASSES)
    (supernet,) = {id(step.module): step.module for step in seen.steps if not isinstance(step.module, Network)}.values()
    evaluations = judged(seen)
    for entry in told_once.found["networks"]:
        network = Architecture.from_dict(entry["architecture"], "").at(frame)
        inherited, tuned, *alone = evaluations[network.key]
        assert len(alone) == 2 * (RUNGS + 1)
        with torch.no_grad():
            shared = supernet.eval()(inherited[0].images, network)
        torch.testing.assert_close(inherited[0].logits, shared, rtol=1e-4, atol=1e-5)
        assert not torch.equal(tuned[0].logits, inherited[0].logits)
        assert [entry["supernet"], entry["fine_tuned"]] == pytest.approx([accuracy(inherited), accuracy(tuned)])
        early = [accuracy(alone[rung]) for rung in (0, 1, 2, 3)]  # 1, 2, 3 and 4 of 8 steps
        assert [entry["ninth"], entry["quarter"], entry["third"], entry["half"]] == pytest.approx(early)
        assert entry["both"] == entry["supernet"] + entry["ninth"]
        assert entry["retrained"] == pytest.approx([accuracy(alone[RUNGS]), accuracy(alone[-1])])


def test_each_network_is_tuned_for_some_steps_and_trained_alone_with_every_seed_in_turn(told_once: Told) -> None:
    steps = Counter(id(step.module) for step in told_once.seen.steps)
    assert sorted(steps.values()) == [3] * 10 + [6] + [STEPS] * 20
    rates = {id(step.module): step.lr for step in told_once.seen.steps}
    assert all(rates[module] <= RATE * 1e-2 for module, count in steps.items() if count == 3)
    alone = [(seed, augmentation.mixup) for _, size, seed, augmentation in told_once.seen.batches if size == 6 and augmentation.mixup]
    assert alone == [(3, 0.2)] * 10 + [(4, 0.2)] * 10


def test_scores_without_training_are_of_fresh_weights_and_one_batch_of_plain_images(told_once: Told) -> None:
    assert len(told_once.proxied) == 10 * len(PROXIES)
    first = told_once.proxied[0]
    for (weights, images, targets), entry in zip(told_once.proxied[:: len(PROXIES)], told_once.found["networks"], strict=True):
        assert torch.equal(images, first[1]) and torch.equal(targets, first[2]) and targets.dtype == torch.int64
        torch.manual_seed(3)
        fresh = Network(Architecture.from_dict(entry["architecture"], "").at(Frame(SIDE, 1, CLASSES)))
        assert all(torch.equal(value, weights[name]) for name, value in fresh.state_dict().items())
        torch.nn.functional.cross_entropy(fresh(images), targets).backward()
        expected = sum(each.grad.norm().item() for each in fresh.parameters() if each.grad is not None)
        assert entry["gradient_norm"] == pytest.approx(expected, rel=1e-4)
        assert math.isfinite(entry["jacobian_covariance"])


def test_the_table_says_what_the_file_says_and_the_file_how_it_was_made(told_once: Told) -> None:
    found, folder = told_once.found, told_once.folder
    truth = [statistics.fmean(each["retrained"]) for each in found["networks"]]
    line = next(line for line in told_once.out.splitlines() if line.startswith("fine-tuned "))
    if line.split()[1] != "-":
        assert float(line.split()[1]) == pytest.approx(
            kendalltau([each["fine_tuned"] for each in found["networks"]], truth).statistic, abs=0.005
        )
    assert "Not searched, since no budget rewards it: s1.sharing False." in told_once.out
    assert "agreement of two seeds" in told_once.out and found["agreement"] is not None
    assert {key: found[key] for key in figures_of(found)} == figures_of(found)
    expected = {"budgets": ["1MMACs"], "space": "tiny", "recipe": "plain.yaml", "data": "images", "networks": 10, "seeds": 2}
    expected |= {"epochs": 1, "steps": STEPS, "fine_tune": 3, "seed": 3, "held_out_images": len(HELD_OUT)}
    assert expected.items() <= found["settings"].items() and "torch" in found["settings"]["versions"]
    assert str(folder) not in (folder / FILE).read_text(), "nothing of the machine"
    with Image.open(folder / FILE.with_suffix(".png")) as picture:
        assert min(picture.size) > 800


@pytest.mark.whole
def test_what_is_known_is_neither_tuned_nor_trained_again_and_more_seeds_count(told: Told, in_process: None) -> None:
    with recording() as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.searching.fidelity.PROXIES", {name: lambda *_: 1.0 for name in PROXIES})
        Clock(patch)
        succeed(f"{COMMAND} --networks 12", told.folder)
    found = json.loads((told.folder / FILE).read_text())
    assert sorted(Counter(id(step.module) for step in seen.steps).values()) == [3] * 2 + [STEPS] * 2
    same = ("key", "retrained", "supernet", "fine_tuned", "ninth")
    assert [[each[key] for key in same] for each in found["networks"][:10]] == [
        [each[key] for key in same] for each in told.found["networks"]
    ]
    assert [len(each["retrained"]) for each in found["networks"]] == [2] * 10 + [1] * 2
    assert (told.found["seconds"]["scores"], found["seconds"]["scores"]) == (100, 120), "each network's fine-tuning counts once"
    assert found["seconds"]["trainings"] > told.found["seconds"]["trainings"], "a seed that counts for the truth was paid for too"


def alone_of(folder: Path) -> Alone:
    """The store of the command's trainings, opened from outside."""
    setting = open_setting(Given(data=str(folder / "images"), recipe=str(folder / "plain.yaml"), seed=3, device="cpu"), 8, 32)
    return Alone.on_held_out(setting, folder / "runs/told/alone", 1.0)


@pytest.mark.whole
def test_a_network_that_failed_is_named_and_left_out(told: Told, in_process: None) -> None:
    network = Architecture.from_dict(told.found["networks"][4]["architecture"], "")
    alone = alone_of(told.folder)
    assert alone.known(network, 3).ended is not None, "the same store"
    shutil.rmtree(alone.place(network, 3).folder)
    alone.fail(network, 3, "struck by lightning")
    line = refused_after_work(run(f"{COMMAND} --networks 10 --seeds 2", told.folder))
    assert "9 of 10" in line and "struck by lightning" in line
    out = succeed(f"{COMMAND} --networks 11 --seeds 2", told.folder)
    found = json.loads((told.folder / FILE).read_text())
    assert [each.get("failure") for each in found["networks"]] == [None] * 4 + ["struck by lightning"] + [None] * 6
    assert f"network {network.key}: struck by lightning" in out and "10 networks trained alone" in out
    counted = [each for each in found["networks"] if each["key"] != network.key]
    assert found["truth"]["min"] == min(statistics.fmean(each["retrained"]) for each in counted) > 0


def refused_after_work(outcome: Outcome) -> str:
    """The last line of a command that ends with status 2 after it has shown progress."""
    assert outcome.status == 2, outcome
    last = outcome.err.splitlines()[-1]
    assert last.startswith("launch.py: ")
    return last


def stopping_at(step: int) -> Any:
    """A recording in which Ctrl-C comes at a step."""
    return recording(before_step=lambda number: os.kill(os.getpid(), signal.SIGINT) if number == step else None)


@pytest.mark.whole
def test_interrupted_anywhere_the_same_command_goes_on(told: Told, in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second network's fine-tuning, then in the first training alone; all comes out as without."""
    monkeypatch.setattr("nas.searching.fidelity.PROXIES", {name: lambda *_: 1.0 for name in PROXIES})
    run_folder = told.folder / "runs/told"
    alone, networks = alone_of(told.folder), [Architecture.from_dict(each["architecture"], "") for each in told.found["networks"]]
    for network in networks[:2]:  # the others are known
        shutil.rmtree(alone.place(network, 3).folder)
    log = [line for line in (run_folder / "metrics.jsonl").read_text().splitlines() if '"fine-tuned"' not in line]
    (run_folder / "metrics.jsonl").write_text("\n".join(log) + "\n")
    command = f"{COMMAND} --networks 10"
    for step, words in ((5, "Scoring stopped after 1 of 10 networks"), (9 * 3 + 5, "stopped")):
        with stopping_at(step) as seen:
            outcome = run(command, told.folder)
        assert (outcome.status, len(seen.steps)) == (130, step), outcome
        assert words in outcome.out and outcome.out.endswith("; the same command continues.\n")
    assert alone.steps_done(networks[0], 3) == 5 and alone.known(networks[0], 3).ended is None
    with recording() as seen:
        succeed(command, told.folder)
    assert len(seen.steps) == STEPS - 5 + STEPS
    found = json.loads((told.folder / FILE).read_text())
    for now, before in zip(found["networks"], told.found["networks"], strict=True):
        assert (
            now["fine_tuned"] == before["fine_tuned"]
            and now["retrained"][:1] == before["retrained"][:1]
            and now["ninth"] == before["ninth"]
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--budget 1MMACs --networks 9", ("--networks", "9", "10")),
        ("--budget 5ms", ("--budget", "5ms", "MACs")),
        ("--budget 900GMACs --budget 5ms", ("--budget", "900GMACs", "below the largest")),
        ("--budget 1MMACs --networks 100000", ("100000", "--networks")),
        ("--budget 1MMACs --alone-epochs 0", ("--alone-epochs",)),
        ("--budget 1MMACs --alone-epochs nan", ("--alone-epochs", "nan")),
        ("--budget 1MMACs --alone-epochs 1e7", ("--alone-epochs", "1000000")),
        ("--budget 1MMACs --alone-epochs 1 --workers 4096", ("--workers", "4096")),
    ],
)
def test_what_cannot_be_told_is_refused_before_anything_is_trained(options: str, said: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    line = refused(f"fidelity --space tiny.yaml --smoke {options}", tmp_path)
    assert all(word in line for word in said), line
    assert not (tmp_path / "runs").exists()


def test_a_budget_at_the_end_of_what_the_supernet_was_trained_for_is_refused(told: Told) -> None:
    line = refused(COMMAND.replace("1MMACs", "1.15MMACs"), told.folder)
    assert "1.15MMACs" in line and "1.20 MMACs" in line


def test_how_far_a_training_is_stands_at_the_end_of_its_log(told: Told) -> None:
    alone, network = alone_of(told.folder), Architecture(Frame(32, 3, 10), 4, (Stage(16, ("conv",), 2.0, kernel=3),) * 2)
    assert alone.steps_done(network, 0) == 0
    place = alone.place(network, 0)
    for step in range(1, 200):
        place.log("alone", step=step, loss=2.0, lr=0.1)
    place.log("sitting", seconds=1)
    assert alone.steps_done(network, 0) == 199
    alone.fail(network, 0, MEMORY)
    assert alone.steps_done(network, 0) == 0, "begun again, with half of the images in a step"
    alone.place(network, 0, remedied=True).log("alone", step=10, loss=2.0, lr=0.1)
    assert alone.steps_done(network, 0) == 5
    alone.fail(network, 0, MEMORY)
    assert alone.steps_done(network, 0) == STEPS, "at its end"


@pytest.mark.slow
def test_real_workers_train_what_is_missing_and_show_how_far_they_are(told: Told, quick: None) -> None:
    """The one test here that starts Ray."""
    shutil.rmtree(told.folder / "runs/told/alone")
    outcome = run(f"{COMMAND} --networks 10", told.folder)
    assert outcome.status == 0, outcome
    found = json.loads((told.folder / FILE).read_text())
    assert [len(each["retrained"]) for each in found["networks"]] == [1] * 10 and not any("failure" in each for each in found["networks"])
    assert f"networks alone: {10 * STEPS}/{10 * STEPS} steps" in outcome.err and "10 of 10 trainings" in outcome.err
    run_lines = Run("told", told.folder / "runs").metrics("fine-tuned")
    assert len(run_lines) == 10, "tuned in the first sitting"
