"""How far the uploader has come, and what the ledger holds beyond that.

Comes in: the path of a ledger that somebody else is writing, and of the cursor file. Goes out: whole lines, each once,
with the offset behind them; the cursor, stored atomically. A torn last line is not a line yet.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tune_rsst.ledger import LedgerError, decode

READ_BYTES = 4 << 20


@dataclass
class Cursor:
    """What is in MLflow already: the ledger's first `offset` bytes. `target` says in which MLflow."""

    sweep_uid: str = ""
    target: str = ""
    offset: int = 0
    parent_run_id: str | None = None


def load_cursor(path: Path) -> Cursor:
    """The stored cursor; at the ledger's beginning where there is none or it can't be read (a replay is harmless)."""
    try:
        return Cursor(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Cursor()


def store_cursor(path: Path, cursor: Cursor) -> None:
    """Replace the stored cursor; a crash leaves the old one or the new one.

    Raises:
        OSError: the disk is full or gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(cursor), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def known_parent_run(cursor_path: Path) -> str | None:
    """The sweep's parent run as the uploader last knew it; asks no server."""
    return load_cursor(cursor_path).parent_run_id


class LedgerTail:
    """Reads a growing ledger. `offset` is the byte behind the last line handed out."""

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
        """The next whole lines, some megabytes at most; `until` is an offset not to go beyond. Empty at the end.

        Raises:
            LedgerError: the next line is whole but damaged.
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
        """Whole lines behind `offset`."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read().count(b"\n")
        except OSError:
            return 0
