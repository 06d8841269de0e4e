"""The report and the dashboard tell what the records of a run say, need nothing from elsewhere, and can be read in a browser."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import refused, succeed
from finished import STUDY, finished_search
from processes import another_process

from nas.cost import cost
from nas.networks.architecture import Architecture
from nas.reporting.notes import tellings
from nas.runs.folder import Run
from nas.searching.dashboard import tell
from nas.searching.story import read_story
from nas.yaml_files import read_yaml

FIRST, SECOND = STUDY, "150kMACs-random"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the pages were not looked at")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two searches, the first with a ladder in its records: two networks drawn by hand, one of them left behind, and the winner."""
    folder = finished_search(tmp_path_factory.mktemp("told"))
    succeed("search --device cpu --budget 150kMACs --sampler random --run found", folder)
    add_ladder(
        Run("found", folder / "runs"), Architecture.from_dict(read_yaml(folder / f"runs/found/{FIRST}.yaml")["architecture"], "winner")
    )
    return folder


def add_ladder(run: Run, winner: Architecture) -> None:
    for name, architecture, rungs, ended in (
        ("conv", other("conv"), {6: 0.4, 18: 0.5}, None), ("s2_shift", other("s2_shift"), {6: 0.3}, None), ("model", winner, {6: 0.35, 18: 0.55}, 0.7),
    ):  # fmt: skip
        place = Run(f"{architecture.key}-01234567-0", run.folder / "alone")
        for step, accuracy in rungs.items():
            place.log("alone rung", step=step, accuracy=accuracy)
        if ended:
            (place.folder / "result.json").write_text(json.dumps({"accuracy": ended, "failure": None}))
        told = {"study": FIRST, "schedule": "01234567", "origin": name, "architecture": architecture.to_dict(), "by_hand": name != "model"}
        run.log("finalist", **told, supernet=0.45, fine_tuned=None, key=architecture.key)


def other(mixer: str) -> Architecture:
    stage = {"width": 32, "mixers": [mixer, mixer], "mlp_ratio": 2.0, "cpe": False, "sharing": False} | (
        {"kernel": 3} if mixer == "conv" else {}
    )
    return Architecture.from_dict({"frame": {"resolution": 16, "channels": 1, "classes": 4}, "patch": 4, "stages": [stage]}, mixer)


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


def test_the_report_tells_the_records_and_needs_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = succeed("report found", folder)
    path = folder / "runs/found/report.html"
    assert str(path.relative_to(folder)) in said
    text = path.read_text()
    page = Page(text)
    assert len(text) < 700_000 and all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert "http" not in re.sub(r"data:[^\"]*", "", text), "nothing is fetched from elsewhere"
    assert len(page.pictures) >= 6 and all(ElementTree.fromstring(picture).tag.endswith("svg") for picture in page.pictures)
    winner = read_yaml(folder / f"runs/found/{FIRST}.yaml")
    (ladder,) = (table for table in page.tables if "from" in table[0] and "steps" in table[0])
    rows = {row[1]: dict(zip(ladder[0], row, strict=True)) for row in ladder[1:]}
    assert [row[1] for row in ladder[1:]] == ["model", "conv", "s2_shift"], "the winner first, then by how far they came"
    assert (rows["model"]["accuracy"], rows["model"]["steps"], rows["conv"]["accuracy"], rows["conv"]["steps"]) == (
        "70.00%",
        "to the end",
        "50.00%",
        "18",
    )
    assert rows["conv"]["MACs"] == f"{cost(other('conv')).macs / 1e3:.0f} kMACs"
    assert f"{winner['found']['accuracy_supernet']:.2%}" in text and FIRST in text and SECOND in text
    monkeypatch.chdir(folder)
    story = read_story(folder / "runs/found")
    best = next(table for table in page.tables if "proposed by" in table[0])
    assert [row[0] for row in best[1:]] == [each.architecture.key for each in story.searches[FIRST].in_band][:25]


def test_a_run_that_has_not_ended_is_told_as_far_as_it_is(folder: Path) -> None:
    run = Run("begun", folder / "runs")
    record = read_yaml(folder / "runs/found/run.yaml")
    run.record(supernet=record["supernet"])
    succeed("report begun", folder)
    assert "Unfinished: the supernet is still in training" in (run.folder / "report.html").read_text()
    shutil.copytree(folder / "runs/found", folder / "runs/half")
    half = Run("half", folder / "runs")
    half.record(searches={})
    succeed("report half --out half.html", folder)
    assert (folder / "half.html").read_text().count("has no winner yet") == 2
    assert "no run" in refused("report nowhere", folder) and "no study" in refused("dashboard begun", folder)


