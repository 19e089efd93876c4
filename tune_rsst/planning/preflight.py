"""What would make every trial of a sweep fail, found out before anything is written or started.

Comes in: a plan. On this machine: the device, the images, Optuna's database, the cluster's address. On a cluster, once
it is connected, the same of one worker, because the driver's machine need not have images or GPUs.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.planning.plan import Plan
from tune_rsst.runners import ray_cluster
from tune_rsst.search.study_database import check_storage

CONNECT_S, WORKER_S = 5.0, 600.0


def check(plan: Plan, say: Callable[[str], None] = lambda line: None) -> None:
    """Refuse what can't work; prepares the images of a local sweep, which its trials then share (`say` tells)."""
    storage, cluster = plan.settings.optuna_storage, ray_cluster.address(plan.settings)
    if storage not in ("memory", plan.folder.study) and not plan.resumes:
        check_storage(str(storage), plan.folder.name)
    if cluster:
        _reach(cluster)
        return
    configs = distinct(plan)
    if others := sorted({config.dataset for config in configs} - {"digits"}):
        say(f"Images of {', '.join(others)}: looked for, and prepared where this machine has not done so before …")
    look(configs)


def distinct(plan: Plan) -> list[RSSTConfig]:
    """One config for each data set, size and device that the space draws."""
    return list({(c.dataset, c.data, c.img_size, c.device): c for c in plan.draws}.values())


def look(configs: Iterable[RSSTConfig]) -> None:
    """Have this process what the trials `configs` need: the device and the images."""
    from trainables.rsst.data.load import load
    from trainables.rsst.training.device import choose_device

    for config in configs:
        choose_device(config)
        load(config)


def check_a_worker(plan: Plan, cpus: float, gpus: float, say: Callable[[str], None]) -> None:
    """The same on a worker of the connected cluster; where that can't be found out it is left to the trials."""
    import ray

    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_calls=1, max_retries=0)(_what_is_missing)
    try:
        missing = ray.get(task.remote(distinct(plan)), timeout=WORKER_S)
    except ray.exceptions.RayError as error:  # too long, or its node went away
        say(f"No worker could say whether it has the images ({type(error).__name__}); the trials will")
        return
    if missing is not None:
        raise ConfigError(*missing)


def _what_is_missing(configs: list[RSSTConfig]) -> tuple[str, Any, str, str] | None:
    """Runs on a node. An error of its own would come back as one of Ray's."""
    try:
        look(configs)
    except ConfigError as error:
        return error.key, str(error.value), error.valid, f"{error.hint}; on {socket.gethostname()}".lstrip("; ")
    return None


def _reach(cluster: str) -> None:
    """Ray itself tries for minutes."""
    host, colon, port = cluster.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():  # "auto" and the like
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError("ray_address", cluster, "a Ray cluster that can be reached", reason) from None
