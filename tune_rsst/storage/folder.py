"""The folder of one sweep: the paths in it, and its ledger as a view."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_rsst.ledger.file import LEDGER_NAME, read
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


def load(folder: SweepFolder) -> tuple[SweepView, str]:
    """The view of the sweep in `folder`, and its state."""
    running = is_running(folder.path)
    view = SweepView.of(read(folder.ledger))
    return view, view.state(running)