def test_without_its_space_a_run_tells_its_ladder_and_its_winner(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs/found", tmp_path / "runs/sent")
    succeed("report sent", tmp_path)
    text = (tmp_path / "runs/sent/report.html").read_text()
    assert "tiny.yaml is not here" in text and "70.00%" in text and "The winner" in text and "proposed by" not in text


def test_what_others_wrote_is_text_in_the_page(folder: Path) -> None:
    """A class, a path or a failure may hold anything."""
    shutil.copytree(folder / "runs/found", folder / "runs/odd")
    odd = Run("odd", folder / "runs")
    odd.record(supernet={**odd.recorded()["supernet"], "data": "/images/<script>alert(1)</script>"})
    succeed("report odd", folder)
    text = (odd.folder / "report.html").read_text()
    assert "<script>alert(1)" not in text and text.count("<script>") == 1


def in_browser(page: Path, script: str, width: int) -> str:
    """What a script says of a page that chromium shows at a width; its errors count as what it says."""
    copy = page.with_name(f"looked-{width}.html")
    errors = "<script>window.onerror = text => { document.title = 'error: ' + text; };</script>"
    copy.write_text(page.read_text().replace("<head>", f"<head>{errors}") + f"<script>document.title = String({script});</script>")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom", copy.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return re.findall(r"<title>(.*?)</title>", shown)[0]


@browser
def test_the_report_can_be_read_on_a_telephone_and_its_tables_sort(folder: Path) -> None:
    succeed("report found --out page.html", folder)
    wide = "[document.documentElement.scrollWidth <= innerWidth, [...document.images].every(i => i.complete && i.naturalWidth > 0)]"
    assert in_browser(folder / "page.html", wide, 390) == "true,true"
    table = "[...document.querySelectorAll('table')].find(t => t.rows[0].textContent.includes('steps'))"
    order = f"(() => {{ const t = {table}; t.rows[0].cells[7].click(); t.rows[0].cells[7].click(); return [...t.tBodies[0].rows].map(r => r.cells[7].textContent); }})()"
    assert in_browser(folder / "page.html", order, 1200) == "30.00%,50.00%,70.00%"


def test_the_dashboard_has_a_note_and_a_picture_for_each_network_worth_a_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna
    from optuna.artifacts import get_all_artifact_meta
    from optuna_dashboard import get_note

    monkeypatch.chdir(folder)
    shutil.copytree(folder / "runs/found", folder / "runs/shown")
    study, artifacts = folder / "runs/shown/study.db", folder / "runs/shown/artifacts"
    told = tellings(read_story(folder / "runs/shown"))
    for _ in range(2):
        tell(study, artifacts, told)
    storage = optuna.storages.RDBStorage(f"sqlite:///{study}")
    loaded = optuna.load_study(study_name=FIRST, storage=storage)
    metas = {meta.artifact_id: meta.filename for meta in get_all_artifact_meta(loaded, storage=storage)}
    assert sorted(metas.values()) == sorted(told[FIRST].pictures) and {"front.svg", "ladder.svg", "mixers.svg"} < set(metas.values()), (
        "once"
    )
    note = get_note(loaded)
    shown = [metas[address] for address in re.findall(r"\(/artifacts/\d+/([0-9a-f-]+)\)", note)]
    assert {"front.svg", "ladder.svg", "mixers.svg"} < set(shown) and "{" not in note and "70.00%" in note
    story = read_story(folder / "runs/shown").searches[FIRST]
    best = story.in_band[0]
    trial = optuna.trial.Trial(loaded, loaded.get_trials()[best.number]._trial_id)
    assert f"{best.accuracy:.2%}" in get_note(trial) and "place 1 of" in get_note(trial) and "retrain" in get_note(trial)
    assert set(metas) <= {path.name for path in artifacts.iterdir()} and len(list(artifacts.iterdir())) == sum(
        len(each.pictures) for each in told.values()
    )


@browser
def test_the_dashboard_opens_in_a_browser(folder: Path) -> None:
    shutil.copytree(folder / "runs/found", folder / "runs/opened")
    start = f"os.chdir({str(folder)!r}); sys.argv = ['launch.py', 'dashboard', 'opened', '--port', '8765']; launch.main()"
    code = f"import os, sys, launch; print('ready', flush=True); {start}"
    with another_process(code) as process:
        for _ in range(200):
            try:
                urllib.request.urlopen("http://127.0.0.1:8765/api/studies", timeout=5).read()
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail("no dashboard within 40 seconds")
        assert "in use" in refused("dashboard opened --port 8765", folder)
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=15000", "--dump-dom"]
        shown = subprocess.run(
            [*command, "http://127.0.0.1:8765/dashboard/studies/1/note"], capture_output=True, text=True, timeout=120, check=True
        ).stdout
        assert "The winner is" in shown and len(re.findall(r"<img[^>]*artifacts", shown)) >= 4
        process.kill()


def test_a_winner_for_another_budget_is_the_best_that_was_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained alone to the end first, whatever the supernet says; and of the others by its weights."""
    monkeypatch.chdir(folder)
    searches = read_story(folder / "runs/found").searches.values()
    assert "70.00% trained alone, the best of 1 networks" in succeed("pick found --budget 200kMACs", folder)
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
    succeed(f"retrain {picked} --device cpu", folder)
    told = refused("pick found --budget 1kMACs", folder)
    assert "none of the" in told and "search --run found --budget 1kMACs" in told
