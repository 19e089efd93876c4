"""The view of a ledger tells what a trial started from before its first round, whatever becomes of it."""

from __future__ import annotations

from tune_rsst.ledger.view import SweepView

SUGGESTED = {
    "event": "suggested",
    "time": 1.0,
    "trial": "t0000",
    "number": 0,
    "params": {},
    "distributions": {},
    "knobs": {},
    "fingerprint": "f",
    "rounds": 2,
}


def reported(kind: str, **metrics: object) -> dict[str, object]:
    return {"event": "reported", "time": 2.0, "trial": "t0000", "kind": kind, "metrics": metrics}


def test_a_trial_without_a_round_says_what_it_started_from() -> None:
    start = reported("start", round=0, epoch=0, init_effective="scratch", weights_digest=None, lines=[])
    view = SweepView.of([SUGGESTED, start])
    assert view.trials["t0000"].metrics == {"init_effective": "scratch", "weights_digest": None}
    view.apply(reported("round", round=0, epoch=1, val_top1=0.5, epochs_trained=1))
    assert view.trials["t0000"].metrics["init_effective"] == "scratch"
    assert view.trials["t0000"].metrics["val_top1"] == 0.5
