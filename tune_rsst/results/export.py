"""Which trial's model is taken away; how is written in trainables/export/files.py.

In: names. Out: the trial, its sweep, its model.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.export.files import find
from trainables.rsst.config import ConfigError
from trainables.rsst.model.saved import SavedModel
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results import ranking
from tune_rsst.storage import home
from tune_rsst.storage.bucket import fetch_model
from tune_rsst.storage.folder import Sweep, SweepFolder


@dataclass(frozen=True)
class Chosen:
    """A trial, the sweep it is of, and one of its models; `round` None: the last one."""

    folder: SweepFolder
    view: SweepView
    trial: TrialView
    model: SavedModel
    round: int | None = None

    @property
    def store(self) -> Path:
        """Where the trial keeps its models."""
        return self.folder.store(self.trial.fingerprint)

    @property
    def metrics(self) -> dict[str, Any]:
        """What the trial reported of this model."""
        if self.round is None:
            return self.trial.own_metrics
        reports = {report["round"]: report for report in self.trial.round_events}
        return {**self.trial.origin, **reports.get(self.round, {})}


def choose(what: str | None, trial: str | None = None, number: int | None = None) -> Chosen:
    """The model that `what` names: SWEEP/TRIAL, TRIAL of the newest sweep, SWEEP (its best), None: newest, best.

    `trial` names one of a sweep's, as SWEEP/TRIAL does. With a round's `number` the trial need not have finished.
    """
    sweep, _, name = f"{what or ''}{f'/{trial}' if trial else ''}".rpartition("/")
    if not sweep and not re.fullmatch(r"t\d{4,}", name):
        sweep, name = name, ""
    folder = home.find(sweep or None)
    view = Sweep.of(folder).view
    found = view.trials.get(name) if name else ranking.best_of(view)
    if found is None or (number is None and found.state != "finished" and not found.fell_behind):
        finished = [trial.trial for trial in ranking.rank(view) if trial.state == "finished"]
        hint = f"finished ones: {', '.join(finished[:8]) or 'none yet'}"
        hint += f"; --round N takes what {found.trial} had after a round" if found else ""
        raise ConfigError(
            "trial", name or what, f"a finished trial of {folder.name}, or a sweep that has a best one", hint
        )
    with suppress(OSError):  # said below
        fetch_model(folder, view.settings.get("storage"), found.fingerprint, rounds=number is not None)
    return Chosen(folder, view, found, find(folder.store(found.fingerprint), number), number)
