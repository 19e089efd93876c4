"""No process of a local Ray outlives its driver by more than a moment, whichever of them dies first.

In: the processes that the driver starts for Ray, each in a session of its own, and which of them Ray can't do without.
Out: a call where one of those has died; no process in any of the sessions, a moment after the driver has left or died.

Ray alone ends what the driver itself has started; what that has started notices by itself, later: agents tell a control
store that is dead for a minute first. A driver whose raylet is dead waits for ever, one without a control store is
ended by Ray after a minute, without a word.

This file is also the guard, a process that only waits for the driver's end: a pipe from it tells which sessions there
are, and closes when it has gone, however it went. On Linux alone; elsewhere there are no sessions, and Ray's way stays.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Set
from contextlib import suppress

LINUX = sys.platform == "linux"
LOOK_S, AGAIN_S, GONE_S = 0.5, 5.0, 5.0
SAME_SIGNAL_S = 1.0  # one that goes to all of a job's processes may end Ray's before the driver has heard it


class RaySessions:
    """The sessions of one local Ray. Leaving the context ends every process in them."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._vital: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._left = threading.Event()

    def __enter__(self) -> RaySessions:
        self._keep_guard()
        return self

    def began(self, process: subprocess.Popen[bytes], vital: str | None) -> None:
        """`process` leads a session; `vital`: what it is, in words, where Ray can't go on without it."""
        self._started.append(process)
        if vital is not None:
            self._vital[vital] = process
        self._tell_guard(process.pid)

    def watch(self, lost: Callable[[str], None]) -> None:
        """From now on `lost` is called with why, again and again, when a process that is vital has died.

        All others are ended before. It is called in another thread, and again while nobody says `unwatch`: what it
        raises somewhere may be lost.
        """
        self._thread = threading.Thread(target=self._watch, args=(lost,), name="sessions of Ray", daemon=True)
        self._thread.start()

    def unwatch(self) -> None:
        """From now on processes may end."""
        self._left.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, lost: Callable[[str], None]) -> None:
        while not self._left.wait(LOOK_S):
            if gone := [what for what, process in list(self._vital.items()) if process.poll() is not None]:
                self._end()
                wait_s = SAME_SIGNAL_S
                while not self._left.wait(wait_s):
                    lost(f"{gone[0]} has died")
                    wait_s = AGAIN_S
                return
            self._keep_guard()

    def _keep_guard(self) -> None:
        if not LINUX or (self._guard is not None and self._guard.poll() is None):
            return
        null, words = subprocess.DEVNULL, [sys.executable, "-I", "-S", __file__]
        self._guard = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=null, stderr=null, env={}, start_new_session=True
        )
        for process in self._started:
            self._tell_guard(process.pid)

    def _tell_guard(self, session: int) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with suppress(OSError):  # it has died; the next one is told
                self._guard.stdin.write(f"{session}\n".encode())
                self._guard.stdin.flush()

    def _end(self) -> None:
        end({process.pid for process in self._started})
        for process in self._started if LINUX else ():
            with suppress(subprocess.TimeoutExpired):
                process.wait(GONE_S)

    def __exit__(self, *error: object) -> None:
        self.unwatch()
        self._end()
        if self._guard is not None:
            self._guard.communicate()


def members(sessions: Set[int]) -> list[int]:
    """Process ids of all that are in `sessions` and have not ended."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")) if LINUX else ():
        with suppress(OSError):
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, _, _, session, *_ = file.read().rpartition(")")[2].split()
            if int(session) in sessions and state not in "ZX":
                found.append(int(name))
    return found


def end(sessions: Set[int], within_s: float = GONE_S) -> None:
    """SIGKILL to every process in `sessions`, until there is none: one may have just been started by another."""
    deadline = time.monotonic() + within_s
    while (found := members(sessions)) and time.monotonic() < deadline:
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def guard() -> None:
    """Read sessions until the driver has gone; then end them. Deaf to what ends others in order: it is needed after."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end({int(line) for line in sys.stdin if line.strip().isdigit()})


if __name__ == "__main__":
    guard()
