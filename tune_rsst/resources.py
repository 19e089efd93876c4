"""What a trial needs: memory and time of real training steps, and the CPUs and the GPU share that follow.

Comes in: a trial's config, the figures of the device or cluster. Goes out: `Measured`, and cpus_per_trial and
gpus_per_trial where a setting says auto. Measured on random images of the data set's shape: nothing is read or written.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig

MEASURE_S = 1.0  # per model size, warm-up not counted
CHILD_LIMIT_S = 300.0
SPARE = 1.1  # of the measured peak: fragmentation, batches of other sizes
GPU_CONTEXT_MIB = 600.0  # CUDA's own, per process; torch does not count it
VALIDATION_IMAGES = 512


@dataclass(frozen=True)
class Measured:
    """A trial's step. Times in s per image; `peak_mib` of the process (RSS), `gpu_mib` of what torch had reserved."""

    device: str
    train_s: float
    train_small_s: float
    eval_s: float
    peak_mib: float
    gpu_mib: float = 0.0
    gpu_total_mib: float = 0.0


def measure(config: RSSTConfig, seconds: float = MEASURE_S) -> Measured:
    """Train and evaluate here, the dense model and the one that a trial ends with. Changes torch's threads.

    Raises:
        ConfigError: the model or the device can't be had.
        torch.OutOfMemoryError: one step does not fit the device.
    """
    import resource

    import torch

    from trainables.rsst.data import describe
    from trainables.rsst.device import choose_device
    from trainables.rsst.evaluation import evaluate
    from trainables.rsst.vit import architecture, build

    torch.set_num_threads(config.num_threads)
    device = choose_device(config)
    about = describe(config.dataset, config.data)
    full = architecture(config, in_chans=about.in_chans, num_classes=about.num_classes)
    share = config.kept_share_after(config.rounds - 1) if config.granularity != "element" else 1.0
    small = full.with_counts(*([_kept(n, share) for n in full.counts(kind)] for kind in ("head", "neuron")))
    images = _random_images(config, full.input_shape(), about.num_classes, device)
    model = build(full).to(device)
    rewind = {name: tensor.clone() for name, tensor in model.state_dict().items()} if config.rewind != "none" else {}
    train_s = _seconds_per_image(config, model, images, about.num_classes, seconds)
    began = time.perf_counter()
    evaluate(model, images)
    eval_s = (time.perf_counter() - began) / len(images.labels)
    gpu = _gpu_mib(device)
    del model, rewind
    small_s = _seconds_per_image(config, build(small).to(device), images, about.num_classes, seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(device.type, train_s, small_s, eval_s, peak, *gpu)


def _kept(units: int, share: float) -> int:
    return max(math.floor(share * units + 0.5), 1)


def _random_images(config: RSSTConfig, shape: tuple[int, int, int], num_classes: int, device: Any) -> Any:
    import torch

    from trainables.rsst.images import Split

    count = max(config.batch_size * 2, VALIDATION_IMAGES)
    ones = torch.ones(shape[0], 1, 1, device=device)
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8).to(device)
    return Split(pixels, torch.randint(num_classes, (count,)).to(device), ones / 2, ones / 4)


def _seconds_per_image(config: RSSTConfig, model: Any, images: Any, num_classes: int, seconds: float) -> float:
    """Time of the core's own training loop over a few batches, after one untimed pass."""
    from trainables.rsst.penalty import Penalty
    from trainables.rsst.training import clock_for, make_optimizer, train_epoch

    optimizer, penalty, clock = make_optimizer(config, model), Penalty(config, {}, {}, {}), clock_for(config, 10**6)

    def train(count: int) -> float:
        part = replace(images, images=images.images[:count], labels=images.labels[:count])
        began = time.perf_counter()
        train_epoch(model, part, optimizer, penalty, config, clock, num_classes=num_classes, round=0, epoch=0)
        return time.perf_counter() - began

    train(config.batch_size)
    spent, done = 0.0, 0
    while spent < seconds and done < 200 * config.batch_size:
        spent, done = spent + train(2 * config.batch_size), done + 2 * config.batch_size
    return spent / done


def _gpu_mib(device: Any) -> tuple[float, float]:
    """Peak that torch reserved, and the device's memory (MiB); zeros on a CPU."""
    import torch

    if device.type != "cuda":
        return 0.0, 0.0
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_reserved(device) / 2**20, total / 2**20


def measure_in_child(config: RSSTConfig, at_once: int = 1) -> Measured:
    """`measure` in a process of its own: its peak memory is the trial's, and this process never touches the GPU.

    `at_once`: so many of them beside each other, because trials that share a machine slow each other down. Times are
    their mean, memory the largest.

    Raises:
        ConfigError: the step could not be run; the line says why.
    """
    if at_once == 1:
        return _child(config)
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(_child, [config] * at_once))
    return replace(
        found[0],
        train_s=statistics.fmean(m.train_s for m in found),
        train_small_s=statistics.fmean(m.train_small_s for m in found),
        eval_s=statistics.fmean(m.eval_s for m in found),
        peak_mib=max(m.peak_mib for m in found),
        gpu_mib=max(m.gpu_mib for m in found),
    )


def _child(config: RSSTConfig) -> Measured:
    command, knobs = [sys.executable, "-m", "tune_rsst.resources"], json.dumps(config.knobs())
    try:
        done = subprocess.run(command, input=knobs, capture_output=True, text=True, timeout=CHILD_LIMIT_S, check=False)
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
