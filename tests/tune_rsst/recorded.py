"""A made-up but complete sweep as a ledger, for tests of everything that reads ledgers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tune_rsst.ledger.file import Ledger

EPOCHS, ROUNDS = 2, 3
SETTINGS = {
    "space": "digits",
    "trials": 4,
    "seed": 0,
    "objective": "val_top1",
    "target_density": 0.3,
    "optuna_storage": "postgresql://tuner:***@db/optuna",
}
IMAGES = {"name": "digits", "digest": "0123456789abcdef", "classes": ["0", "1"], "mean": [0.3], "std": [0.4]}


def sweep_events(name: str = "demo", trials: int = 4, seed: int = 0, ended: bool = True) -> Iterator[dict[str, Any]]:
    """Ledger events without their time: trials side by side; every 4th is stopped, every 4th fails."""
    rng = random.Random(seed)
    about = {"space": "digits", "space_digest": "ab12", "seed": seed, "git": "0123abc", "host": "box"}
    yield {"event": "sweep_started", "name": name, "settings": SETTINGS, "versions": {"torch": "2.15.0"}, **about}
    running = []
    for number in range(trials):
        params = {"lr": 10 ** rng.uniform(-4, -2), "rate": rng.uniform(0.2, 0.5)}
        knobs = {"dataset": "digits", "pretrained": False, "weights": None, "epochs": EPOCHS, **params}
        trial = f"t{number:04d}"
        yield {"event": "suggested", "trial": trial, "number": number, "params": params, "distributions": {},
               "knobs": knobs, "fingerprint": f"{number:016x}", "rounds": ROUNDS}  # fmt: skip
        running.append(trial_events(trial, number, rng))
    for group in itertools.zip_longest(*running):
        yield from (event for event in group if event is not None)
    yield {"event": "sweep_ended"} if ended else {"event": "interrupted"}


def trial_events(trial: str, number: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """One trial: start, epochs, rounds; then its end."""
    fate = {2: "stopped", 3: "failed"}.get(number % 4, "finished")
    start = {"round": 0, "epoch": 0, "epochs_trained": 0, "params": 1000, "gmacs": 0.5, "init_effective": "scratch",
             "class_ratio": 1.0, "weights_digest": None, "device": "cpu", "lines": ["from scratch"],
             "warning": None, "data_digest": IMAGES["digest"], "images": IMAGES}  # fmt: skip
    yield reported(trial, 0, "start", start)
    last: dict[str, Any] = {}
    dense = 0.0
    for round_ in range(ROUNDS if fate == "finished" else 2):
        for epoch in range(1, EPOCHS + 1):
            done = round_ * EPOCHS + epoch
            pressed = {"doomed_norm_left": rng.random()} if round_ else {}
            yield reported(trial, done, "epoch", {
                "round": round_, "epoch": epoch, "epochs_trained": done, "train_loss": rng.random(), "lr": 1e-3,
                "val_top1_before_hardening": rng.random(), "seconds": 0.1, **pressed})  # fmt: skip
        kept = 0.5477**round_
        last = {"round": round_, "epoch": EPOCHS, "epochs_trained": done, "val_top1": rng.random(), "density": kept,
                "val_top1_before_hardening": rng.random(), "kept_share": kept + 0.001, "kept_share_asked": kept,
                "heads_kept": 16, "neurons_kept": 200, "heads_kept_per_layer": [4, 4, 4, 4], "params": 1000 + number,
                "gmacs": 0.5, "latency_ms": rng.random(), "round_gap": 0.0, "hardening_gap": 0.001}  # fmt: skip
        dense = last["val_top1"] if round_ == 0 else dense
        last |= {"dense_top1": dense, "top1_drop": dense - last["val_top1"]}
        last |= {"val_balanced_accuracy": last["val_top1"] / 2, "val_class_accuracy": [0.5, last["val_top1"]]}
        yield reported(trial, 100 + round_, "round", last)
    if fate == "finished":
        top1 = rng.random()
        test = {"test_top1": top1, "test_balanced_accuracy": top1 / 2, "test_class_accuracy": [0.25, top1]}
        yield reported(trial, 200, "final", {**last, **test, "init_effective": "scratch"})
    reason = {"stopped": "rung 1: val_top1 0.2 < 0.5", "failed": "loss is not finite"}.get(fate)
    yield {"event": "ended", "trial": trial, "state": fate, "reason": reason, "rung": 1 if fate == "stopped" else None}


def reported(trial: str, seq: int, kind: str, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"event": "reported", "trial": trial, "seq": seq, "kind": kind, "metrics": metrics}


class Recorder:
    """Appends events to a ledger, one second apart from a fixed time on."""

    def __init__(self, path: Path, begins: float = 1_700_000_000.0) -> None:
        ticks = itertools.count()
        self.ledger = Ledger(path, clock=lambda: begins + len(self.ledger.events) + next(ticks))

    def write(self, *events: dict[str, Any]) -> None:
        for event in events:
            fields = dict(event)
            self.ledger.append(fields.pop("event"), **fields)
