"""A Ray cluster of separate nodes on this machine, with token authentication; ended by process id."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--num-cpus=2", "--num-gpus=0", "--object-store-memory=100000000", "--disable-usage-stats"]


class Nodes:
    """A head with two CPUs, and more nodes of two CPUs each. `environment` is what a client of it needs.

    Without `head` nothing is started: who wants to start it types `ray start`, then `head_words`.
    """

    def __init__(self, folder: Path, *, head: bool = True) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        own = {"TUNE_RSST_HOME": str(self.home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.environment = {**os.environ, **own, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            self.environment.pop(name, None)
        self.temp = Path(tempfile.mkdtemp(prefix="rn"))  # short: sockets lie below it
        self.port, self.dashboard = free_port(), free_port()
        self._raylets: list[int] = []
        if head:
            self._start(*self.head_words)

    @property
    def head_words(self) -> list[str]:
        """What makes `ray start` a head that disturbs no other cluster of this machine."""
        words = ["--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}", f"--temp-dir={self.temp}"]
        return [*words, f"--dashboard-agent-listen-port={free_port()}", *SMALL]

    @property
    def node_words(self) -> list[str]:
        """What makes `ray start` one more node."""
        return [f"--address=127.0.0.1:{self.port}", f"--dashboard-agent-listen-port={free_port()}", *SMALL]

    @property
    def address(self) -> str:
        """For `ray job`."""
        return f"http://127.0.0.1:{self.dashboard}"

    def add(self) -> int:
        """One more node; its raylet's process id."""
        self._start(*self.node_words)
        return self._raylets[-1]

    def run(self, *words: str, timeout_s: float = 90.0, **more: str) -> subprocess.CompletedProcess[str]:
        """A command of this Python's environment, as a client of the cluster."""
        command = [str(BIN / words[0]), *words[1:]]
        environment = {**self.environment, **more}
        return subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def end(self) -> None:
        """Kill every process of the cluster."""
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def kill_node(self, raylet: int) -> None:
        """The node is gone at once, with its workers, as when its machine is taken away."""
        doomed = [psutil.Process(raylet), *psutil.Process(raylet).children(recursive=True)]
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        self._raylets.remove(raylet)

    def _start(self, *words: str) -> None:
        before = {p.pid for p in self._processes()}
        done = self.run("ray", "start", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        new = [p for p in self._processes() if p.pid not in before and p.name() == "raylet"]
        assert len(new) == 1, new
        self._raylets.append(new[0].pid)

    def _processes(self) -> list[Any]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self.temp) in " ".join(process.cmdline()):
                    found.append(process)
        return found


def answer(nodes: Nodes, token: Path, path: str) -> Any:
    """What the cluster's dashboard says; a command that asks it takes 3 s of a core."""
    headers = {"Authorization": f"Bearer {token.read_text(encoding='ascii').strip()}"}
    request = urllib.request.Request(f"{nodes.address}/{path}", headers=headers)
    return json.load(urllib.request.urlopen(request, timeout=20))


def job_status(nodes: Nodes, token: Path, job: str) -> str:
    """What `ray job status` says of a job that has ended, or nothing."""
    word = str(answer(nodes, token, f"api/jobs/{job}")["status"]).lower()
    return word if word in ("succeeded", "failed", "stopped") else ""


def wait_for(what: Callable[[], Any], timeout_s: float = 90.0, every_s: float = 0.3) -> Any:
    """What `what()` gives once it is true.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(every_s)
    raise TimeoutError(f"not within {timeout_s:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
