"""Studies on a real PostgreSQL server: the same as in a file, several drivers on one, and what happens when one of them or the server dies."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from errors import refused
from faults import happened
from postgres import PASSWORD, Postgres, postgres, program
from processes import forked
from toy_space import Recorder, accuracy_of

from nas.machine import masked
from nas.networks.architecture import Architecture
from nas.runs.folder import InUse, Run
from nas.searching import study_queue
from nas.searching.optuna_study import open_study, read_studies
from nas.searching.search import Evaluation, SearchRequest
from nas.searching.study_queue import Queue
from nas.searching.study_storage import Server, connected, is_led, leading, place_of
from tests.test_optuna_study import FACTS, SMALL, TRIALS, run, stored_trials

STUDY = "4MMACs"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
def place(server: Postgres) -> Server:
    """A run on a database of its own."""
    return Server.of(server.database(f"studies{next(_numbers)}"), "one")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The study as one driver leaves it in a file."""
    path = tmp_path_factory.mktemp("alone") / "a.db"
    run(path)
    return stored_trials(path)


def trials_of(place: Server) -> list[Any]:
    return stored_trials(place.exact, f"{place.run}/{STUDY}")


# ---- one driver --------------------------------------------------------------------------------------------------------


@pytest.mark.whole
def test_a_study_on_a_server_is_the_one_in_a_file_also_when_it_is_stopped_and_continued(place: Server, alone: list[Any]) -> None:
    for trials in (3, 8, TRIALS):
        run(place, trials=trials)
    assert trials_of(place) == alone


def test_an_address_needs_no_name_of_a_driver(place: Server) -> None:
    run(Server(place.url.replace("+psycopg2", ""), "one"), trials=3)
    assert len(trials_of(place)) >= 3


@pytest.mark.whole
def test_runs_share_a_server_and_do_not_see_each_others_studies(place: Server) -> None:
    other = Server(place.url, "another")
    run(place, trials=3)
    run(other, trials=5)
    with connected(place) as storage:
        Queue(place, storage, STUDY).open()
    read = {each.run: read_studies(each) for each in (place, other)}
    assert [set(studies) for studies in read.values()] == [{STUDY}, {STUDY}]
    assert sum(each.accuracy is not None for each in read["one"][STUDY][1]) == 3


