"""The ledger: an append-only file of what happened in a sweep, the one truth that everything else is a view of.

In: events (dicts as events.py declares them). Out: the same events, in order, with the time they were written.
lines.py has the format. Only the driver writes, and it holds `driver.lock` while it runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.storage.files import open_regular
from tune_rsst.ledger.lines import LedgerError, Place, encode, read_next

LEDGER_NAME, TRIALS = "ledger.jsonl", "trials"


def advised(path: Path, what: str) -> LedgerError:
    """The error of a damaged ledger, with what to do."""
    return LedgerError(f"ledger = {path}: {what}; put it right: tune-rsst repair {path.parent.name}")


@dataclass(frozen=True)
class Lines:
    """What was read of a ledger: its events, how far they go, and which file it was.

    `torn`: bytes of a line behind them that a crash has cut, or that is just being written.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    place: Place = field(default_factory=Place, compare=False)
    inode: int = 0
    torn: int = 0


def read(path: Path) -> list[dict[str, Any]]:
    """All events of the ledger at `path`, without the torn line at its end if there is one."""
    return read_on(path, Lines()).events


def read_on(path: Path, known: Lines) -> Lines:
    """All lines of the ledger at `path`. Lines that are `known` are read again only if the file was replaced."""
    try:
        with open_regular(path) as file:
            about = os.fstat(file.fileno())
            known = known if known.inode == about.st_ino and known.place.size <= about.st_size else Lines()
            events, place = list(known.events), known.place.copy()
            file.seek(place.size)
            while (event := read_next(file, place)) is not None:
                events.append(event)
            torn = file.tell() - place.size
    except OSError as error:
        raise advised(path, f"can't be read ({error.strerror})") from None
    except LedgerError as error:
        raise advised(path, str(error)) from None
    if not events:
        _refuse_emptied(path)
    return Lines(events, place, about.st_ino, torn)


def refuse_damaged(path: Path) -> None:
    """Refuse to begin a sweep where one lies whose ledger can't be read, or has gone."""
    if os.path.lexists(path):
        read_on(path, Lines())
    else:
        _refuse_emptied(path)


def _refuse_emptied(path: Path) -> None:
    """A sweep has trials only after its ledger has a line."""
    trials = path.parent / TRIALS
    if trials.is_dir() and any(trials.iterdir()):
        raise advised(path, f"it has no line, though {trials} has trials")


class Ledger:
    """Writer of one ledger. Opening it drops a torn last line; `append` returns once the line is on the disk.

    `events` is what the file held when it was opened. `known`: what an earlier `read_on` returned.
    """

    def __init__(self, path: Path, known: Lines | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        lines = read_on(path, known or Lines()) if os.path.lexists(path) else Lines()
        self.events, self._place = lines.events, lines.place
        if lines.torn:
            os.truncate(path, self._place.size)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Write one event with the current time and return it.

        Raises:
            OSError: the disk is full or gone. The line is removed, as it is where Ctrl-C comes while it is written.
        """
        record = {"event": event, "time": round(self._clock(), 3), **fields}
        line = encode(record, self._place)
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(28, f"only {written} of {len(line)} bytes of a ledger line were written")
            os.fsync(self._fd)
        except BaseException:
            os.ftruncate(self._fd, self._place.size)
            raise
        self._place.move_on(line, True)
        return record

    def close(self) -> None:
        """Close the file; every append is on the disk already."""
        os.close(self._fd)
