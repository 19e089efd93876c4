"""The folder of one sweep: the paths in it, and the sweep as its ledger has it."""

from __future__ import annotations

import sys
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.rsst.config import ConfigError
from trainables.storage.bucket import Bucket, StorageError
from trainables.storage.files import one_name
from trainables.storage.lease import driven_elsewhere
from trainables.text import LONGEST_LINE, shown
from tune_rsst.ledger.file import LEDGER_NAME, TRIALS, Lines, advised, read_on
from tune_rsst.ledger.lock import is_running
from tune_rsst.ledger.view import SweepView


class _Below:
    """A path below the sweep's folder, as an attribute of `SweepFolder`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: SweepFolder, owner: type[SweepFolder]) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class SweepFolder:
    """Paths of one sweep."""

    path: Path

    ledger = _Below(LEDGER_NAME)
    settings = _Below("settings.yaml")
    trials = _Below(TRIALS)
    cursor = _Below("mlflow_cursor.json")
    tune = _Below(".tune")
    best = _Below("best.yaml")
    best_model = _Below("best_model")
    pictures = _Below("pictures")
    report = _Below("report.html")
    tensorboard = _Below("tensorboard")
    weights = _Below("weights")
    code = _Below("code")

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def study(self) -> str:
        return f"sqlite:///{self.path / 'optuna.db'}"

    def store(self, fingerprint: str) -> Path:
        return self.trials / one_name(fingerprint)

    def pictures_of(self, trial: str) -> Path:
        """Where the pictures of a trial are written, which is inside the sweep's folder."""
        return self._own(self.pictures / one_name(trial))

    def export_of(self, name: str) -> Path:
        """Where an export of that name is written, which is inside the sweep's folder."""
        return self._own(self.path / "exports" / one_name(name))

    def weights_of(self, digest: str) -> Path:
        """The sweep's own copy of the weights with that digest."""
        return self.weights / one_name(f"weights-{digest}.safetensors")

    def _own(self, path: Path) -> Path:
        """`path`; a ConfigError where a link in a folder that came from elsewhere leads out of it."""
        if self.path.resolve() not in path.resolve().parents:
            hint = f"{path} leads to {path.resolve()}: remove the link, or give another place (--to)"
            raise ConfigError("sweep", self.name, "a sweep whose files are written below its folder", hint)
        return path

    def with_own_weights(self, knobs: dict[str, Any]) -> dict[str, Any]:
        """`knobs` with the sweep's copy of the weights as it lies here, also where the home was another one before."""
        digest = knobs.get("weights_digest")
        own = self.weights_of(digest) if digest else None
        return {**knobs, "weights": str(own)} if own and own.exists() else knobs


def is_driven(folder: SweepFolder, storage: str | None) -> bool:
    """Whether somebody runs the sweep now: by its lock here or, for one in the bucket `storage`, by its lease there."""
    if is_running(folder.path) or storage is None:
        return is_running(folder.path)
    try:
        return driven_elsewhere(Bucket(storage).below(folder.name), folder.path)
    except (StorageError, ConfigError) as error:
        print(
            shown(f"{error}; whether a driver elsewhere runs {folder.name} is not known", LONGEST_LINE), file=sys.stderr
        )
        return False


def is_foreign(folder: SweepFolder, fingerprints: Set[str]) -> bool:
    """Whether trials have left something in `folder`, and none of them is one of these."""
    try:
        stores = {path.name for path in folder.trials.iterdir()}
    except OSError:
        return False
    return bool(stores) and bool(fingerprints) and not stores & fingerprints


@dataclass(frozen=True)
class Sweep:
    """A sweep that was read, to be handed on. `state`: running, finished or interrupted.

    `killed`: it is interrupted, and its driver could not write so.
    """

    folder: SweepFolder
    view: SweepView
    state: str
    lines: Lines = field(default_factory=Lines, repr=False)
    killed: bool = False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def torn(self) -> bool:
        """Whether a crash has cut the ledger's last line, which then does not count."""
        return self.lines.torn > 0 and self.state != "running"

    @classmethod
    def of(cls, folder: SweepFolder, known: Lines | None = None, *, elsewhere: bool = False) -> Sweep:
        """The sweep in `folder` as it is now. `known`: what was read of its ledger before.

        `elsewhere`: ask its bucket, if it has one, whether a driver runs it on another machine. Who is about to drive
        it does not ask: the lease waits for a driver that may be gone (lease.py).
        """
        running = is_running(folder.path)
        lines = read_on(folder.ledger, known or Lines())
        if lines.events and lines.events[0]["event"] != "sweep_started":
            raise advised(folder.ledger, "it does not begin with sweep_started")
        view = SweepView.of(lines.events, str(folder.path.parent))
        if is_foreign(folder, {trial.fingerprint for trial in view.trials.values()}):
            raise advised(folder.ledger, f"it is that of another sweep: none of its trials is in {folder.trials}")
        if elsewhere and not running and not view.ended:
            running = is_driven(folder, view.settings.get("storage"))
        state = view.state(running)
        killed = state == "interrupted" and view.driven
        if killed:
            view.drive(False)
        if not running and (runs := view.confirm) is not None:
            killed = killed or (runs.driven and bool(runs.unfinished))
            runs.drive(False)
        return cls(folder, view, state, lines, killed)
