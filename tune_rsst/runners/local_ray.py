"""A Ray of this machine alone, as long as a sweep runs: its folders, its environment, and what it listens on.

Its folders have paths short enough for its sockets, and are removed after the sweep. Every port is bound to the
loopback address, which Ray does where it is told that it is not to make a cluster; without that it listens on all
interfaces. Its processes, and so the workers, start without the secrets of the environment; workers that keep trials
in a bucket ask for what they need (`kept_for_workers` of ray_cluster.py).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from trainables.storage.secrets import is_secret
from tune_rsst.storage.home import home

ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: the node's address is then the loopback one
    "RAY_enable_metrics_collection": "0",  # nobody reads them, and the endpoint asks nobody who they are
}

# An AF_UNIX path may have 107 bytes, and this is what Ray puts below its folder.
LONGEST_RAY_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.123")


@contextmanager
def ray_folder() -> Iterator[Path]:
    """The folder for a local Ray, below the home, by a path that its sockets and commands take; emptied at the end."""
    real = home() / ".ray"
    real.mkdir(parents=True, exist_ok=True)
    _own_token(home() / ".ray_token")
    link = None
    try:
        if len(str(real).encode()) > LONGEST_RAY_FOLDER or not re.fullmatch(r"[\w/.-]+", str(real), re.ASCII):
            link = Path(tempfile.mkdtemp(prefix="rsst")) / "r"
            link.symlink_to(real, target_is_directory=True)
        yield link or real
    finally:
        if link is not None:
            link.unlink(missing_ok=True)
            link.parent.rmdir()


def forget_sessions() -> None:
    """Remove Ray's session folders; they hold nothing we need. Those of live processes stay."""
    for session in (home() / ".ray").glob("session_*"):
        if session.is_symlink():
            session.unlink(missing_ok=True)
        elif not Path(f"/proc/{session.name.rpartition('_')[2]}").exists() or session.name.endswith(f"_{os.getpid()}"):
            shutil.rmtree(session, ignore_errors=True)
    with suppress(OSError):
        (home() / ".ray").rmdir()


@contextmanager
def alone() -> Iterator[None]:
    """While a local Ray is started: it makes no cluster, and its processes get no secrets."""
    before = {name: os.environ.get(name) for name in ALONE}
    os.environ.update(ALONE)
    from ray._private import ray_constants, services

    cluster, popen = ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen
    ray_constants.ENABLE_RAY_CLUSTER = False  # it has read the variable already where ray was imported before
    services.ConsolePopen = partial(_without_secrets, popen)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.ConsolePopen = cluster, popen
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _without_secrets(popen: Callable[..., Any], command: Any, *, env: Mapping[str, str], **how: Any) -> Any:
    return popen(command, env={name: value for name, value in env.items() if not is_secret(name, value)}, **how)


def _own_token(token: Path) -> None:
    """Token authentication for the local Ray, with a token below the home that only the owner can read.

    It is not in Ray's folder, which Ray makes writable for everybody.
    """
    if os.environ.get("RAY_AUTH_MODE"):
        return
    if not token.exists():
        fd = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
