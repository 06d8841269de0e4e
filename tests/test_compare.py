"""`compare`: a winner beside networks drawn by hand and random ones; what is trained, what is reported, what goes on."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import Outcome, refused, run, succeed
from recording import CLASSES, SIDE, Recording, numbers, recording, write_images
from scipy import stats

from nas.networks.architecture import Frame
from nas.networks.network import Network
from nas.reporting.comparisons import picture, sentence, table
from nas.runs.records import read_search
from nas.searching import comparison, trained_alone
from nas.searching.comparison import contestants, space_of, standings
from nas.searching.search import MEMORY
from nas.searching.trained_alone import Alone
from nas.training.loop import NotFinite
from nas.training.report import Report
from nas.yaml_files import read_yaml, write_yaml

SPACE = """
format: search space 1
frame: {resolution: 32, channels: 3, classes: 10}
patch: 4
stages:
  - {width: [16, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2], sharing: [false, true]}
  - {width: 32, depth: 2, mixer: [conv, attention], mlp_ratio: 1, head_width: 16}
"""
RECIPE = """
format: recipe 1
bf16: never
supernet: {steps: 4, batch_size: 8, lr: 1.0e-3}
search: {trials: 4, population: 4, batch_size: 12}
retrain: {steps: 5, batch_size: 6, lr: 4.0e-3, warmup: 0.2, augmentation: {flip: true}}
"""
LIMIT, FLOOR, SEED, STEPS, BATCH = 600_000, 0.8, 3, 5, 6
INPUTS = ("winner.yaml", "tiny.yaml", "plain.yaml")
COMPARE = "compare winner.yaml --device cpu --random 2 --seeds 2 --run compared"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images that carry numbers, and what a search on them found. The best MACs of both sharings are the same: it is not searched."""
    folder = tmp_path_factory.mktemp("searched")
    write_images(folder / "images")
    (folder / "tiny.yaml").write_text(SPACE)
    (folder / "plain.yaml").write_text(RECIPE)
    succeed(f"search --device cpu --data images --space tiny.yaml --recipe plain.yaml --budget 600kMACs --seed {SEED} --run found", folder)
    shutil.copy(folder / "runs/best.yaml", folder / "winner.yaml")
    return folder


@pytest.fixture
def here(searched: Path, tmp_path: Path) -> Path:
    """One's own copy without runs; the images are the same."""
    for name in INPUTS:
        shutil.copy(searched / name, tmp_path)
    return tmp_path


def in_this_process(alone: Alone, ask: Any, told: Any, *, stop: Any, show: Any, **_: Any) -> None:
    """What `train_beside` does, without Ray."""
    while not stop() and (job := ask()) is not None:
        alone.train(*job, stop=lambda: show() or stop())
        told(job)
        show()


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "train_beside", in_this_process)


class Compared(NamedTuple):
    folder: Path
    seen: Recording
    timed_first: int  # passes on noise before the first step
    outcome: Outcome
    networks: list[dict[str, Any]]


def written(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "runs/compared/comparison.json").read_text())["networks"]


