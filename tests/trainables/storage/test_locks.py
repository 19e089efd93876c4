"""Locks between processes: who waits, who is refused, what the end of a process frees."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainables.storage.locks import LockHeld, held, is_held, take

HOLDER = """
import sys, time
from pathlib import Path
from trainables.storage.locks import take
take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def another_process(lock: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process that holds `lock` for some seconds, unless it is killed before."""
    command = [sys.executable, "-c", HOLDER, str(lock), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_is_seen_and_refused_while_another_process_holds_it_and_free_when_that_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock) and not lock.exists(), "looking makes no file"
    with another_process(lock, 60) as process:
        assert is_held(lock)
        with pytest.raises(LockHeld, match="lock is in use"):
            take(lock, 0.0)
        process.kill()
        process.wait(10)
        assert not is_held(lock)
    os.close(take(lock, 0.0))


@pytest.mark.parametrize("wait_s", [None, 30.0])
def test_it_waits_for_whoever_holds_the_lock(wait_s: float | None, tmp_path: Path) -> None:
    lock = tmp_path / "below" / "lock"
    lock.parent.mkdir()
    with another_process(lock, 0.5) as process:
        with held(lock, wait_s):
            assert process.wait(10) == 0 and is_held(lock)
        assert not is_held(lock)


def test_a_refusal_keeps_no_descriptor_open(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held(lock):
        before = len(os.listdir("/proc/self/fd"))
        began = time.monotonic()
        with pytest.raises(LockHeld):
            take(lock, 0.2)
        assert time.monotonic() - began >= 0.2 and len(os.listdir("/proc/self/fd")) == before
