"""How far the upload to MLflow has come, and where the sweep is there. In: the cursor file. Out: the cursor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from trainables.storage.forms import WrongForm, maybe, record, text, whole
from trainables.storage.state_files import read_state, replace_state

_NAME = text(r"[^\x00-\x1f\x7f]*", most=4096)
FIELDS = record(
    {
        "sweep_uid": _NAME,
        "target": _NAME,
        "offset": whole(),
        "parent_run_id": maybe(_NAME),
        "experiment_id": maybe(_NAME),
    },
    {"sent_again": whole(most=1)},
)


@dataclass
class Cursor:
    """What is in MLflow already: the ledger's first `offset` bytes. `target` says in which MLflow.

    `sent_again`: 1 where lines of the ledger were there before, and may come again with another time.
    """

    sweep_uid: str = ""
    target: str = ""
    offset: int = 0
    parent_run_id: str | None = None
    experiment_id: str | None = None
    sent_again: int = 0


def load_cursor(path: Path) -> Cursor:
    """The stored cursor; at the ledger's beginning where none can be read (a replay is harmless)."""
    try:
        return Cursor(**read_state(path, FIELDS))
    except (OSError, WrongForm):
        return Cursor()


def store_cursor(path: Path, cursor: Cursor) -> None:
    """Replace the stored cursor; a crash leaves the old one or the new one."""
    replace_state(path, asdict(cursor))