@pytest.fixture(scope="module")
def compared(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder, timed = tmp_path_factory.mktemp("compared"), list[int]()
    for name in INPUTS:
        shutil.copy(searched / name, folder)
    with pytest.MonkeyPatch.context() as patch, recording(before_step=lambda _: timed.append(len(seen.timed))) as seen:
        patch.setattr(comparison, "train_beside", in_this_process)
        outcome = run(COMPARE, folder)
    assert outcome.status == 0, outcome
    return Compared(folder, seen, timed[0], outcome, written(folder))


def by_name(networks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: each for each in networks for name in each["names"]}


# ---- what is trained ---------------------------------------------------------------------------------------------------


def test_networks_are_the_winner_the_patterns_and_draws_of_the_band_each_once(compared: Compared) -> None:
    named = by_name(compared.networks)
    mixers = {name: [set(stage["mixers"]) for stage in each["architecture"]["stages"]] for name, each in named.items()}
    assert named.keys() == {"winner", "conv", "attention", "s2_shift", "conv-then-attention", "random 1", "random 2"}
    assert mixers["conv"] == [{"conv"}, {"conv"}] and mixers["s2_shift"] == [{"s2_shift"}, {"conv"}]
    assert mixers["attention"] == mixers["conv-then-attention"] == [{"conv"}, {"attention"}]
    assert named["attention"] is named["conv-then-attention"], "the first stage has no attention: they are one network"
    assert len({each["key"] for each in compared.networks}) == len(compared.networks) <= 6
    assert named["winner"]["architecture"] == read_yaml(compared.folder / "winner.yaml")["architecture"]
    assert all(FLOOR * LIMIT <= named[f"random {number}"]["macs"] <= LIMIT for number in (1, 2))
    assert all(each["macs"] <= LIMIT for each in compared.networks)
    assert not any(stage.get("sharing") for each in compared.networks for stage in each["architecture"]["stages"]), "not searched"


def test_all_are_trained_alike_on_all_training_images_the_first_seed_of_all_first(compared: Compared) -> None:
    num, steps = len(compared.networks), compared.seen.steps
    assert len(steps) == 2 * num * STEPS
    assert [seed for _, _, seed, _ in compared.seen.batches] == [SEED] * num + [SEED + 1] * num
    assert {(split, size, augmentation.flip) for split, size, _, augmentation in compared.seen.batches} == {("train", BATCH, True)}
    trainings = [steps[first : first + STEPS] for first in range(0, len(steps), STEPS)]
    trained = [{one.module for one in training} for training in trainings]
    assert all(len(modules) == 1 for modules in trained) and len(set().union(*trained)) == 2 * num
    architectures = [training[0].passes[0].architecture for training in trainings]
    assert {architecture.frame for architecture in architectures} == {Frame(SIDE, 1, CLASSES)}
    frame = Frame(32, 3, 10)
    assert [each.at(frame).key for each in architectures] == 2 * [each["key"] for each in compared.networks]
    shown = {number for step in steps for number in step.numbers}
    assert shown <= numbers("train") | numbers("val") and shown & numbers("train") and shown & numbers("val")


def test_accuracies_are_of_one_test_after_each_training(searched: Path, compared: Compared) -> None:
    """Counted from the logits of the passes and the folders that the images lie in."""
    labels = {int(path.stem): int(path.parent.name) for path in (searched / "images/test").rglob("*.png")}
    num, counted = len(compared.networks), []
    assert compared.seen.evaluated_splits == ["test"] * 2 * num
    for training in range(2 * num):
        passes = [
            one
            for one, before in zip(compared.seen.evaluations, compared.seen.steps_before, strict=True)
            if before == (training + 1) * STEPS
        ]
        guesses = [(n, int(row.argmax())) for one in passes for n, row in zip(one.numbers, one.logits, strict=True) if n is not None]
        assert sorted(n for n, _ in guesses) == sorted(labels)
        counted.append(sum(guess == labels[n] for n, guess in guesses) / len(labels))
    assert [each["accuracies"] for each in compared.networks] == [list(pair) for pair in zip(counted[:num], counted[num:], strict=True)]


def test_latency_is_of_the_spaces_frame_and_taken_before_anything_is_trained(compared: Compared) -> None:
    timed = compared.seen.timed
    assert compared.timed_first == len(timed) > 0
    assert {tuple(one.images.shape) for one in timed} == {(1, 3, 32, 32)}
    assert {one.architecture.key for one in timed} == {each["key"] for each in compared.networks}
    assert all(each["latency_ms"] > 0 for each in compared.networks)


def test_a_longer_draw_begins_with_the_shorter_one_and_another_seed_draws_others(searched: Path) -> None:
    winner = read_search(searched / "winner.yaml")
    space, budgets = space_of(winner, searched / "winner.yaml", str(searched / "tiny.yaml"))

    def drawn(num: int, seed: int) -> dict[str, str]:
        found = contestants(winner, space, budgets, 0.1, space.frame, (num, seed))
        return {name: each.architecture.key for each in found for name, kind in each.names.items() if kind == "random"}

    assert drawn(2, 0).items() <= drawn(5, 0).items() and len(set(drawn(5, 0).values())) == 5
    assert drawn(5, 0) != drawn(5, 1)


def test_what_is_asked_for_is_compared_whatever_it_costs(searched: Path) -> None:
    winner, file = read_search(searched / "winner.yaml"), searched / "winner.yaml"
    space, budgets = space_of(winner, file, str(searched / "tiny.yaml"))
    found = contestants(winner, space, budgets, 0.1, space.frame, (0, 0), [str(file), "spach_conv_ms_s"])
    named = {name: (each.architecture, kind) for each in found for name, kind in each.names.items()}
    assert named[str(file)] == (winner.architecture, "asked") and named["winner"] == (winner.architecture, "winner")
    assert named["spach_conv_ms_s"][0].frame == space.frame and named["spach_conv_ms_s"][1] == "asked"
    assert len({each.architecture.key for each in found}) == len(found)


# ---- again, and interrupted --------------------------------------------------------------------------------------------


def test_what_is_known_is_neither_trained_nor_timed_again(
    compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    folder = Path(shutil.copytree(compared.folder, tmp_path / "again"))
    with monkeypatch.context() as patch:
        patch.setattr(Network, "forward", lambda *_: pytest.fail("a network ran"))
        assert table_of(succeed(COMPARE, folder)) == table_of(compared.outcome.out)
    with recording() as seen:
        succeed(COMPARE.replace("--seeds 2", "--seeds 3"), folder)
    assert {seed for _, _, seed, _ in seen.batches} == {SEED + 2} and len(seen.batches) == len(compared.networks) and not seen.timed
    assert [each["accuracies"][:2] for each in written(folder)] == [each["accuracies"] for each in compared.networks]


def table_of(said: str) -> list[str]:
    return said[said.index("\nnetwork ") :].splitlines()


@pytest.mark.whole
def test_the_same_command_goes_on_where_a_signal_stopped_it(
    here: Path, compared: Compared, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    """In the middle of the third training; the figures are those of a comparison that nothing stopped."""
    real, steps = Report.step, list[int]()

    def step(self: Report, done: int, loss: float, lr: float) -> None:
        real(self, done, loss, lr)
        steps.append(done)
        if len(steps) == 2 * STEPS + 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Report, "step", step)
    stopped = run(COMPARE, here)
    assert stopped.status == 130 and "same command continues" in stopped.out and "2 of " in stopped.out, stopped
    assert not (here / "runs/compared/comparison.json").exists()
    succeed(COMPARE, here)
    assert len(steps) == 2 * len(compared.networks) * STEPS, "no step twice"
    assert [each["accuracies"] for each in written(here)] == [each["accuracies"] for each in compared.networks]


def test_progress_moves_while_a_network_is_trained(here: Path, monkeypatch: pytest.MonkeyPatch, without_ray: None) -> None:
    monkeypatch.setattr("nas.progress.EVERY_SECONDS", 0.0)
    monkeypatch.setattr("nas.searching.trained_alone.LOOK", 0.0)
    said = run(f"{COMPARE} --random 0 --seeds 1", here).err
    shown = [tuple(map(int, each)) for each in re.findall(r"^compare: (\d+)/(\d+) steps.*?(\d+) of \d+ trainings", said, re.M)]
    total = len(written(here)) * STEPS
    assert {steps for steps, _, _ in shown} >= set(range(1, total + 1)) and {each for _, each, _ in shown} == {total}
    assert all(done == steps // STEPS or steps % STEPS == 0 for steps, _, done in shown)


@pytest.mark.slow
def test_beside_each_other_every_network_is_trained_once_to_the_end(here: Path, compared: Compared) -> None:
    """Under Ray, with the figures of one process."""
    succeed(f"{COMPARE.replace('--seeds 2', '--seeds 1')} --workers 2", here)
    for each in written(here):
        (place,) = (here / "runs/compared/alone").glob(f"{each['key']}-*")
        lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        assert [line.get("step") for line in lines if line["kind"] == "alone"] == list(range(1, STEPS + 1))
        assert [line["kind"] for line in lines].count("sitting") == 1
    for one, other in zip(written(here), compared.networks, strict=True):
        assert one["accuracies"] == pytest.approx(other["accuracies"][:1], abs=0.05), "a thread more may round otherwise"


# ---- what is reported --------------------------------------------------------------------------------------------------


def made_up(*networks: tuple[str, str, list[float | None]]) -> list[dict[str, Any]]:
    """Entries of comparison.json: name, kind, accuracies."""
    return [
        {
            "names": [name], "kinds": [kind], "macs": 10**6 + number, "params": 2000, "latency_ms": 1.5, "latency_failure": None,
            "accuracies": its, "failures": ["broken" if each is None else None for each in its], "second_tries": [False] * len(its),
        }
        for number, (name, kind, its) in enumerate(networks)
    ]  # fmt: skip


def test_figures_are_those_of_a_paired_t_test() -> None:
    draws = np.random.default_rng(0).normal([0.6, 0.7, 0.65], 0.02, size=(5, 3)).T.tolist()
    rows = standings(made_up(("winner", "winner", draws[0]), ("a", "pattern", draws[1]), ("b", "random", draws[2])))
    assert [row.label for row in rows] == ["a", "b", "winner"], "the best mean first"
    assert rows[-1].lead is None
    for row, its in zip(rows, (draws[1], draws[2], draws[0]), strict=True):
        assert (row.mean, row.deviation) == pytest.approx((np.mean(its), np.std(its, ddof=1)))
        if row.lead:
            paired = stats.ttest_rel(draws[0], its)
            assert row.lead.value / row.lead.error == pytest.approx(paired.statistic)
            assert row.lead.interval == pytest.approx(tuple(paired.confidence_interval(0.95)))


def test_the_commands_table_and_file_have_the_figures_of_the_accuracies(compared: Compared) -> None:
    winner = by_name(compared.networks)["winner"]["accuracies"]
    for each in compared.networks:
        its = each["accuracies"]
        assert (each["mean"], each["deviation"]) == pytest.approx((np.mean(its), np.std(its, ddof=1)))
        (line,) = [line for line in compared.outcome.out.splitlines() if line.startswith(", ".join(each["names"]) + "  ")]
        assert f"{100 * np.mean(its):.2f} +- {100 * np.std(its, ddof=1):.2f}" in line
        assert all(f"  {100 * accuracy:.2f}  " in f"{line}  " for accuracy in its)
        if "winner" not in each["names"]:
            assert line.rstrip().endswith(
                f"{100 * (np.mean(winner) - np.mean(its)):+.2f} +- {100 * stats.sem(np.subtract(winner, its)):.2f}"
            )
    settings = json.loads((compared.folder / "runs/compared/comparison.json").read_text())["settings"]
    assert {
        "seeds": [3, 4],
        "steps": STEPS,
        "test_images": len(numbers("test")),
        "floor": FLOOR,
        "budgets": ["600kMACs"],
    }.items() <= settings.items()
    assert settings["command"].startswith("launch.py compare") and {"python", "torch"} <= settings["versions"].keys()


HAND = ("conv", "pattern", [0.70, 0.71, 0.72])


@pytest.mark.parametrize(
    ("winner", "others", "expected"),
    [
        ([0.75, 0.76, 0.775], [HAND], ["is above", "5.17 points", "conv", " more than the noise", "+4.45 to +5.88"]),
        ([0.60, 0.85, 0.70], [HAND], ["is above", "0.67 points", "no more than the noise"]),
        ([0.65, 0.66, 0.672], [HAND, ("attention", "pattern", [0.1] * 3)], ["is not above", "4.93 points", "conv", " more than the noise"]),
        ([0.75, 0.76, 0.77], [HAND, ("random 1", "random", [0.9] * 3)], ["is above", "5.00 points", "conv"]),
        ([0.75, 0.76, 0.77], [HAND, ("published", "preset", [0.9] * 3)], ["is not above", "published", "14.00 points above"]),
        ([0.75, 0.76, 0.775], [HAND, ("s2", "pattern", [None] * 3)], ["is above", "(1 of 2)", "5.17 points"]),
        ([0.75, None, 0.77], [HAND], ["is above", "5.00 points", "2 seeds"]),
        ([None] * 3, [HAND], ["no accuracy"]),
    ],
)
def test_the_sentence_is_about_the_best_of_the_networks_drawn_by_hand(
    winner: list[float | None], others: list[Any], expected: list[str]
) -> None:
    said = sentence(made_up(("winner", "winner", winner), *others))
    assert all(each in said for each in expected), said
    assert (" no more than" in said) is any("no more" in each for each in expected)


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_seeds_that_show_no_noise_claim_nothing_about_it(num_seeds: int) -> None:
    """One seed; and two whose differences are equal, as happens with few test images."""
    said = sentence(made_up(("winner", "winner", [0.75] * num_seeds), ("conv", "pattern", [0.5] * num_seeds)))
    assert "25.00 points" in said and "interval" not in said and "than the noise" not in said


def test_a_winner_drawn_by_hand_is_said_to_be_one() -> None:
    networks = made_up(("winner", "winner", [0.8, 0.81]), ("s2_shift", "pattern", [0.7, 0.7]))
    networks[0] |= {"names": ["winner", "conv"], "kinds": ["winner", "pattern"]}
    said = sentence(networks)
    assert "winner, conv" in said and "every other" in said and "s2_shift" in said


def test_failures_are_listed_with_their_reason_and_are_no_zeros(
    here: Path, compared: Compared, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    """One network never trains, another does at its second try."""
    named, real, tries = by_name(compared.networks), trained_alone.train_network, dict[str, int]()
    never, twice = named["conv"]["key"], named["attention"]["key"]

    def train(architecture: Any, *others: Any, **named: Any) -> Any:
        tries[architecture.key] = tries.get(architecture.key, 0) + 1
        if architecture.key == never or (architecture.key == twice and tries[twice] == 1):
            raise NotFinite("the loss is not finite")
        return real(architecture, *others, **named)

    monkeypatch.setattr(trained_alone, "train_network", train)
    said = succeed(f"{COMPARE} --seeds 1", here)
    found = by_name(written(here))
    assert (
        found["conv"]["accuracies"] == [None] and found["conv"]["mean"] is None and found["conv"]["failures"] == [trained_alone.NOT_FINITE]
    )
    assert found["attention"]["accuracies"][0] is not None and found["attention"]["second_tries"] == [True]
    assert found["s2_shift"]["second_tries"] == [False]
    lines = table_of(said)
    assert any("conv, seed 3" in line and trained_alone.NOT_FINITE in line for line in lines)
    assert any("attention" in line and "seed 3" in line and "half the learning rate" in line for line in lines)
    assert "failed" in next(line for line in lines if line.startswith(", ".join(found["conv"]["names"]) + "  "))


def test_the_picture_has_a_dot_for_each_seed_and_a_bar_at_each_mean(compared: Compared) -> None:
    axes = picture(made_up(("winner", "winner", [0.5, 0.7]), ("a", "pattern", [0.8, None]), ("b", "random", [None, None])), "t").axes[0]
    points = {(line.get_gid(), float(x), float(y)) for line in axes.lines if line.get_gid() for x, y in zip(*line.get_data(), strict=True)}
    expected = {("seeds", 80, 0), ("mean", 80, 0), ("seeds", 50, 1), ("seeds", 70, 1), ("mean", 60, 1)}
    assert {(kind, round(x, 6), y) for kind, x, y in points} == expected
    assert ["1.00 MMACs" in label.get_text() for label in axes.get_yticklabels()] == [True] * 3
    assert (compared.folder / "runs/compared/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_of_a_comparison_says_what_the_command_said(compared: Compared) -> None:
    succeed("report compared", compared.folder)
    told = html.unescape((compared.folder / "runs/compared/report.html").read_text())
    lines = [line for line in table_of(compared.outcome.out) if not line.startswith(("Behind +-", "Written to"))]
    assert len(lines) > 8 and all(line in told for line in lines), "the table and the sentence"
    assert told.count("<img") == 1 and "Unfinished" not in told


def test_a_table_says_what_does_not_fit() -> None:
    networks = made_up(("winner", "winner", [0.5]), ("a", "pattern", [0.4]))
    networks[1] |= {"latency_ms": None, "latency_failure": MEMORY}
    assert any(MEMORY in line for line in table(networks, [0])) and "does not fit" in "".join(table(networks, [0]))


# ---- what is refused ---------------------------------------------------------------------------------------------------


def change(path: Path, **entries: Any) -> None:
    data = read_yaml(path)
    write_yaml(path, {**data, **entries})


def without_search(folder: Path) -> None:
    data = read_yaml(folder / "winner.yaml")
    write_yaml(folder / "winner.yaml", {key: data[key] for key in ("format", "architecture")})


def baseline(folder: Path) -> None:
    change(folder / "winner.yaml", found={"pattern": "conv"})


def moved(folder: Path) -> None:
    (folder / "tiny.yaml").rename(folder / "elsewhere.yaml")


def changed(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(SPACE.replace("width: [16, 32]", "width: [16, 48]"))


def rungs(folder: Path) -> None:
    (folder / "plain.yaml").write_text(RECIPE.replace("flip: true}}", "flip: true}, rungs: [2]}"))


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "more", "expected"),
    [
        (without_search, "", "not a winner"),
        (baseline, "", "not a winner"),
        (moved, "", "--space"),
        (changed, "", "changed since the winner was found"),
        (rungs, "", "rungs"),
        (nothing, "--floor 1", "--floor"),
        (nothing, "--floor nan", "--floor"),
        (nothing, "--seeds 0", "--seeds"),
        (nothing, "--workers 1000", "--workers"),
        (nothing, "--data nowhere", "nowhere"),
        (nothing, "--also nothing.yaml", "nothing.yaml"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_made(
    here: Path, spoil: Callable[[Path], None], more: str, expected: str
) -> None:
    spoil(here)
    assert expected in refused(f"{COMPARE} {more}", here)
    assert not (here / "runs/compared/run.yaml").exists()


def test_a_run_is_not_continued_with_another_recipe_length_or_winner(compared: Compared, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(compared.folder, tmp_path / "begun"))
    (folder / "other.yaml").write_text(RECIPE.replace("4.0e-3", "1.0e-3"))
    before = (folder / "runs/compared/comparison.json").read_bytes()
    for more in ("--steps 6", "--recipe other.yaml", "--seed 9", "--resolution 32"):
        assert "begun with" in refused(f"{COMPARE} {more}", folder)
    other = by_name(compared.networks)["s2_shift"]["architecture"]
    change(folder / "winner.yaml", architecture=other)
    assert "another architecture" in refused(COMPARE, folder)
    assert (folder / "runs/compared/comparison.json").read_bytes() == before


def test_a_space_is_known_again_wherever_it_is_and_whatever_its_search_did_not_choose(here: Path, searched: Path) -> None:
    """The budget left sharing out; with a budget that is measured only the run of the supernet says so."""
    moved(here)
    winner = read_search(here / "winner.yaml")
    space, _ = space_of(winner, here / "winner.yaml", str(here / "elsewhere.yaml"))
    assert space.fingerprint == winner.space_fingerprint and "s0.sharing" not in space.decisions and "s0.width" in space.decisions
    change(here / "winner.yaml", budgets=["1000s"], space=str(here / "elsewhere.yaml"))
    (here / "images").symlink_to(searched / "images")
    assert "changed since the winner was found" in refused(f"{COMPARE} --random 0", here)
    shutil.copytree(searched / "runs/found", here / "runs/found")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        again, budgets = space_of(read_search(here / "winner.yaml"), here / "winner.yaml", None)
    assert again.fingerprint == space.fingerprint and [each.text for each in budgets] == ["1000s"]
