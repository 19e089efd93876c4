"""What a trial needs: memory and time of real training steps, and the CPUs and the GPU share that follow.

In: a trial's config, the figures of the device or cluster. Out: `Measured`, and cpus_per_trial and gpus_per_trial where
a setting is auto. Measured on random images of the data set's shape: nothing is read or written.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.measure import Measured, measure

CHILD_LIMIT_S = 300.0
SPARE = 1.1  # of the measured peak: fragmentation, batches of other sizes
GPU_CONTEXT_MIB = 600.0  # CUDA's own, per process; torch does not count it


def measure_in_child(config: RSSTConfig, at_once: int = 1) -> Measured:
    """`measure` in a process of its own: its peak memory is the trial's, and this process never touches the GPU.

    `at_once`: so many in parallel, because trials that share a machine slow each other down. Times are their mean,
    memory the largest.
    """
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(_child, [config] * at_once))
    times = {name: statistics.fmean(getattr(m, name) for m in found) for name in ("train_s", "train_small_s", "eval_s")}
    peaks = {name: max(getattr(m, name) for m in found) for name in ("peak_mib", "gpu_mib")}
    return Measured(**asdict(found[0]) | times | peaks)


def _child(config: RSSTConfig) -> Measured:
    command, knobs = [sys.executable, "-m", "tune_rsst.runners.resources"], json.dumps(config.knobs())
    try:
        done = subprocess.run(
            command, input=knobs, capture_output=True, encoding="utf-8", timeout=CHILD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError("arch", config.arch, f"a model that trains a few steps in {CHILD_LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError("arch", config.arch, "a model that can be trained here", line[:300])
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


def gpu_share(peak_mib: float, device_mib: float, cpus_allow: int) -> float:
    """Share of a GPU so that as many trials as fit have it together: 1/k, k at most `cpus_allow`; 1 if none fits."""
    needed = (peak_mib * SPARE + GPU_CONTEXT_MIB) / device_mib
    at_once = max(1, min(math.floor(1.0 / needed), cpus_allow))
    return math.floor(1e4 / at_once) / 1e4


def cpu_count(peak_mib: float, threads: int, node: Mapping[str, float]) -> float:
    """CPUs of a trial: its threads, or more where memory and not CPUs says how many fit.

    `node` has Ray's figures: CPU, and memory in bytes.
    """
    cpus, memory_mib = float(node.get("CPU", 1.0)), float(node.get("memory", 0.0)) / 2**20
    if memory_mib <= 0:
        return float(threads)
    fit = max(1, math.floor(memory_mib / (peak_mib * SPARE)))
    return max(float(threads), math.ceil(100 * cpus / fit) / 100 if fit < cpus / threads else 0.0)


def resolve(
    cpus: float | str, gpus: float | str, found: Measured | None, threads: int, node: Mapping[str, float]
) -> tuple[float, float]:
    """(CPUs, GPUs) of a trial: numbers as they are, auto from what was measured (without it, nothing may be auto).

    `node`: what a node that trials run on has, in Ray's figures.
    """
    if found is None:
        return float(cpus), float(gpus)
    cpu = cpu_count(found.peak_mib, threads, node) if cpus == "auto" else float(cpus)
    if gpus != "auto":
        return cpu, float(gpus)
    devices = node.get("GPU", 0.0)
    if not devices or not found.gpu_total_mib:
        return cpu, 0.0
    each = max(1, math.floor(node.get("CPU", 1.0) / cpu / devices))
    return cpu, gpu_share(found.gpu_mib, found.gpu_total_mib, each)


if __name__ == "__main__":
    print(json.dumps(asdict(measure(RSSTConfig.from_knobs(json.load(sys.stdin))))))
