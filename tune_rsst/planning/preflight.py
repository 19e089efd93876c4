"""Would a sweep run here? The probes that a sweep must pass before anything is written or started.

In: a plan. Out: a ConfigError for the first probe that fails (`check`), or a `Finding` for each (`tune-rsst doctor`).
On this machine: CPUs, Optuna's database, the device, the images, the cluster's address. On a cluster, once it is
connected, the device and the images of one worker, because the driver's machine need not have them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from trainables.plugins import said
from trainables.progress import every, watched
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.text import one_line
from tune_rsst.planning.plan import Plan
from tune_rsst.runners import ray_cluster
from tune_rsst.search import study_database
from tune_rsst.settings.settings import SweepSettings

CONNECT_S, WORKER_S = 5.0, 600.0
TELL_EVERY_S = 15.0  # of a download, of images that are prepared


@dataclass(frozen=True)
class Finding:
    """What a probe found, in one line. `fine` False: a sweep would break."""

    what: str
    fine: bool
    text: str

    def line(self) -> str:
        """As it is printed."""
        return f"{'ok  ' if self.fine else 'FAIL'}  {self.what:<15} {one_line(self.text)}"


def finding(what: str, look: Callable[[], str]) -> Finding:
    """What `look` says, or the ConfigError that it raises."""
    try:
        return Finding(what, True, look())
    except ConfigError as error:
        return Finding(what, False, str(error))


def check(plan: Plan, say: Callable[[str], None] = lambda line: None) -> None:
    """Refuse what can't work; prepares the images of a local sweep, which its trials then share (`say` tells)."""
    for _, look in probes(plan, say):
        look()


def probes(plan: Plan, say: Callable[[str], None] = lambda line: None) -> Iterator[tuple[str, Callable[[], str]]]:
    """What must hold for `plan` on this machine, and how to find it out."""
    database, cluster = str(plan.settings.optuna_storage), ray_cluster.address(plan.settings)
    if not cluster:
        yield "resources", partial(_cpus, plan.settings)
    if database not in ("memory", plan.folder.study) and not plan.resumes:
        yield "optuna", partial(study_database.check, database, plan.folder.name)
    if cluster:
        yield "address", partial(_reach, cluster)
    else:
        yield "data", partial(_images, distinct(plan), say)


def distinct(plan: Plan) -> list[RSSTConfig]:
    """One config for each data set, size, device and way to compute that the space draws."""
    return list({(c.dataset, c.data, c.img_size, c.device, c.compile): c for c in plan.draws}.values())


def look(configs: Iterable[RSSTConfig], say: Callable[[str], None]) -> list[str]:
    """Have this process what the trials `configs` need: the device and the images. Says what was read."""
    from trainables.rsst.data.load import load
    from trainables.rsst.training.device import choose_device

    found = []
    for config in configs:
        data = load(config)
        for line in data.about.lines():
            say(line)
        found.append(f"{said(config.dataset)} for {choose_device(config)}, {len(data.train):,} training images")
    return found


def check_a_worker(plan: Plan, cpus: float, gpus: float, say: Callable[[str], None]) -> None:
    """The same on a worker of the connected cluster; where that can't be found out it is left to the trials."""
    import ray

    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_calls=1, max_retries=0)(look_here)
    try:
        missing, read = ray.get(task.remote(distinct(plan)), timeout=WORKER_S)
    except ray.exceptions.RayError as error:  # too long, or its node went away
        say(f"No worker could say whether it has the images ({type(error).__name__}); the trials will")
        return
    if missing is not None:
        raise ConfigError(*missing)
    for line in read:
        say(line)


def look_here(configs: list[RSSTConfig]) -> tuple[tuple[str, Any, str, str] | None, list[str]]:
    """What is missing on this node, and what was read. Its own error would come back as one of Ray's."""
    read: list[str] = []
    try:
        look(configs, read.append)
    except ConfigError as error:
        hint = f"{error.hint}; on {socket.gethostname()}".lstrip("; ")
        return (error.key, str(error.value), error.valid, hint), read
    return None, read


def _images(configs: list[RSSTConfig], say: Callable[[str], None]) -> str:
    if others := sorted({said(config.dataset) for config in configs} - {"digits"}):
        say(f"Images of {', '.join(others)}: looked for, and prepared where this machine has not done so before …")
    with watched(every(TELL_EVERY_S, say)):
        return "; ".join(look(configs, say))


def _cpus(settings: SweepSettings) -> str:
    here, wanted = os.cpu_count() or 1, settings.cpus_per_trial
    if wanted != "auto" and float(wanted) > here:
        raise ConfigError("cpus_per_trial", wanted, f"at most {here} on this machine")
    return f"this machine has {here} CPUs"


def _reach(cluster: str) -> str:
    """Ray itself tries for minutes."""
    host, colon, port = cluster.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():  # else "auto" and the like
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError("ray_address", cluster, "a Ray cluster that can be reached", reason) from None
    return f"{cluster} answers"
