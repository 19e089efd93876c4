"""The folder of one sweep: the paths in it, and the sweep as its ledger has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_rsst.ledger.file import LEDGER_NAME, Lines, read_on
from tune_rsst.ledger.lock import is_running
from tune_rsst.ledger.view import SweepView


@dataclass(frozen=True)
class SweepFolder:
    """Paths of one sweep."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def ledger(self) -> Path:
        return self.path / LEDGER_NAME

    @property
    def settings(self) -> Path:
        return self.path / "settings.yaml"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def cursor(self) -> Path:
        return self.path / "mlflow_cursor.json"

    @property
    def study(self) -> str:
        return f"sqlite:///{self.path / 'optuna.db'}"

    @property
    def tune(self) -> Path:
        return self.path / ".tune"

    @property
    def best(self) -> Path:
        return self.path / "best.yaml"

    @property
    def best_model(self) -> Path:
        return self.path / "best_model"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def weights(self) -> Path:
        return self.path / "weights"

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
