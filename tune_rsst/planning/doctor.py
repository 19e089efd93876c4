"""`tune-rsst doctor`: would this sweep run here? One line for each thing that must hold, before anything is begun.

In: the settings of a sweep, as `tune-rsst sweep` takes them. Out: `Finding`s: the probes of preflight.py, and what a
sweep meets later. A task goes to every node of the cluster (a local Ray is one node): can it write where the sweep
lies, has it the data and the same versions.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trainables import provenance
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.storage.filesystem import network_filesystem
from trainables.storage.secrets import hide_password
from tune_rsst.interrupt import Interruption
from tune_rsst.planning import own_plugins
from tune_rsst.planning.begin import new_plan
from tune_rsst.planning.own_space import refuse_unasked
from tune_rsst.planning.plan import Plan
from tune_rsst.planning.preflight import Finding, distinct, finding, probes
from tune_rsst.runners import capacity, local_ray
from tune_rsst.runners.ray_cluster import address, connected
from tune_rsst.search.study_database import connection
from tune_rsst.storage import bucket, home

HTTP_LIMIT_S, NODE_LIMIT_S = 10.0, 120.0
MUST_AGREE = ("tune-rsst", "torch", "ray", "timm", "numpy")


def examine(written: Mapping[str, Any], named: Collection[str] = ()) -> Iterator[Finding]:
    """Everything that a sweep of these settings needs, as it is found out. `named`: what the command line has."""
    versions = provenance.versions()
    yield Finding("versions", True, ", ".join(f"{name} {number}" for name, number in versions.items()))
    try:
        refuse_unasked(written, "space" in named)
        own_plugins.refuse_unasked(written, named)
        plan = new_plan({k: v for k, v in written.items() if k not in ("name", "resume")})
    except ConfigError as error:
        yield Finding("settings", False, str(error))
        yield finding("storage", partial(_storage, None))
        yield mlflow(home.default_tracking_uri())
        return
    sources = "; ".join(f"weights {w['source']}" for w in plan.weights.record()) or "no pretrained weights asked for"
    yield Finding("settings", True, f"space {plan.settings.space}, {plan.settings.trials} trials; {sources}")
    yield finding("storage", partial(_storage, plan.settings.storage))
    yield mlflow(str(plan.settings.mlflow_tracking_uri))
    found = [finding(what, look) for what, look in probes(plan)]
    yield from found
    if all(one.fine or one.what != "address" for one in found):
        yield from _cluster(plan, versions)


def _storage(address: str | None) -> str:
    home.make(home.home())
    bucket.check(address)
    return f"{home.home()}{f' and {address}' if address else ''} can be written here"


def mlflow(uri: str) -> Finding:
    """Whether the tracking server answers, or the folder of its sqlite file can be written."""
    shown = hide_password(uri)
    if uri.startswith("sqlite:"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        place = next(p for p in (folder, *folder.parents) if p.exists())
        fine = os.access(place, os.W_OK | os.X_OK) and place.is_dir()
        kind = network_filesystem(folder)
        unsafe = f", but it is on {kind}, where sqlite's locks do not hold: give mlflow_tracking_uri" if kind else ""
        return Finding("mlflow", fine, f"{shown} {'can' if fine else 'can not'} be written{unsafe if fine else ''}")
    if not uri.startswith("http"):
        return finding("mlflow", partial(_answers, uri))
    request = urllib.request.Request(f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1")
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    elif user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        both = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(both).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=HTTP_LIMIT_S) as answer:
            json.load(answer)
        return Finding("mlflow", True, f"{shown} answers")
    except urllib.error.HTTPError as error:
        return Finding("mlflow", False, f"{shown}: {_refusal(error, uri)}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding("mlflow", False, f"{shown} does not answer as an MLflow server does ({reason}); start it")


def _answers(database: str) -> str:
    with connection("mlflow_tracking_uri", database):
        return f"{hide_password(database)} answers"


def _refusal(error: urllib.error.HTTPError, uri: str) -> str:
    """What an HTTP error of an MLflow server means."""
    text = error.read(2000).decode(errors="replace")
    host = uri.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if error.code == 403 and "host" in text.lower():
        return f"403, the server does not know this host name: start it with --allowed-hosts {host}"
    if error.code in (401, 403):
        return f"{error.code}: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    return f"HTTP {error.code} {' '.join(text.split())[:120]}"


def _cluster(plan: Plan, versions: Mapping[str, str]) -> Iterator[Finding]:
    where = address(plan.settings) or "a local Ray"
    try:
        with local_ray.ray_folder() as folder, connected(plan.settings, str(folder), Interruption()):
            import ray

            mode = os.environ.get("RAY_AUTH_MODE", "disabled")
            nodes = [node for node in ray.nodes() if node["Alive"]]
            has = [node["Resources"] for node in nodes]
            there = "{CPU:g} CPUs, {GPU:g} GPUs".format(**capacity.total(has))
            yield Finding("cluster", True, f"{where}: {len(nodes)} nodes, {there}")
            safe = mode == "token" or not address(plan.settings)
            text = f"RAY_AUTH_MODE = {mode}" + ("" if safe else "; anyone who reaches this cluster can run code on it")
            yield Finding("authentication", True, text)
            yield _fits(plan, has)
            for node in nodes:
                yield from _node(node, plan, versions)
    except Exception as error:  # noqa: BLE001  (whatever a connection raises)
        yield Finding("cluster", False, f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    finally:
        local_ray.forget_sessions()


def _fits(plan: Plan, nodes: list[capacity.Node]) -> Finding:
    """Room for a trial; auto asks for no more than there is. A cluster may grow: a sweep asks for a node."""
    cpus, gpus = plan.settings.cpus_per_trial, plan.settings.gpus_per_trial
    asked = 1.0 if cpus == "auto" else float(cpus), 0.0 if gpus == "auto" else float(gpus)
    if room := capacity.places(nodes, *asked):
        return Finding("resources", True, f"{cpus} CPUs and {gpus} GPUs a trial: room for {room} at once")
    wait = f"; a sweep asks the cluster's autoscaler for one and waits {capacity.NODE_WAIT_S / 60:.0f} min"
    grows = address(plan.settings) is not None
    return Finding("resources", grows, f"{capacity.no_room(*asked, nodes)}{wait if grows else ''}")


def _node(node: Mapping[str, Any], plan: Plan, versions: Mapping[str, str]) -> list[Finding]:
    """What a task on this node found."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = f"node {node['NodeManagerAddress']}"
    with tempfile.NamedTemporaryFile(dir=home.home(), prefix=".doctor-", delete=False) as probe:
        probe.write(b"driver")
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, scheduling_strategy=here, max_calls=1)(look_from_here)
    try:
        found = task.remote(where, Path(probe.name), distinct(plan), versions, plan.settings.storage)
        return ray.get(found, timeout=NODE_LIMIT_S)
    except Exception as error:  # noqa: BLE001  (whatever the task or Ray raises)
        line = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        return [Finding("node", False, f"{where}: {line[:200]}")]
    finally:
        Path(probe.name).unlink(missing_ok=True)


