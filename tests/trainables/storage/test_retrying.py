"""A thread that keeps trying: when it runs, what it says, when a flush returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from trainables.storage import retrying
from trainables.storage.retrying import RetryingThread


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_RETRY_S", 0.01)


def until(true: Callable[[], bool]) -> None:
    """Wait until it is `true`, for at most a minute: a test states no time in which a thread must get its turn."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it did not happen within a minute"
        time.sleep(0.005)


def test_a_flush_returns_after_a_run_that_began_later_has_succeeded() -> None:
    """The first run has begun before: what came since then is not in it."""
    begun, go_on, runs = threading.Event(), threading.Event(), []

    def action() -> None:
        runs.append(time.monotonic())
        begun.set()
        assert go_on.wait(20)

    thread = RetryingThread(action, name="flushed")
    thread.start()
    assert begun.wait(20) and not thread.flush(0.05)
    asked = time.monotonic()
    go_on.set()
    assert thread.flush(20) and runs[-1] > asked
    assert thread.close(20)


def test_the_problem_is_that_of_the_last_run_and_the_problems_are_kept() -> None:
    left = [3]

    def action() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise OSError("the disk is gone")

    thread = RetryingThread(action, name="failing", last_retry_s=0.05)
    assert not thread.flush(0.0) and thread.problem is None, "it has not begun"
    left[0] = 10**9
    thread.start()
    until(lambda: thread.problem is not None)
    assert not thread.flush(0.0) and thread.problem == "the disk is gone"
    left[0] = 2
    assert thread.flush(20) and thread.problem is None and list(thread.problems) == ["the disk is gone"]
    assert thread.close(20)


def test_the_longest_wait_between_two_tries_is_kept() -> None:
    tries: list[float] = []

    def action() -> None:
        tries.append(time.monotonic())
        raise OSError

    thread = RetryingThread(action, name="failing", last_retry_s=0.04)
    thread.start()
    until(lambda: len(tries) > 8)
    assert tries[8] - tries[0] < 60, "0.01 + 0.02 + 0.04 + 0.04 …, not doubled on and on"
    assert not thread.close(0.0) or thread.problem == "OSError"


def test_it_runs_by_itself_every_so_often_and_not_after_the_close() -> None:
    runs: list[bool] = []
    thread = RetryingThread(lambda: runs.append(thread.closing), name="regular", every_s=0.02)
    thread.start()
    until(lambda: len(runs) > 3)
    assert thread.close(20) and runs[-1] and not any(runs[:-1])
    seen = len(runs)
    time.sleep(0.1)
    assert len(runs) == seen


def test_without_it_nothing_runs_that_nobody_asked_for() -> None:
    runs: list[int] = []
    thread = RetryingThread(lambda: runs.append(1), name="idle")
    thread.start()
    assert thread.flush(20)
    time.sleep(0.1)
    assert 1 <= len(runs) <= 2
    assert thread.close(20)


def test_to_start_again_is_to_wake() -> None:
    runs: list[int] = []
    thread = RetryingThread(lambda: runs.append(1), name="twice")
    thread.start()
    assert thread.flush(20)
    before = len(runs)
    thread.start()
    assert thread.flush(20) and len(runs) > before and thread.close(20)
