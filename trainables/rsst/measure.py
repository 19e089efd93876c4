"""Time, memory and disk of a trial before it runs: a few real training steps on random images.

What a worker uses while a trial runs is sampled by trainables/worker/system_metrics.py.

In: a config. Out: `Measured`, and the `Course` of the whole trial that follows.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

from trainables.plugins import Code, code_for, plugins_in, remember
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.sources import train_images
from trainables.rsst.model.cost import LEAST_REPETITIONS, WARMUPS, latency_budget_s
from trainables.rsst.size import architecture_of, disk_mib, final_architecture
from trainables.text import mib

MEASURE_S = 1.0  # per model size, warm-up not counted
LONG_S = 5.0  # a batch that takes so long is not trained again
VALIDATION_IMAGES = 512
CHILD_LIMIT_S = 300.0
TIMES = ("train_s", "train_small_s", "eval_s", "start_s")


@dataclass(frozen=True)
class Measured:
    """A trial's step. Times in s per image; `peak_mib` of the process (RSS), `gpu_mib` of what torch had reserved.

    `start_s`: what it took to start a process that trains, where it was measured in one.
    """

    device: str
    train_s: float
    train_small_s: float
    eval_s: float
    peak_mib: float
    gpu_mib: float = 0.0
    gpu_total_mib: float = 0.0
    start_s: float = 0.0

    @property
    def times(self) -> str:
        """The times, for a plan."""
        return (
            f"{1e3 * self.train_s:.3g} ms an image in training (dense), {1e3 * self.train_small_s:.3g} ms at the end, "
            f"{1e3 * self.eval_s:.3g} ms in evaluation, on this machine's {self.device}"
        )

    @property
    def memory(self) -> str:
        """The memory, for a plan."""
        on_gpu = f", {self.gpu_mib:,.0f} of {self.gpu_total_mib:,.0f} MiB on the GPU" if self.gpu_total_mib else ""
        return f"{mib(self.peak_mib)} (process, images not counted){on_gpu}"


@dataclass(frozen=True)
class Course:
    """One trial at full length: requested kept share and seconds of each round, epochs of a round, disk."""

    shares: tuple[float, ...]
    epochs: int
    seconds: tuple[float, ...]
    disk_mib: float


def course_of(config: RSSTConfig, found: Measured, relative: float, parameters: int) -> Course:
    """The trial at full length; a round's images cost between the dense and the smallest model's.

    `relative`: MACs of the trial's dense model against those of the one that was measured; `parameters`: of the former.
    """
    shares = tuple(config.kept_share_after(r) for r in range(config.rounds))
    last = shares[-1]
    train, val = train_images(config)
    each_s = relative * found.eval_s
    passes = WARMUPS + LEAST_REPETITIONS
    seconds = []
    for position in range(config.rounds):
        alive = shares[max(position - 1, 0)]  # what is trained is what the round before left
        part = 1.0 if last >= 1 else (alive - last) / (1 - last)
        image_s = found.train_small_s + (found.train_s - found.train_small_s) * part
        epoch_s = relative * (train * image_s + val * found.eval_s)
        budget_s = latency_budget_s(config.epochs * epoch_s)
        latency_s = sum(max(budget_s, passes * images * each_s) for images in (1, config.batch_size))
        seconds.append(config.epochs * epoch_s + latency_s)
    return Course(shares, config.epochs, tuple(seconds), disk_mib(config, parameters))


def measure(config: RSSTConfig, seconds: float = MEASURE_S) -> Measured:
    """Train and evaluate here, the dense model and the one that a trial ends with. Changes torch's threads.

    Raises:
        torch.OutOfMemoryError: one step does not fit the device.
    """
    import resource

    import torch

    from trainables.rsst.model.vit import build
    from trainables.rsst.training.device import choose_device
    from trainables.rsst.training.evaluation import evaluate

    torch.set_num_threads(config.num_threads)
    device = choose_device(config)
    full, small = architecture_of(config), final_architecture(config)
    classes = int(full.arguments["num_classes"])
    images = _random_images(config, full.input_shape(), classes, device)
    model = build(full).to(device)
    rewind = {name: tensor.clone() for name, tensor in model.state_dict().items()} if config.rewind != "none" else {}
    train_s = _seconds_per_image(config, model, images, seconds)
    began = time.perf_counter()
    evaluate(model, images, images.val)
    eval_s = (time.perf_counter() - began) / len(images.val)
    gpu = _gpu_mib(device)
    del model, rewind
    small_s = _seconds_per_image(config, build(small).to(device), images, seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(device.type, train_s, small_s, eval_s, peak, *gpu)


def _random_images(config: RSSTConfig, shape: tuple[int, int, int], num_classes: int, device: Any) -> Any:
    import torch

    from trainables.rsst.data.batches import TrialImages
    from trainables.rsst.data.split import Split

    count = max(config.batch_size * 2, VALIDATION_IMAGES)
    ones = torch.ones(shape[0], 1, 1, device=device)
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8).to(device)
    split = Split(pixels, torch.randint(num_classes, (count,)).to(device))
    return TrialImages(split, split, split, ones / 2, ones / 4, num_classes, config.micro_batch_size)


def _seconds_per_image(config: RSSTConfig, model: Any, images: Any, seconds: float) -> float:
    """Time of the core's own training loop over a few batches, after one untimed pass; of that one where it is long.

    Compiling is no part of it: with `compile` another pass goes first.
    """
    from trainables.rsst.training.epoch import train_epoch
    from trainables.rsst.training.schedule import clock_for
    from trainables.rsst.training.setup import Training

    training = Training.begin(config, model, images, clock=clock_for(config, 10**6))

    def train(count: int) -> float:
        part = replace(training, images=replace(images, train=images.train[:count]))
        began = time.perf_counter()
        train_epoch(part, 0)
        return time.perf_counter() - began

    if config.compile:
        train(config.batch_size)  # the batch that compiles
    first = train(config.batch_size)
    if first > LONG_S:
        return first / config.batch_size
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

    `at_once`: so many in parallel, because trials that share a machine slow each other down. Times are their mean,
    memory the largest.
    """
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(_child, [config] * at_once))
    times = {name: statistics.fmean(getattr(m, name) for m in found) for name in TIMES}
    peaks = {name: max(getattr(m, name) for m in found) for name in ("peak_mib", "gpu_mib")}
    return Measured(**asdict(found[0]) | times | peaks)


def _child(config: RSSTConfig) -> Measured:
    command, knobs = [sys.executable, "-m", "trainables.rsst.measure"], config.knobs()
    plugins = [code_for(*used).to_json() for used in plugins_in(knobs)]
    order = json.dumps({"knobs": knobs, "plugins": plugins, "began": time.time()})
    try:
        done = subprocess.run(
            command, input=order, capture_output=True, encoding="utf-8", timeout=CHILD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError("arch", config.arch, f"a model that trains a few steps in {CHILD_LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError("arch", config.arch, "a model that can be trained here", line[:300])
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    given = json.load(sys.stdin)
    remember(map(Code.from_json, given["plugins"]))
    import_module("trainables.rsst.trial")  # what a worker imports, torch and timm among it
    start_s = time.time() - given["began"]
    print(json.dumps(asdict(measure(RSSTConfig.from_knobs(given["knobs"]))) | {"start_s": start_s}))
