"""Azure's blob storage on this machine (Azurite, of npm) in a process of its own, which can be killed.

`make test-tools` installs it below .venv/azurite.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.ray_nodes import free_port
from trainables.storage.bucket import Bucket

CONTAINER, VERSION = "research", "2023-11-03"
ACCOUNT = "devstoreaccount1"  # Azurite's own, with the key that its manual prints
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
PROGRAM = Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"
HOW = "--silent --skipApiVersionCheck --disableTelemetry --inMemoryPersistence --blobHost 127.0.0.1 --blobPort"


class AzureServer:
    """Holds its objects in memory. `environment` is what a program needs to reach it."""

    address = f"az://{CONTAINER}"

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/{ACCOUNT}"
        self._process = subprocess.Popen(
            [str(shutil.which("node")), str(PROGRAM), *HOW.split(), str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ENDPOINT": self.url,
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        }

    def make_bucket(self) -> None:
        """The container, by the one signed request that obstore has no word for."""
        now = formatdate(usegmt=True)
        place = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
        said = "PUT" + "\n" * 12 + f"x-ms-date:{now}\nx-ms-version:{VERSION}\n{place}"
        mark = base64.b64encode(hmac.new(base64.b64decode(KEY), said.encode(), hashlib.sha256).digest()).decode()
        headers = {"x-ms-date": now, "x-ms-version": VERSION, "Authorization": f"SharedKey {ACCOUNT}:{mark}"}
        request = urllib.request.Request(f"{self.url}/{CONTAINER}?restype=container", method="PUT", headers=headers)
        urllib.request.urlopen(request, timeout=10).read()

    def empty(self) -> None:
        everything = Bucket(self.address)
        everything.delete(everything.keys())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
                return
            except OSError:
                assert self._process.poll() is None, "Azurite did not start"
                time.sleep(0.1)
        raise AssertionError("Azurite did not answer within 60 s")


@contextmanager
def azure_server() -> Iterator[AzureServer]:
    """A server with the container, and this process's environment set to reach it."""
    if not shutil.which("node") or not PROGRAM.exists():
        pytest.skip(f"Azurite is not here ({PROGRAM}): make test-tools installs it where node and npm are")
    server = AzureServer()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        try:
            server.make_bucket()
            yield server
        finally:
            server.stop()
