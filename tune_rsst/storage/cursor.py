"""How far the upload to MLflow has come, and where the sweep is there. In: the cursor file. Out: the cursor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from trainables.storage.files import read_json, replace_json


@dataclass
class Cursor:
    """What is in MLflow already: the ledger's first `offset` bytes. `target` says in which MLflow."""

    sweep_uid: str = ""
    target: str = ""
    offset: int = 0
    parent_run_id: str | None = None
    experiment_id: str | None = None


def load_cursor(path: Path) -> Cursor:
    """The stored cursor; at the ledger's beginning where none can be read (a replay is harmless)."""
    try:
        return Cursor(**read_json(path))
    except (OSError, ValueError, TypeError):
        return Cursor()


def store_cursor(path: Path, cursor: Cursor) -> None:
    """Replace the stored cursor; a crash leaves the old one or the new one."""
    replace_json(path, asdict(cursor))
