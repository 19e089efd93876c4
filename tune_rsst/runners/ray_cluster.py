"""The connection to Ray: a running cluster, or a local Ray for as long as the sweep.

In: an address or none; the sweep's interruption (interrupt.py). Out: Ray, connected.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from trainables.rsst.config import ConfigError
from trainables.storage.clouds import ENVIRONMENT as ENVIRONMENT_OF
from trainables.storage.clouds import place_of
from tune_rsst.interrupt import Interruption
from tune_rsst.runners import local_ray
from tune_rsst.runners.capacity import Node, alive_nodes
from tune_rsst.runners.ray_sessions import RaySessions
from tune_rsst.settings.settings import SweepSettings

OBJECT_STORE_BYTES = 200 * 1024**2
# Set before ray is imported. Tune's own loggers and change of folder are of no use here; uv's hook uploads the folder.
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new engine prints a box even when told to be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "120",  # of a worker that does not stop when told to; what it saves takes 15 s
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "3600",
}


def address(settings: SweepSettings) -> str | None:
    """The cluster to connect to; None for a local Ray."""
    return settings.ray_address or os.environ.get("RAY_ADDRESS")


@contextmanager
def connected(
    settings: SweepSettings, local_folder: str, interruption: Interruption, workers: int = 0
) -> Iterator[None]:
    """Ray, connected; `interruption` hears of SIGTERM and SIGHUP. A local Ray starts with `workers` workers."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray._private import utils

    logging.getLogger("ray").setLevel(logging.ERROR)
    running = address(settings)
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    local = {"include_dashboard": False, "_temp_dir": local_folder, "object_store_memory": OBJECT_STORE_BYTES}
    with interruption.listening(), nullcontext() if running else RaySessions() as sessions:
        if sessions:
            sessions.watch(interruption.lost)
        try:
            with (
                _hidden_from_children(signal.SIGHUP),
                local_ray.changed(utils, "set_sigterm_handler", lambda handler: None),  # it ends us with exit code 15
                local_ray.alone(workers, sessions) if sessions else nullcontext(),
            ):
                ray.init(address=running or "local", **common, **({} if running else local))
            interruption.hear()  # again, where another Ray has put its own handler there all the same
            with kept_for_workers(settings.storage) if settings.storage else nullcontext():
                yield
        finally:
            with interruption.ignored():  # an impatient second Ctrl-C must not leave Ray's processes behind
                if sessions:
                    sessions.unwatch()
                ray.shutdown()


@contextmanager
def kept_for_workers(storage: str) -> Iterator[None]:
    """Let the workers ask for what `storage` needs (`take_environment`): it is in the memory of Ray's store alone.

    Tune itself would put the keys into the workers' command lines and Ray's logs, for all users of the machine to read.
    """
    import ray
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    from trainables.worker.ray_trainable import OURS, environment_key

    needed = ENVIRONMENT_OF[place_of(storage).kind]
    found = {name: value for name, value in os.environ.items() if name.startswith(needed)}
    key = environment_key()
    _internal_kv_put(key, json.dumps(found).encode(), namespace=OURS)
    try:
        yield
    finally:
        if ray.is_initialized():
            with suppress(ray.exceptions.RayError, RuntimeError, ValueError):
                _internal_kv_del(key, namespace=OURS)


@contextmanager
def _hidden_from_children(number: signal.Signals) -> Iterator[None]:
    """Processes that are started within never get the signal; ours comes when it is over.

    A closed terminal sends SIGHUP to Ray's processes too: without them the driver could not end its trials in order.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def nodes_of(settings: SweepSettings) -> list[Node]:
    """What each node of the sweep's cluster has."""
    try:
        with connected(settings, "", Interruption()):
            return alive_nodes()
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError("ray_address", address(settings), "a Ray cluster that can be reached", reason) from None
