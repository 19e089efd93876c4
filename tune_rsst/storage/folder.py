"""The folder of one sweep: the paths in it, and the sweep as its ledger has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_rsst.ledger.file import LEDGER_NAME, Lines, read_on
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
    trials = _Below("trials")
    cursor = _Below("mlflow_cursor.json")
    tune = _Below(".tune")
    best = _Below("best.yaml")
    best_model = _Below("best_model")
    pictures = _Below("pictures")
    report = _Below("report.html")
    weights = _Below("weights")

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def study(self) -> str:
        return f"sqlite:///{self.path / 'optuna.db'}"

    def store(self, fingerprint: str) -> Path:
        return self.trials / fingerprint

    def with_own_weights(self, knobs: dict[str, Any]) -> dict[str, Any]:
        """`knobs` with the sweep's copy of the weights as it lies here, also where the home was another one before."""
        digest = knobs.get("weights_digest")
        own = self.weights / f"weights-{digest}.safetensors"
        return {**knobs, "weights": str(own)} if digest and own.exists() else knobs


@dataclass(frozen=True)
class Sweep:
    """A sweep that was read, to be handed on. `state`: running, finished or interrupted."""

    folder: SweepFolder
    view: SweepView
    state: str
    lines: Lines = field(default_factory=Lines, repr=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @classmethod
    def of(cls, folder: SweepFolder, known: Lines | None = None) -> Sweep:
        """The sweep in `folder` as it is now. `known`: what was read of its ledger before."""
        running = is_running(folder.path)
        lines = read_on(folder.ledger, known or Lines())
        view = SweepView.of(lines.events)
        return cls(folder, view, view.state(running), lines)
