"""The events that were added to a ledger since the last look.

In: a ledger file that may still grow. Out: its new events, oldest first.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from trainables.storage.files import open_regular
from tune_rsst.ledger.file import advised
from tune_rsst.ledger.lines import LONGEST, LedgerError, Place, read_next

READ_BYTES = 4 << 20
COUNTED_BYTES = 1 << 32


class LedgerTail:
    """Reads a growing ledger."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place = Place()

    @property
    def offset(self) -> int:
        """The byte after the last line returned."""
        return self._place.size

    def rewind(self) -> None:
        """Begin again at the first line."""
        self._place = Place()

    def uid(self) -> str:
        """12 hex digits of the ledger's first line: two sweeps of one name differ in it. "" while there is no line."""
        try:
            with open_regular(self.path) as file:
                first = file.readline(LONGEST)
        except OSError:
            return ""
        return hashlib.sha256(first).hexdigest()[:12] if first.endswith(b"\n") else ""

    def read(self, until: int | None = None) -> list[dict[str, Any]]:
        """The next complete lines, about 4 MiB at most and none beyond the offset `until`. Empty at the end.

        Raises:
            OSError: the file can't be read.
        """
        events: list[dict[str, Any]] = []
        end = self.offset + READ_BYTES if until is None else min(self.offset + READ_BYTES, until)
        with open_regular(self.path) as file:
            file.seek(self.offset)
            try:
                while self.offset < end and (event := read_next(file, self._place)) is not None:
                    events.append(event)
            except LedgerError as error:
                if not events:  # else the next look says so
                    raise advised(self.path, str(error)) from None
        return events

    def lines_beyond(self, offset: int) -> int:
        """Complete lines after `offset`, in at most 4 GiB."""
        found, end = 0, offset + COUNTED_BYTES
        try:
            with open_regular(self.path) as file:
                file.seek(offset)
                while file.tell() < end and (block := file.read(READ_BYTES)):
                    found += block.count(b"\n")
        except OSError:
            return 0
        return found
