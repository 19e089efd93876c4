"""The ledger: an append-only file of what happened in a sweep, the one truth that everything else is a view of.

In: events (dicts as events.py declares them). Out: the same events, in order, with the time they were written.
docs/ledger.md has the format. A line ends with its checksum, because a flipped bit in a number still parses.
Only the driver writes, and it holds `driver.lock` while it runs.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEDGER_NAME = "ledger.jsonl"


class LedgerError(RuntimeError):
    """The ledger is damaged, and not by a crash. One line."""


def encode(event: dict[str, Any]) -> bytes:
    """One line: the event, then the crc32 of its text as the last key."""
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def decode(line: bytes) -> dict[str, Any] | None:
    """The event of one line, or None where the line is not what `encode` wrote."""
    body, mark, tail = line.rstrip(b"\n").rpartition(b',"crc":"')
    if not mark or tail != f'{zlib.crc32(body + b"}"):08x}"}}'.encode():
        return None
    event = json.loads(body + b"}")
    return event if isinstance(event, dict) else None


@dataclass(frozen=True)
class Lines:
    """What was read of a ledger: its events, their size in bytes (a torn line may follow), and which file it was."""

    events: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    inode: int = 0


def read(path: Path) -> list[dict[str, Any]]:
    """All events of the ledger at `path`, without the torn line at its end if there is one."""
    return read_on(path, Lines()).events


def read_on(path: Path, known: Lines) -> Lines:
    """All lines of the ledger at `path`. Lines that are `known` are read again only if the file was replaced."""
    try:
        with path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            known = known if known.inode == inode else Lines()
            file.seek(known.size)
            data = file.read()
    except OSError as error:
        raise LedgerError(f"ledger = {path}: can't be read ({error.strerror})") from None
    events, good = list(known.events), known.size
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        event = decode(line) if line.endswith(b"\n") else None
        if event is None:
            if number == len(lines):
                break
            number += len(known.events)
            raise LedgerError(
                f"ledger = {path}: line {number} is damaged; remove it and resume (the trials' own checkpoints "
                "are complete), or start a new sweep"
            )
        events.append(event)
        good += len(line)
    return Lines(events, good, inode)


class Ledger:
    """Writer of one ledger. Opening it drops a torn last line; `append` returns once the line is on the disk.

    `events` is what the file held when it was opened. `known`: what an earlier `read_on` returned.
    """

    def __init__(self, path: Path, known: Lines | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self.events: list[dict[str, Any]] = []
        if path.exists():
            lines = read_on(path, known or Lines())
            self.events = lines.events
            if lines.size < path.stat().st_size:
                os.truncate(path, lines.size)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._fd).st_size

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Write one event with the current time and return it.

        Raises:
            OSError: the disk is full or gone; the half-written line is removed.
        """
        record = {"event": event, "time": round(self._clock(), 3), **fields}
        line = encode(record)
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(28, f"only {written} of {len(line)} bytes of a ledger line were written")
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)
        return record

    def close(self) -> None:
        """Close the file; every append is on the disk already."""
        os.close(self._fd)
