"""The report and the dashboard tell what the records of a run say, need nothing from elsewhere, and can be read in a browser."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import itertools
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import CHROMIUM, Browser, open_browser
from command_line import refused, succeed
from event_files import events
from finished import STUDY, WITH, finished_search
from matplotlib.colors import to_hex, to_rgba
from matplotlib.text import Text
from processes import another_process
from recording import SPLITS
from studies import stored

from nas.commands.report import _looks as looks_of
from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.networks.network import Network
from nas.networks.preprocessing import Preprocessing
from nas.networks.trained import save_network
from nas.quantities import QUANTITIES, Budget, format_quantity, parse_budget
from nas.reporting import figures, fronts
from nas.reporting.comparisons import picture as draw_comparison
from nas.reporting.drawings import INK, color
from nas.reporting.notes import tellings
from nas.reporting.page import page
from nas.reporting.parts import Look
from nas.reporting.rankings import as_table, picture
from nas.runs.folder import Run
from nas.runs.records import Invocation, digest
from nas.searching.candidates import Looks
from nas.searching.dashboard import tell
from nas.searching.fidelity import SCORES, figures_of
from nas.searching.finalist_study import write_finalists
from nas.searching.optuna_study import open_study
from nas.searching.pick import pick as picked_by
from nas.searching.search import Evaluation, Instruments, SearchRequest, search
from nas.searching.story import Candidate, Search, Story, read_story
from nas.searching.trained_alone import Trained
from nas.spaces.decisions import SearchSpace
from nas.yaml_files import read_yaml, write_yaml

FIRST, SECOND = STUDY, "150kMACs-12kparams-random"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two searches, the second under two budgets, the first with a ladder in its records: two networks drawn by hand that were left behind,
    the winner, and one that was better but, say, too slow."""
    folder = finished_search(tmp_path_factory.mktemp("told"))
    succeed("search --device cpu --budget 150kMACs --budget 12kparams --sampler random --run found", folder)
    add_ladder(Run("found", folder / "runs"))
    add_ranking(folder / "runs/found")
    return folder


def add_ladder(run: Run) -> None:
    path = run.folder / f"{FIRST}.yaml"
    entries = read_yaml(path)
    winner = Architecture.from_dict(entries["architecture"], "winner")
    write_yaml(path, {**entries, "found": {**entries["found"], "accuracy_alone": 0.7, "epochs_alone": 3.0}})
    searches = run.recorded()["searches"]
    run.record(searches={**searches, FIRST: {**searches[FIRST], "winner": digest(path)}})
    slow = {"width": 16, "mixers": ["conv"], "mlp_ratio": 2.0, "cpe": False, "sharing": False, "kernel": 3}
    for name, architecture, rungs, ended in (
        ("conv", other("conv"), {6: 0.4, 18: 0.5}, None), ("s2_shift", other("s2_shift"), {6: 0.3}, None), ("model", winner, {6: 0.35, 18: 0.55}, 0.7),
        ("variety", of_one_stage(slow), {6: 0.35, 18: 0.6}, 0.72),
    ):  # fmt: skip
        place = Run(f"{architecture.key}-01234567-0", run.folder / "alone")
        for step, accuracy in rungs.items():
            place.log("alone rung", step=step, accuracy=accuracy)
        if ended:
            place.log("alone", step=27, loss=1.0)
            (place.folder / "result.json").write_text(json.dumps({"accuracy": ended, "failure": None, "phase": {"epochs": 3.0}}))
        told = {
            "study": FIRST,
            "schedule": "01234567",
            "origin": name,
            "architecture": architecture.to_dict(),
            "by_hand": name not in ("model", "variety"),
        }
        run.log("finalist", **told, supernet=0.45, fine_tuned=None, key=architecture.key)


def add_ranking(folder: Path) -> None:
    draw = random.Random(0)
    stages = [{"stages": [{"mixers": [mixer] * depth}]} for mixer in ("conv", "s2_shift") for depth in range(1, 7)]
    networks = [{"key": str(i), "architecture": each, "retrained": [draw.random()]} for i, each in enumerate(stages)]
    entries = {"networks": [{**each, **{name: draw.random() for name in SCORES}} for each in networks]}
    settings = {"space": "tiny", "data": "images", "budgets": ["200kMACs"], "epochs": 2}
    found = {**entries, **figures_of(entries, 20), "settings": settings, "seconds": {"trainings": 1.0}}
    (folder / "fidelity-200kMACs.json").write_text(json.dumps(found))


def other(mixer: str) -> Architecture:
    stage = {"width": 32, "mixers": [mixer, mixer], "mlp_ratio": 2.0, "cpe": False, "sharing": False} | (
        {"kernel": 3} if mixer == "conv" else {}
    )
    return of_one_stage(stage)


def of_one_stage(stage: dict[str, Any]) -> Architecture:
    return Architecture.from_dict({"frame": {"resolution": 16, "channels": 1, "classes": 4}, "patch": 4, "stages": [stage]}, "a test")


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, Path]:
    """The pages of that run, of the same run before it had a winner, and of one whose supernet is in training."""
    record = read_yaml(folder / "runs/found/run.yaml")
    Run("begun", folder / "runs").record(supernet={**record["supernet"], "space": f"/{20 * 'somewhere'}/{20 * 'space'}.yaml"})
    shutil.copytree(folder / "runs/found", folder / "runs/half")
    Run("half", folder / "runs").record(searches={})
    for name in ("found", "half", "begun"):
        assert f"runs/{name}/report.html" in succeed(f"report {name}", folder)
    return {name: folder / "runs" / name / "report.html" for name in ("found", "half", "begun")}


def _at(folder: Path, read: Callable[[Path], Story]) -> Story:
    """A story, read where the space's file is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return read(folder / "runs/found")


class Page(html.parser.HTMLParser):
    """The tables of a page by their rows of text, its pictures, and all addresses in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.pictures: list[bytes] = []
        self.addresses: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        self.addresses += [str(told[name]) for name in ("src", "href", "data", "action") if name in told]
        if tag == "img":
            self.pictures.append(base64.b64decode(str(told["src"]).removeprefix("data:image/svg+xml;base64,")))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[-1][-1][-1] += data


