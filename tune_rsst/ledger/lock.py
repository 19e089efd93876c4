"""One driver per sweep on this machine: a lock file in the sweep's folder.

In: a sweep's folder. Out: the lock while it is held, or whether someone holds it.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

LOCK_NAME = "driver.lock"


class SweepBusy(RuntimeError):
    """Another driver holds the sweep. One line."""


class DriverLock:
    """Exclusive lock of a sweep folder. The kernel lets go of it when the driver dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._fd: int | None = None

    def acquire(self, patience_s: float = 1.0) -> None:
        """Take the lock. `patience_s` covers the instant in which `show` looks whether it is held.

        Raises:
            SweepBusy: another driver holds it.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(fd)
                    name = self.path.parent.name
                    raise SweepBusy(
                        f"name = {name}: another driver is running this sweep; wait for it, or stop it"
                    ) from None
                time.sleep(0.05)
        self._fd = fd

    def release(self) -> None:
        """Let go; harmless when not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> DriverLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_running(folder: Path) -> bool:
    """Whether a driver holds the sweep in `folder` just now."""
    try:
        fd = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
