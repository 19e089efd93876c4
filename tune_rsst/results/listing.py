"""The sweeps of a home, a line each: state, trials, the best, size on disk, age.

In: the home. Out: JSON-able objects, or a table. A sweep whose ledger can't be read is a line too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from trainables.rsst.metrics import METRICS
from trainables.text import duration, mib
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.results.columns import counts
from tune_rsst.results.ranking import best_of
from tune_rsst.results.table import PlainTable
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder

HEADS = ("sweep", "state", "space", "trials", "best", METRICS["val_top1"].heading, "size", "begun")


def listed() -> list[dict[str, Any]]:
    """One object for each sweep of the home, oldest first; `bytes` counts the files below its folder."""
    begun = home.sweeps()
    return [_about(folder) for folder in [*(f for f in home.folders() if f not in begun), *begun]]


def table(rows: list[dict[str, Any]]) -> PlainTable:
    """The same as a table; columns that no row has are left out."""
    now, lines = time.time(), []
    for row in rows:
        best = METRICS["val_top1"].text(row["val_top1"])
        age = f"{duration(max(0.0, now - row['begun']))} ago" if row["begun"] else ""
        of = f"{row['trials']} of {row['of']}" + (f" ({row['counts']})" if row["counts"] else "") if row["of"] else ""
        size = mib(row["bytes"] / 2**20)
        cells = (row["name"], row["state"], row["space"], of, row["best"], best, size, age)
        lines.append([str(cell or "") for cell in cells])
    kept = [at for at in range(len(HEADS)) if any(line[at] for line in lines)]
    drawn = PlainTable()
    for at in kept:
        drawn.add_column(
            HEADS[at], justify="right" if HEADS[at] in (HEADS[5], "size", "begun") else "left", no_wrap=True
        )
    for line in lines:
        drawn.add(line[at] for at in kept)
    return drawn


def size_of(folder: Path) -> int:
    """Bytes of the files below `folder`; links are not followed, what goes meanwhile does not count."""
    found = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                found += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return found


def _about(folder: SweepFolder) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(("space", "trials", "of", "counts", "best", "val_top1", "begun", "reason"))
    row = {"name": folder.name, "state": "damaged", **row, "bytes": size_of(folder.path), "folder": str(folder.path)}
    try:
        sweep = Sweep.of(folder)
    except LedgerError as error:
        return row | {"reason": str(error)}
    view, best = sweep.view, best_of(sweep.view)
    ended = sum(1 for trial in view.trials.values() if not trial.unfinished)
    row |= {"state": sweep.state, "space": view.start.get("space"), "trials": ended, "begun": view.started_at}
    row |= {"of": view.settings.get("trials"), "counts": counts(view)}
    return row | ({"best": best.trial, "val_top1": best.metrics["val_top1"]} if best else {})
