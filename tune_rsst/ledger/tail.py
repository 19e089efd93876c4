"""The events that were added to a ledger since the last look.

In: a ledger file that may still grow. Out: its new events, oldest first.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tune_rsst.ledger.file import LedgerError, decode

READ_BYTES = 4 << 20


class LedgerTail:
    """Reads a growing ledger. `offset` is the byte after the last line returned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def uid(self) -> str:
        """12 hex digits of the ledger's first line: two sweeps of one name differ in it. "" while there is no line."""
        try:
            with self.path.open("rb") as file:
                first = file.readline()
        except FileNotFoundError:
            return ""
        return hashlib.sha256(first).hexdigest()[:12] if first.endswith(b"\n") else ""

    def read(self, until: int | None = None) -> list[dict[str, Any]]:
        """The next complete lines, 4 MiB at most and none beyond the offset `until`. Empty at the end.

        Raises:
            OSError: the file can't be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(READ_BYTES if until is None else min(READ_BYTES, until - self.offset))
            if data and b"\n" not in data and len(data) == READ_BYTES:
                data += file.readline()
        events: list[dict[str, Any]] = []
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            event = decode(line)
            if event is None and events:
                break
            if event is None:
                raise LedgerError(f"ledger = {self.path}: the line at byte {self.offset} is damaged")
            events.append(event)
            self.offset += len(line)
        return events

    def lines_beyond(self, offset: int) -> int:
        """Complete lines after `offset`."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read().count(b"\n")
        except OSError:
            return 0
