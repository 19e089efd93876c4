"""How far the uploader has come, and what the ledger holds beyond that.

Comes in: the path of a ledger that somebody else is writing, and of the cursor file. Goes out: whole lines, each once,
with the offset behind them; the cursor, stored atomically. A torn last line is not a line yet.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


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
