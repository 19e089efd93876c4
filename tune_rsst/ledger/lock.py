"""One driver per sweep on this machine: a lock file in the sweep's folder.

In: a sweep's folder. Out: the lock while it is held, or whether someone holds it.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from trainables.storage.locks import LockHeld, is_held, take

LOCK_NAME = "driver.lock"


class SweepBusy(RuntimeError):
    """Another driver holds the sweep. One line."""


class DriverLock:
    """Exclusive lock of a sweep folder. The kernel releases it when the driver dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._fd: int | None = None

    def acquire(self, patience_s: float = 1.0) -> None:
        """Take the lock. `patience_s` covers the instant in which `show` checks it."""
        try:
            self._fd = take(self.path, patience_s, 0o600)
        except LockHeld:
            name = self.path.parent.name
            raise SweepBusy(f"name = {name}: another driver is running this sweep; wait for it, or stop it") from None

    def release(self) -> None:
        """Harmless when not held."""
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
    """Whether a driver holds the sweep in `folder` now."""
    return is_held(folder / LOCK_NAME)
