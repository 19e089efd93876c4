"""Whoever gives runs out needs no study: reports are written once, and what is not a number ends a run."""

from __future__ import annotations

from typing import Any

import pytest

from tune_rsst.intake import Intake, OtherData
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.settings.resolved import resolve

START = {"round": 0, "epoch": 0, "epochs_trained": 0, "data_digest": "a"}


class Plain(Intake):
    """Two runs; the lines that would be in a ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.settings, self.interruption, self.view = resolve({"space": "digits"}), Interruption(), SweepView()
        self.written: list[dict[str, Any]] = []
        for n in range(2):
            self.view.trials[f"t000{n}"] = TrialView(f"t000{n}", n, {}, {}, {"dataset": "digits"}, f"f{n}", 1)

    def next_trial(self) -> TrialView | None:
        return next(iter(self.view.unfinished), None)

    @property
    def remaining(self) -> int:
        return len(self.view.unfinished)

    @property
    def complete(self) -> bool:
        return not self.remaining

    def leave(self) -> None:
        return None

    def entered(self, trial: TrialView, metrics: Any) -> None:
        self.written.append({"entered": trial.trial})

    def _write(self, event: str, **fields: Any) -> None:
        self.written.append({"event": event, **fields})
        self.view.apply({"event": event, "time": 1.0, **fields})


def report(trial: str, kind: str, **metrics: Any) -> dict[str, Any]:
    return {"trial_key": trial, "events": [{"kind": kind, **START, **metrics}]}


def test_a_round_is_written_before_anything_follows_from_it_and_once() -> None:
    plain = Plain()
    for _ in range(2):
        assert plain.take(report("t0000", "round", val_top1=0.5)) is False
    assert [line.get("event", "entered") for line in plain.written] == ["reported", "entered"]
    assert plain.take(report("t0000", "final", val_top1=0.5)) is True and plain.remaining == 1


def test_what_is_not_a_number_and_other_images_are_no_result() -> None:
    plain = Plain()
    plain.take(report("t0000", "start"))
    assert plain.take(report("t0000", "round", val_top1=float("nan"))) is True
    assert plain.view.trials["t0000"].state == "failed"
    with pytest.raises(OtherData, match="t0001 found other images"):
        plain.take(report("t0001", "start", data_digest="b"))
