"""The end of a search as a user sees it: finalists trained alone, the table, the study, the winner, and what an interruption leaves."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run, succeed
from often import often
from recording import CLASSES, Recording, numbers, recording, write_images
from sklearn.datasets import load_digits
from studies import stored

import nas.searching.evolution as evolution
import nas.searching.finals as finals
import nas.searching.search_run as search_run
import nas.searching.tune as tune
from nas import load_network
from nas.cost import cost
from nas.networks.architecture import Architecture, read_architecture
from nas.networks.network import Network
from nas.quantities import parse_budgets
from nas.runs.checkpoint import load_checkpoint
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.runs.records import read_run
from nas.searching.candidates import Looks, candidates
from nas.searching.comparison import read_found
from nas.searching.evaluating import Evaluator
from nas.searching.finals import LEADERS
from nas.searching.inherited import FineTuned
from nas.searching.ladder import Finalist, Ladder, Look
from nas.searching.search import MEMORY, Evaluation, SearchRequest, Trial
from nas.searching.search_run import SearchRun
from nas.searching.trained_alone import NOT_FINITE, Alone, Trained
from nas.spaces.decisions import SearchSpace
from nas.spaces.supernet import Supernet
from nas.training.recipe import Phase
from nas.yaml_files import read_yaml

SPACE = """
format: search space 1
frame: {resolution: 16, channels: 1, classes: 4}
patch: 4
stages:
  - {width: [16, 32], depth: [1, 2], mixer: [conv, s2_shift], mlp_ratio: [1, 2], kernel: [3, 5]}
  - {width: [32, 64], depth: [1, 2], mixer: [conv, attention], mlp_ratio: [1, 2], head_width: 16, sharing: [false, true]}
"""
RECIPE = """
format: recipe 1
bf16: never
supernet: {steps: 6, batch_size: 8, lr: 1.0e-3}
search: {trials: 8, population: 8, batch_size: 16, fine_tune: 3, finalists: 4, finalist_epochs: 2}
retrain: {epochs: 1, batch_size: 8, lr: 1.0e-3, warmup: 0.2}
"""
SEARCH = "search --device cpu --data images --space tiny.yaml --recipe plain.yaml --budget 200kMACs --run found"
STUDY = "200kMACs-evolution"


def in_this_process(
    after: Callable[[int, int], None] = lambda jobs, rung: None, starts: dict[str, float] | None = None
) -> Callable[..., None]:
    """`train_beside` without Ray: one network after the other, of three at the first rung one goes on to the second. `after` sees (networks begun, rung reached), and
    `starts` gets the head starts of all."""
    stood: dict[int, list[float]] = {}
    begun: list[Any] = []

    def train_beside(
        alone: Alone, ask: Any, told: Any, *, crew: Any, climb: str, stop: Any, show: Any, head_start: Any = lambda job: 0, **_: Any
    ) -> None:
        while isinstance(job := ask(), tune.Job):
            begun.append(job)
            if starts is not None and climb == "the best":
                starts.setdefault(job.architecture.key, head_start(job))
            for rung, steps in enumerate(alone.ladder):
                new = alone.accuracy(*job, steps=steps) is None
                alone.train(*job, until=steps, stop=stop)
                told(job)
                show()
                after(len(begun), rung)
                at = alone.accuracy(*job, steps=steps)
                assert at is not None
                at += head_start(job)
                behind = rung == 1 or (bool(stood.get(rung)) and at < np.percentile(stood[rung], 200 / 3))
                if climb == "the best":
                    stood.setdefault(rung, []).append(at)
                if (climb == "the best" and behind) or (climb == "all a rung" and new) or (climb == "all but the end" and rung == 1):
                    break

    return train_beside


@pytest.fixture(scope="module", autouse=True)
def few_children() -> Iterator[None]:
    """A third of those that finalists are chosen from, and a tenth of a search's: seconds of arithmetic for each search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finals, "CHILDREN", finals.CHILDREN // 3)
        patch.setattr(evolution, "POOL", evolution.POOL // 10)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_images(folder / "images")
    (folder / "tiny.yaml").write_text(SPACE)
    (folder / "plain.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:  # the supernet, and a search without finalists
        patch.setattr(tune, "train_beside", lambda *_, **__: pytest.fail("no finalists were asked for"))
        succeed(f"{SEARCH} --finalists 0", folder)
    return folder


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ({}, "got 7, none of which failed in training; accepted: one or more. Raise the budget, or give --finalists 0."),
        ({NOT_FINITE: 6, MEMORY: 1}, "7 of which failed in training, 6 for one reason, 'the loss is not finite'; accepted: one or more. Write lr: 0.002 under retrain"),
        ({MEMORY: 7}, "Write batch_size: 16 under retrain in a copy of the recipe and give it with --run mine --recipe FILE, or give --finalists 0."),
    ],
)  # fmt: skip
def test_where_no_finalist_wins_the_commonest_reason_is_told_with_what_helps(reasons: dict[str, int], told: str) -> None:
    """Half of the rate and half of the images were tried, so a quarter is advised."""
    said = finals._no_winner(7, Counter(reasons), Phase(epochs=1, batch_size=64, lr=0.008), "mine")
    assert told in said and said.startswith("search: no finalist") and "\n" not in said


