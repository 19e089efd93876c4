"""What is done to a process that hangs: its stack is kept, it is killed though it was stopped; others live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables.progress import KEPT
from tune_rsst.runners import end_process
from tune_rsst.runners.end_process import LOG, Examined, end_unless_alive, sign_in, stack_of

PROGRAM = """
import time
def waits_for_ever():
    print("ready", flush=True)
    while True:
        time.sleep(1)
waits_for_ever()
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.wait(10)


def stop(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


@pytest.mark.parametrize("stopped", [True, False])
def test_its_stack_goes_into_the_log_and_it_is_killed(
    tmp_path: Path, process: subprocess.Popen[str], stopped: bool
) -> None:
    if stopped:
        stop(process)
    store = tmp_path / "store"
    assert end_unless_alive(process.pid, store, None) == Examined(True, None)
    assert process.wait(10) == -signal.SIGKILL
    log = (store / LOG).read_text()
    assert f"its process {process.pid} is ended; its stack:\n" in log and "waits_for_ever" in log
    assert end_unless_alive(process.pid, store, None).ended, "one that has gone by itself"


def test_one_whose_sign_has_changed_lives(tmp_path: Path, process: subprocess.Popen[str]) -> None:
    (tmp_path / KEPT).write_bytes(b"11 of 100")
    assert sign_in(tmp_path) == b"11 of 100" and sign_in(tmp_path / "none") is None
    assert end_unless_alive(process.pid, tmp_path, b"10 of 100") == Examined(False, b"11 of 100")
    assert process.poll() is None and not (tmp_path / LOG).exists()
    assert end_unless_alive(process.pid, tmp_path, b"11 of 100").ended
    assert process.wait(10) == -signal.SIGKILL


def test_where_there_is_no_stack_it_says_why_and_ends_the_process(
    tmp_path: Path, process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack_of(2**22 + 1).startswith("no stack: Error")
    monkeypatch.setattr(end_process.sys, "executable", "/nowhere/python")
    monkeypatch.setattr(end_process.shutil, "which", lambda name: None)
    store = tmp_path / "file"
    store.write_text("no folder, as a full disk is none")
    assert stack_of(process.pid) == "no stack: py-spy is not installed"
    assert end_unless_alive(process.pid, store, None).ended and process.wait(10) == -signal.SIGKILL
