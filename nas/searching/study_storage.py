"""Where a run's studies are: a file in its folder, or a database server, where several drivers and a dashboard meet.

A server may hold the studies of many runs: there a study's name begins with its run's. One driver leads a study, by a lock in the database that
ends with its connection: it alone writes trials. Others evaluate for it (`study_queue.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import re
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage

from nas.machine import masked
from nas.runs.folder import InUse, Run
from nas.runs.records import read_record

STUDY_FILE = "study.db"
CONNECT_SECONDS = 10  # what a server may take to answer
# What both ends of a connection to PostgreSQL do so that a machine that vanished is found out within a minute, and not after two hours as is usual: after
# so many idle seconds they ask whether the other is there, every so many seconds, so often.
ALIVE = {"idle": 30, "interval": 10, "count": 3}
LIBPQ = ("psycopg2", "psycopg")  # the drivers that speak to PostgreSQL by its own library
QUEUE = "-queue"  # behind a search's name: networks that are to be evaluated
SERVERS = "postgresql://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE"
# What pip installs for a database, or for a driver that is named by another name.
DRIVERS = {"postgresql": "'hybrid-nas[postgres]'", "psycopg2": "'hybrid-nas[postgres]'", "mysql": "mysqlclient", "mysqldb": "mysqlclient"}
# Of a lock by name, in a database: take it if nobody has it. Both end with the connection.
LOCKS = {"postgresql": "SELECT pg_try_advisory_lock(:key)", "mysql": "SELECT GET_LOCK(CAST(:key AS CHAR), 0)"}


@dataclass(frozen=True)
class Server:
    """A database server as the place of a run's studies.

    Attributes:
        url: as SQLAlchemy takes it. A password in it is never shown or written.
        run: whose studies.
    """

    url: str = field(repr=False)
    run: str

    @staticmethod
    def of(url: str, run: str) -> Server:
        """Raises a ValueError for what is no address of a server."""
        backend = ""
        with contextlib.suppress(sqlalchemy.exc.ArgumentError, ValueError):
            backend = sqlalchemy.make_url(url).get_backend_name()
        if backend not in LOCKS:
            raise ValueError(
                f"--storage: no database server: got {masked(url)!r}; accepted: {SERVERS}. Without --storage studies are in the run's folder."
            )
        return Server(url, run)

    @property
    def recorded(self) -> str:
        """Without the password, which then PGPASSWORD or ~/.pgpass tell, or --storage."""
        return re.sub(r"(://[^:/@]*):.*@", r"\1@", re.sub(r"([?&])(?:\w*password|passwd)=[^&]*&?", r"\1", self.url)).rstrip("?&")

    @property
    def exact(self) -> str:
        """With the driver that is here: which one is meant without a name depends on the version of SQLAlchemy."""
        here = importlib.util.find_spec("psycopg2") is not None
        return re.sub(r"^postgresql://", "postgresql+psycopg2://", self.url) if here else self.url

    @property
    def driver(self) -> str:
        """What pip installs where it is missing."""
        backend, _, named = sqlalchemy.make_url(self.url).drivername.partition("+")
        return DRIVERS.get(named or backend, named)

    def __str__(self) -> str:
        return masked(self.url)


Place = Path | Server


def place_of(run: Run, storage: str = "") -> Place:
    """Where the studies of a run are: on the server that is named now, or else was when they were begun, or in its folder.

    Raises:
        ValueError: no address of a server, or one for a run whose studies are in its folder.
    """
    record, file = read_record(run), run.folder / STUDY_FILE
    url = storage or record.storage
    if not url:
        return file
    if file.exists():
        raise ValueError(
            f"--storage: the studies of {run.folder} are in a file: got {masked(url)!r}; accepted: {file}. Leave --storage out, or give another --run."
        )
    return Server.of(url, record.name or run.name)


def full_name(place: Place, study: str) -> str:
    """The name by which Optuna knows a study."""
    return f"{place.run}/{study}" if isinstance(place, Server) else study


def study_names(place: Place, storage: RDBStorage) -> dict[str, str]:
    """The studies of the run, in the order in which they were begun: names as Optuna knows them, by their own names."""
    start = full_name(place, "")
    names = optuna.get_all_study_names(storage)
    return {name.removeprefix(start): name for name in names if name.startswith(start) and not name.endswith(QUEUE)}


def delete_command(place: Place, study: str) -> str:
    """What removes a study, to be pasted into a shell."""
    return f"optuna delete-study --study-name '{full_name(place, study)}' --storage {address(place)}"


def address(place: Place) -> str:
    """As optuna-dashboard takes it, but for a password."""
    return masked(place.exact) if isinstance(place, Server) else f"sqlite:///{place}"


@contextlib.contextmanager
def open_storage(place: Place) -> Iterator[RDBStorage]:
    """The studies of a place, for a block that does nothing but read and write them.

    Raises:
        ValueError: the file is damaged, or the server cannot be reached.
    """
    with connected(place) as storage, readable_errors(place):
        yield storage


@contextlib.contextmanager
def connected(place: Place) -> Iterator[RDBStorage]:
    """The same for a block that does other things too, whose errors are none of the place's; a file is made where there is none."""
    with readable_errors(place, *UNREADABLE):
        storage = _connect(place)
    try:
        yield storage
    finally:
        # The last connection to close folds the write-ahead log into the file, so that copying study.db alone loses nothing.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):  # of a server that is gone
            storage.remove_session()
        storage.engine.dispose()


