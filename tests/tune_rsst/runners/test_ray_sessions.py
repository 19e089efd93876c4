"""A driver with stand-ins for Ray's processes: whichever of them is killed first, none outlives the driver."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tune_rsst.interrupt import Interruption
from tune_rsst.runners import ray_sessions
from tune_rsst.runners.ray_sessions import LINUX, RaySessions, members

pytestmark = pytest.mark.skipif(not LINUX, reason="elsewhere Ray's own way stays")
# A worker leads a process group of its own, as Ray's do; what it has started does too.
RAYLET = """
import os, subprocess, sys
names = {"agent": 0, "worker": 0, "loader": 0}
for name in names:
    names[name] = subprocess.Popen(["sleep", "60"], process_group=0 if name != "agent" else None).pid
print(*[f"{name} {pid}" for name, pid in names.items()], sep="\\n", flush=True)
sys.stdin.read()
"""
NAMES = {"driver", "control store", "raylet", "agent", "worker", "loader", "guard"}


def drive(told: Any) -> None:
    """What `connected` of ray_cluster.py does around a sweep, with stand-ins; ends by itself when Ray is lost."""
    interruption, lost = Interruption(), ""
    ray_sessions.LOOK_S = ray_sessions.SAME_SIGNAL_S = 0.05
    with interruption.listening(), RaySessions() as sessions:
        store = subprocess.Popen(["sleep", "60"], start_new_session=True)
        sessions.began(store, "the control store")
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        raylet = subprocess.Popen([sys.executable, "-S", "-c", RAYLET], start_new_session=True, **pipe)
        sessions.began(raylet, "the raylet")
        assert raylet.stdout is not None and sessions._guard is not None
        found = dict(raylet.stdout.readline().decode().rsplit(maxsplit=1) for _ in range(3))
        found |= {"driver": os.getpid(), "control store": store.pid, "raylet": raylet.pid, "guard": sessions._guard.pid}
        try:
            sessions.watch(interruption.lost)
            told.send({name: int(pid) for name, pid in found.items()})
            while not lost:
                time.sleep(0.02)
                if sessions._guard.pid != found["guard"]:
                    found["guard"] = sessions._guard.pid
                    told.send({"guard": sessions._guard.pid})
        except KeyboardInterrupt:
            lost = str(interruption.problem)
    told.send(lost)


@pytest.fixture
def driver() -> Iterator[tuple[Any, dict[str, int]]]:
    """The driver's end of a pipe, and the processes by name."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=drive, args=(there,))
    process.start()
    there.close()
    found = here.recv()
    assert found.keys() == NAMES
    yield here, found
    process.kill()
    process.join()
    for pid in left(found, 0):
        os.kill(pid, signal.SIGKILL)


def left(found: dict[str, int], within_s: float) -> list[int]:
    """Which of these processes are there after so long, in the order of their names."""
    deadline = time.monotonic() + within_s
    while (there := [found[name] for name in sorted(found) if _runs(found[name])]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return there


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("first", ["driver", "control store", "raylet"])
def test_whichever_dies_first_all_are_gone_soon(driver: tuple[Any, dict[str, int]], first: str) -> None:
    told, found = driver
    os.kill(found[first], signal.SIGKILL)
    assert left(found, 5.0) == []
    assert first == "driver" or told.recv() == f"the {first} has died"


@pytest.mark.parametrize("first", ["agent", "worker", "loader"])
def test_what_ray_starts_anew_ends_nothing(driver: tuple[Any, dict[str, int]], first: str) -> None:
    _, found = driver
    os.kill(found[first], signal.SIGKILL)
    time.sleep(0.3)
    assert {name for name, pid in found.items() if _runs(pid)} == NAMES - {first}
    os.kill(found["driver"], signal.SIGKILL)
    assert left(found, 5.0) == []


def test_a_guard_that_dies_is_replaced_and_deaf_to_what_ends_others_in_order(
    driver: tuple[Any, dict[str, int]],
) -> None:
    told, found = driver
    os.kill(found["guard"], signal.SIGKILL)
    found |= told.recv()
    time.sleep(0.2)  # until it has begun
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(found["guard"], number)
    assert _runs(found["guard"])
    os.kill(found["driver"], signal.SIGKILL)
    assert left(found, 5.0) == []


def test_nothing_is_wrong_where_the_process_is_to_end_anyway() -> None:
    ended, lost = Interruption(), Interruption()
    ended.terminated = True
    ended.lost("the raylet has died")
    lost.lost("the raylet has died")
    assert (ended.exit_code, ended.problem) == (130, None) and (lost.exit_code, lost.problem) == (
        1,
        "the raylet has died",
    )


def test_a_session_is_that_of_all_that_was_started_in_it() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60"], start_new_session=True)
    try:
        time.sleep(0.2)
        assert process.pid in members({process.pid}) and len(members({process.pid})) >= 2
        ray_sessions.end({process.pid})
        assert members({process.pid}) == [] and process.wait(5) == -signal.SIGKILL
    finally:
        ray_sessions.end({process.pid})
