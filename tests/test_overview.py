"""What lies in runs/, told in a line each, and cleaned of what can be made again and of nothing else."""

from __future__ import annotations

import datetime
import io
import os
import shutil
from pathlib import Path

import pytest
from command_line import run, succeed
from finished import STUDY, WITH, finished_search
from recording import recording

from nas.runs.folder import Run
from nas.runs.overview import overviews
from nas.yaml_files import read_yaml

RETRAIN = "retrain runs/best.yaml --device cpu --data images --recipe plain.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = finished_search(tmp_path_factory.mktemp("runs"))
    succeed(f"train {WITH} --steps 2 --run alone", folder)
    succeed(f"{RETRAIN} --run final", folder)
    (folder / "runs/broken").mkdir()
    (folder / "runs/broken/run.yaml").write_text("format: run 1\nname: [")
    return folder


def test_each_run_is_told_by_what_it_is_and_what_came_of_it(folder: Path) -> None:
    winner, result = (read_yaml(folder / "runs" / name) for name in ("found/best.yaml", "final/result.yaml"))
    told = {each.name: each for each in overviews(folder / "runs")}
    assert {name: (each.what, each.state) for name, each in told.items() if name != "broken"} == {
        "found": ("search of tiny", "searched"), "alone": ("search of tiny", "supernet trained"), "final": ("retraining", "ended"),
    }  # fmt: skip
    assert told["broken"].what == "damaged" and "run.yaml" in told["broken"].state
    assert f"{winner['found']['accuracy_supernet']:.2%}" in told["found"].results[0][2]
    assert f"{result['result']['test_accuracy']:.2%}" in told["final"].results[0][2]
    assert told["found"].results[0][:2] == (STUDY, told["final"].results[0][1])
    for name, each in told.items():
        assert each.size == sum(path.stat().st_size for path in (folder / "runs" / name).rglob("*") if path.is_file())
    said = succeed("runs", folder).splitlines()
    assert [line.split()[0] for line in said] == ["run", *sorted(told)]


def test_cleaning_asks_and_takes_nothing_that_anybody_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("found", "alone"):
        supernet = folder / "runs" / name / "supernet.pt"
        supernet.with_name("supernet.pt.previous").write_bytes(supernet.read_bytes())
    before = sorted((folder / "runs").rglob("*"))
    for answer in ("n\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        run("runs --clean", folder)
        assert sorted((folder / "runs").rglob("*")) == before
    with Run("found", folder / "runs").lock():
        assert run("runs --clean --yes", folder).status == 2, "a run that is in use"
    succeed("runs --clean --yes", folder)
    gone = {str(path.relative_to(folder / "runs")) for path in before} - {
        str(p.relative_to(folder / "runs")) for p in (folder / "runs").rglob("*")
    }
    assert gone == {"found/supernet.pt.previous", "final/checkpoint.pt"}, "the other run has only trained its supernet"
    with recording() as seen:
        assert "its result again" in succeed(f"search {WITH} --budget 200kMACs --run found", folder)
        assert "its result again" in succeed(f"{RETRAIN} --run final", folder)
        succeed(f"search {WITH} --budget 180kMACs --run found", folder)
    said = [line for line in succeed("runs", folder).splitlines() if "kMACs-evolution" in line]
    assert [STUDY in said[0], "180kMACs-evolution" in said[1], len(said)] == [True, True, 2], "a line for each winner"
    assert not seen.steps, "a further search has its supernet"
    assert "Nothing to remove" in succeed("runs --clean --yes", folder)


def test_a_training_that_somebody_may_go_on_from_keeps_its_checkpoint(folder: Path) -> None:
    """Hours of training may lie in one: of a search that has not ended, of one that went on, of other commands."""
    shutil.copytree(folder / "runs/found", folder / "runs/several")
    run = Run("several", folder / "runs")
    record, second = run.recorded()["searches"][STUDY], "100kMACs-evolution"
    its = {"left": [STUDY], "both": [STUDY, second], "newer": [STUDY], "other": [second], "drawn": []}
    for key, study in ((key, study) for key, studies in its.items() for study in studies):
        run.log("finalist", study=study, key=key, schedule="01234567")
    finished = max(line["time"] for line in run.metrics("finalist"))
    for key in its:
        (place := run.folder / f"alone/{key}-01234567-0").mkdir(parents=True)
        for path in (place / "checkpoint.pt", place / "checkpoint.pt.previous"):
            path.write_bytes(b"hours")
            written = datetime.datetime.fromisoformat(finished).timestamp() + 30 * (key == "newer")
            os.utime(path, (written, written))

    def told(ended: str) -> tuple[str, set[str]]:
        run.record(searches={**run.recorded()["searches"], STUDY: {**record, "finished": ended}})
        (its,) = (each for each in overviews(folder / "runs") if each.name == "several")
        return its.state.partition("; ")[2], {path.parent.name.partition("-")[0] for path in its.spare if "alone" in path.parts}

    assert told("2026-01-01T00:00:00+00:00") == (f"{STUDY}, {second} under way", set()), "it went on after it had a winner"
    assert told(finished) == (f"{second} under way", {"left"})
    succeed("runs --clean --yes", folder)
    assert {path.parent.name.partition("-")[0] for path in run.folder.glob("alone/*/checkpoint.pt*")} == its.keys() - {"left"}


def test_no_runs_are_no_error(tmp_path: Path) -> None:
    assert "No runs" in succeed("runs", tmp_path)
