"""A Ray of this machine alone, as long as a sweep runs: its folders, its environment, and what it listens on.

Its folders have paths short enough for its sockets, and are removed after the sweep. Every port is bound to the
loopback address, which Ray does where it is told that it is not to make a cluster; without that it listens on all
interfaces. Its processes, and so the workers, start without the secrets of the environment; workers that keep trials
in a bucket ask for what they need (`kept_for_workers` of ray_cluster.py).

As many workers as trials run at once start with Ray and import what a trial needs, while the driver goes on. Tune asks
for workers with an environment of its own making, which are others than those; here theirs is the driver's already, so
it is not asked for.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from trainables.storage.secrets import is_secret
from tune_rsst.runners.ray_sessions import LINUX, RaySessions
from tune_rsst.storage.home import home

ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: the node's address is then the loopback one
    "RAY_enable_metrics_collection": "0",  # nobody reads them, and the endpoint asks nobody who they are
    "RAY_preload_python_modules": "trainables.worker.ray_trainable",
}
WORKERS_FLAG = "--num_prestart_python_workers="
# Processes of Ray that nobody asks for anything here: autoscaler, log lines for the driver, dashboard and jobs.
UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")
VITAL = {"gcs_server": "Ray's control store (gcs_server)", "raylet": "Ray's node (raylet)"}

# An AF_UNIX path may have 107 bytes, and this is what Ray puts below its folder.
LONGEST_RAY_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.123")


@contextmanager
def ray_folder() -> Iterator[Path]:
    """The folder for a local Ray, below the home, by a path that its sockets and commands take; emptied at the end."""
    real = _own(".ray")
    real.mkdir(parents=True, exist_ok=True)
    _own_token(_own(".ray_token"))
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
    for session in _own(".ray").glob("session_*"):
        if session.is_symlink():
            session.unlink(missing_ok=True)
        elif not Path(f"/proc/{session.name.rpartition('_')[2]}").exists() or session.name.endswith(f"_{os.getpid()}"):
            shutil.rmtree(session, ignore_errors=True)
    with suppress(OSError):
        _own(".ray").rmdir()


def _own(name: str) -> Path:
    """A file or folder of this user's in the home, which may be another's that a group shares."""
    place = home()
    others = place.exists() and place.stat().st_uid != os.geteuid()
    return place / (f"{name}-{os.geteuid()}" if others else name)


@contextmanager
def alone(workers: int, sessions: RaySessions) -> Iterator[None]:
    """While a local Ray is started: it makes no cluster, its processes get no secrets, `workers` start with it.

    Each leads one of `sessions`.

    Ray has no public way to most of this. Where a later Ray lacks what is replaced here, it starts as it does alone.
    """
    from ray._private import ray_constants, services
    from ray._private.node import Node

    with ExitStack() as all_of_it:
        for name, value in ALONE.items():
            all_of_it.callback(_put_back, name, os.environ.get(name))
            os.environ[name] = value
        all_of_it.enter_context(changed(ray_constants, "ENABLE_RAY_CLUSTER", False))  # it has read the variable already
        all_of_it.enter_context(
            changed(services, "ConsolePopen", partial(_start, services.ConsolePopen, workers, sessions))
        )
        for start in UNUSED:
            all_of_it.enter_context(changed(Node, start, lambda *_, **__: None))
        yield


def _put_back(name: str, value: str | None) -> None:
    if value is None:
        del os.environ[name]
    else:
        os.environ[name] = value


@contextmanager
def changed(owner: Any, name: str, value: object) -> Iterator[None]:
    """`owner` with another attribute `name`; as it is where it has none of that name."""
    if (before := getattr(owner, name, None)) is None:
        yield
        return
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _start(
    popen: Callable[..., Any],
    workers: int,
    sessions: RaySessions,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    **how: Any,
) -> Any:
    own = {name: value for name, value in env.items() if not is_secret(name, value)}
    fewer = [f"{WORKERS_FLAG}{workers}" if word.startswith(WORKERS_FLAG) else word for word in command]
    process = popen(fewer, env=own, start_new_session=LINUX, **how)
    sessions.began(process, VITAL.get(os.path.basename(command[0])))
    return process


@contextmanager
def plain_workers() -> Iterator[None]:
    """While Tune runs trials on a local Ray: it takes the workers that are there.

    It imports no wandb or Comet either, which it does to count for Ray which of them is used; nothing is told here. Of
    a raylet that has died its log is not printed: `lost` of interrupt.py says that.
    """
    import ray
    from ray._private import worker
    from ray.air._internal import usage
    from ray.tune.execution.class_cache import _ActorClassCache

    with (
        changed(_ActorClassCache, "get", lambda _, trainable: ray.remote(trainable)),
        changed(usage, "tag_callbacks", lambda *_: None),
        changed(worker, "print_to_stdstream", partial(_but_the_raylets_end, worker.print_to_stdstream)),
    ):
        yield


def _but_the_raylets_end(tell: Callable[..., None], data: Mapping[str, Any], **how: Any) -> None:
    if not any(str(line).startswith("Raylet is terminated.") for line in data.get("lines", ())):
        tell(data, **how)


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
