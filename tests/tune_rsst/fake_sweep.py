"""A sweep without Ray and without training: the driver, the study and the ledger are real, the trials are formulas."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import RSSTConfig
from trainables.rsst.event import Event
from tune_rsst.driver import Driver, assemble
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.runners import replay
from tune_rsst.search.spaces import Space, settled
from tune_rsst.settings.addresses import without_secrets
from tune_rsst.settings.settings import SweepSettings

if TYPE_CHECKING:
    from tune_rsst.search.pretrained import SweepWeights

EPOCHS = 2


def tiny(trial: Any) -> dict[str, Any]:
    """A space of two numbers; 3 or 4 rounds to a target of 0.3."""
    return {
        "dataset": "digits",
        "epochs": EPOCHS,
        "warmup": 0,
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "rate": trial.suggest_float("rate", 0.35, 0.5),
    }


def few(trial: Any) -> dict[str, Any]:
    """A space with four members."""
    return {
        "dataset": "digits",
        "epochs": EPOCHS,
        "warmup": 0,
        "rate": 0.4,
        "lr": trial.suggest_categorical("lr", [1e-3, 2e-3]),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32]),
    }


def settings_of(space: Space, *overrides: str) -> SweepSettings:
    return settled(["name=fake", *overrides], space)[0]


def accuracy(config: RSSTConfig, share: float) -> float:
    """Best at lr = 1e-3; falls as the model shrinks."""
    return round(max(0.1, 0.97 - 40 * abs(config.lr - 1e-3) - 0.05 * (1 - share)), 6)


def events(config: RSSTConfig) -> Iterator[dict[str, Any]]:
    """All core events of the trial that `config` is."""
    top1 = 0.0
    for number in range(config.rounds):
        share = config.kept_share_after(number)
        top1 = accuracy(config, share)
        where = {"round": number, "epochs_trained": 0}
        for epoch in range(1, config.epochs + 1):
            where = {"round": number, "epoch": epoch, "epochs_trained": number * config.epochs + epoch}
            yield {"kind": "epoch", **where, "train_loss": 1.0, "seconds": 0.5}
        size = {
            "kept_share": share,
            "kept_share_asked": share,
            "density": share,
            "params": int(1e5 * share),
            "gmacs": share,
        }
        last = (
            where
            | size
            | {"val_top1": top1, "dense_top1": 1.0, "top1_drop": 1.0 - top1, "hardening_gap": 0.0, "seconds": 1.0}
        )
        last["val_balanced_accuracy"] = top1
        yield {"kind": "round", **last}
    yield {"kind": "final", **last, "test_top1": top1 - 0.01, "init_effective": "scratch"}


class FakeSweep:
    """A driver over a ledger in `folder`, and the replay runner: until all ended or `reports` were made (a kill -9)."""

    def __init__(
        self,
        folder: Path,
        space: Space,
        settings: SweepSettings,
        storage: str = "memory",
        weights: SweepWeights | None = None,
        **about: Any,
    ) -> None:
        self.ledger = Ledger(folder / "ledger.jsonl", clock=lambda: 1.0)
        self.settings = settings
        about = {"settings": without_secrets(settings.flat()), **about}
        here = settings.model_copy(update={"optuna_storage": storage})
        self._play(assemble(self.ledger, here, space, weights, about=about))

    @classmethod
    def of(cls, driver: Driver) -> FakeSweep:
        """Plays a driver that is there already."""
        sweep = cls.__new__(cls)
        sweep._play(driver)
        return sweep

    def _play(self, driver: Driver) -> None:
        self.driver, self.searcher = driver, driver.searcher
        self.trained: list[tuple[str, int]] = []

    @property
    def view(self) -> SweepView:
        return self.driver.view

    def run(self, at_once: int = 2, reports: int | None = None, alter: Any = lambda trial, event: event) -> None:
        def curve(trial: TrialView, config: RSSTConfig) -> Iterator[dict[str, Any]]:
            for event in events(config):
                if event["kind"] == "round" and not trial.knows(Event.from_json(event)):
                    self.trained.append((trial.trial, event["round"]))
                yield alter(trial, event)

        for _ in islice(replay.reports(self.driver, curve, at_once), reports):
            pass