def test_a_winner_without_finalists_can_be_used_at_once(inputs: Path) -> None:
    file = inputs / "runs/found" / f"{STUDY}.safetensors"
    winner, _ = read_architecture(file.with_suffix(".yaml"))
    network = load_network(file)
    assert network.architecture.at(winner.frame) == winner and network.preprocess is not None and len(network.classes) == 4


@pytest.fixture
def folder(inputs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(inputs, tmp_path / "own")


@dataclass
class Whole:
    """A search with finalists that nothing interrupted, and what was seen of it: nobody writes to its folder.

    Attributes:
        starts: the head start of each network, by its key.
        pools: what finalists were chosen from, each time one was.
        leaders: the best at the time.
        looked: the networks that the model's choice was to be found among, with the supernet's accuracy.
    """

    folder: Path
    said: str = ""
    seen: Recording = field(default_factory=Recording)
    starts: dict[str, float] = field(default_factory=dict)
    pools: list[list[Finalist]] = field(default_factory=list)
    leaders: list[Finalist] = field(default_factory=list)
    looked: list[Finalist] = field(default_factory=list)


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    once, choose = Whole(shutil.copytree(inputs, tmp_path_factory.mktemp("whole") / "own")), Ladder.choose

    def watched(self: Ladder, pool: Sequence[Finalist], num: int, look: Look) -> list[Finalist]:
        def watched_look(shortlist: Sequence[Finalist], how_many: int, scored: bool) -> list[Finalist]:
            found = look(shortlist, how_many, scored)
            once.looked.extend(found if scored else [])
            return found

        once.pools.append(list(pool))
        once.leaders.extend(self.leaders(LEADERS))
        return choose(self, pool, num, watched_look)

    with pytest.MonkeyPatch.context() as patch, recording() as once.seen:
        patch.setattr(tune, "train_beside", in_this_process(starts=once.starts))
        patch.setattr(Ladder, "choose", watched)
        once.said = succeed(SEARCH, once.folder)
    return once


@pytest.fixture
def ended(whole: Whole, tmp_path: Path) -> Path:
    """One's own copy of it."""
    return shutil.copytree(whole.folder, tmp_path / "ended")


def finalists(folder: Path) -> list[dict[str, Any]]:
    with stored(folder / "runs/found/study.db", STUDY) as study:
        accuracies = {each.user_attrs["arch_key"]: each.values[0] for each in study.trials if each.values}
    with stored(folder / "runs/found/study.db", f"{STUDY}-finalists") as study:
        found = study.trials
    for each in found:
        assert each.user_attrs["supernet"] == pytest.approx(accuracies.get(each.user_attrs["arch_key"], each.user_attrs["supernet"]))
    return [{**each.user_attrs, "state": each.state.name, "accuracy": each.value, "rungs": each.intermediate_values} for each in found]


def test_finalists_learn_from_fit_images_and_are_judged_on_the_held_out_ones(whole: Whole) -> None:
    """Neither fine-tuning nor training alone sees a held-out image with gradients, and nobody opens the test split."""
    seen = whole.seen
    trained = {number for step in seen.steps for number in step.numbers}
    assert trained <= numbers("train") and len(trained) > 40
    assert set(seen.evaluated_splits) == {"held_out"} and {split for split, *_ in seen.batches} == {"fit"}
    assert {number for one in seen.evaluations for number in one.numbers} == numbers("val")
    assert {type(one.module) for one in seen.evaluations} == {Network}, "on a CPU copied out of the supernet"
    assert all(isinstance(step.module, Network) for step in seen.steps)


def test_each_network_is_a_candidate_once(inputs: Path, tmp_path: Path) -> None:
    """Who is drawn for variety is no favourite of the supernet too, where the search has evaluated all networks of the band."""
    space, rng, budgets = SearchSpace.read(inputs / "tiny.yaml"), random.Random(0), parse_budgets(["200kMACs"])
    request, values = SearchRequest(budgets, 0, 2), [space.random(rng) for _ in range(3000)]
    networks = {space.decode(each).key: (each, space.decode(each)) for each in values}
    found = [(each, network, cost(network)) for each, network in networks.values()]
    trials = [
        Trial(number, each, network, costs, {"macs": costs.macs / 2e5 - 1}, evaluation=Evaluation(0.5))
        for number, (each, network, costs) in enumerate(found)
        if costs.macs <= 2e5
    ]
    opened: Any = SimpleNamespace(space=space, setting=SimpleNamespace(frame=space.frame))
    looks = Looks(Run("found", tmp_path), "study", budgets, lambda architecture: {}, lambda: False)
    evaluator = Evaluator(lambda asked: iter([Evaluation(0.5) for _ in asked]))
    who = candidates(opened, request, 30, trials, evaluator, looks)
    keys = [each.key for each in (*who.by_hand, *who.varied, *who.pool)]
    assert len(who.varied) == 5 and len(set(keys)) == len(keys)
    in_band = {trial.architecture.key for trial in trials if trial.usage >= request.floor}
    assert {each.key for each in who.varied} & in_band and in_band <= set(keys)


def test_finalists_have_their_supernets_accuracy_as_a_head_start(whole: Whole) -> None:
    lines = [line for line in read_run(whole.folder / "runs/found").metrics if line["kind"] == "finalist"]
    assert whole.starts == {line["key"]: line["supernet"] for line in lines if line["origin"] != "model"}
    assert len(set(whole.starts.values())) > 1


def test_the_model_may_choose_what_is_near_the_leaders_by_its_accuracy_with_the_supernets_weights(whole: Whole) -> None:
    """Beside what the search evaluated: new networks within the budget, a decision or two from a leader, or with sizes moved after that."""
    near = [each for each in whole.pools[-1] if each.origin == "model"]
    space = SearchSpace.read(whole.folder / "tiny.yaml")
    assert len(near) > 10 and all(len({each.key for each in pool}) == len(pool) for pool in whole.pools)
    others = [space.encode(each.architecture) for each in whole.leaders]
    for each in near:
        assert 160_000 <= cost(each.architecture).macs <= 200_000
        values = space.encode(each.architecture)
        mixers = [sum(values[name] != other[name] for name in space.mixer_decisions) for other in others]
        assert min(mixers) <= 2
    supernet, labels = Supernet(space.fixing({"s1.sharing": False})), load_digits(n_class=CLASSES).target
    supernet.load_state_dict(load_checkpoint(whole.folder / "runs/found/supernet.pt")["model"])  # type: ignore[index]
    scored = {each.key: each for each in whole.looked if each.key in {one.key for one in near}}
    for each in scored.values():
        first, *others = (one for one in whole.seen.evaluations if one.architecture.key == each.key)  # before it was trained alone
        with torch.no_grad():
            torch.testing.assert_close(first.logits, supernet.eval()(first.images, each.architecture))
        passes = [first, *(one for one in others if one.module is first.module)]
        right = [at.argmax().item() == labels[number] for one in passes for at, number in zip(one.logits, one.numbers, strict=True)]
        assert len(right) == 40 and each.supernet == pytest.approx(np.mean(right))
    assert scored and {each.key for each in near} - {each.key for each in whole.leaders}


def test_the_table_the_study_and_the_winner_agree(whole: Whole, ended: Path) -> None:
    found, rows = read_yaml(ended / "runs/best.yaml")["found"], finalists(ended)
    best = max((row for row in rows if row["state"] == "COMPLETE"), key=lambda row: row["accuracy"])
    assert best is rows[0] and [row.get("winner") for row in rows] == [True, *[None] * (len(rows) - 1)], (
        "found at once: the first, and marked"
    )
    assert all(row["rung"] == len(row["rungs"]) + (row["state"] == "COMPLETE") for row in rows), "how far each came"
    behind = [row for row in rows if row["state"] == "PRUNED"]
    assert behind and all(row["rungs"] for row in behind), "what they had shown until then"
    architecture, entries = read_architecture(ended / "runs/best.yaml")
    assert best["arch_key"] == architecture.key and best["accuracy"] == pytest.approx(found["accuracy_alone"], abs=1e-4)
    assert best["macs_m"] == round(entries["costs"]["macs"] / 1e6, 3) <= 0.2
    assert len(rows) == found["finalists"] and len({row["arch_key"] for row in rows}) == len(rows)
    patterns = {
        read_architecture(path)[0].key for path in (ended / "runs/found/baselines" / STUDY).glob("*.yaml")
    }  # two may be one network
    by_hand = {path.stem for path in (ended / "runs/found/baselines" / STUDY).glob("*.yaml")}
    assert (
        {"conv", "conv-then-attention"} <= by_hand
        and patterns <= {row["arch_key"] for row in rows}
        and len({row["origin"] for row in rows} & by_hand) == len(patterns)
    )
    assert sum(row["origin"] not in by_hand for row in rows) == 4, "as many as the recipe says"
    table = [line for line in whole.said.splitlines() if any(row["arch_key"] in line for row in rows)]
    assert len(table) == len(rows) and [line for line in table if line.endswith("chosen")] == [table[0]]
    for row in rows:
        (line,) = (line for line in table if row["arch_key"] in line)
        assert f"{row['accuracy'] or row['rungs'][max(row['rungs'])]:.2%}" in line and row["origin"] in line
    assert f"Winner: {best['accuracy']:.2%} of 40 held-out images" in whole.said
    tuned = [line for line in read_run(ended / "runs/found").metrics if line["kind"] == "fine-tuned" and line["key"] == architecture.key]
    assert len(tuned) == 1, "found out once, whoever chose the winner"
    assert found["accuracy_at_once"] == max(tuned[0]["accuracy"], found["accuracy_supernet"]), "fine-tuned where that helps"
    assert read_found(ended / "runs/best.yaml").architecture == architecture, "what `compare` takes"
    story = read_run(ended / "runs/found")
    assert story.searches[STUDY].found.origin == best["origin"] and story.searches[STUDY].found.trial is None


def test_who_cannot_be_fine_tuned_goes_by_the_supernets_accuracy(whole: Whole) -> None:
    scores = {"a": (0.5, 0.6), "b": (0.7, None), "c": (0.9, 0.65), "d": (None, None)}  # supernet, fine-tuned
    those = [Finalist(name, whole.leaders[0].architecture, supernet=one, fine_tuned=two) for name, (one, two) in scores.items()]
    assert [each.origin for each in sorted(those, key=finals._by_fine_tuned)] == ["b", "c", "a", "d"]


@pytest.mark.parametrize("tuned", often([None, 0.0, 1.0], lambda tuned: tuned == 1.0))
def test_the_weights_beside_the_winner_have_the_accuracy_that_is_said(
    tuned: float | None, whole: Whole, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the supernet's own where fine-tuning is known (or said here) not to help."""
    folder: Path = request.getfixturevalue("ended" if tuned is None else "folder")
    if tuned is not None:
        monkeypatch.setattr(tune, "train_beside", in_this_process())
        monkeypatch.setattr(FineTuned, "evaluation", lambda *_: Evaluation(tuned))
        succeed(SEARCH, folder)
    network = load_network(folder / "runs/found" / f"{STUDY}.safetensors").eval()
    found = read_yaml(folder / "runs/best.yaml")["found"]
    assert network.architecture == read_architecture(folder / "runs/best.yaml")[0]
    images = {number: image for one in whole.seen.evaluations for number, image in zip(one.numbers, one.images, strict=True)}
    held_out = sorted(numbers("val"))
    with torch.inference_mode():
        answers = network(torch.stack([images[number] for number in held_out])).argmax(1).numpy()
    accuracy = np.mean(answers == load_digits(n_class=CLASSES).target[held_out])
    if tuned == 1.0:
        assert found["accuracy_at_once"] == 1.0 and accuracy != pytest.approx(found["accuracy_supernet"]), "fine-tuned, whatever that gave"
    else:
        assert accuracy == pytest.approx(found["accuracy_at_once"]) and found["accuracy_at_once"] >= found["accuracy_supernet"]


@pytest.mark.whole
def test_done_is_done_and_more_finalists_train_only_what_is_new(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {row["arch_key"] for row in finalists(ended)}
    with recording() as seen:
        assert "This search is done" in succeed(SEARCH, ended)
    assert not seen.steps and not seen.evaluations
    trained: list[str] = []
    real = Alone.train

    def train(self: Alone, architecture: Any, *others: Any, **named: Any) -> Any:
        if self.known(architecture, 0).ended is None:
            trained.append(architecture.key)
        return real(self, architecture, *others, **named)

    monkeypatch.setattr(Alone, "train", train)
    monkeypatch.setattr(tune, "train_beside", in_this_process())
    succeed(f"{SEARCH} --finalists 6", ended)
    after = {row["arch_key"] for row in finalists(ended)}
    assert before < after and len(after) == len(before) + 2
    assert after - before <= set(trained)


def once(folder: Path, kind: str) -> dict[str, list[dict[str, Any]]]:
    """The lines of a kind by network, without their times."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in read_run(folder / "runs/found").metrics:
        if line["kind"] == kind:
            found.setdefault(line["key"], []).append({**line, "time": "", "seconds": 0})
    return found


@pytest.mark.whole
def test_ctrl_c_in_each_part_of_the_end_loses_and_repeats_nothing(folder: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine-tuning, the look at candidates, trainings alone."""
    real = {"tuned": FineTuned._found_out, "looked": finals.evaluate_subnet, "trained": Alone.train}
    calls, at = dict.fromkeys(real, 0), dict.fromkeys(real, 0)

    def pressed(part: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            calls[part] += 1
            if calls[part] == at[part]:
                os.kill(os.getpid(), signal.SIGINT)
            return real[part](*given, **named)

        return call

    monkeypatch.setattr(FineTuned, "_found_out", pressed("tuned"))
    monkeypatch.setattr(finals, "evaluate_subnet", pressed("looked"))
    monkeypatch.setattr(Alone, "train", pressed("trained"))
    for part, when, said in (
        ("tuned", 2, "Fine-tuning stopped after 1 of"), ("trained", 9, "stopped at step"), ("looked", 1, "Evaluating stopped"),
        ("trained", 1, "stopped at step"), ("", 0, "Winner: "),
    ):  # fmt: skip
        for each in real:
            calls[each], at[each] = 0, when if each == part else 0
        monkeypatch.setattr(tune, "train_beside", in_this_process())
        ended = run(SEARCH, folder)
        assert ended.status == (130 if part else 0) and said in ended.out, (part, when, ended)
        assert not part or "the same command continues" in ended.out
        if part == "trained":
            places = (folder / "runs/found/alone").iterdir()
            done = sum(max((line["step"] for line in Run(place.name, place.parent).metrics("alone")), default=0) for place in places)
            assert f"{done:,} of them done" in run(f"{SEARCH} --dry-run", folder).out
    assert finalists(folder) == finalists(whole.folder)
    for name in (STUDY, "best"):
        one, other = (read_yaml(each / "runs/found" / f"{name}.yaml") for each in (folder, whole.folder))
        assert (one["architecture"], one["found"]) == (other["architecture"], other["found"])
    for kind in ("fine-tuned", "looked", "finalist"):
        assert once(folder, kind) == once(whole.folder, kind) and all(len(lines) == 1 for lines in once(folder, kind).values())
    for place in (folder / "runs/found/alone").iterdir():
        steps = [line["step"] for line in Run(place.name, place.parent).metrics("alone")]
        assert steps == list(range(1, len(steps) + 1)), "each step once"
        assert steps == [line["step"] for line in Run(place.name, whole.folder / "runs/found/alone").metrics("alone")]


@pytest.mark.whole
@pytest.mark.parametrize(
    "changed",
    [
        {"finalist_epochs: 2": "finalist_epochs: 1"},
        {"warmup: 0.2": "warmup: 0.1"},
        {"warmup: 0.2": "warmup: 0.2, clip_norm: 1.0"},
        {"warmup: 0.2": "warmup: 0.2, augmentation: {flip: true}"},
    ],
)
def test_another_schedule_is_another_study(changed: dict[str, str], ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which nothing is known: its first finalist is to be trained from the beginning on."""
    asked: list[Trained] = []

    def train_beside(alone: Alone, ask: Any, *_: Any, **__: Any) -> None:
        asked.append(alone.known(*ask()))
        raise Stopped("stopped by the test")

    monkeypatch.setattr(tune, "train_beside", train_beside)
    change_recipe(ended, changed)
    found = run(SEARCH, ended)
    assert found.status == 130 and f"study {STUDY}-" in found.out and asked == [Trained()]


@pytest.mark.slow
def test_the_winner_of_another_schedule_names_its_study(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "train_beside", in_this_process())
    change_recipe(ended, {"finalist_epochs: 2": "finalist_epochs: 1"})
    said = succeed(SEARCH, ended)
    assert f"study {STUDY}-" in said and read_yaml(ended / "runs/best.yaml")["study"] != STUDY


def test_what_changes_no_finalist_is_the_same_study(ended: Path) -> None:
    """How long winners are retrained, and in how many parts a batch is done; without finalists anything of a retraining."""
    change_recipe(ended, {"retrain: {epochs: 1": "retrain: {accumulate: 2, epochs: 7"})
    assert "This search is done" in succeed(SEARCH, ended)
    change_recipe(ended, {"warmup: 0.2": "warmup: 0.1"})
    assert f"study {STUDY}." in succeed(f"{SEARCH} --finalists 0", ended)


def change_recipe(folder: Path, changed: dict[str, str]) -> None:
    text = (folder / "plain.yaml").read_text()
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "plain.yaml").write_text(text)


@pytest.mark.whole
def test_without_a_supernet_finalists_alone_decide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of a ladder: as many finalists, drawn and then chosen by what the first rung shows; no supernet is trained or asked."""
    monkeypatch.setattr(tune, "train_beside", in_this_process())
    monkeypatch.setattr(Supernet, "forward", lambda *_: pytest.fail("a supernet was trained"))
    line = SEARCH.replace("--run found", "--run control")
    said = succeed(f"{line} --trials 0", folder)
    story = read_run(folder / "runs/control")
    (found,) = (each.found for each in story.searches.values())
    assert found.evaluations == 0 and found.accuracy_supernet is None and found.accuracy_alone is not None
    lines = [line for line in said.splitlines() if line.endswith("chosen")]
    assert len(lines) == 1 and not list((folder / "runs/control").glob("*.safetensors"))
    assert sum(line["origin"] in ("variety", "model") for line in story.metrics if line["kind"] == "finalist") == 4
    assert "This search is done" in succeed(f"{line} --trials 0", folder)
    assert run(f"{line} --trials 0 --finalists 0", folder).status == 2


@pytest.mark.whole
def test_each_network_is_timed_once_and_the_winner_once_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the search, before finalists are trained, or on a shortlist. Of three networks one takes too long; none of these is trained."""
    timed = Counter[str]()

    def slow(key: str) -> bool:
        return int(key, 16) % 3 == 0

    def measure(architecture: Architecture) -> float:
        timed[architecture.key] += 1
        return 20.0 if slow(architecture.key) else 5.0

    monkeypatch.setattr(search_run, "measures", lambda target: {"latency_ms": measure})
    monkeypatch.setattr(SearchRun, "check_measured", lambda self: None)
    monkeypatch.setattr(tune, "train_beside", in_this_process())
    succeed(f"{SEARCH} --budget 10ms", folder)
    winner = read_architecture(folder / "runs/best.yaml")[0].key
    assert timed == {**dict.fromkeys(timed, 1), winner: 2} and len(timed) > 10
    trained = once(folder, "finalist")
    assert trained.keys() <= timed.keys() and not any(slow(key) for key in trained) and any(slow(key) for key in timed)
