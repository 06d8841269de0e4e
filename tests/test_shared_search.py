"""`search --storage` by the command line: one driver, several on one run, and passwords that appear nowhere."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import refused, run, succeed
from faults import happened
from finished import RECIPE, SPACE, STUDY, WITH
from postgres import PASSWORD, Postgres, postgres
from processes import another_process
from recording import write_images

from nas.runs.folder import Run
from nas.searching import shared_search, study_queue
from nas.searching.study_storage import Server, connected
from tests.test_optuna_study import stored_trials

SEARCH = f"search {WITH} --budget 200kMACs --run found"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and a run with a trained supernet."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "images")
    (folder / "tiny.yaml").write_text(SPACE)
    (folder / "plain.yaml").write_text(RECIPE)
    succeed(f"train {WITH} --budget 200kMACs --run found", folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def url(server: Postgres) -> str:
    return server.database(f"runs{next(_numbers)}")


@pytest.fixture(scope="module")
def in_a_file(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The study and the winner of one driver without a server."""
    folder = tmp_path_factory.mktemp("file")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    succeed(SEARCH, folder)
    return stored_trials(folder / "runs/found/study.db", STUDY), winner(folder)


def winner(folder: Path) -> Any:
    found = yaml.safe_load((folder / "runs/found" / f"{STUDY}.yaml").read_text())
    return found["architecture"], found["found"]


