"""What a sweep may use outside its machine: PostgreSQL, an MLflow server over it, an object store; killed on demand.

In: a folder. Out: processes of this machine that keep what they have taken on the disk; what a sweep needs to use them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
from sqlalchemy import make_url

from tests.chaos.lives.wire import Wire
from tests.postgres import Postgres, programs
from tests.ray_nodes import free_port

STARTED_S = 240.0
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
POSTGRES, MLFLOW, OBJECTS = "PostgreSQL", "the MLflow server", "the object store"
STORAGE = "s3://research/chaos"


class Services:
    """All three of them, running. `environment`: of a sweep that has its study, its records and its home there.

    `wires`: what lies between that sweep and each of them.
    """

    def __init__(self, place: Path) -> None:
        binaries = programs()
        assert binaries is not None, missing()
        (place / "pg").mkdir(parents=True)
        for folder in (place, *place.parents):  # PostgreSQL runs as another user
            with suppress(PermissionError):
                folder.chmod(folder.stat().st_mode | 0o011)
        self.place, self.postgres = place, Postgres(place / "pg", binaries)
        self.study, self.records = self.postgres.make("optuna"), self.postgres.make("mlflow")
        self._ports = {MLFLOW: free_port(), OBJECTS: free_port()}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in (OBJECTS, MLFLOW):
            self.start(name)
        self._wait(f"{self._url(MLFLOW)}/health")
        study = make_url(self.study)
        assert study.port is not None
        self.wires = {name: Wire(port) for name, port in {POSTGRES: study.port, **self._ports}.items()}
        address = {name: f"http://127.0.0.1:{wire.port}" for name, wire in self.wires.items()}
        self.environment = {
            "AWS_ENDPOINT_URL": address[OBJECTS],
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "OPTUNA_STORAGE": study.set(port=self.wires[POSTGRES].port).render_as_string(hide_password=False),
            "MLFLOW_TRACKING_URI": address[MLFLOW],
        }

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    def start(self, name: str) -> None:
        """Start it; only PostgreSQL is waited for."""
        if name == POSTGRES:
            self.postgres.start()
            return
        port = str(self._ports[name])
        words = {
            OBJECTS: ["tests.chaos.lives.object_store", str(self.place / "objects"), port],
            MLFLOW: ["mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1",
                     "--backend-store-uri", self.records, "--artifacts-destination", str(self.place / "artifacts")],
        }[name]  # fmt: skip
        with (self.place / "servers.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *words],
                env={**os.environ, **QUIET},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL to all of its processes."""
        if name == POSTGRES:
            self.postgres.kill()
            return
        with suppress(ProcessLookupError):
            os.killpg(self._processes[name].pid, signal.SIGKILL)
        self._processes[name].wait(20)

    def tell(self, name: str, number: signal.Signals) -> None:
        """A signal to all of its processes."""
        if name != POSTGRES:
            os.killpg(self._processes[name].pid, number)
        for process in self.postgres.processes() if name == POSTGRES else ():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def wait(self) -> None:
        """Until all three answer."""
        self._wait(f"{self._url(MLFLOW)}/health")
        self._wait(f"{self._url(OBJECTS)}/research?list-type=2")
        self.postgres.ask("postgres", "SELECT 1")

    @staticmethod
    def _wait(address: str) -> None:
        deadline = time.monotonic() + STARTED_S
        while True:
            with suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
            assert time.monotonic() < deadline, f"{address} did not answer within {STARTED_S:.0f} s"
            time.sleep(0.3)

    def close(self) -> None:
        """End all of them, and remove what they wrote."""
        for wire in self.wires.values():
            wire.close()
        for name in (MLFLOW, OBJECTS, POSTGRES):
            self.kill(name)
        shutil.rmtree(self.place, ignore_errors=True)


def missing() -> str | None:
    """Why there can be no services here, or None."""
    return None if programs() else "PostgreSQL's programs are not here: `make test-tools` installs them where it can"