def test_what_others_wrote_under_its_name_is_refused(place: Server) -> None:
    storage = optuna.storages.RDBStorage(place.exact)
    optuna.create_study(study_name=f"one/{STUDY}", storage=storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    storage.engine.dispose()
    with pytest.raises(ValueError, match=rf"study 'one/{STUDY}': begun with another .* optuna delete-study") as error:
        run(place)
    assert PASSWORD not in str(error.value)


# ---- who leads ---------------------------------------------------------------------------------------------------------


@pytest.mark.whole
def test_one_driver_leads_and_its_death_frees_the_study(place: Server, alone: list[Any]) -> None:
    def lead_for_ever() -> None:
        with connected(place) as storage, leading(place, STUDY, storage):
            time.sleep(600)

    with connected(place) as storage, forked(lead_for_ever) as process:
        while not is_led(place, STUDY, storage):
            time.sleep(0.02)
        with pytest.raises(InUse, match=r"study 'one/4MMACs' is led by another driver") as error:
            run(place)
        assert PASSWORD not in str(error.value)
        assert not is_led(place, "8MMACs", storage)
        os.kill(process, signal.SIGKILL)
        time_out = time.monotonic() + 10
        while is_led(place, STUDY, storage):
            assert time.monotonic() < time_out
    run(place)
    assert trials_of(place) == alone
    happened("a second driver on one study", "search", "refused in one line")
    happened("the leader of a study dies", "search", "another one leads to the same study")


@pytest.mark.whole
def test_both_ends_find_out_within_a_minute_that_the_machine_of_the_other_is_gone(place: Server) -> None:
    """A machine that vanishes closes no connection; a lock would be held for the two hours that systems wait."""

    def minute(told: dict[str, int]) -> bool:
        return told["idle"] + told["interval"] * told["count"] <= 60

    with connected(place) as storage, leading(place, STUDY, storage), storage.engine.connect() as other:
        (lock,) = other.exec_driver_sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory'").scalars()
        import psycopg2

        ours = [each for each in gc.get_objects() if type(each) is psycopg2.extensions.connection and not each.closed]
        (held,) = [each for each in ours if each.info.backend_pid == lock]
        with socket.socket(fileno=os.dup(held.fileno())) as end:
            options = {"idle": socket.TCP_KEEPIDLE, "interval": socket.TCP_KEEPINTVL, "count": socket.TCP_KEEPCNT}
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert minute({name: end.getsockopt(socket.IPPROTO_TCP, option) for name, option in options.items()}), "this end"
        with held.cursor() as cursor:
            told = {}
            for name in options:
                cursor.execute(f"SHOW tcp_keepalives_{name}")
                told[name] = int(cursor.fetchone()[0])
        assert minute(told), "the server's end"


def test_a_driver_whose_connection_is_cut_stops_before_it_writes(place: Server) -> None:
    """Else a second one could lead beside it."""
    import psycopg2

    def evaluate(architectures: list[Architecture]) -> Iterator[Evaluation]:
        yield from Recorder()(architectures[:3])
        connection = psycopg2.connect(place.url.replace("+psycopg2", ""))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        connection.close()
        yield from Recorder()(architectures[3:])

    with refused("cannot be used", "the same command goes on"):
        run(place, evaluate=evaluate)
    assert sum(state == optuna.trial.TrialState.COMPLETE for _, state, *_ in trials_of(place)) == 3
    happened("the connection to the server is cut", "search", "the driver stops before it writes")


# ---- several drivers ---------------------------------------------------------------------------------------------------


def slow(folder: Path, seconds: float) -> Any:
    """Evaluates in so many seconds, and leaves a file for each that says who did."""

    def evaluate(architectures: Iterable[Architecture]) -> Iterator[Evaluation]:
        for number, architecture in enumerate(architectures):
            time.sleep(seconds)
            (folder / f"{architecture.key}-{os.getpid()}-{number}").touch()
            yield Evaluation(accuracy_of(architecture))

    return evaluate


def who_evaluated(folder: Path) -> dict[str, list[int]]:
    """By network, the processes that evaluated it."""
    found = dict[str, list[int]]()
    for path in folder.iterdir():
        key, process, _ = path.name.split("-")
        found.setdefault(key, []).append(int(process))
    return found


def lead(place: Server, evaluate: Any, **more: Any) -> None:
    with connected(place) as storage:
        queue = Queue(place, storage, STUDY)

        def beside(evaluate: Any) -> Any:
            queue.open()
            return queue.beside(evaluate)

        run(place, evaluate=evaluate, beside=beside, **more)
        queue.close(TRIALS)


def helping(place: Server, folder: Path, seconds: float) -> Callable[[], None]:
    """Evaluates for whoever leads, as long as it is needed."""

    def work() -> None:
        with connected(place) as storage:
            queue = Queue(place, storage, STUDY)
            while queue.begun() is None:
                time.sleep(0.02)
            assert queue.help(slow(folder, seconds), TRIALS, lambda: False, lambda count: None)

    return work


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_queue, "PAUSE", 0.02)
    monkeypatch.setattr(study_queue, "PATIENCE", 0.3)


@pytest.mark.whole
@pytest.mark.usefixtures("quick")
def test_two_drivers_give_the_study_of_one_and_evaluate_each_network_once(place: Server, alone: list[Any], tmp_path: Path) -> None:
    with forked(helping(place, tmp_path, 0.1)) as process:
        lead(place, slow(tmp_path, 0.1))
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert trials_of(place) == alone
    by = who_evaluated(tmp_path)
    assert len(by) == TRIALS and all(len(processes) == 1 for processes in by.values())
    assert {process for (process,) in by.values()} == {os.getpid(), process}
    assert [each.study_name for each in optuna.get_all_study_summaries(place.exact)] == [f"one/{STUDY}"], "the queue is removed"


@pytest.mark.whole
@pytest.mark.usefixtures("quick")
def test_a_study_that_was_removed_leaves_nothing_to_the_one_begun_anew(place: Server) -> None:
    """As by who trains the supernet anew: the same networks are asked for, and none has an accuracy of the weights before."""

    def evaluate(architectures: Iterable[Architecture]) -> Iterator[Evaluation]:
        for number, architecture in enumerate(architectures):
            if number == 4:
                raise InterruptedError
            yield Evaluation(accuracy_of(architecture))

    with pytest.raises(InterruptedError):
        lead(place, evaluate)
    assert sum(state == optuna.trial.TrialState.COMPLETE for _, state, *_ in trials_of(place)) == 4
    optuna.delete_study(study_name=f"one/{STUDY}", storage=place.exact)
    lead(place, lambda architectures: (Evaluation(accuracy_of(each) / 2) for each in architectures))
    found = [values[0] for _, _, values, *_ in trials_of(place) if values]
    assert len(found) >= TRIALS and max(found) < 0.3 < accuracy_of(SMALL.smallest(None)), "half of what they were"


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_what_a_dead_driver_had_taken_is_evaluated_by_the_leader(place: Server, alone: list[Any], tmp_path: Path) -> None:
    with forked(helping(place, tmp_path, 600)) as process:

        def killing(architectures: Iterable[Architecture]) -> Iterator[Evaluation]:
            for number, evaluation in enumerate(slow(tmp_path, 0.2)(architectures)):
                if number == 2:
                    os.kill(process, signal.SIGKILL)
                yield evaluation

        lead(place, killing)
    by = who_evaluated(tmp_path)
    assert trials_of(place) == alone and len(by) == TRIALS and set(itertools.chain(*by.values())) == {os.getpid()}
    happened("a driver that helps dies", "search", "the leader evaluates what it had taken")