def _connect(place: Place) -> RDBStorage:
    if isinstance(place, Path):
        with contextlib.closing(_sqlite(place)) as made:
            if (found := made.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":  # reading would pass over what an index lost
                raise sqlite3.DatabaseError(found)
        return RDBStorage(f"sqlite:///{place.resolve()}", engine_kwargs={"creator": lambda: _sqlite(place)})
    # What was idle may have been cut off by a firewall: asked before it is used.
    how = {"connect_timeout": CONNECT_SECONDS}
    if sqlalchemy.make_url(place.exact).drivername.partition("+")[2] in LIBPQ:
        how |= {f"keepalives_{name}": number for name, number in ALIVE.items()}
    settings: dict[str, Any] = {"pool_pre_ping": True, "connect_args": how}
    for tries in range(3):
        try:
            return RDBStorage(place.exact, engine_kwargs=settings)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):  # two drivers make the tables of a new database at once
            if tries == 2:
                raise
            time.sleep(0.5 + tries)
    raise AssertionError("unreachable")


def _sqlite(path: Path) -> sqlite3.Connection:
    """A connection to a file with our settings."""
    # With a write-ahead log readers do not block the writer, and a commit waits for no disk: a kill loses nothing, a power
    # cut the last trials at most.
    made = sqlite3.connect(path, timeout=30, check_same_thread=False)
    made.execute("PRAGMA journal_mode=WAL")
    made.execute("PRAGMA synchronous=NORMAL")
    return made


@contextlib.contextmanager
def leading(place: Place, study: str, storage: RDBStorage) -> Iterator[Callable[[], None]]:
    """Holds a study for this process; of a file the run's lock does that. Gives what makes sure that it is still held.

    Raises:
        InUse: another driver leads it.
    """
    if isinstance(place, Path):
        yield lambda: None
        return
    with readable_errors(place):
        connection = storage.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        if connection.dialect.name == "postgresql":  # else the lock of a machine that vanished would be held for hours
            with readable_errors(place):
                for name, number in ALIVE.items():
                    connection.execute(sqlalchemy.text(f"SET tcp_keepalives_{name} = {number}"))
        if not _locked(place, study, connection):
            raise InUse(
                f"{place}: study '{full_name(place, study)}' is led by another driver. Wait for it, stop it, or give another --run."
            )

        def held() -> None:
            connection.execute(sqlalchemy.text("SELECT 1"))  # which fails where the connection was cut; a new one would not have the lock

        yield held
    finally:
        connection.invalidate()  # not back to the pool: its end is the lock's
        connection.close()


def is_led(place: Server, study: str, storage: RDBStorage) -> bool:
    """Whether some driver leads a study."""
    try:
        with leading(place, study, storage):
            return False
    except InUse:
        return True


def _locked(place: Server, study: str, connection: sqlalchemy.Connection) -> bool:
    key = int.from_bytes(hashlib.sha256(full_name(place, study).encode()).digest()[:8], "big", signed=True)
    with readable_errors(place):
        return bool(connection.execute(sqlalchemy.text(LOCKS[connection.dialect.name]), {"key": key}).scalar())


FAILED = (sqlite3.DatabaseError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError, ImportError)
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)  # what reading raises where a bit of the content was flipped


@contextlib.contextmanager
def readable_errors(place: Place, *more: type[Exception]) -> Iterator[None]:
    """Turns what SQLAlchemy and Optuna raise about a place into one line; more kinds, such as `UNREADABLE`, for a block that raises none of its own.

    Raises:
        ValueError: instead.
    """
    try:
        yield
    except (*FAILED, *more) as error:  # type: ignore[misc]  # a star hides from mypy what is in a tuple
        cause = error.__cause__ or error
        lines = str(getattr(cause, "orig", None) or cause).strip().splitlines()
        text = masked(lines[0] if lines and not isinstance(cause, LookupError) else f"not what was written ({cause!r:.100})")
        if isinstance(place, Path):
            advice = (
                "an SQLite study that can be written, by no newer Optuna. Check free space and permissions; where the file is damaged begin anew "
                f"({shlex.join(['mv', str(place), f'{place}.damaged'])}), or restore a copy."
            )
        elif isinstance(error, ImportError):
            advice = f"a driver for that database. Install one: pip install {place.driver}."
        else:
            advice = "a server that answers, and a user that may write there. When it does, the same command goes on."
        raise ValueError(f"{place}: cannot be used: got '{text}'; accepted: {advice}") from error
