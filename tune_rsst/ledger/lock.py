"""One driver per sweep on this machine: a lock file in the sweep's folder.

In: a sweep's folder. Out: the lock while it is held, or whether someone holds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.storage.locks import LockHeld, is_held, take

LOCK_NAME = "driver.lock"


class SweepBusy(RuntimeError):
    """Another driver holds the sweep. One line."""


@contextmanager
def driving(folder: Path, patience_s: float = 1.0) -> Iterator[None]:
    """Hold the lock of a sweep's folder. `patience_s` covers the instant in which `show` checks it."""
    try:
        lock = take(folder / LOCK_NAME, patience_s)
    except LockHeld:
        raise SweepBusy(
            f"name = {folder.name}: another driver is running this sweep; wait for it, or stop it"
        ) from None
    try:
        yield
    finally:
        os.close(lock)


def is_running(folder: Path) -> bool:
    """Whether a driver holds the sweep in `folder` now."""
    return is_held(folder / LOCK_NAME)