@pytest.mark.whole
@pytest.mark.usefixtures("quick")
def test_where_the_leader_dies_the_helper_is_told_and_leads_on(place: Server, alone: list[Any], tmp_path: Path) -> None:
    numbers = itertools.count()

    def killed(architectures: Iterable[Architecture]) -> Iterator[Evaluation]:
        for evaluation in slow(tmp_path, 0.1)(architectures):
            if next(numbers) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield evaluation

    with connected(place) as storage, forked(lambda: lead(place, killed)) as process:
        queue = Queue(place, storage, STUDY)
        while queue.begun() is None:
            time.sleep(0.02)
        assert queue.help(slow(tmp_path, 0.5), TRIALS, lambda: False, lambda count: None) is False
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        known = len(who_evaluated(tmp_path))
        begun = time.monotonic()
        lead(place, slow(tmp_path, 0.0))
    by = who_evaluated(tmp_path)
    assert trials_of(place) == alone and 2 <= known < TRIALS
    again = [key for key, processes in by.items() if len(processes) > 1]
    assert len(by) == TRIALS and len(again) <= 1, "at most what the leader was at when it died"
    assert time.monotonic() - begun < 20, "what it had taken waits again"
    happened("the leader of a study dies", "search", "another one leads to the same study")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_who_helps_and_fails_leaves_it_to_the_leader(place: Server, alone: list[Any], tmp_path: Path) -> None:
    """Memory that runs out on one machine is no failure of the network."""

    def failing(architectures: Iterable[Architecture]) -> Iterator[Evaluation]:
        for _ in architectures:
            time.sleep(0.05)
            yield Evaluation(failure="out of memory")

    with connected(place) as storage:
        queue, counts = Queue(place, storage, STUDY), list[int]()

        def help() -> None:
            while queue.begun() is None:
                time.sleep(0.02)
            queue.help(failing, TRIALS, lambda: False, counts.append)

        helper = threading.Thread(target=help)
        helper.start()
        lead(place, slow(tmp_path, 0.05))
        helper.join(30)
        assert not helper.is_alive() and counts
    assert trials_of(place) == alone


@pytest.mark.usefixtures("quick")
def test_who_helps_and_is_stopped_gives_back_what_it_has_taken(place: Server) -> None:
    networks = [SMALL.decode({name: options[k % len(options)] for name, options in SMALL.decisions.items()}) for k in range(3)]
    with connected(place) as storage, connected(place) as other:
        queue, helper = Queue(place, storage, STUDY), Queue(place, other, STUDY)
        with open_study(place, STUDY, SMALL.decisions, SearchRequest((), 3, 6), FACTS):
            queue.open()
            queue._put(networks)

            def taking_all(architectures: Iterable[Architecture]) -> Iterator[Evaluation]:
                for architecture in list(architectures):
                    yield Evaluation(accuracy_of(architecture))

            asked = iter([True])
            with pytest.raises(study_queue.Stopped):
                helper.help(taking_all, 3, lambda: next(asked, True), lambda count: None)
            seen = list(queue.beside(lambda architectures: (Evaluation(accuracy_of(each)) for each in architectures))(networks))
    assert seen == [Evaluation(accuracy_of(each)) for each in networks]


# ---- a server that dies ------------------------------------------------------------------------------------------------


