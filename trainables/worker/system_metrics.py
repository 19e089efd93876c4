"""How busy a trial's worker and its machine are: CPU, memory and GPUs, sampled by a thread during training.

In: nothing.
Out: `drain()`, the samples since the last call: {"time": s since 1970, name: value, …}.
What a trial will need is measured beforehand by trainables/rsst/measure.py.
Names are those of MLflow's own system metrics where it has one (its UI shows what is below "system/" on a page of its
own), and process_… for what the worker alone uses. GPUs are those that this process may use, numbered as it sees them.
Needs the extra system-metrics: psutil, and nvidia-ml-py for GPUs.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

EVERY_S = 30.0
MOST_KEPT = 1000
MIB = 2**20


def missing_library() -> str | None:
    """The library without which nothing can be sampled, where it is not installed."""
    return None if find_spec("psutil") else "psutil"


class SystemMetrics:
    """Samples from its making until `close`; a sample that fails is left out."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        """Raises ImportError where psutil is not installed."""
        import psutil

        self._psutil, self._process = psutil, psutil.Process()
        self._every_s, self._ended = every_s, threading.Event()
        self._samples: list[dict[str, float]] = []
        self._lock = threading.Lock()
        self._process.cpu_percent()  # the first call only begins to count
        self._gpus = _gpus()
        self._thread = threading.Thread(target=self._work, name="system-metrics", daemon=True)
        self._thread.start()

    def drain(self) -> list[dict[str, float]]:
        """What was sampled since the last call, oldest first."""
        with self._lock:
            samples, self._samples = self._samples, []
        return samples

    def close(self) -> None:
        """Sample no more."""
        self._ended.set()

    def sample(self) -> dict[str, float]:
        """One sample, now. Percentages are of the whole machine, process_cpu… of one core (it may exceed 100)."""
        memory = self._psutil.virtual_memory()
        found = {
            "time": time.time(),
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MIB,
            "system_memory_usage_percentage": memory.percent,
            "process_cpu_utilization_percentage": self._process.cpu_percent(),
            "process_memory_usage_megabytes": self._process.memory_info().rss / MIB,
        }
        for number, read in enumerate(self._gpus):
            found |= {f"gpu_{number}_{name}": value for name, value in read().items()}
        return {name: round(float(value), 3) for name, value in found.items()}

    def _work(self) -> None:
        self._psutil.cpu_percent()  # the first call of each thread gives 0.0 and begins to count
        while not self._ended.wait(self._every_s):
            with suppress(Exception):
                sample = self.sample()
                with self._lock:
                    self._samples = [*self._samples, sample][-MOST_KEPT:]


def _gpus() -> list[Callable[[], dict[str, float]]]:
    """A function for each GPU that this process may use (CUDA_VISIBLE_DEVICES); none without NVIDIA's library."""
    try:
        import pynvml

        pynvml.nvmlInit()
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        words = range(pynvml.nvmlDeviceGetCount()) if named is None else [w for w in named.split(",") if w.strip()]
        return [_gpu(pynvml, str(word).strip()) for word in words]
    except Exception:  # noqa: BLE001  no library, no driver, a device that is gone: there is nothing to sample
        return []


def _gpu(pynvml: Any, word: str) -> Callable[[], dict[str, float]]:
    device = pynvml.nvmlDeviceGetHandleByIndex(int(word)) if word.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(word)

    def read() -> dict[str, float]:
        found: dict[str, float] = {}
        with suppress(pynvml.NVMLError):  # not every card, or part of one, tells everything
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            found["memory_usage_megabytes"] = memory.used / MIB
            found["memory_usage_percentage"] = 100 * memory.used / memory.total
        with suppress(pynvml.NVMLError):
            found["utilization_percentage"] = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
        with suppress(pynvml.NVMLError):
            found["power_usage_watts"] = pynvml.nvmlDeviceGetPowerUsage(device) / 1000
        return found

    return read