def test_the_report_tells_the_records_and_needs_nothing_else(
    folder: Path, reports: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = reports["found"].read_text()
    shown = Page(text)
    assert len(text) < 700_000 and all(address.startswith("data:image/svg+xml;base64,") for address in shown.addresses)
    assert "http" not in re.sub(r"data:[^\"]*", "", text), "nothing is fetched from elsewhere"
    assert len(shown.pictures) >= 6 and all(ElementTree.fromstring(picture).tag.endswith("svg") for picture in shown.pictures)
    winner = read_yaml(folder / f"runs/found/{FIRST}.yaml")
    (ladder,) = (table for table in shown.tables if "from" in table[0] and "fine-tuned" in table[0])
    rows = {row[2]: dict(zip(ladder[0], row, strict=True)) for row in ladder[1:]}
    assert [row[2] for row in ladder[1:]] == ["model", "variety", "conv", "s2_shift"], "the winner first, then by how far they came"
    assert (rows["model"]["accuracy"], rows["model"]["steps"], rows["conv"]["accuracy"], rows["conv"]["steps"]) == (
        "70.00%",
        "to the end",
        "50.00%",
        "18",
    )
    assert rows["conv"]["MACs"] == f"{cost(other('conv')).macs / 1e3:.0f} kMACs"
    assert f"{winner['found']['accuracy_supernet']:.2%}" in text and FIRST in text and SECOND in text
    for search_ in (story := _at(folder, read_story)).searches.values():
        evaluated = [each for each in search_.candidates if each.accuracy is not None]
        assert any(len(table) - 1 == len(evaluated) and "proposed by" in table[0] for table in shown.tables), "all points of its front"
    assert len(next(table for table in shown.tables if table[0] == ["step", "loss"])) - 1 == len(story.losses) == 20
    every_tenth = {step: loss for step, loss in story.losses if step % 10 == 0}
    assert events(folder / "runs/found/events")["loss"] == pytest.approx(every_tenth, rel=1e-4) and len(every_tenth) == 2, (
        "in TensorBoard too"
    )
    (scatter,) = (table for table in shown.tables if table[0][:2] == ["network", "alone"])
    first = story.rankings["fidelity-200kMACs"]["networks"][0]
    assert len(scatter) - 1 == 12 and scatter[1][:3] == [first["key"], f"{first['retrained'][0]:.2%}", f"{first['supernet']:.2%}"]
    assert f"({SPLITS['train'] + SPLITS['val']} of 4 classes, the test&#39;s apart)" in text
    commands = f"python launch.py search {WITH} --budget 200kMACs --run found", "search --device cpu --budget 150kMACs --budget 12kparams"
    assert all(command in text for command in commands), "how it was made, and goes on"
    monkeypatch.chdir(folder)
    story = read_story(folder / "runs/found")
    half = {FIRST: dataclasses.replace(story.searches[FIRST], winner=None), SECOND: story.searches[SECOND]}
    told = page(dataclasses.replace(story, searches=half, rankings={}))
    assert told.index(f"The winner ({SECOND})") < told.index(f"The ladder ({FIRST})"), "what has not ended comes last"
    assert f"retrain runs/found/baselines/{FIRST}/conv.yaml" in text
    assert text.count("against multiply-adds") == 4 and text.count("against parameters") == 2, "a front for each budget, and what it shows"
    best = next(table for table in shown.tables if "proposed by" in table[0])
    evaluated = [table for table in shown.tables if "proposed by" in table[0]][1]
    marked = {row[0] for row in evaluated[1:] if row[evaluated[0].index("on the front by")] == "multiply-adds"}
    assert marked == {each.architecture.key for each in front_of(story.searches[FIRST])}
    assert [row[0] for row in best[1:]] == [each.architecture.key for each in story.searches[FIRST].in_band][:25]


def test_a_front_for_each_budget_and_nothing_written_over_a_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    search = read_story(folder / "runs/found").searches[SECOND]
    assert search.limited == ["macs", "params"]
    for quantity, limit in (("macs", 150_000), ("params", 12_000)):
        figure = fronts.front(search, quantity)
        figure.draw_without_rendering()
        (axes,), drawn = figure.axes, {line.get_gid(): line for line in figure.axes[0].lines}
        wanted = [
            (getattr(cost(each.architecture), quantity), 100 * each.accuracy) for each in search.candidates if each.accuracy is not None
        ]
        np.testing.assert_allclose(sorted(zip(*drawn["evaluated"].get_data(), strict=True)), sorted(wanted))
        assert next(each for each in axes.patches if each.get_gid() == "over budget").get_x() == limit
        in_view = [axes.get_xlim()[0] <= value <= limit < axes.get_xlim()[1] for value, _ in wanted]
        assert sum(in_view) >= len(search.in_band) > 0
        (legend,) = figure.legends
        assert not legend.get_window_extent().overlaps(axes.get_tightbbox())


def accuracy_of(architecture: Architecture) -> float:
    """Made up, different for each network, and the higher the slower it is."""
    return 0.2 + latency_of(architecture) / 40 + int(architecture.key, 16) % 997 / 1e5


def latency_of(architecture: Architecture) -> float:
    return 2.0 + 9 * (int(architecture.key, 16) % 13) / 12


@pytest.fixture
def searched(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Story]:
    """A search of the tiny space with made-up accuracies and times, under any budgets, as it is read back."""
    monkeypatch.chdir(folder)
    run, space = Run("toy", tmp_path / "runs"), SearchSpace.read(folder / "tiny.yaml")
    run.record(supernet=read_yaml(folder / "runs/found/run.yaml")["supernet"])

    def search_under(*budgets: Budget, trials: int = 14, accuracy: Callable[..., float] = accuracy_of, **facts: Any) -> Story:
        request = SearchRequest(budgets, trials, 5)
        instruments = Instruments(cost, lambda some: (Evaluation(accuracy(each)) for each in some), {"latency_ms": latency_of})
        with open_study(run.folder / "study.db", "toy", space.decisions, request, {"space": space.fingerprint, **facts}) as study:
            search(space, study, request, instruments)
        return read_story(run.folder)

    return search_under


def front_of(search: Search) -> list[Candidate]:
    """Whom nobody beats in accuracy for as few multiply-adds."""
    there = [(each.accuracy or 0.0, each) for each in search.candidates if each.accuracy is not None]
    beaten = [
        any(
            more >= accuracy and other.cost.macs <= each.cost.macs and (more, other.cost.macs) != (accuracy, each.cost.macs)
            for more, other in there
        )
        for accuracy, each in there
    ]
    return [each for (_, each), lost in zip(there, beaten, strict=True) if not lost]


def test_what_was_measured_over_a_limit_is_not_among_the_best_and_the_others_are(searched: Callable[..., Story]) -> None:
    """Under a time alone, which arithmetic does not know, no network is asked to use much of it."""
    found = searched(parse_budget("8ms")).searches["toy"]
    over = {each.number for each in found.candidates if each.known("latency_ms") and latency_of(each.architecture) > 8}
    evaluated = {each.number: accuracy_of(each.architecture) for each in found.candidates}
    assert 0 < len(over) < len(evaluated) == 14
    assert [each.number for each in found.in_band] == sorted(evaluated.keys() - over, key=lambda number: -evaluated[number])
    (_, all_of_them), (count, best) = figures.mixer_groups(found).values()
    assert count >= 1 and best and all_of_them


def test_foretold_times_are_shown_and_marked(searched: Callable[..., Story]) -> None:
    """As with a latency table, where finalists and winners alone are timed."""
    limit = dataclasses.replace(parse_budget("8ms"), foretell=latency_of)
    story = searched(limit, table="a digest")
    looks = Looks(story.run, "toy", [limit], lambda each: {"latency_ms": 5.0}, stop=lambda: False)
    assert looks.obeys(other("conv"))
    story = read_story(story.run.folder)
    found = story.searches["toy"]
    assert found.known(other("conv"), "latency_ms") == (5.0, "measured"), "one that the model chose as a finalist"
    figure = fronts.front(found, "latency_ms")
    (points,) = (line for line in figure.axes[0].lines if line.get_gid() == "evaluated")
    wanted = [(latency_of(each.architecture), 100 * accuracy_of(each.architecture)) for each in found.candidates if each.accuracy]
    np.testing.assert_allclose(sorted(zip(*points.get_data(), strict=True)), sorted(wanted), rtol=1e-4)
    assert len(wanted) > 5 and "foretold" in points.get_label()
    assert all(0.8 * 8 <= latency_of(each.architecture) <= 8 for each in found.in_band) and found.in_band
    table = next(table for table in Page(page(story)).tables if "proposed by" in table[0])
    times = [row[table[0].index("latency")] for row in table[1:]]
    assert times == [f"{latency_of(each.architecture):#.3g} ms foretold" for each in found.in_band]


def drawn_lines(figure: Any) -> dict[str, list[list[tuple[float, float]]]]:
    """The points of the lines of a plot's panels, by what they are."""
    lines = [line for axes in figure.axes for line in axes.lines if len(line.get_xdata())]
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for line in lines:
        found.setdefault(line.get_gid(), []).append([(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)])
    return found


@pytest.mark.whole
def test_a_front_names_the_winner_and_whom_a_person_would_have_drawn(
    folder: Path, reports: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their accuracies with the supernet's weights; without a ladder as the search evaluated them."""
    monkeypatch.chdir(folder)
    searches = read_story(folder / "runs/found").searches
    for search_, name in ((searches[FIRST], FIRST), (searches[SECOND], SECOND)):
        entries = read_yaml(folder / f"runs/found/{name}.yaml")
        winner = Architecture.from_dict(entries["architecture"], "winner")
        by_hand = {
            other("conv").key: ("conv", 45.0, cost(other("conv")).macs),
            other("s2_shift").key: ("s2_shift", 45.0, cost(other("s2_shift")).macs),
        }
        if name == SECOND:
            trials = stored_trials(folder / "runs/found/study.db", SECOND)
            patterns = {
                told["arch_key"]: (told["origin"], 100 * values[0], told["usage"], 1e6 * told["macs_m"])
                for values, told in trials
                if values and told.get("origin") in ("conv", "s2_shift") and told["arch_key"] != winner.key
            }
            by_hand = {key: (origin, accuracy, macs) for key, (origin, accuracy, usage, macs) in patterns.items() if 0.8 <= usage <= 1}
        figure = fronts.front(search_, "macs")
        lines = drawn_lines(figure)
        ((star,),) = lines["winner"]
        assert star == pytest.approx((cost(winner).macs, 45.0 if name == FIRST else 100 * entries["found"]["accuracy_supernet"]), abs=0.01)
        (points,) = lines["drawn by hand"]
        np.testing.assert_allclose(sorted(points), sorted((macs, accuracy) for _, accuracy, macs in by_hand.values()), rtol=1e-2)
        assert sorted(each.get_text() for each in figure.axes[0].texts if "budget" not in each.get_text()) == sorted(
            each[0] for each in by_hand.values()
        )
        assert by_hand and ("finalists" in lines) == (name == FIRST)
        (seen,), (steps,) = lines["evaluated"], lines["front"]
        assert all(y == max(accuracy for macs, accuracy in seen if macs <= x) for x, y in steps)
        assert ("floor" in lines) == (name == FIRST), "of two budgets it is the tighter that counts"
        if name == SECOND:
            told = f"winner: {entries['found']['accuracy_supernet']:.2%} with the supernet's weights".encode()
            (beside,) = (each for each in Page(reports["found"].read_text()).pictures if told in each)
            assert beside.count(b'id="network ') == 1 + len(by_hand)
        if name == FIRST:
            without = [dataclasses.replace(each, supernet=None) if each.origin == "model" else each for each in search_.ladder]
            story = dataclasses.replace(read_story(folder / "runs/found"), rankings={})
            unscored = dataclasses.replace(search_, ladder=tuple(without))
            drawn = fronts.front(unscored, "macs")
            assert drawn_lines(drawn)["winner"] == [[(cost(winner).macs, 0.0)]], "on the axis, by what it costs"
            assert "winner: no supernet accuracy" in [each.get_text() for each in drawn.legends[0].texts]
            drawn.draw_without_rendering()
            box = drawn.legends[0].get_window_extent()
            assert box.x0 >= 0 and box.x1 <= drawn.bbox.width, "the longest legend there is"
            told = page(dataclasses.replace(story, searches={FIRST: unscored}))
            named = f"{FIRST}-0a1b2c"
            assert "six digits" not in told and "six digits" in page(
                dataclasses.replace(story, searches={named: dataclasses.replace(unscored, name=named)})
            )
            assert "star on the axis" in told and "ahead of" not in told, "the other one that came to the end is better"
            lower = [dataclasses.replace(each, trained=Trained(Evaluation(0.69))) if each.origin == "variety" else each for each in without]
            told = page(dataclasses.replace(story, searches={FIRST: dataclasses.replace(unscored, ladder=tuple(lower))}))
            assert "by 1.00 points, less than two standard errors of the difference: no lead" in told
            assert lines["floor"][0][0][0] == 160_000 and "a winner uses 80% or more" in [
                text.get_text() for text in figure.legends[0].texts
            ]


def stored_trials(path: Path, name: str) -> list[tuple[Any, dict[str, Any]]]:
    with stored(path, name) as study:
        return [(trial.values, trial.user_attrs) for trial in study.get_trials()]


CLIMBED = {
    "winner": [[(6, 35), (18, 55), (27, 70)]],
    "finalists": [[(6, 35), (18, 60), (27, 72)]],
    "drawn by hand": [[(6, 30)], [(6, 40), (18, 50)]],
}


def test_the_ladder_shows_each_finalist_rung_by_rung(folder: Path, reports: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    lines = drawn_lines(fronts.ladder(read_story(folder / "runs/found").searches[FIRST]))
    assert {kind: sorted([(x, round(y, 6)) for x, y in line] for line in its) for kind, its in lines.items()} == CLIMBED
    (rungs,) = (table for table in Page(reports["found"].read_text()).tables if table[0] == ["network", "from", "steps", "accuracy"])
    assert {tuple(row[1:]) for row in rungs[1:]} >= {("model", "27", "70.00%"), ("conv", "18", "50.00%"), ("s2_shift", "6", "30.00%")}
    assert len(rungs) - 1 == sum(len(line) for its in CLIMBED.values() for line in its)


def test_raw_figures_of_a_ladder_are_what_its_trainings_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import ladder

    story = read_story(folder / "runs/found")
    made = [Invocation(command="launch.py search --budget 200kMACs", revision="0123456789"), Invocation(command="launch.py report found")]
    story = dataclasses.replace(
        story, told=dataclasses.replace(story.told, record=story.told.record.model_copy(update={"invocations": made}))
    )
    found = ladder.figures(dataclasses.replace(story, searches={FIRST: story.searches[FIRST]}))
    epochs = found["settings"]["epochs"]
    ends = [*(each["rungs"] | ({f"{epochs:g}": each["accuracy"]} if each["accuracy"] else {}) for each in found["finalists"])]
    climbed = [{f"{round(27 * float(epoch) / epochs)}": accuracy for epoch, accuracy in each.items()} for each in ends]
    wanted = [{f"{step}": accuracy / 100 for step, accuracy in line} for its in CLIMBED.values() for line in its]
    assert sorted(map(str, climbed)) == sorted(map(str, wanted))
    assert found["settings"]["chosen"] == found["finalists"][0]["key"] and found["settings"]["revision"] == "0123456"
    assert found["settings"]["command"] == "python launch.py search --budget 200kMACs"


def networks_of(*mixers: list[list[str]]) -> list[Candidate]:
    """Evaluated networks with these mixers by stage and block, each better than the one before."""
    frame, found = {"resolution": 64, "channels": 1, "classes": 4}, []
    for number, stages in enumerate(mixers):
        told = [{"width": 16, "mixers": its, "mlp_ratio": 1.0, "cpe": False, "sharing": False, "kernel": 3} for its in stages]
        told = [each if "conv" in each["mixers"] else {key: value for key, value in each.items() if key != "kernel"} for each in told]
        architecture = Architecture.from_dict({"frame": frame, "patch": 4, "stages": told}, "a test")
        found.append(Candidate(number, architecture, 0.5 + number / 10, cost(architecture), ""))
    return found


def test_the_mixers_of_all_networks_and_of_the_best_are_told_by_place() -> None:
    candidates = networks_of([["s2_shift"]], [["conv", "s2_shift"]], [["conv", "conv"]])
    drawn = {each.get_gid(): each for each in figures.mixers(Search("", (), 0.8, tuple(candidates), (), None)).axes[0].patches}
    thirds = {"all (0, 0) conv": 2, "all (0, 0) s2_shift": 1, "all (0, 1) conv": 1, "all (0, 1) s2_shift": 1}
    wanted = {**{gid: 100 * count / 3 for gid, count in thirds.items()}, "best (0, 0) conv": 100, "best (0, 1) conv": 100}
    assert {gid: each.get_height() for gid, each in drawn.items()} == pytest.approx(wanted), "of three networks one is the best tenth"
    places = {gid: round(each.get_x() + each.get_width() / 2) for gid, each in drawn.items()}
    assert (
        all(place == int(gid[9]) for gid, place in places.items() if gid.startswith("best"))
        and drawn["all (0, 0) conv"].get_x() < drawn["best (0, 0) conv"].get_x()
    )


def test_the_names_of_places_do_not_touch_in_the_deepest_space() -> None:
    deep = networks_of([["conv"] * 3, ["conv"] * 3, ["s2_shift"] * 13, ["conv"] * 3])
    figure = figures.mixers(Search("", (), 0.8, tuple(deep), (), None))
    figure.draw_without_rendering()
    labels = [each.get_window_extent() for each in figure.axes[0].get_xticklabels()]
    assert len(labels) == 22 and all(one.x1 < other.x0 for one, other in itertools.pairwise(labels))


def test_curves_show_what_was_judged_and_the_mean_of_the_losses() -> None:
    judged = [{"step": step, "smallest": 0.1 + step / 100, "median": 0.2 + step / 100, "largest": 0.3 + step / 100} for step in (10, 20)]
    losses = [(step, 1 / (1 + step)) for step in range(1000)]
    lines = drawn_lines(figures.curves(judged, losses))
    for name, start in (("smallest", 10), ("median", 20), ("largest", 30)):
        np.testing.assert_allclose(lines[name][0], [(10, start + 10), (20, start + 20)])
    groups = np.array(losses).reshape(200, 5, 2)
    np.testing.assert_allclose(lines["loss"][0], np.stack([groups[:, -1, 0], groups[:, :, 1].mean(axis=1)], axis=1))


def test_the_decision_that_matters_is_the_most_important_by_both_measures(
    searched: Callable[..., Story], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was drawn for a block that is not there is none."""
    import optuna

    asked, estimate = list[optuna.Study](), optuna.importance.get_param_importances
    monkeypatch.setattr(optuna.importance, "get_param_importances", lambda study: asked.append(study) or estimate(study))

    def taste(architecture: Architecture) -> float:
        return 0.3 + 0.3 * (architecture.stages[0].mixers[0] == "conv") + 0.01 * architecture.stages[0].mlp_ratio

    story = searched(trials=24, accuracy=taste)
    found = story.searches["toy"]
    assert len(found.in_band) >= 20
    tables = [table for table in Page(page(story)).tables if table[0][0] == "decision"]
    for effects, name, table in zip((found.spread, found.importances), ("stage 0: mixers", "stage 0, block 0: mixer"), tables, strict=True):
        assert effects[name] == max(effects.values()) > 0
        axes = figures.importance({each: 100 * effect for each, effect in effects.items()}, "points").axes[0]
        drawn = {label.get_text(): bar.get_width() for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)}
        assert drawn == pytest.approx({each: 100 * effect for each, effect in effects.items()}) and axes.yaxis_inverted()
        assert [*drawn.values()] == sorted(drawn.values(), reverse=True), "the most important above"
        assert {row[0]: row[1] for row in table[1:]} == {each: f"{value:.2f}" for each, value in drawn.items()}
    assert found.spread["stage 0: mixers"] > 2 * sorted(found.spread.values())[-2]
    drawn_for = {(trial.params["s0.depth"], trial.params["s0.b1.mixer"]) for study in asked for trial in study.trials}
    assert drawn_for == {(1, "absent"), (2, "conv"), (2, "s2_shift")}
    wanted = {f"stage 0: {each}" for each in ("width", "depth", "mlp_ratio", "mixers")}
    assert found.spread.keys() == wanted, "what has one option is no decision, though only convolutions have a kernel"


def test_names_beside_a_curve_are_moved_apart_as_little_as_it_takes() -> None:
    draw = random.Random(0)
    for _ in range(50):
        heights = sorted(draw.uniform(0, 1) for _ in range(draw.randint(1, 8)))
        apart = fronts._apart(heights, 0.1)
        assert all(after - before > 0.1 - 1e-9 for before, after in itertools.pairwise(apart))
        assert sum(apart) == pytest.approx(sum(heights)), "whoever touches shares its middle"
    assert fronts._apart([0.0, 0.2, 0.5], 0.1) == [0.0, 0.2, 0.5]


def test_no_line_to_a_name_runs_through_another_name() -> None:
    figure, axes = figures.one_plot(7, 4.6)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    fronts._beside(axes, [(0.64 + k / 100, 0.5 + k / 200, f"a long name {k}") for k in range(6)], 0.7)  # close by, so that lines are steep
    figure.draw_without_rendering()
    for one, other in itertools.permutations(axes.texts, 2):
        line = one.arrow_patch.get_transform().transform_path(one.arrow_patch.get_path())
        assert not line.intersects_bbox(Text.get_window_extent(other), filled=False)


def test_what_a_network_looks_at_is_told_stage_by_stage() -> None:
    (network,) = networks_of([["conv", "s2_shift"], ["s2_shift"]])
    draw = np.random.default_rng(0)
    fields, mixing = [draw.random((8, 8)) for _ in range(2)], [[draw.random((4, 4)) for _ in range(2)], [draw.random((2, 2))]]
    shown = figures.looking(fields, mixing, network.architecture).axes
    assert [axes.get_title() for axes in shown] == ["stage 0: pixels", "conv", "s2_shift", "stage 1: pixels", "s2_shift"]
    for axes, values in zip(shown, [np.sqrt(fields[0]), *mixing[0], np.sqrt(fields[1]), *mixing[1]], strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), values)


def test_how_far_a_network_looks_is_the_least_circle_that_holds_so_much() -> None:
    draw = np.random.default_rng(0)
    for size, side in ((8, 8), (32, 8), (7, 7)):
        field = draw.standard_normal((size, size))
        middle = (side // 2 + 0.5) * size / side
        away = [(math.hypot(i + 0.5 - middle, j + 0.5 - middle), abs(field[i, j])) for i in range(size) for j in range(size)]
        for share in (0.5, 0.9):
            found = figures.reach(field, side, share)
            within = sum(value for distance, value in away if distance <= found)
            closer = sum(value for distance, value in away if distance < found - 1e-9)
            assert closer < share * sum(value for _, value in away) <= within + 1e-9
    alone = np.zeros((8, 8))
    alone[4, 4] = -1.0
    assert figures.reach(alone, 8, 0.9) == 0.0, "a token that looks at itself alone"
    (network,) = networks_of([["conv", "s2_shift"]])
    told = figures.reaches([draw.random((64, 64))], [[draw.random((16, 16)), np.zeros((1, 1))]], network.architecture)
    assert [each[:3] for each in told] == [("stage 0", "all of it", "pixels"), ("stage 0, block 0", "conv", "tokens")]


@pytest.mark.whole
def test_what_the_winner_looks_at_is_shown_with_the_best_weights_at_hand(folder: Path, reports: dict[str, Path]) -> None:
    """Those of its retraining, or else the supernet's; without any, or without the images, a sentence says why not."""
    shutil.copytree(folder / "runs/found", folder / "runs/looked")
    run, entries = Run("looked", folder / "runs"), read_yaml(folder / f"runs/found/{FIRST}.yaml")
    winner = Architecture.from_dict(entries["architecture"], "winner")
    assert "No weights of it are here" not in reports["found"].read_text(), "a search leaves its winner's"

    def look() -> Look:
        return dict(looks_of(read_story(run.folder)))[FIRST]

    (run.folder / f"{FIRST}.safetensors").unlink()
    assert look().svg is None and look().said.startswith("No weights of it are here")
    how = Preprocessing(16, 1, (0.5,), (0.25,))
    save_network(run.folder / f"{FIRST}.safetensors", Network(winner).state_dict(), winner, list("abcd"), how)
    assert look().svg and "supernet's weights" in look().said
    again = Run("again", folder / "runs")
    again.folder.mkdir()
    shutil.copy(run.folder / f"{FIRST}.safetensors", again.folder / "weights.safetensors")
    its = {
        "architecture": winner.key,
        "data_fingerprint": entries["data_fingerprint"],
        "bf16": "never",
        "phase": {},
        "found_at": "best.yaml",
    }
    again.record(retrain=its, finished="2026-01-01T00:00:00+00:00")
    assert look().svg and look().said == "the weights of again, trained alone"
    story = _at(folder, read_story)
    few = dataclasses.replace(story.searches[FIRST], ladder=(), candidates=())
    text = page(dataclasses.replace(story, searches={FIRST: few}, rankings={}), {FIRST: look()})
    assert len(Page(text).pictures) == 3 and "with the weights of again, trained alone" in text, (
        "the winner, what it looks at, the supernet's curves"
    )
    (reach,) = (table for table in Page(text).tables if "nine tenths within" in table[0])
    blocks = sum(mixer != "none" for stage in winner.stages for mixer in stage.mixers)
    assert len(reach) - 1 == len(winner.stages) + blocks and all(row[2].endswith(("pixels", "tokens")) for row in reach[1:])
    run.record(supernet={**run.recorded()["supernet"], "data": str(folder / "gone")})
    assert look().svg is None and look().said.startswith("Not shown, since its weights or images cannot be read: ")
    shutil.rmtree(again.folder)  # the winner of the other tests was not retrained


@pytest.mark.whole
def test_every_quantity_that_can_be_limited_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    story = read_story(folder / "runs/found")
    measured = {name: 3.0 for name, quantity in QUANTITIES.items() if quantity.measured}
    candidates = tuple(dataclasses.replace(each, measured=measured) for each in story.searches[FIRST].in_band[:2])
    budgets = tuple(Budget(quantity, 1e9, f"a limit on {name}") for name, quantity in QUANTITIES.items())
    few = dataclasses.replace(story.searches[FIRST], budgets=budgets, candidates=candidates, floor=0.0)
    limited = dataclasses.replace(story, searches={FIRST: few}, rankings={})
    text, telling = page(limited), tellings(limited)[FIRST]
    assert {f"front-{name}.svg" for name in QUANTITIES} < telling.pictures.keys()
    for name, quantity in QUANTITIES.items():
        assert text.count(f"against {quantity.called}") == 2 and quantity.called in telling.note
        if quantity.measured:
            assert (
                format_quantity(name, 3.0) in telling.notes[candidates[0].architecture.key]
                and f'<td data-value="{"-" * quantity.rate}3.0"' in text
            )


@pytest.mark.whole
def test_what_a_winner_takes_and_where_that_was_measured_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder / "runs/found", folder / "runs/timed")
    succeed("search --device cpu --run timed --budget 200kMACs --budget 100s --target cpu:eager,batch=2 --trials 3", folder)
    monkeypatch.chdir(folder)
    story = read_story(folder / "runs/timed")
    name, found = list(story.searches.items())[-1]
    entries = read_yaml(folder / f"runs/timed/{name}.yaml")
    told = f"{format_quantity('latency_ms', entries['costs']['latency_ms'])} on cpu:eager,batch=2,threads=1"
    story = dataclasses.replace(story, searches={name: found}, rankings={})
    assert told in page(story) and told in tellings(story)[name].note.split("\n\n")[1]
    assert told.partition(" on")[0] in tellings(story)[name].notes[found.winner.architecture.key]


def test_the_picture_of_a_ranking_has_each_network_and_says_how_sure_it_is(folder: Path) -> None:
    found = json.loads((folder / "runs/found/fidelity-200kMACs.json").read_text())
    figure = picture(found)
    for axes, score in zip(figure.axes[:3], ("supernet", "fine_tuned", "ninth"), strict=True):
        points = [tuple(point) for group in axes.collections for point in group.get_offsets()]
        wanted = [(100 * each[score], 100 * each["retrained"][0]) for each in found["networks"]]
        np.testing.assert_allclose(sorted(points), sorted(wanted))
        assert "{:+.2f} [{:+.2f}, {:+.2f}]".format(*found["figures"][score]["tau"]) in axes.get_title()
        assert [group.get_facecolor()[0].tolist() for group in axes.collections] == [
            list(to_rgba(color(mixer))) for mixer in ("conv", "s2_shift")
        ]


def test_a_ranking_that_an_earlier_version_wrote_is_told(folder: Path) -> None:
    """It had neither what is foretold by depth nor a ceiling."""
    found = json.loads((folder / "runs/found/fidelity-200kMACs.json").read_text())
    del found["ceiling"]
    found["figures"] = {name: each for name, each in found["figures"].items() if "by_depth" not in name}
    found["agreement"] = found["figures"]["supernet"]
    told = "\n".join(as_table(found))
    assert "agreement of two seeds" in told and "tau above that of" in told and "by depth" not in told


def test_every_word_of_a_picture_is_in_ink(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    story = read_story(folder / "runs/found")
    search = story.searches[FIRST]
    shown = [fronts.front(search, "macs"), fronts.ladder(search), figures.mixers(search), figures.importance({"a": 1.0}, "points")]
    shown += [figures.curves(story.curve, story.losses), *map(picture, story.rankings.values())]
    runs = {"accuracies": [0.5, 0.6], "failures": [None, None], "second_tries": [False, False], "macs": 1e6}
    shown.append(
        draw_comparison([{**runs, "names": [kind], "kinds": [kind]} for kind in ("winner", "pattern", "preset", "random")], "Tested")
    )
    words = [each for figure in shown for each in figure.findobj(Text) if each.get_text().strip()]
    assert len(words) > 60 and {to_hex(each.get_color()) for each in words} == {INK.lower()}


def test_a_run_that_has_not_ended_is_told_as_far_as_it_is(folder: Path, reports: dict[str, Path]) -> None:
    assert "Unfinished: the supernet is still in training" in reports["begun"].read_text()
    text = reports["half"].read_text()
    assert "Unfinished: 200kMACs-evolution" in succeed("pick half --budget 200kMACs", folder), "and what is picked from it is too"
    assert text.count("has no winner yet") == 2 and "proposed by" in text and "50.00%" in text
    (folder / "runs/other").mkdir()
    assert "Did you mean" not in refused("report other", folder), "a folder without a record"
    assert "no run" in refused("report nowhere", folder) and "no study" in refused("dashboard begun", folder)


def test_a_run_that_trained_nothing_is_told_too(tmp_path: Path) -> None:
    source = {"preset": "as_mlp_t", "file": "/somewhere/as_mlp.pth", "sha256": "0123456789abcdef"}
    Run("import-one", tmp_path / "runs").record(**{"import": source})
    measured = Run("latency-here", tmp_path / "runs")
    measured.record(conditions={"01234567": {"device": "a processor", "torch": "2.9"}})
    for kind, key in (("part", "a"), ("part", "b"), ("part", "b"), ("network", "c")):
        measured.log(kind, key=key, ms=1.0, conditions="01234567")
    (tmp_path / "runs/empty").mkdir()
    (tmp_path / "runs/empty/run.yaml").write_text("format: run 1\n")
    said = {
        name: succeed(f"report {name}", tmp_path) and (tmp_path / "runs" / name / "report.html").read_text()
        for name in ("import-one", "latency-here", "empty")
    }
    assert ['class="unfinished"' in text for text in said.values()] == [False, False, True]
    assert "as_mlp_t, imported from as_mlp.pth (0123456789ab)" in said["import-one"]
    assert "2 parts and 1 whole networks timed" in said["latency-here"] and "device a processor" in said["latency-here"]
    assert re.search("latency table +2 parts and 1 whole networks timed", succeed("runs", tmp_path))


def test_a_training_that_failed_did_not_come_to_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    story = read_story(folder / "runs/found")
    found = story.searches[FIRST]
    failed = dataclasses.replace(found.ladder[-1], trained=Trained(Evaluation(failure="out of memory"), ((6, 0.3),)))
    few = dataclasses.replace(found, ladder=(found.ladder[0], failed), candidates=())
    (ladder,) = (
        table for table in Page(page(dataclasses.replace(story, searches={FIRST: few}))).tables if {"from", "fine-tuned"} <= {*table[0]}
    )
    rows = [dict(zip(ladder[0], row, strict=True)) for row in ladder[1:]]
    assert [(row["accuracy"], row["steps"]) for row in rows] == [("70.00%", "to the end"), ("failed: out of memory", "6")]


def test_without_its_space_a_run_tells_its_ladder_and_its_winner(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs/found", tmp_path / "runs/sent")
    succeed("report sent", tmp_path)
    text = (tmp_path / "runs/sent/report.html").read_text()
    assert "tiny.yaml is not here" in text and "70.00%" in text and "The winner" in text and "proposed by" not in text


@pytest.mark.parametrize("name", ["comparison.json", "fidelity-200kMACs.json"])
@pytest.mark.parametrize("text", ['{"netw', "[1]", "{}", "3", '"settings networks truth figures bias means agreement seconds"'])
def test_a_damaged_result_is_named_with_what_deletes_it(name: str, text: str, tmp_path: Path) -> None:
    run = Run("compared", tmp_path / "runs")
    run.record(imported=None)
    (run.folder / name).write_text(text)
    told = refused("report compared", tmp_path)
    assert f"runs/compared/{name}: damaged: " in told and f"(rm runs/compared/{name})" in told


def test_what_others_wrote_is_text_in_the_page(folder: Path) -> None:
    """A class, a path or a failure may hold anything."""
    shutil.copytree(folder / "runs/found", folder / "runs/odd")
    odd = Run("odd", folder / "runs")
    odd.record(supernet={**odd.recorded()["supernet"], "data": "/images/<script>alert(1)</script>"})
    succeed("report odd", folder)
    text = (odd.folder / "report.html").read_text()
    assert "<script>alert(1)" not in text and text.count("<script>") == 1


def test_without_a_browser_pictures_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browser.CHROMIUM", None)
    with pytest.raises(ValueError, match="no browser: got none; accepted: chromium"), open_browser():
        pass


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the pages were not looked at")
    with open_browser() as browser:
        yield browser


@pytest.mark.whole
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", ["found", "half", "begun"])
def test_a_report_can_be_read_in_a_browser(
    name: str, width: int, scheme: Literal["light", "dark"], reports: dict[str, Path], chromium: Browser
) -> None:
    chromium.open(reports[name].as_uri(), width, scheme)
    assert [address for address in chromium.fetched if not address.startswith("data:")] == [reports[name].as_uri()]
    assert not chromium.complaints
    assert chromium.ask("innerWidth") == width >= chromium.ask("document.documentElement.scrollWidth"), "nothing stands out to the right"
    pictures = chromium.ask("[...document.images].map(each => each.complete && each.naturalWidth > 0 && each.width / each.naturalWidth)")
    assert all(share >= 0.7 for share in pictures) and len(pictures) == (
        0 if name == "begun" else len(Page(reports[name].read_text()).pictures)
    )
    ink, paper = (chromium.ask(f"getComputedStyle(document.body).{each}") for each in ("color", "backgroundColor"))
    assert (sum(map(int, re.findall(r"\d+", ink))) > sum(map(int, re.findall(r"\d+", paper)))) == (scheme == "dark")


def test_tables_sort_by_what_they_mean(reports: dict[str, Path], chromium: Browser) -> None:
    chromium.open(reports["found"].as_uri())
    table = "[...document.querySelectorAll('table')].find(t => t.rows[0].textContent.includes('steps'))"
    for column, wanted in ((1, ["30.00%", "50.00%", "70.00%", "72.00%"]), (3, ["6", "18", "to the end", "to the end"])):
        script = (
            "const [t, c] = [%s, %d]; t.rows[0].cells[c].click(); const down = [...t.tBodies[0].rows].map(r => r.cells[c].textContent);"
        )
        again = "t.rows[0].cells[c].click(); return [down, [...t.tBodies[0].rows].map(r => r.cells[c].textContent)];"
        assert chromium.ask(f"(() => {{ {script % (table, column)} {again} }})()") == [wanted[::-1], wanted]


@pytest.mark.whole
def test_the_dashboard_has_a_note_and_a_picture_for_each_network_worth_a_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna
    from optuna.artifacts import get_all_artifact_meta
    from optuna_dashboard import get_note

    monkeypatch.chdir(folder)
    shutil.copytree(folder / "runs/found", folder / "runs/shown")
    study, artifacts = folder / "runs/shown/study.db", folder / "runs/shown/artifacts"
    read = read_story(folder / "runs/shown")
    told, first = tellings(read), read.searches[FIRST]
    for _ in range(2):
        write_finalists(study, FIRST, read.space, first.ladder, first.winner.architecture.key if first.winner else "")
        tell(study, artifacts, told)
    storage = optuna.storages.RDBStorage(f"sqlite:///{study}")
    loaded = optuna.load_study(study_name=FIRST, storage=storage)
    metas = {meta.artifact_id: meta.filename for meta in get_all_artifact_meta(loaded, storage=storage)}
    assert sorted(metas.values()) == sorted(told[FIRST].pictures) and {"front-macs.svg", "ladder.svg", "mixers.svg"} < set(
        metas.values()
    ), "once"
    note = get_note(loaded)
    winner = Architecture.from_dict(read_yaml(folder / f"runs/found/{FIRST}.yaml")["architecture"], "winner")
    assert note.startswith(f"**The winner is {winner.key}**") and "70.00%" in note.splitlines()[2]
    shown = [metas[address] for address in re.findall(r"\(/artifacts/\d+/([0-9a-f-]+)\)", note)]
    assert {"front-macs.svg", "ladder.svg", "mixers.svg", "fidelity-200kMACs.svg"} < set(shown) and "{" not in note and "70.00%" in note
    (linked,) = re.findall(r"\[!\[the winner\]\([^)]*\)\]\(([^)]*)\)", note)
    where = re.fullmatch(r"/dashboard/studies/(\d+)/trials\?numbers=(\d+)", linked)
    assert where and storage.get_study_name_from_id(int(where[1])) == f"{FIRST}-finalists"
    assert storage.get_all_trials(int(where[1]))[int(where[2])].user_attrs["arch_key"] == winner.key
    searches = read_story(folder / "runs/shown").searches
    assert list(searches) == [FIRST, SECOND], "that of the finalists is none"
    best = searches[FIRST].in_band[0]
    for each in front_of(searches[FIRST]):
        noted = get_note(optuna.trial.Trial(loaded, loaded.get_trials()[each.number]._trial_id))
        assert "![the network](/artifacts/" in noted and "on the front by multiply-adds" in noted
    trial = optuna.trial.Trial(loaded, loaded.get_trials()[best.number]._trial_id)
    assert f"{best.accuracy:.2%}" in get_note(trial) and "place 1 of" in get_note(trial) and "retrain" in get_note(trial)
    finalists = optuna.load_study(study_name=f"{FIRST}-finalists", storage=storage)
    assert finalists._study_id == 3, "written once"
    shown = [(each.user_attrs["origin"], each.state.name, each.value or each.intermediate_values) for each in finalists.trials]
    behind = [("conv", "PRUNED", {6: 0.4, 18: 0.5}), ("s2_shift", "PRUNED", {6: 0.3})]
    assert shown == [("model", "COMPLETE", 0.7), ("variety", "COMPLETE", 0.72), *behind], "the winner first"
    assert [each.user_attrs.get("winner") for each in finalists.trials] == [True, None, None, None]
    assert ["s0.b1.mixer" in each.params for each in finalists.trials[1:]] == [False, True, True], "of blocks that are there"
    assert "place 3 of 4 finalists" in get_note(optuna.trial.Trial(finalists, finalists.trials[2]._trial_id))
    notes = [get_note(optuna.trial.Trial(finalists, each._trial_id)) for each in finalists.trials]
    assert [text in note for text, note in zip(("winner", "72.00%", "50.00%", "30.00%"), notes, strict=True)] == [True] * 4
    assert set(metas) <= {path.name for path in artifacts.iterdir()} and len(list(artifacts.iterdir())) == sum(
        len(each.pictures) for each in told.values()
    )


@pytest.mark.whole
def test_a_study_of_another_program_is_left_alone(folder: Path) -> None:
    """The dashboard itself has a button that makes one."""
    import optuna

    for name in ("beside", "foreign"):
        shutil.copytree(folder / "runs/found", folder / "runs" / name)
    (folder / "runs/foreign/study.db").unlink()
    for name in ("beside", "foreign"):
        storage = f"sqlite:///{folder}/runs/{name}/study.db"
        optuna.create_study(study_name="its own", storage=storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    found = read_story(folder / "runs/beside")
    assert list(found.searches) == [FIRST, SECOND] and "'its own'" not in page(found)
    for command in ("report foreign", "dashboard foreign", "pick foreign --budget 200kMACs"):
        assert "study.db: no search of this project in it: got 'its own'" in refused(command, folder)


@pytest.mark.whole
def test_the_line_that_is_printed_opens_the_dashboard_of_the_last_winner(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "a folder with blanks"
    shutil.copytree(folder / "runs/found", here / "runs/found")
    shutil.copy(folder / "runs/found/best.yaml", here / "runs/best.yaml")
    monkeypatch.setattr("nas.searching.dashboard.serve", lambda *given: None)
    said = succeed("dashboard --port 8766", here)
    assert re.findall("Winner: (.*)", said) == [f"http://127.0.0.1:8766/dashboard/studies/{number}/note" for number in (1, 2)]
    line = said.partition("The same by hand: ")[2]
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    with subprocess.Popen(shlex.split(line), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert {each["study_name"] for each in studies_at(8766)} == {FIRST, SECOND, f"{FIRST}-finalists"}
        process.kill()


def studies_at(port: int) -> list[dict[str, Any]]:
    """The studies that a dashboard shows, once it answers."""
    for _ in range(400):
        try:
            return json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5).read())["study_summaries"]
        except OSError:
            time.sleep(0.1)
    pytest.fail("no dashboard within 40 seconds")


@pytest.mark.whole
def test_the_dashboard_opens_in_a_browser(folder: Path, chromium: Browser) -> None:
    shutil.copytree(folder / "runs/found", folder / "runs/opened")
    start = f"os.chdir({str(folder)!r}); sys.argv = ['launch.py', 'dashboard', 'opened', '--port', '8765']; launch.main()"
    code = f"import os, sys, launch; print('ready', flush=True); {start}"
    with another_process(code) as process:
        studies = studies_at(8765)
        assert "in use" in refused("dashboard opened --port 8765", folder)
        ids = {each["study_name"]: each["study_id"] for each in studies}
        assert set(ids) == {FIRST, SECOND, f"{FIRST}-finalists"}
        site = "http://127.0.0.1:8765/dashboard/studies"
        chromium.open(f"{site}/{ids[FIRST]}/note")
        chromium.until("document.body.innerText.includes('The winner is')")
        assert chromium.until("[...document.images].filter(each => each.naturalWidth > 0 && each.src.includes('artifacts')).length >= 4")
        trial = chromium.ask("[...document.links].find(each => each.innerText === 'open').href")
        assert trial == f"{site}/{ids[f'{FIRST}-finalists']}/trials?numbers=0"
        told = [*chromium.fetched], [*chromium.complaints]
        chromium.open(trial)
        chromium.until("/Trial 0[^]*winner [0-9a-f]{12}[^]*70.00% trained alone/.test(document.body.innerText)")
        assert all(each.startswith(("http://127.0.0.1:8765/", "data:")) for each in (*told[0], *chromium.fetched))
        assert not told[1] and not chromium.complaints
        process.kill()


@pytest.mark.whole
def test_a_winner_for_another_budget_is_the_best_that_was_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained alone to the end first, by the longest schedule, whatever the supernet says; and of the others by its weights."""
    monkeypatch.chdir(folder)
    searches = read_story(folder / "runs/found").searches.values()
    assert "70.00% trained alone for 3 epochs, the best of 1 networks" in succeed("pick found --budget 200kMACs", folder)
    story = read_story(folder / "runs/found")
    longer, shorter = (story.searches[name] for name in (FIRST, SECOND))
    brief = Trained(Evaluation(0.9), steps=9, epochs=1.0)
    both = [
        dataclasses.replace(shorter, ladder=tuple(dataclasses.replace(each, schedule="brief", trained=brief) for each in longer.ladder)),
        longer,
    ]
    for order in (both, both[::-1]):
        found = picked_by(order, [parse_budget("200kMACs")], 0.8, lambda network: {})
        assert found and (found.accuracy, found.how) == (0.7, "trained alone for 3 epochs"), "an epoch's 90% is of another kind"
    alone = {each.architecture.key for search in searches for each in search.ladder if each.trained.ended}
    seen = [each for search in searches for each in search.candidates if each.accuracy is not None and each.architecture.key not in alone]
    for each in seen:
        limit = each.cost.macs
        there = [other for other in seen if 0.9 * limit <= other.cost.macs <= limit]
        if any(0.9 * limit <= cost(climber.architecture).macs <= limit for search in searches for climber in search.ladder):
            continue  # the ladder's figures are made up
        said = succeed(f"pick found --budget {limit}MACs --floor 0.9", folder)
        assert f"{max(other.accuracy or 0.0 for other in there):.2%} with the supernet's weights" in said
    picked = folder / "runs/found" / re.findall(r"picked-\S+yaml", said)[0]
    assert read_yaml(picked)["costs"]["macs"] <= limit
    succeed(f"retrain {picked} --device cpu --run alone", folder)
    succeed("report alone", folder)
    assert "with its own weights" in (folder / "runs/alone/report.html").read_text()
    text, result = (folder / "runs/alone/report.html").read_text(), read_yaml(folder / "runs/alone/result.yaml")["result"]
    assert f"Test accuracy: {result['test_accuracy']:.2%} of {result['test_images']} images" in text and text.count("<img") == 3
    assert all(f"launch.py {command} runs/alone/weights.safetensors" in text for command in ("evaluate", "predict", "export"))
    searched = next(each for each in read_story(folder / "runs/found").searches.values() if each.retrained)
    assert searched.retrained and searched.retrained.name == "alone"
    told = page(dataclasses.replace(read_story(folder / "runs/found"), searches={"its": searched}, rankings={}))
    assert f"Retrained in alone: {result['test_accuracy']:.2%} of {result['test_images']} test images" in told
    assert "72.00% trained alone for 3 epochs, the best of 2 networks" in succeed("pick found --device cpu --budget 100s", folder)
    assert read_yaml(folder / "runs/found/picked-100s.yaml")["costs"]["latency_ms"] > 0
    assert "none of the" in refused("pick found --device cpu --budget 1us", folder)
    assert read_yaml(folder / "runs/found/picked-100s.yaml")["picked"]["by"] == "trained alone for 3 epochs"
    told = refused("pick found --budget 1kMACs", folder)
    assert "none of the" in told and "search --run found --budget 1kMACs" in told
    with read_story(folder / "runs/found").run.lock():  # by who searches there
        assert "in use by process" in refused("pick found --budget 200kMACs", folder)
