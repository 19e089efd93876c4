"""Samples of a machine: true where they can be checked, GPUs those that the process may use."""

from __future__ import annotations

import sys
import time
import types
from typing import Any

import psutil
import pytest

from trainables.worker.system_metrics import MIB, SystemMetrics


@pytest.fixture
def metrics() -> Any:
    made = SystemMetrics(every_s=3600)
    yield made
    made.close()


def test_a_sample_is_what_psutil_says(metrics: SystemMetrics) -> None:
    before = time.time()
    sample = metrics.sample()
    assert before - 0.001 <= sample["time"] <= time.time() + 0.001
    own = psutil.Process().memory_info().rss / MIB
    assert sample["process_memory_usage_megabytes"] == pytest.approx(own, rel=0.05)
    assert 0 <= sample["cpu_utilization_percentage"] <= 100
    used = psutil.virtual_memory().total / MIB * sample["system_memory_usage_percentage"] / 100
    assert sample["system_memory_usage_megabytes"] == pytest.approx(used, rel=0.2)


def test_a_busy_process_shows_as_busy(metrics: SystemMetrics) -> None:
    metrics.sample()
    ends = time.process_time() + 0.3
    while time.process_time() < ends:
        pass
    assert metrics.sample()["process_cpu_utilization_percentage"] > 10


def test_the_first_sample_of_the_thread_is_no_dummy() -> None:
    """psutil counts for each thread of its own: its first figure there is 0.0, whatever the machine does."""
    metrics = SystemMetrics(every_s=0.5)
    deadline = time.monotonic() + 20
    seen: list[dict[str, float]] = []
    while not seen and time.monotonic() < deadline:
        seen = metrics.drain()
        sum(range(10_000))
    metrics.close()
    assert seen[0]["cpu_utilization_percentage"] > 10


def test_what_was_drained_does_not_come_again() -> None:
    metrics = SystemMetrics(every_s=0.005)
    seen: list[dict[str, float]] = []
    while len(seen) < 5:
        seen += metrics.drain()
        time.sleep(0.005)
    metrics.close()
    times = [sample["time"] for sample in seen]
    assert times == sorted(times) and len({tuple(s.items()) for s in seen}) == len(seen)


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, ["0", "1", "2"]), ("2,0", ["2", "0"]), ("GPU-abc", ["GPU-abc"]), ("", [])]
)
def test_gpus_are_those_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    """A library that answers with the device's own name instead of NVIDIA's, which is not here."""

    class NVMLError(Exception):
        pass

    def power(device: str) -> float:
        if device == "0":
            raise NVMLError
        return 70_000

    fake = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByIndex=str,
        nvmlDeviceGetHandleByUUID=str,
        nvmlDeviceGetMemoryInfo=lambda device: types.SimpleNamespace(used=512 * MIB, total=1024 * MIB),
        nvmlDeviceGetUtilizationRates=lambda device: types.SimpleNamespace(gpu=expected.index(device)),
        nvmlDeviceGetPowerUsage=power,
        NVMLError=NVMLError,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    metrics = SystemMetrics(every_s=3600)
    sample = metrics.sample()
    metrics.close()
    for number, device in enumerate(expected):
        assert sample[f"gpu_{number}_utilization_percentage"] == number
        assert sample[f"gpu_{number}_memory_usage_percentage"] == 50
        assert (f"gpu_{number}_power_usage_watts" in sample) == (device != "0")
    assert sum(name.endswith("utilization_percentage") for name in sample) == 2 + len(expected)
