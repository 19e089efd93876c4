"""How many trials the machines hold at once, and the wait for a machine that an autoscaler starts.

In: what each alive node has (Ray's figures: CPU, GPU, memory in bytes), what a trial asks for. Out: numbers of trials.
A trial runs on one node: what counts is what single nodes have, not the cluster's sum.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from trainables.rsst.config import ConfigError
from tune_rsst.settings.settings import SweepSettings

Node = Mapping[str, float]
MOST_AT_FIRST = 8
NODE_WAIT_S, SAY_EVERY_S, LOOK_EVERY_S = 1200.0, 60.0, 2.0


def places(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """How many trials fit at once. A fraction of a GPU never spans two GPUs."""
    found = 0
    for node in nodes:
        room, devices = int(node.get("CPU", 0.0) / cpus + 1e-9), node.get("GPU", 0.0)
        if gpus:
            by_gpu = int(devices + 1e-9) * int(1 / gpus + 1e-9) if gpus < 1 else int(devices / gpus + 1e-9)
            room = min(room, by_gpu)
        found += room
    return found


def roomiest(nodes: Sequence[Node]) -> Node:
    """The node that trials are measured against: most GPUs, then most CPUs."""
    return max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)), default={})


def total(nodes: Sequence[Node]) -> dict[str, float]:
    """CPUs and GPUs of all nodes together."""
    return {name: float(sum(node.get(name, 0.0) for node in nodes)) for name in ("CPU", "GPU")}


def trials_at_once(settings: SweepSettings, cpus: float, gpus: float, nodes: Sequence[Node], *, cluster: bool) -> int:
    """Trials at a time: as many as have room; on a cluster as many as the user says, because it may grow."""
    room, wanted = places(nodes, cpus, gpus), settings.max_concurrent_trials
    if not room:
        raise no_room(cpus, gpus, nodes)
    return (wanted if cluster else min(wanted, room)) if wanted else room


def workers_at_first(settings: SweepSettings, trials: int) -> int:
    """Workers that a local Ray starts with, before it says what the machine has; the others come when they are needed.

    None where trials may get a GPU: Ray tells a worker which one after it has started, and what is imported by then may
    have looked at all.
    """
    if settings.gpus_per_trial != 0:
        return 0
    if settings.cpus_per_trial == "auto":
        return 1  # it measures first
    fit = int(len(os.sched_getaffinity(0)) / settings.cpus_per_trial + 1e-9)
    return max(1, min(fit, trials, settings.max_concurrent_trials or fit, MOST_AT_FIRST))


def no_room(cpus: float, gpus: float, nodes: Sequence[Node]) -> ConfigError:
    """What to say where no node holds a trial."""
    best, most_cpus = roomiest(nodes), max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    key, value = ("gpus_per_trial", gpus) if gpus > best.get("GPU", 0.0) else ("cpus_per_trial", cpus)
    valid = f"what one node has: at most {most_cpus:g} CPUs, and {best.get('GPU', 0.0):g} GPUs with "
    return ConfigError(key, value, f"{valid}{best.get('CPU', 0.0):g} CPUs")


def wait_for_room(cpus: float, gpus: float, say: Callable[[str], None], wait_s: float = NODE_WAIT_S) -> list[Node]:
    """The alive nodes, once one of them holds a trial; asks the cluster's autoscaler, if there is one, for it."""
    from ray.autoscaler.sdk import request_resources

    nodes = alive_nodes()
    if places(nodes, cpus, gpus):
        return nodes
    began, said_at = time.monotonic(), -SAY_EVERY_S
    bundle = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    request_resources(bundles=[bundle])
    try:
        while not places(nodes := alive_nodes(), cpus, gpus):
            waited = time.monotonic() - began
            if waited > wait_s:
                raise no_room(cpus, gpus, nodes)
            if waited - said_at >= SAY_EVERY_S:
                there, said_at = total(nodes), waited
                wanted = ", ".join(f"{number:g} {name}" for name, number in bundle.items())
                say(
                    f"No node has room for a trial ({wanted}) yet; the cluster has {there['CPU']:g} CPUs and "
                    f"{there['GPU']:g} GPUs. Its autoscaler was asked for one; waiting {wait_s - waited:.0f} s at most"
                )
            time.sleep(LOOK_EVERY_S)
    finally:
        request_resources(bundles=[])  # from here on the trials themselves are what it sees
    return nodes


def alive_nodes() -> list[Node]:
    """What each node of the connected cluster has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
