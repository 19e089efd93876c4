"""A thread that keeps trying: it repeats one action whenever it is woken, backs off while that fails, never raises.

In: the action, which may check `time_left_s` between its steps. Out: `problems`, what stopped it last.
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
    """Runs `action` at once, then `gather_s` after a `wake`, so that one run of it covers several wakes."""

    def __init__(
        self,
        action: Callable[[], None],
        *,
        name: str,
        gather_s: float = 0.0,
        every_s: float | None = None,
        last_retry_s: float = LAST_RETRY_S,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Begins with `start`.

        Args:
            action: what to run; whatever it raises is noted and the action tried again.
            name: the thread's.
            gather_s: how long to wait for more wakes after one.
            every_s: run it this long after the last run also where nobody has woken it.
            last_retry_s: the longest wait before another try.
            at_end: called in the thread when it ends, also when `close` has left it behind long before.
        """
        self._action, self._gather_s, self._every_s, self._at_end = action, gather_s, every_s, at_end
        self._last_retry_s, self._runs, self._asked, self._done = last_retry_s, threading.Condition(), 0, 0
        self._wake, self._closing, self._hurried = threading.Event(), threading.Event(), threading.Event()
        self._deadline, self._first_s = float("inf"), 0.0
        self._thread = threading.Thread(target=self._work_and_end, name=name, daemon=True)
        self.problems: deque[str] = deque(maxlen=PROBLEMS_KEPT)
        self.problem: str | None = None  # what stopped the last run; None where it went through

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

    def start(self, after_s: float = 0.0) -> None:
        """Begin, with a first run of the action, `after_s` from now or at `hurry`; later the same as `wake`."""
        self._first_s = after_s
        self.wake()
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        """There is something to do. Returns at once."""
        with self._runs:
            self._asked += 1
        self._wake.set()

    def flush(self, timeout_s: float) -> bool:
        """Wake it, and wait until a run that begins from now on has succeeded; false when `timeout_s` is over first."""
        self.wake()
        wanted = self._asked
        with self._runs:
            return self._runs.wait_for(lambda: self._done >= wanted, timeout_s)

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
        retry_s, gather_s = 0.0, self._first_s
        while True:
            if retry_s and self.closing:
                time.sleep(retry_s)
            elif retry_s:
                self._closing.wait(retry_s)
            elif not self.closing:
                self._wake.wait(self._every_s)
                self._hurried.wait(gather_s)
                gather_s = self._gather_s
            self._wake.clear()
            wanted, last = self._asked, self.closing  # a run that began earlier has not seen all that is there now
            if self.attempt(self._action):
                retry_s, self.problem = 0.0, None
                with self._runs:
                    self._done = wanted
                    self._runs.notify_all()
            else:
                limit_s = LAST_RETRY_WHEN_CLOSING_S if self.closing else self._last_retry_s
                retry_s, self.problem = min(max(2 * retry_s, FIRST_RETRY_S), limit_s), self.problems[-1]
            if last and (not retry_s or retry_s > self.time_left_s):
                return
