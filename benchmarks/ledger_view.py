"""How long it takes to rebuild what a sweep knows from its ledger, as a ratio to reading the file.

python -m benchmarks.ledger_view [--events 10000] [--repeats 9]

A sweep of formulas (the replay runner, halving on) is played until its ledger has that many lines. Then, in turn:
reading = every line parsed and its checksum compared (`ledger.file.read`); rebuilding = the view of the sweep and its
rungs from these events (`search.halving.replay`), without Ray and Optuna. Printed: medians in ms and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.many_trials import METRICS, space
from trainables.rsst.config import RSSTConfig
from tune_rsst.driver import assemble
from tune_rsst.ledger import file
from tune_rsst.ledger.view import TrialView
from tune_rsst.runners import replay
from tune_rsst.search import halving
from tune_rsst.search.spaces import Space, settled
from tune_rsst.settings.settings import SweepSettings

EPOCHS = 14  # of a round, as in the default sweep


def curve(trial: TrialView, config: RSSTConfig) -> list[dict[str, Any]]:
    """A trial's reports: an epoch is one line, so is a round."""
    found: list[dict[str, Any]] = []
    value = round(max(0.1, 0.97 - 40 * abs(config.lr - 1e-3)), 6)
    for number in range(config.rounds):
        for epoch in range(1, EPOCHS + 1):
            where = {"round": number, "epoch": epoch, "epochs_trained": number * EPOCHS + epoch}
            found.append(
                {"kind": "epoch", **where, "train_loss": 1.0, "val_top1": value, "lr": config.lr, "seconds": 1.0}
            )
        asked = {"kept_share_asked": config.kept_share_after(number), "val_top1": value, "hardening_gap": 0.0}
        found.append({"kind": "round", **where, **METRICS, **asked, "seconds": 14.0})
    return [*found, {**found[-1], "kind": "final", "test_top1": value}]


def play(folder: Path, lines: int) -> tuple[Path, SweepSettings]:
    """A ledger of about `lines` lines, and the sweep's settings."""
    words = ["name=view", "trials=100000", "sampler=random", "optuna_storage=memory"]
    settings, searched = settled(words, Space("formula", space))
    ledger = file.Ledger(folder / "ledger.jsonl")
    driver = assemble(ledger, settings, searched)
    for reports, _ in enumerate(replay.reports(driver, curve, at_once=8), start=1):
        if reports + 2 * len(driver.view.trials) >= lines:  # a trial is suggested and ended
            break
    ledger.close()
    return ledger.path, settings


def milliseconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Play, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, settings = play(Path(folder), options.events)
        events = file.read(path)
        pairs = [
            (
                milliseconds(lambda: file.read(path)),
                milliseconds(lambda: halving.replay(events, halving.Rungs.of(settings))),
            )
            for _ in range(options.repeats)
        ]
    read, rebuild = (statistics.median(column) for column in zip(*pairs, strict=True))
    trials = sum(event["event"] == "suggested" for event in events)
    print(f"{len(events)} events, {trials} trials; medians of {options.repeats}:")
    print(f"reading {read:.1f} ms, view and rungs {rebuild:.1f} ms: {rebuild / read:.2f} of the time of reading")


if __name__ == "__main__":
    main()
