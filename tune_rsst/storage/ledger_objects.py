"""The ledger in a bucket: numbered objects, each some lines, because nothing can be appended to an object.

In: the ledger file of this machine.
Out: the same lines as objects `ledger/000000123.jsonl` (named by the number of their first line), and back.
A new object is written only if its number is free, so of two drivers one is refused. At a start, and after MANY
objects, the first one is written again with all lines, and the others are deleted.
"""

from __future__ import annotations

from pathlib import Path

from trainables.storage.bucket import Bucket, Taken
from trainables.storage.files import replaced
from trainables.storage.retrying import RetryingThread
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.lines import LedgerError, events_in
from tune_rsst.ledger.lock import SweepBusy

GATHER_S, MANY, TRIES = 3.0, 500, 3


def _key(first: int) -> str:
    return f"ledger/{first:09d}.jsonl"


def read_objects(bucket: Bucket) -> bytes | None:
    """All lines of the ledger in `bucket`; None without a ledger."""
    gap = ""
    for _ in range(TRIES):  # objects go when they are gathered into the first one
        lines: list[bytes] = []
        keys = bucket.keys("ledger/")
        for key in keys:
            first = int(key.removeprefix("ledger/").removesuffix(".jsonl"))
            data = bucket.read(key) if first <= len(lines) else None
            if data is None:
                gap = key
                break
            found = data.splitlines(keepends=True)
            known = lines[first : first + len(found)]
            if found[: len(known)] == known:  # else a driver that had lost the sweep wrote it after a gathering
                lines += found[len(known) :]
        else:
            return b"".join(lines) if keys else None
    raise LedgerError(f"ledger = {bucket.address}/ledger: what comes before {gap} is missing there")


def bring_ledger(bucket: Bucket, path: Path, stamp: str) -> str | None:
    """Make the ledger at `path` what the bucket has, unless the file is ahead. Returns a line for the user, if any.

    Where each has lines that the other has not, the file is kept next to the new one under a name with `stamp`.
    """
    there = read_objects(bucket)
    if there is None:
        return None
    here = path.read_bytes() if path.exists() else b""
    if here.startswith(there):
        return None
    try:
        events_in(there)
    except LedgerError as error:
        where = f"ledger = {bucket.address}/ledger"
        raise LedgerError(f"{where}: {error}; put it right: tune-rsst repair {path.parent.name}") from None
    aside = None
    if not there.startswith(here[: here.rfind(b"\n") + 1]):
        aside = path.with_name(f"{path.name}.{stamp}.aside")
        path.rename(aside)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as new:
        new.write_bytes(there)
    where = f"{bucket.address}, the old one is {aside}"
    return f"the sweep went on elsewhere: its ledger was taken from {where}" if aside else None


def write_whole(bucket: Bucket, path: Path) -> None:
    """The ledger at `path` as the one object of its sweep; the others go."""
    keys = bucket.keys("ledger/")
    bucket.write(_key(0), path.read_bytes())
    bucket.delete([key for key in keys if key != _key(0)])


class LedgerObjects:
    """Writes one ledger file into a bucket, in a thread. `interruption` hears when another driver has written there."""

    def __init__(self, path: Path, bucket: Bucket, interruption: Interruption) -> None:
        self._path, self._bucket, self._interruption = path, bucket, interruption
        self._lines = self._offset = self._objects = 0
        self._lost = False
        self._thread = RetryingThread(self._push, name="ledger-objects", gather_s=GATHER_S)

    def start(self) -> None:
        """Begin; everything that the bucket has must be in the file (`bring_ledger`)."""
        there, here = read_objects(self._bucket) or b"", self._path.read_bytes()
        if not here.startswith(there):
            raise SweepBusy(f"name = {self._path.parent.name}: another driver went on with it meanwhile; resume again")
        self._offset, self._lines = len(there), there.count(b"\n")
        self._gather()
        self._thread.start()

    def notify(self, hurry: bool = False) -> None:
        """The file has grown; from a `hurry` on each line is written at once. Returns at once."""
        (self._thread.hurry if hurry else self._thread.wake)()

    def close(self, timeout_s: float) -> str | None:
        """Write what is left, for `timeout_s` at most. What is missing then, and why, in one line; or None."""
        self._thread.close(timeout_s)
        missing = self._path.read_bytes()[self._offset :].count(b"\n")
        if not missing:
            return None
        why = f" ({self._thread.problems[-1]})" if self._thread.problems else ""
        return f"{missing} ledger lines are not in {self._bucket.address} yet{why}"

    def _push(self) -> None:
        if self._lost:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        if not data:
            return
        try:
            self._bucket.write(_key(self._lines), data, new=True)
        except Taken:
            there = self._bucket.read(_key(self._lines)) or b""
            if not there or not data.startswith(there):
                self._lost = True
                self._interruption.taken_over("another driver has written to this sweep's ledger")
                return
            data = there  # our own write, its answer was lost
        self._offset += len(data)
        self._lines += data.count(b"\n")
        self._objects += 1
        if self._objects >= MANY:
            self._gather()

    def _gather(self) -> None:
        """One object with all lines that the bucket has; then the others go."""
        keys = self._bucket.keys("ledger/")
        self._objects = 0
        if len(keys) < 2:
            return
        with self._path.open("rb") as file:
            self._bucket.write(_key(0), file.read(self._offset))
        self._bucket.delete([key for key in keys if key != _key(0)])