def look_from_here(
    where: str, probe: Path, configs: list[RSSTConfig], versions: Mapping[str, str], address: str | None = None
) -> list[Finding]:
    """Runs on a node: the storage, the data, versions and GPUs as this node sees them. `versions`: the driver's."""
    import torch

    from trainables.rsst.data.load import load

    storage, (data, images), here = _trouble_with(probe, address), ("", 0), provenance.versions()
    for config in configs:
        try:
            images += len(load(config).train)
        except ConfigError as error:
            data = str(error)
    other = [
        f"{n} {here[n]} (here {versions.get(n)})" for n in MUST_AGREE if here.get(n) not in (None, versions.get(n))
    ]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [
        Finding("storage", not storage, f"{where}: {storage or 'reads and writes it'}"),
        Finding("data", not data, f"{where}: {data or f'has {images} training images'}"),
        Finding("versions", not other, f"{where}: {', '.join(other) or 'as here'}"),
        Finding("gpus", True, f"{where}: {', '.join(gpus) or 'none that torch finds'}"),
    ]


def _trouble_with(probe: Path, address: str | None) -> str:
    """Why a sweep can't lie where the driver put `probe`; "" if it can.

    Where the sweep lies in a bucket, the home is this node's own: it must be writable, and the bucket.
    """
    try:
        if address:
            from trainables.worker.ray_trainable import take_environment

            take_environment()
            probe.parent.mkdir(parents=True, exist_ok=True)
            bucket.check(address)
        elif probe.read_bytes() != b"driver":
            raise OSError(f"{probe} has other contents than the driver wrote")
        mine = probe.with_name(f"{probe.name}-{os.getpid()}")
        mine.write_bytes(b"node")
        mine.unlink()
    except ConfigError as error:
        return str(error)
    except OSError as error:
        return f"{probe.parent} is not the driver's or can't be written ({error.strerror or error})"
    return ""
