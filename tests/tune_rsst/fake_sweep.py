"""A sweep without Ray and without training: the driver, the study and the ledger are real, the trials are formulas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainables.rsst.config import RSSTConfig
from trainables.rsst.event import Event
from tune_rsst.driver import Driver
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.search.spaces import Space, samples
from tune_rsst.search.study import StudySearcher
from tune_rsst.settings.settings import SweepSettings, resolve, with_checked_knobs
from tune_rsst.settings.written import given

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
    settings = resolve(given(None, ["name=fake", *overrides]))
    return with_checked_knobs(settings, next(samples(space, settings.fixed, 1))[1].knobs())


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
        last = where | size | {"val_top1": top1, "hardening_gap": 0.0, "seconds": 1.0}
        yield {"kind": "round", **last}
    yield {"kind": "final", **last, "test_top1": top1 - 0.01, "init_effective": "scratch"}


class FakeSweep:
    """Plays Tune: some trials at a time, one event each in turn, until all ended or `reports` were made (a kill -9)."""

    def __init__(self, folder: Path, space: Space, settings: SweepSettings, storage: str | None = None) -> None:
        self.ledger = Ledger(folder / "ledger.jsonl", clock=lambda: 1.0)
        self.settings = settings
        self.searcher = StudySearcher(settings, space, storage=storage)
        self.driver = Driver(self.ledger, settings, self.searcher)
        if not self.driver.view.name:
            self.driver.record("sweep_started", name="fake", settings=settings.flat())
        self.trained: list[tuple[str, int]] = []

    @property
    def view(self) -> SweepView:
        return self.driver.view

    def run(self, at_once: int = 2, reports: int | None = None, alter: Any = lambda trial, event: event) -> None:
        live: list[tuple[TrialView, Iterator[dict[str, Any]]]] = []
        made = 0
        while True:
            while len(live) < at_once and (trial := self.driver.next_trial()) is not None:
                live.append((trial, events(RSSTConfig.from_knobs(self.driver.knobs_of(trial)))))
            if not live:
                return
            for trial, stream in list(live):
                if reports is not None and made >= reports:
                    return
                event = alter(trial, next(stream))
                made += 1
                if event["kind"] == "round" and not trial.knows(Event.from_json(event)):
                    self.trained.append((trial.trial, event["round"]))
                if self.driver.take({"trial_key": trial.trial, "events": [event], "done": event["kind"] == "final"}):
                    live.remove((trial, stream))
