"""A PostgreSQL server of its own on this machine, with a password, for one test session."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from tests.ray_nodes import free_port

USER = "research"


def programs() -> Path | None:
    """Where initdb and postgres are; None where they are not."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(path) for path in [shutil.which("initdb")] if path
    ]
    return found[-1].parent if found else None


class Postgres:
    """`url(name)` is the address of a database that is made on demand."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self._binaries, self.port = folder, binaries, free_port()
        self.password = f"p@ss/{secrets.token_hex(8)}"
        self._as = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
        secret = folder / "password"
        secret.write_text(self.password)
        if self._as:
            owner = pwd.getpwnam("nobody")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            os.chown(secret, owner.pw_uid, owner.pw_gid)
        options = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", "-D", str(folder / "data"), *options)
        secret.unlink()
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers; after `kill` with all that it has taken."""
        where = ["-p", str(self.port), "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as, str(self._binaries / "postgres"), "-D", str(self.folder / "data"), *where],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self._wait()

    def processes(self) -> list[psutil.Process]:
        """Of the server, where it runs."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def kill(self) -> None:
        """SIGKILL to all of its processes. Nobody waits for them here at once: it would take its own dead for alive."""
        for process in (there := self.processes()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(20)
        psutil.wait_procs(there, timeout=10)
        for lock in (self.folder / "data" / "postmaster.pid", *self.folder.glob(".s.PGSQL.*")):
            lock.unlink(missing_ok=True)

    def url(self, database: str) -> str:
        """Address of `database`, password included."""
        return f"postgresql+psycopg://{USER}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def make(self, database: str) -> str:
        """Make `database`; its address."""
        self.ask("postgres", f"CREATE DATABASE {database}")
        return self.url(database)

    def ask(self, database: str, query: str) -> list[tuple[object, ...]]:
        """Run `query`; its rows."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "user": USER, "password": self.password}
        with psycopg.connect(dbname=database, connect_timeout=5, autocommit=True, **where) as connection:
            answer = connection.execute(query)
            return answer.fetchall() if answer.description else []

    def stop(self) -> None:
        """End it at once."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop", check=False)
        self._process.wait(20)

    def _run(self, program: str, *words: str, check: bool = True) -> None:
        done = subprocess.run(
            [*self._as, str(self._binaries / program), *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr

    def _wait(self) -> None:
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                self.ask("postgres", "SELECT 1")
                return
            except psycopg.OperationalError:
                running = self._process.poll() is None and time.monotonic() < deadline
                assert running, f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-1000:]}"
                time.sleep(0.2)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server, removed at the end. Skips with the reason where PostgreSQL is not installed."""
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL's programs are not here: `make test-tools` installs them where it can")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = Postgres(folder, binaries)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
