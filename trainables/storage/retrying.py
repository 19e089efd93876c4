"""A thread that keeps trying: it repeats one action whenever it is woken, backs off while that fails, never raises.

Comes in: the action. Goes out: `problems`, what stopped it last. The action may check `time_left_s` between its steps.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from trainables.storage.secrets import hide_password

FIRST_RETRY_S, LAST_RETRY_S, LAST_RETRY_WHEN_CLOSING_S = 0.5, 30.0, 1.0
PROBLEMS_KEPT, PROBLEM_LENGTH = 20, 300


class RetryingThread:
    """Runs `action` at once, then `gather_s` after a `wake`, so that one run of it covers several wakes.

    `at_end` is called in the thread when it ends, also when `close` has left it behind long before.
    """

    def __init__(self, action: Callable[[], None], *, name: str, gather_s: float, at_end: Callable[[], None]) -> None:
        self._action, self._gather_s, self._at_end = action, gather_s, at_end
        self._wake, self._closing, self._hurried = threading.Event(), threading.Event(), threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._work_and_end, name=name, daemon=True)
        self.problems: deque[str] = deque(maxlen=PROBLEMS_KEPT)

    @property
    def closing(self) -> bool:
        """Whether this is the last run of the action."""
        return self._closing.is_set()

    @property
    def hurried(self) -> bool:
        """Whether no time is to be lost."""
        return self._hurried.is_set()

    @property
    def time_left_s(self) -> float:
        """Until `close` or `run_here` gives up; infinite before."""
        return self._deadline - time.monotonic()

    def start(self) -> None:
        """Begin, with a first run of the action."""
        self._wake.set()
        self._thread.start()

    def wake(self) -> None:
        """There is something to do. Returns at once."""
        self._wake.set()

    def hurry(self) -> None:
        """Gather wakes no longer: run the action as soon as there is something to do. Returns at once."""
        self._hurried.set()
        self._wake.set()

    def close(self, timeout_s: float) -> bool:
        """One last run of the action, tried again for at most `timeout_s`. False when the thread is left behind."""
        self._deadline = time.monotonic() + timeout_s
        self._closing.set()
        self.hurry()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def run_here(self, timeout_s: float) -> None:
        """The action in the caller's thread until it succeeds, for at most about `timeout_s`."""
        self._deadline = time.monotonic() + timeout_s
        self._closing.set()
        self._hurried.set()
        self._work()

    def attempt(self, action: Callable[[], None]) -> bool:
        """Whether `action` went through; what stopped it is noted."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  whatever a server or a store does may not reach the sweep
            self.note(str(error) or type(error).__name__)
            return False
        return True

    def note(self, problem: str) -> None:
        """Keep a line, without passwords."""
        line = hide_password(" ".join(problem.split()))[:PROBLEM_LENGTH]
        if not self.problems or self.problems[-1] != line:
            self.problems.append(line)

    def _work_and_end(self) -> None:
        try:
            self._work()
        finally:
            self._at_end()

    def _work(self) -> None:
        retry_s, gather_s = 0.0, 0.0
        while True:
            if retry_s and self.closing:
                time.sleep(retry_s)
            elif retry_s:
                self._closing.wait(retry_s)
            elif not self.closing:
                self._wake.wait()
                self._hurried.wait(gather_s)
                gather_s = self._gather_s
            self._wake.clear()
            last = self.closing  # a run that had begun before `close` has not seen all that was there then
            if self.attempt(self._action):
                retry_s = 0.0
            else:
                limit_s = LAST_RETRY_WHEN_CLOSING_S if self.closing else LAST_RETRY_S
                retry_s = min(max(2 * retry_s, FIRST_RETRY_S), limit_s)
            if last and (not retry_s or retry_s > self.time_left_s):
                return