@pytest.mark.whole
def test_a_server_that_is_gone_is_one_line_and_the_same_call_goes_on_afterwards(server: Postgres, place: Server, alone: list[Any]) -> None:
    seen = Recorder()

    def evaluate(architectures: list[Architecture]) -> Iterator[Evaluation]:
        for number, evaluation in enumerate(seen(architectures)):
            if number == 4:
                server.stop()
            yield evaluation

    try:
        with refused(str(place), "cannot be used", "accepted: a server that answers", "the same command goes on") as error:
            run(place, evaluate=evaluate)
        assert PASSWORD not in str(error.value)
        with refused("cannot be used"):
            run(place)
    finally:
        server.start()
    assert len(trials_of(place)) == 4
    run(place, evaluate=seen)
    assert trials_of(place) == alone and len(seen.seen) == TRIALS + 1, "but for the one in the middle nothing is evaluated again"
    happened("the server of the study goes away", "search", "one line; the same call goes on, and nothing is evaluated again")


# ---- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite:///a.db",
        "host/db",
        "postgresql:/x",
        "http://me:s3cret@host/db",
        "mysqldb://u:s3cret@h/d",
        "redis://h:s3cret@x",
        "postgresql://me:s3cret@host:port/db",
    ],
)
def test_what_is_no_address_of_a_server_is_refused_without_its_password(url: str) -> None:
    with refused("--storage", "accepted: postgresql://USER@HOST/DATABASE") as error:
        Server.of(url, "one")
    assert PASSWORD not in str(error.value)


def test_an_address_that_does_not_answer_is_refused_in_time_without_its_password(server: Postgres) -> None:
    urls = [
        f"postgresql://nas:{PASSWORD}@127.0.0.1:1/x",  # nobody listens
        server.url("postgres", "s3cret-but-wrong"),
        server.url("none_such"),
        f"postgresql://nobody:{PASSWORD}@127.0.0.1:{server.port}/postgres",
        f"mysql+none://nas:{PASSWORD}@127.0.0.1/x",  # no such driver
    ]
    for url in urls:
        begun = time.monotonic()
        with refused("cannot be used") as error:
            run(Server.of(url, "one"))
        assert PASSWORD not in str(error.value) and time.monotonic() - begun < 30, url


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("mysql://nas@127.0.0.1:1/x", "mysqlclient"),
        ("mysql+pymysql://nas@127.0.0.1:1/x", "pymysql"),
        ("postgresql+asyncpg://nas@127.0.0.1:1/x", "asyncpg"),
    ],
)
def test_a_driver_that_is_missing_is_named_as_pip_knows_it(url: str, package: str) -> None:
    with refused("cannot be used: got 'No module named", f"pip install {package}."):
        run(Server.of(url, "one"))


def test_the_server_of_these_tests_is_found_where_debian_has_it(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    where = {program(name) for name in ("initdb", "postgres")}
    monkeypatch.setenv("PATH", "/bin")
    assert None not in where and (
        None not in {program(name) for name in ("initdb", "postgres")} or not Path("/usr/lib/postgresql").exists()
    )


@pytest.mark.parametrize(
    ("url", "shown", "recorded"),
    [
        ("postgresql://me:s3cret@h:5/d", "postgresql://me:***@h:5/d", "postgresql://me@h:5/d"),
        ("postgresql://me@h/d", "postgresql://me@h/d", "postgresql://me@h/d"),
        (
            "postgresql://h/d?password=s3cret&sslmode=require",
            "postgresql://h/d?password=***&sslmode=require",
            "postgresql://h/d?sslmode=require",
        ),
        ("mysql+pymysql://me:s3:cr@et@h/d?sslpassword=s3cret", "mysql+pymysql://me:***@h/d?sslpassword=***", "mysql+pymysql://me@h/d"),
    ],
)
def test_a_password_is_neither_shown_nor_recorded(url: str, shown: str, recorded: str) -> None:
    place = Server.of(url, "one")
    assert (str(place), place.recorded) == (shown, recorded)
    assert masked(f"search --storage '{url}' --run a") == f"search --storage '{shown}' --run a"
    assert "s3" not in repr(place) + str(place) + place.recorded


def test_a_run_keeps_to_where_its_studies_are(tmp_path: Path) -> None:
    run_ = Run("a", tmp_path)
    run_.record(storage="postgresql://me@h/d")
    assert place_of(run_) == Server("postgresql://me@h/d", "a")
    assert place_of(run_, "postgresql://me:x@other/d") == Server("postgresql://me:x@other/d", "a"), "a server may move"
    other = Run("b", tmp_path)
    assert place_of(other) == other.folder / "study.db"
    other.folder.mkdir()
    (other.folder / "study.db").touch()
    with refused("--storage", "are in a file", "postgresql://me:***@h/d"):
        place_of(other, "postgresql://me:x@h/d")
