"""What lies in runs/, told in a line each, and cleaned of what can be made again and of nothing else."""

from __future__ import annotations

import io
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
        "found": ("search of tiny", f"searched: {STUDY}"), "alone": ("search of tiny", "supernet trained"), "final": ("retraining", "ended"),
    }  # fmt: skip
    assert told["broken"].what == "damaged" and "run.yaml" in told["broken"].state
    assert f"{winner['found']['accuracy_supernet']:.2%}" in told["found"].accuracy
    assert f"{result['result']['test_accuracy']:.2%}" in told["final"].accuracy and told["found"].network == told["final"].network
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
    assert not seen.steps, "a further search has its supernet"
    assert "Nothing to remove" in succeed("runs --clean --yes", folder)


def test_no_runs_are_no_error(tmp_path: Path) -> None:
    assert "No runs" in succeed("runs", tmp_path)
