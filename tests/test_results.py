"""The figures that docs/results.md prints are those of the raw files beside it."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, sem, spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.quantities import parse_budgets

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "results.md").read_text(encoding="utf-8")
ALONE: list[dict[str, Any]] = json.loads((DOCS / "results/alone-cifar10-5MMACs.json").read_text())["trainings"]


def rows(columns: str) -> dict[str, list[str]]:
    """Of the table with these heads: its cells by network."""
    lines = iter(TEXT.split(f"| {columns} |\n", 1)[1].splitlines()[1:])
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in iter(lambda: next(lines), ""))
    return {key: others for key, *others in cells}


def percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f}%"


def test_raw_networks_are_what_their_keys_say() -> None:
    assert all(Architecture.from_dict(each["architecture"], "raw").key == each["key"] for each in ALONE)


@pytest.mark.parametrize(
    ("file", "head", "seed", "said"),
    [
        ("5MMACs", "a quarter of the rate", 0, "a quarter of the rate"),
        ("5MMACs-seed0", "seed 0", 0, "seed 0"),
        ("5MMACs-seed1", "seed 1", 1, "seed 1"),
        ("5MMACs-deep", "deep by hand", 0, "deep networks by hand"),
        ("10MMACs", "10 MMACs", 0, "10 MMACs"),
        ("10MMACs-bf16", "10 MMACs, bfloat16", 0, "bfloat16"),
    ],
)
def test_who_came_to_the_end_of_a_ladder_is_printed_as_it_was_recorded(file: str, head: str, seed: int, said: str) -> None:
    raw = json.loads((DOCS / f"results/search-cifar10-{file}.json").read_text())
    ended = {each["key"]: each for each in raw["finalists"] if each["accuracy"]}
    printed = rows(f"finalist, {head} | from | MACs | supernet | 2 epochs alone | 5 epochs | 15 epochs")
    assert list(printed) == sorted(ended, key=lambda key: -ended[key]["accuracy"]) and next(iter(printed)) == raw["settings"]["chosen"]
    assert raw["settings"]["seed"] == seed and f"{raw['settings']['epochs_in_all']:.0f} epochs in all with {said}" in TEXT
    length = sum(15 if each["accuracy"] else max(map(int, each["rungs"])) for each in raw["finalists"])
    assert raw["settings"]["epochs_in_all"] == length
    for each in raw["finalists"]:
        architecture = Architecture.from_dict(each["architecture"], "raw")
        assert (architecture.key, *cost(architecture)[:2]) == (each["key"], each["macs"], each["params"])
    for key, each in ended.items():
        measured = map(percent, [each["supernet"], each["rungs"]["2"], each["rungs"]["5"], each["accuracy"]])
        assert printed[key] == [each["origin"], f"{each['macs'] / 1e6:.2f} MMACs", *measured]


def test_the_control_without_a_supernet_is_printed_as_it_was_recorded() -> None:
    raw, searched = (json.loads((DOCS / f"results/{name}-cifar10-5MMACs.json").read_text()) for name in ("control", "search"))
    ended = {each["key"]: each for each in raw["finalists"] if each["accuracy"]}
    printed = rows("of the control | from | MACs | 2 epochs alone | 5 epochs | 15 epochs")
    assert list(printed) == sorted(ended, key=lambda key: -ended[key]["accuracy"]) and next(iter(printed)) == raw["settings"]["chosen"]
    for each in raw["finalists"]:
        architecture = Architecture.from_dict(each["architecture"], "raw")
        assert (architecture.key, *cost(architecture)[:2]) == (each["key"], each["macs"], each["params"]) and each["supernet"] is None
        if each["key"] in ended:
            measured = map(percent, [each["rungs"]["2"], each["rungs"]["5"], each["accuracy"]])
            assert printed[each["key"]] == [each["origin"], f"{each['macs'] / 1e6:.2f} MMACs", *measured]
    leads = []
    for found in (raw, searched):
        best = {each["origin"] if each["origin"] == "conv" else each["key"]: each["accuracy"] for each in found["finalists"]}
        leads.append(f"{100 * (best[found['settings']['chosen']] - best['conv']):.2f}")
    assert f"leads plain convolution by {leads[0]} points on the held-out images, that of the search with a supernet by {leads[1]}" in TEXT
    assert f"convolution twice) leads plain convolution by {leads[1]} points" in TEXT
    length, other = (each["settings"]["epochs_in_all"] for each in (raw, searched))
    assert length == sum(15 if each["accuracy"] else max(map(int, each["rungs"])) for each in raw["finalists"])
    assert f"{length:.0f} epochs in all, where the search above took {other:.0f} and what 39 more" in TEXT
    left = next(each for each in raw["finalists"] if each["key"] == searched["settings"]["chosen"])
    assert left["accuracy"] is None and f"with {percent(left['rungs']['5'])} below its best third" in TEXT


def test_the_comparison_is_printed_as_it_was_measured() -> None:
    raw = json.loads((DOCS / "results/comparison-cifar10-5MMACs.json").read_text())
    networks = {each["name"]: each for each in raw["networks"]}
    printed = rows("network, tested | MACs | seed 0 | seed 1 | seed 2 | mean | the winner leads by")
    seeds = {name: np.array(each["accuracies"]) for name, each in networks.items()}
    assert list(printed) == sorted(networks, key=lambda name: -seeds[name].mean())
    for name, each in networks.items():
        architecture = Architecture.from_dict(each["architecture"], "raw")
        assert (architecture.key, *cost(architecture)[:2]) == (each["key"], each["macs"], each["params"])
        assert len(seeds[name]) == 3 == len(raw["settings"]["seeds"])
        leads = 100 * (seeds["winner"] - seeds[name])
        led = "" if name == "winner" else f"{leads.mean():+.2f} ± {sem(leads):.2f}"
        assert printed[name] == [f"{each['macs'] / 1e6:.2f} MMACs", *map(percent, seeds[name]), percent(float(seeds[name].mean())), led]
    conv = 100 * (seeds["winner"] - seeds["conv"])
    attention, first = (
        100 * (seeds[one] - seeds[other]).mean() for one, other in (("winner", "conv-then-attention"), ("first winner", "conv"))
    )
    assert (
        f"is {conv.mean():.2f} points above plain convolution, with a standard error of {sem(conv):.2f}, and {attention:.2f} above" in TEXT
    )
    control = 100 * (seeds["control's winner"] - seeds["conv"]).mean()
    assert f"the first search's winner is {first:.2f} above plain convolution, the control's {control:.2f}" in TEXT
    found = ("winner", "first winner", "control's winner")
    together = 100 * (np.mean([seeds[name] for name in found], axis=0) - seeds["conv"])
    assert f"lead plain convolution by {together.mean():.2f} points, standard error {sem(together):.2f}" in TEXT
    even = (percent(float(seeds[name].mean())) for name in ("control's winner", "winner"))
    assert "({} the control's, {} the search's, below)".format(*even) in TEXT
    by_hand = networks.keys() - {*found, "conv, kernel 5"}  # kernels of 5: of another space
    assert len(by_hand) == 9 and all(seeds[name].mean() < min(seeds[each].mean() for each in found) for name in by_hand)
    drawn = np.array(list(seeds.values()))
    taus = [f"{kendalltau(drawn[:, one], drawn[:, other]).statistic:.2f}" for one, other in ((0, 1), (0, 2), (1, 2))]
    assert f"a Kendall's tau of {taus[0]}, {taus[1]} and {taus[2]} between" in TEXT
    assert f"the noise of one training is {100 * math.sqrt(drawn.var(1, ddof=1).mean()):.2f} points" in TEXT
    files = {"winner": "search-cifar10-5MMACs.json", "first winner": "search-cifar10-5MMACs-first.json"}
    for name, file in (files | {"control's winner": "control-cifar10-5MMACs.json"}).items():
        assert networks[name]["key"] == json.loads((DOCS / "results" / file).read_text())["settings"]["chosen"]
    searched = json.loads((DOCS / "results/search-cifar10-5MMACs-first.json").read_text())
    best = {each["key"]: each["accuracy"] for each in searched["finalists"] if each["accuracy"]}
    plain = next(each["accuracy"] for each in searched["finalists"] if each["origin"] == "conv")
    assert f"the same {percent(max(best.values()))}, and led plain convolution by {100 * (max(best.values()) - plain):.2f} points" in TEXT


ONE_SEED_LESS = ("mixture of the search in float32", "conv, narrow then wide, one token MLP")


def test_the_comparison_at_10_mmacs_is_printed_as_it_was_measured() -> None:
    raw = json.loads((DOCS / "results/comparison-cifar10-10MMACs.json").read_text())
    heads = " | ".join(f"seed {seed}" for seed in raw["settings"]["seeds"])
    printed = rows(f"network of 10 MMACs, tested | MACs | {heads} | mean | the winner leads by")
    seeds = {each["name"]: np.array(each["accuracies"]) for each in raw["networks"]}
    assert list(printed) == sorted(seeds, key=lambda name: -seeds[name].mean())
    chosen = json.loads((DOCS / "results/search-cifar10-10MMACs-bf16.json").read_text())["settings"]["chosen"]
    leads = {name: 100 * (seeds["winner"][: len(its)] - its) for name, its in seeds.items()}
    for each in raw["networks"]:
        name, architecture, lead = each["name"], Architecture.from_dict(each["architecture"], "raw"), leads[each["name"]]
        assert (architecture.key, *cost(architecture)[:2]) == (each["key"], each["macs"], each["params"])
        assert (each["key"] == chosen) is (name == "winner")
        assert len(raw["settings"]["seeds"]) == 3 and len(lead) == (2 if name in ONE_SEED_LESS else 3)
        led = "" if name == "winner" else f"{lead.mean():+.2f} ± {sem(lead):.2f}"
        tested = [*map(percent, seeds[name]), *["-"] * (3 - len(lead))]
        assert printed[name] == [f"{each['macs'] / 1e6:.2f} MMACs", *tested, percent(float(seeds[name].mean())), led]
    drawn = np.array([its for its in seeds.values() if len(its) == 3])
    assert f"the noise of one training {100 * math.sqrt(drawn.var(1, ddof=1).mean()):.2f}" in TEXT
    said = "it has {}, the mean of three seeds: the same mixer drawn by hand has {}, plain convolution {} points less than the winner, or {} with kernels of 5, which the space does not have, and convolution and then attention {} less."
    means = (percent(float(seeds[name].mean())) for name in ("winner", "token_linear"))
    less = (f"{leads[name].mean():.2f}" for name in ("conv", "conv, kernel 5", "conv-then-attention"))
    assert said.format(*means, *less) in " ".join((DOCS.parent / "README.md").read_text().split())


def blocks_of(networks: Iterable[dict[str, Any]]) -> Any:
    return np.array([sum(len(stage["mixers"]) for stage in each["architecture"]["stages"]) for each in networks])


def foretold(score: Any, blocks: Any, truth: Any) -> Any:
    """Each network's truth from the others' by score and blocks."""
    return cross_val_predict(LinearRegression(), np.stack([score, blocks], 1), truth, cv=LeaveOneOut())


SCORED = {
    "supernet": "supernet", "fine-tuned, 40 steps": "fine_tuned", "supernet and a ninth": "both", "one epoch of nine": "ninth", "two": "quarter",
    "three": "third", "four": "half", "multiply-adds": "macs", "parameters": "params", "gradient norm": "gradient_norm",
    "jacobian covariance": "jacobian_covariance",
}  # fmt: skip


def test_how_the_supernet_ranks_is_printed_as_it_was_measured() -> None:
    """Taus, means and regrets from the networks themselves; intervals as the file has them."""
    raw = json.loads((DOCS / "results/fidelity-cifar10-5MMACs.json").read_text())
    networks, figures = raw["networks"], raw["figures"]
    assert len(networks) == 30 == len({each["key"] for each in networks}) and raw["settings"]["epochs"] == 9
    for each in networks:
        architecture = Architecture.from_dict(each["architecture"], "raw")
        assert (architecture.key, *cost(architecture)[:2]) == (each["key"], each["macs"], each["params"])
        early = [each["epochs"][epoch] for epoch in "1234"]
        assert early == [each[name] for name in ("ninth", "quarter", "third", "half")]
    truth = np.array([statistics.fmean(each["retrained"]) for each in networks])
    blocks = blocks_of(networks)
    scores = {shown: np.array([each[name] for each in networks]) for shown, name in SCORED.items()}
    for name in ("supernet", "fine-tuned"):
        its = scores["supernet" if name == "supernet" else "fine-tuned, 40 steps"]
        scores[f"{name}, by depth"] = foretold(its, blocks, truth)
    names = SCORED | {"supernet, by depth": "supernet_by_depth", "fine-tuned, by depth": "fine_tuned_by_depth"}
    printed = rows("score | tau, and its interval of 95% | rho | regret of five, points | of the best five | mean")
    assert printed.keys() == scores.keys()
    for shown, (tau, rho, regret, precision, mean) in printed.items():
        score, found = scores[shown], figures[names[shown]]
        low, high = found["tau"][1:]
        assert (
            tau == f"{kendalltau(score, truth).statistic:.2f} [{low:.2f}, {high:.2f}]" and rho == f"{spearmanr(score, truth).statistic:.2f}"
        )
        best = np.argsort(-score, kind="stable")[:5]
        assert regret == f"{100 * (truth.max() - truth[best].max()):.2f}"
        assert precision == f"{len({*best} & {*np.argsort(-truth, kind='stable')[:5]}) / 5:.0%}"
        assert mean == (
            ""
            if shown not in SCORED or score.max() > 1 or names[shown] in ("both", "gradient_norm", "jacobian_covariance")
            else percent(score.mean())
        )
    shown = f"{percent(truth.min())[:-1]} to {percent(truth.max())}, mean {percent(float(truth.mean()))}, standard deviation {100 * truth.std(ddof=1):.2f}"
    assert shown in TEXT
    twice = np.array([each["retrained"] for each in networks if len(each["retrained"]) == 2])
    low, high = raw["agreement"]["tau"][1:]
    agreed = f"{kendalltau(*twice.T).statistic:.2f} [{low:.2f}, {high:.2f}]"
    noise = 100 * math.sqrt(twice.var(1, ddof=1).mean())
    assert len(twice) == 15 and f"with a tau of {agreed}**; the noise of one training is {noise:.2f} points" in TEXT
    assert f"would have a tau of some {raw['ceiling']:.2f} with this truth" in TEXT
    more, low, high = raw["figures"]["supernet_by_depth - supernet"]["tau"]
    assert f"above that of the plain score by {more:.2f} [{low:.2f}, {high:.2f}]" in TEXT
    lost = scores["fine-tuned, 40 steps"] - scores["supernet"]
    assert f"lowers the accuracy of {(lost < 0).sum()} of the 30, by {-100 * lost.mean():.2f} points on average" in TEXT
    chosen = json.loads((DOCS / "results/finalist_choice.json").read_text())
    better, short = ({name: f"{each[what][0]:.2f}" for name, each in chosen.items()} for what in ("better", "short"))
    said = f"{better['ladder']} points better than the others (standard error over 300 draws 0.03), the supernet's six favourites {better['supernet']}"
    assert said in TEXT and f"the supernet's scores {better['scores never']};" in TEXT
    assert f"the best there was by {short['ladder']}, {short['supernet']} and {short['scores never']} points" in TEXT
    assert f"makes the tau of the same scores {kendalltau(scores['supernet'] + 0.008 * blocks, truth).statistic:.2f}." in TEXT
    for one, other, clear in (
        ("supernet", "macs", True),
        ("supernet", "gradient_norm", False),
        ("supernet_by_depth", "jacobian_covariance", True),
    ):
        assert (figures[f"{one} - {other}"]["tau"][1] > 0) is clear


def test_what_other_ways_of_training_a_supernet_give_is_printed_as_it_was_measured() -> None:
    """All but the intervals from the scores themselves; what a row has more than the first has to be inside its interval."""
    truth = {each["key"]: each for each in json.loads((DOCS / "results/fidelity-cifar10-5MMACs.json").read_text())["networks"]}
    raw = json.loads((DOCS / "results/levers-cifar10-5MMACs.json").read_text())
    alone = np.array([statistics.fmean(each["retrained"]) for each in truth.values()])
    blocks = blocks_of(truth.values())
    scores = {"as it is": np.array([each["supernet"] for each in truth.values()])}
    scores |= {name: np.array([each["scores"][key] for key in truth]) for name, each in raw.items()}
    printed = rows("supernet | mean | tau | more than as it is | 0.8 a block | by score and blocks | a block has")
    assert list(printed) == list(scores)
    base = kendalltau(scores["as it is"], alone).statistic
    for name, score in scores.items():
        ways = (score, score + 0.008 * blocks, foretold(score, blocks, alone))
        tau, *corrected = (kendalltau(each, alone).statistic for each in ways)
        mean, shown, more, *rest = printed[name]
        slope = f"{100 * np.polyfit(blocks, score, 1)[0]:+.2f}"
        assert [mean, shown, *rest] == [percent(score.mean()), *(f"{each:.2f}" for each in (tau, *corrected)), slope], name
        if name != "as it is":
            value, low, high = map(float, re.findall(r"[+-]\d\.\d\d", more))
            assert low < value < high and value == pytest.approx(tau - base, abs=0.0051), name
    alike = kendalltau(scores["as it is"], scores["seed1"]).statistic
    assert f"Kendall's tau between the two supernets is {alike:.2f}" in TEXT
    worth = [np.array([each["epochs"][epoch] for each in truth.values()]) for epoch in "1235"]
    first, second, third, fifth, end = (f"{100 * np.polyfit(blocks, each, 1)[0]:.2f}" for each in (*worth, alone))
    assert (
        f"a block more is worth {first} points after one epoch, {second} after two, {third} after three and after five, {end} in the end"
        in TEXT
    )
    assert third == fifth
    assert all(np.polyfit(blocks, score, 1)[0] < 0 for score in scores.values())  # "in no supernet is a block worth anything"


def test_rates_are_printed_as_they_were_measured() -> None:
    lines = (DOCS / "results/rates-cifar10-5MMACs.jsonl").read_text().splitlines()
    raw = [each for each in map(json.loads, lines) if each["curve"] == "cosine"]
    printed = TEXT.split("| network, held out | images a step | rate | accuracy | seconds |\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed]
    assert sorted((name, int(images), float(rate), accuracy) for name, images, rate, accuracy, _ in cells) == sorted(
        (each["network"], each["batch_size"], each["lr"], percent(each["accuracy"])) for each in raw
    )
    assert {int(seconds) for *_, seconds in cells if seconds} == {each["seconds"] for each in raw if each["revision"]}


def test_networks_of_twice_the_budget_are_printed_as_they_were_measured() -> None:
    printed = rows("network of 10 MMACs, held out | width x blocks, ratio | seed 0 | seed 1 | bfloat16, seed 0 | bfloat16, seed 1")
    raw = json.loads((DOCS / "results/shapes-cifar10-10MMACs.json").read_text())["networks"]
    assert printed.keys() == {each["network"] for each in raw}
    for name, cells in printed.items():
        of = {(each["bf16"], each["seed"]): each for each in raw if each["network"] == name}
        architecture = Architecture.from_dict(of[False, 0]["architecture"], name)
        assert {each["key"] for each in of.values()} == {architecture.key} and 9.6e6 < cost(architecture).macs <= 1e7
        assert cells[-4:] == [percent(of[how]["accuracy"]) if how in of else "" for how in itertools.product((False, True), (0, 1))]
        assert cells[0] == "; ".join(f"{stage.width} x {stage.depth}, {stage.mlp_ratio:g}" for stage in architecture.stages)
    conv, mixed = (
        np.array([each["accuracy"] for each in raw if each["network"].startswith(name)]) for name in ("narrow", "the same, its middle")
    )
    lead, gain = 100 * (mixed - conv), 100 * np.stack([conv[2:] - conv[:2], mixed[2:] - mixed[:2]]).flatten()
    assert (lead > 0).all() and f"by {lead.mean():.2f} points on average, standard error {sem(lead):.2f};" in TEXT
    assert f"the four trainings are {gain.mean():.2f} points better than in float32, standard error {sem(gain):.2f}:" in TEXT


def test_what_bfloat16_gains_is_printed_as_it_was_measured() -> None:
    printed = rows("drawn by hand | float32 | bfloat16 | gain | in the supernet")
    measured = json.loads((DOCS / "results/precision.json").read_text())["networks"]
    assert printed == {
        each["network"]: [f"{each[name]} ms" for name in ("float32_ms", "bf16_ms")]
        + [f"{each[name]:.2f}" for name in ("gain", "gain_in_supernet")]
        for each in measured
    }
    least, most = (f"{100 / extreme(each['gain'] for each in measured):.0f}" for extreme in (max, min))
    said = f"takes {least} to {most}% of the time"
    assert said in (DOCS / "decisions.md").read_text() and said in (DOCS / "guide.md").read_text()


def test_what_wide_depthwise_filters_gain_is_printed_as_it_was_measured() -> None:
    measured: dict[str, list[str]] = {}
    for each in json.loads((DOCS / "results/depthwise.json").read_text())["figures"]:
        measured.setdefault(each["what"], []).extend([f"{each['own_ms']} / {each['ms']} ms", f"{each['gain']:.2f}"])
    assert rows("what | float32 | gain | bfloat16 | gain") == measured


def test_the_winner_that_readme_shows_is_that_of_the_search() -> None:
    raw = json.loads((DOCS / "results/search-cifar10-5MMACs.json").read_text())
    svg = (DOCS / "pictures/winner.svg").read_text()
    best = {each["origin"]: each for each in raw["finalists"] if each["accuracy"]}  # drawn by hand: neither "model" nor "supernet"
    by_hand = max(
        (each for origin, each in best.items() if origin not in ("model", "supernet", "variety")), key=lambda each: each["accuracy"]
    )
    chosen = next(each for each in raw["finalists"] if each["key"] == raw["settings"]["chosen"])
    assert re.findall(r'id="network ([0-9a-f]+)"', svg) == [chosen["key"], by_hand["key"]]
    mixers = [mixer for each in (chosen, by_hand) for stage in each["architecture"]["stages"] for mixer in stage["mixers"]]
    assert re.findall(r'id="block (\w+)"', svg) == mixers
    assert re.findall(r"(\S+%) of the held-out", svg) == [percent(each["accuracy"]) for each in (chosen, by_hand)]


LADDER = "network | from | MACs | supernet | 2 epochs alone | 5 epochs | 15 epochs"
TRUTH = "network of the truth | supernet | 2 epochs | 5 epochs | 10 epochs | 20 epochs"


@pytest.mark.parametrize(("columns", "epochs"), [(LADDER, ("2", "5")), (TRUTH, ("2", "5", "10"))], ids=["ladder", "truth"])
def test_every_figure_of_a_network_is_printed_as_it_was_measured(columns: str, epochs: tuple[str, ...]) -> None:
    last = int(re.findall(r"(\d\d) epochs", columns)[-1])
    raw = {each["key"]: each for each in ALONE if each["epochs"] == last}
    printed = rows(columns)
    assert printed
    for key, cells in printed.items():
        measured = [raw[key]["plain"], *(raw[key]["rungs"].get(each) for each in epochs), raw[key]["accuracy"]]
        assert cells[-len(measured) :] == [percent(each) for each in measured], key


def taus(networks: list[dict[str, Any]], *scores: Any) -> list[str]:
    return [f"{kendalltau([score(each) for each in networks], [each['accuracy'] for each in networks]).statistic:.2f}" for score in scores]


def after(epochs: int) -> Any:
    return lambda each: each["rungs"][str(epochs)]


def test_printed_correlations_are_those_of_the_networks() -> None:
    ended = [each for each in ALONE if each["epochs"] == 15 and each["accuracy"]]
    said = re.findall(
        r"Of all (\d+) networks .* Kendall's tau with the last figures is (\S+) after ten epochs, (\S+) after five, (\S+) after two", TEXT
    )
    assert [(str(len(ended)), *taus(ended, after(10), after(5), after(2)))] == [(*each[:3], each[3].rstrip(".")) for each in said]
    favourites = sorted(f"{100 * each['accuracy']:.1f}" for each in ended if each["key"] in ("d4d7e837395f", "b99e9afc011b"))
    assert "trained to the end by hand, had {} and {}%".format(*favourites) in TEXT
    random = [each for each in ALONE if each["epochs"] == 20 and each["key"] in rows(TRUTH)]
    (found,) = re.findall(
        r"Over these eight Kendall's tau is (\S+) for the supernet, (\S+) for two .*, (\S+) for five and (\S+) for ten", TEXT
    )
    assert len(random) == 8 and taus(random, lambda each: each["plain"], after(2), after(5), after(10)) == list(found)


@pytest.mark.parametrize("runtime", ["PyTorch", "ONNX Runtime"])
@pytest.mark.parametrize("space", ["cifar_small", "cifar", "hybrid"])
def test_the_tables_of_latencies_are_as_good_as_printed(runtime: str, space: str) -> None:
    name = {"PyTorch": "eager", "ONNX Runtime": "onnxruntime"}[runtime]
    raw = json.loads((DOCS / f"results/latency-{name}-{space}.json").read_text())
    (cells,) = re.findall(rf"^\| {runtime} \| {space}, ([^|]*)\|(.*)$", TEXT, re.M)
    networks = raw["networks"]
    foretold, measured = ([each[what] for each in networks] for what in ("foretold_ms", "measured_ms"))
    off = np.abs(np.array(foretold) / measured - 1)
    macs = [cost(Architecture.from_dict(each["architecture"], "raw")).macs for each in networks]
    expected = [f"{np.median(off):.1%}", f"{np.mean(off <= 0.05):.0%}", f"{np.mean(off <= 0.1):.0%}"]
    expected += [f"{kendalltau(each, measured).statistic:.2f}" for each in (foretold, macs)]
    assert len(networks) == 30 and cells[0].strip() == raw["budgets"][0].replace("MMACs", " MMACs").replace("1GMACs", "1 GMACs")
    assert [each.strip() for each in cells[1].split("|")][2:7] == expected
    limit = parse_budgets(raw["budgets"])[0].limit
    assert all(0.9 * limit <= each <= 1.1 * limit for each in macs)


def test_faults_are_printed_as_often_as_they_were_made_to_happen() -> None:
    made: dict[str, int] = {}
    for each in json.loads((DOCS / "results/faults.json").read_text()):
        row = f"{each['fault']}: {each['outcome']}"
        made[row] = made.get(row, 0) + each["times"]
    printed = rows("fault, and what happened | times | in")
    assert {row: int(times.replace(",", "")) for row, (times, _) in printed.items()} == made


def test_the_command_that_counts_faults_names_every_test_that_does() -> None:
    (command,) = re.findall(r"`NAS_FAULTS=FILE pytest (.*?)`", TEXT, re.S)
    tests = Path(__file__).parent
    assert set(re.findall(r"tests/(test_\w+\.py)", command)) == {
        each.name for each in tests.glob("test_*.py") if "\nfrom faults import happened\n" in each.read_text()
    }
    assert '-m "not gpu"' in command, "with the slow ones and the quick ones"


def test_the_gain_of_two_processes_is_printed_as_it_was_measured() -> None:
    printed = rows("images a step | one process | two processes | of it the sum of gradients | images a second | gained")
    for each in json.loads((DOCS / "results/ranks.json").read_text())["batches"]:
        seconds = {name: np.median([one["seconds"] for one in each[name]]) for name in ("one", "together")}
        row = printed[str(each["batch"])]
        assert row[:2] == [f"{seconds['one']:.3f} s", f"{seconds['together']:.3f} s"] and row[-1] == f"{each['gained']:.2f}"
