"""Who drives a sweep that is in a bucket: a small object that its driver renews, because a bucket knows no locks.

In: the sweep's part of the bucket. Out: the lease, or `LeaseHeld`.
It is written on condition that nobody else has written since it was read. A driver that was killed loses it after
LEASE_S, or at once where it ran on this machine in this folder (whose lock we hold). The ledger's objects refuse what a
driver still writes after it has lost its lease.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.storage.bucket import Bucket, Found, StorageError, Taken
from trainables.storage.forms import HEX, WrongForm, number, record, text, whole
from trainables.storage.retrying import RetryingThread
from trainables.storage.state_files import state_of

LEASE_KEY = "driver.json"
LEASE_S, RENEW_S, LOOK_S = 60.0, 15.0, 2.0
_LINE = text(r"[^\x00-\x1f\x7f]*", most=4096)
LEASE = record({"id": text(HEX), "renewed": number, "machine": _LINE, "host": _LINE, "folder": _LINE, "pid": whole(1)})


def _machine() -> str:
    """This machine since it was started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


class LeaseHeld(RuntimeError):
    """Another driver holds the lease; says which one."""


class Lease:
    """The right to drive one sweep. `taken_over` hears, from a thread, which other driver has taken it."""

    def __init__(
        self, bucket: Bucket, folder: Path, taken_over: Callable[[str], None], lease_s: float = LEASE_S
    ) -> None:
        """"""
        self._bucket, self._taken_over, self._lease_s = bucket, taken_over, lease_s
        self._own = {"machine": _machine(), "host": socket.gethostname(), "folder": str(folder), "pid": os.getpid()}
        self._id, self._version, self._is_lost = uuid.uuid4().hex, "", False
        every_s = min(RENEW_S, lease_s / 4)
        self._thread = RetryingThread(self._renew, name="lease", every_s=every_s, last_retry_s=every_s)

    def acquire(self, say: Callable[[str], None]) -> None:
        """Take it; `say` gets a line where a driver that may be gone has to be waited for. Hold the folder's lock.

        Raises:
            LeaseHeld: another driver renews it.
        """
        try:
            self._take(say)
        except Taken:
            self._refuse(self._bucket.find(LEASE_KEY))
        self._thread.start()

    def release(self) -> None:
        """Give it back; harmless when it was lost or the bucket is away (then it runs out by itself)."""
        self._thread.close(RENEW_S)
        with suppress(StorageError):
            found = self._bucket.find(LEASE_KEY)
            if found and found.version == self._version:
                self._bucket.delete([LEASE_KEY])

    def _take(self, say: Callable[[str], None]) -> None:
        found, first = self._bucket.find(LEASE_KEY), None
        while found is not None and not self._is_ours(found) and self._bucket.age_s(found) < self._lease_s:
            if first is not None and found.version != first:
                self._refuse(found)
            if first is None:
                first = found.version
                age_s = self._bucket.age_s(found)
                left = f"waiting up to {max(0.0, self._lease_s - age_s):.0f} s to see whether it is gone"
                say(f"{_holder(found)} drove this sweep {age_s:.0f} s ago; {left}")
            time.sleep(min(LOOK_S, self._lease_s / 4))
            found = self._bucket.find(LEASE_KEY)
        self._version = self._write(found.version if found else None)

    def _write(self, version: str | None) -> str:
        content = json.dumps({"id": self._id, "renewed": time.time(), **self._own}).encode()
        return self._bucket.write(LEASE_KEY, content, new=version is None, version=version)

    def _is_ours(self, found: Found) -> bool:
        record = _record(found)
        return all(record.get(name) == self._own[name] for name in ("machine", "host", "folder"))

    def _refuse(self, found: Found | None) -> None:
        raise LeaseHeld(f"{_holder(found)} is driving this sweep in {self._bucket.address}")

    def _renew(self) -> None:
        """A storage that is away may be back before the lease runs out; the ledger's objects guard what we write."""
        if self._thread.closing or self._is_lost:
            return
        try:
            self._version = self._write(self._version)
        except Taken:
            found = self._bucket.find(LEASE_KEY)
            if found is not None and _record(found).get("id") == self._id:  # our own write, its answer was lost
                self._version = found.version
                return
            self._is_lost = True
            self._taken_over(f"{_holder(found)} has taken this sweep over")


def driven_elsewhere(bucket: Bucket, folder: Path) -> bool:
    """Whether a driver renews the lease, other than one that was in `folder` on this machine. Its lock is free.

    Raises:
        StorageError: the bucket can't be asked.
    """
    found = bucket.find(LEASE_KEY)
    if found is None or Lease(bucket, folder, lambda who: None)._is_ours(found):
        return False
    return bucket.age_s(found) < LEASE_S


def _record(found: Found) -> dict[str, Any]:
    """What the holder wrote; empty where it is no lease: it is then nobody's that we know, until it runs out."""
    try:
        written: dict[str, Any] = state_of(found.data, LEASE)
    except WrongForm:
        return {}
    return written


def _holder(found: Found | None) -> str:
    if found is None:
        return "another driver"
    record = _record(found)
    return f"a driver on {record.get('host', 'an unknown host')} (process {record.get('pid', '?')})"
