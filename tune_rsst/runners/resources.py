"""The CPUs and the share of a GPU that a trial gets, where a setting is auto.

In: what a trial's steps were measured to take (trainables/rsst/measure.py), the figures of the device or cluster.
Out: cpus_per_trial and gpus_per_trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from trainables.rsst.measure import Measured

SPARE = 1.1  # of the measured peak: fragmentation, batches of other sizes
GPU_CONTEXT_MIB = 600.0  # CUDA's own, per process; torch does not count it


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