def everything_written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.whole
def test_a_search_on_a_server_is_the_one_in_a_file_and_its_password_is_nowhere(
    folder: Path, url: str, in_a_file: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(f"{SEARCH} --storage {url}", folder)
    assert said.status == 0, said
    assert (stored_trials(url, f"found/{STUDY}"), winner(folder)) == in_a_file
    assert not (folder / "runs/found/study.db").exists()
    masked = url.replace(PASSWORD, "***")
    assert f"optuna-dashboard {masked}" in said.out
    told = refused("report found", folder)
    assert "cannot be used" in told and "password" in told, "the run does not know it"
    for command in (f"report found --storage {url}", f"pick found --budget 190kMACs --floor 0 --storage {url}"):
        said_too = run(command, folder)
        assert said_too.status == 0 and PASSWORD not in said_too.out + said_too.err
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    again = succeed(f"{SEARCH} --trials 9", folder)
    assert masked.replace(":***", "") in again, "what is not said is as it was"
    assert PASSWORD not in said.out + said.err + told
    assert PASSWORD.encode() not in everything_written(folder)


@pytest.mark.slow
def test_a_dashboard_of_studies_on_a_server_has_the_notes_of_the_run(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served = list[Any]()
    monkeypatch.setattr("nas.searching.dashboard.serve", lambda *about: served.append(about))
    succeed(f"{SEARCH} --storage {url}", folder)
    said = succeed(f"dashboard found --storage {url} --port 18080", folder)
    assert PASSWORD not in said and url.replace(PASSWORD, "***") in said and len(served) == 1
    import optuna

    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name=f"found/{STUDY}", storage=storage)
    notes = [key for key in storage.get_study_system_attrs(study._study_id) if key.startswith("dashboard:note")]
    storage.engine.dispose()
    assert notes


def leader(folder: Path, line: str, seconds: float, finals: float = 0.0) -> str:
    """Code that runs a command in a folder, where an evaluation takes so many seconds, and what comes before a winner is written so many."""
    return (
        "import os, sys, time; sys.path.insert(0, os.getcwd()); import tests.conftest, launch\n"
        "from nas.searching import evaluating, study_queue; from nas.searching.search_run import SearchRun\n"
        f"real, study_queue.PAUSE, write = evaluating.evaluate_subnet, 0.02, SearchRun._write\n"
        f"SearchRun._write = lambda *about: time.sleep({finals}) or write(*about)\n"
        f"evaluating.evaluate_subnet = lambda *about, **how: time.sleep({seconds}) or real(*about, **how)\n"
        f"sys.argv = {['launch.py', *line.split()]!r}; os.chdir({str(folder)!r}); sys.stderr = sys.stdout\n"
        "print('ready', flush=True); sys.exit(launch.main())"
    )


def await_leader(url: str, process: Any, ended: bool = False) -> None:
    place = Server(url, "found")
    with connected(place) as storage:
        queue = study_queue.Queue(place, storage, STUDY)
        while not queue.ended(1) if ended else queue.begun() is None:
            assert process.poll() is None
            time.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (study_queue, shared_search):
        monkeypatch.setattr(module, "PAUSE", 0.02)


@pytest.mark.whole
@pytest.mark.usefixtures("quick")
def test_the_same_command_elsewhere_evaluates_for_the_first_and_the_end_is_that_of_one(
    folder: Path, url: str, in_a_file: tuple[Any, Any]
) -> None:
    line = f"{SEARCH} --storage {url}"
    with another_process(leader(folder, line, 0.4)) as process:
        await_leader(url, process)
        helped = run(line, folder)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and helped.status == 0, (said, helped)
    assert "Evaluating for it" in helped.out and "Winner: " not in helped.out and "Winner: " in said
    assert int(re.findall(r"(\d+)/\d+ evaluations", helped.err)[-1]) > 0, helped.err
    assert (stored_trials(url, f"found/{STUDY}"), winner(folder)) == in_a_file
    assert PASSWORD not in helped.out + helped.err + said


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_who_helps_waits_for_the_next_winner_and_leaves_the_finals_to_who_leads(
    folder: Path, url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a copy of the run, which no lock of the folder keeps from leading; the finals take longer than a helper waits for a search to begin."""
    monkeypatch.setattr(shared_search, "WAIT", 1.0)
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    line = f"{SEARCH.replace('--budget', '--winner')} --winner 150kMACs --storage {url}"
    with another_process(leader(folder, line, 0.4, finals=3.0)) as process:
        await_leader(url, process)
        helped = run(line, copy)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and said.count("Winner: ") == 2 and helped.status == 0, (said, helped)
    assert "Nothing is left to evaluate" in helped.out and "Winner: " not in helped.out
    for study in (STUDY, "150kMACs-evolution"):
        counts = [int(each) for each in re.findall(rf"evaluate for {study}: (\d+)/", helped.err)]
        assert counts and counts[-1] > 0, (study, helped.err)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_who_comes_when_all_is_evaluated_is_told_so(folder: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    line = f"{SEARCH} --storage {url}"
    with another_process(leader(folder, line, 0.0, finals=8.0)) as process:
        await_leader(url, process, ended=True)
        for place in (folder, copy):
            told = run(line, place)
            assert told.status == 0 and "Nothing is left to evaluate" in told.out and "Winner: " not in told.out, told
            assert process.poll() is None, "while the other one is at it"
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and said.count("Winner: ") == 1, said


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_where_the_first_is_killed_the_second_leads_to_the_same_end(folder: Path, url: str, in_a_file: tuple[Any, Any]) -> None:
    line = f"{SEARCH} --storage {url}"
    with another_process(leader(folder, line, 0.4)) as process:
        await_leader(url, process)
        real = study_queue.Queue._done

        def killing(queue: Any, *about: Any) -> None:
            real(queue, *about)
            process.kill()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study_queue.Queue, "_done", killing)
            said = succeed(line, folder)
    assert process.returncode == -signal.SIGKILL and "Winner: " in said
    assert (stored_trials(url, f"found/{STUDY}"), winner(folder)) == in_a_file
    happened("the leader of a study dies", "search, two commands", "the second leads to the same end")


@pytest.mark.whole
def test_without_a_server_or_a_supernet_the_second_is_refused(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with Run("found", Path("runs")).lock():
        assert f"in use by process {os.getpid()}" in refused(SEARCH, folder)
    with Run("new", Path("runs")).lock():
        assert f"in use by process {os.getpid()}" in refused(f"{SEARCH.replace('found', 'new')} --storage {url}", folder)
    monkeypatch.setattr(shared_search, "WAIT", 0.0)
    with Run("found", Path("runs")).lock():
        assert f"in use by process {os.getpid()}" in refused(f"{SEARCH} --storage {url}", folder), "by who never searches"


@pytest.mark.slow
def test_a_copy_of_the_run_helps_only_with_the_same_weights(folder: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    with another_process(leader(folder, f"{SEARCH} --storage {url}", 0.4)) as process:
        await_leader(url, process)
        assert "Evaluating for it" in run(f"{SEARCH} --storage {url}", copy).out
        assert process.wait(60) == 0
    other = tmp_path_factory.mktemp("other")
    for name in ("images", "tiny.yaml", "plain.yaml"):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, other / name)
    succeed(f"train {WITH} --budget 200kMACs --run found --lr 0.01", other)
    told = refused(f"{SEARCH} --lr 0.01 --storage {url}", other)
    assert "begun with another weights_digest" in told and PASSWORD not in told
    happened("a driver with another supernet", "search, two commands", "refused in one line")
