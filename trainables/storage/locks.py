"""Locks between processes of one machine, by flock on a lock file. The kernel frees them when their process ends.

In: the path of a lock file. Out: the lock while it is held, or whether someone holds it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_S = 0.05


class LockHeld(RuntimeError):
    """Another process holds the lock."""


def take(path: Path, wait_s: float | None = None) -> int:
    """Lock the file `path`, which is made where missing. Closing the returned descriptor lets go.

    Args:
        path: the lock file; its folder exists.
        wait_s: seconds to wait for whoever holds it; None waits as long as it takes.

    Raises:
        LockHeld: another process still holds it after `wait_s` seconds.
        OSError: the file cannot be opened or locked.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        if wait_s is None:
            fcntl.flock(fd, fcntl.LOCK_EX)
            return fd
        deadline = time.monotonic() + wait_s
        while not _locks(fd, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise LockHeld(f"{path} is in use by another process")
            time.sleep(LOOK_S)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def held(path: Path, wait_s: float | None = None) -> Iterator[None]:
    """Hold the lock of `path` (its folder is made where missing); arguments and errors as in `take`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = take(path, wait_s)
    try:
        yield
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of `path` just now; false where the file cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe is not waited for
    except OSError:
        return False
    try:
        return not _locks(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _locks(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
