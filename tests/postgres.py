"""A real PostgreSQL server on a free port, for tests; skipped where there is none."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

USER, PASSWORD = "nas", "s3cret"


def program(name: str) -> str | None:
    """Where one of the server's programs is: Debian does not put them into the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)]))


class Postgres:
    """A server with its own folder; may be stopped, or killed, and started again."""

    def __init__(self, folder: Path) -> None:
        # The server refuses to run as root.
        self._as = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        self.folder = folder
        (folder / "password").write_text(PASSWORD)
        if self._as:
            subprocess.run(["chown", "-R", "nobody:nogroup", folder], check=True)
        asked = [program("initdb"), "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", folder / "password", "-N"]
        subprocess.run([*self._as, *asked], check=True, capture_output=True, cwd=folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        import psycopg2

        settings = ["-p", str(self.port), "-k", self.folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            started = [*self._as, program("postgres"), "-D", self.folder / "data", *settings]
            self._process = subprocess.Popen(started, stderr=log, cwd=self.folder)
        time_out = time.monotonic() + 60
        while True:
            try:
                psycopg2.connect(self.url("postgres").replace("+psycopg2", "")).close()
                return
            except psycopg2.OperationalError:
                assert time.monotonic() < time_out and self._process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        """In the middle of whatever is under way; what was committed is there afterwards."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql+psycopg2://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        """The address of a new database."""
        import psycopg2

        connection = psycopg2.connect(self.url("postgres").replace("+psycopg2", ""))
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        return self.url(name)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("psycopg2", reason="pip install '.[postgres]'")
    if not all(map(program, ("initdb", "postgres"))):
        pytest.skip("no PostgreSQL: initdb and postgres are neither in the path nor where Debian has them")
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # where others than root may go
    server = None
    try:
        server = Postgres(folder)
        yield server
    finally:
        if server:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
