"""A sweep of many trials with an instant trainable: is the driver's work for a trial flat, and its memory?

python -m benchmarks.many_trials [--trials 2000] [--sampler random] [--plot docs/figures/many_trials.png]

The driver, the ledger (with fsync), the rungs, the study and the live table are the product's; trials are formulas, so
Ray and training take no part. Printed per window of trials: CPU milliseconds a trial
without the sampler's (suggestion and study; waiting for fsync is the disk's and not counted), the sampler's beside
them, resident memory; then the ratio of the last window to the one at trial 200.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from trainables.rsst.config import RSSTConfig
from tune_rsst.driver import assemble
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.view import TrialView
from tune_rsst.results.live import LiveTable
from tune_rsst.runners import replay
from tune_rsst.search.spaces import Space, settled

WINDOW = 100
METRICS = {"kept_share": 0.3, "kept_share_asked": 0.3, "density": 0.3, "params": 1, "gmacs": 1.0}


def space(trial: Any) -> dict[str, Any]:
    """Two numbers on the digits."""
    lr, rate = trial.suggest_float("lr", 1e-4, 1e-2, log=True), trial.suggest_float("rate", 0.35, 0.5)
    return {"dataset": "digits", "epochs": 1, "warmup": 0, "lr": lr, "rate": rate}


def events(rounds: int, value: float, shares: Callable[[int], float]) -> Iterator[dict[str, Any]]:
    """An instant trial's reports."""
    for number in range(rounds):
        where = {"round": number, "epochs_trained": number + 1}
        yield {"kind": "epoch", **where, "epoch": 1, "train_loss": 1.0, "seconds": 0.0}
        last = where | METRICS | {"kept_share_asked": shares(number), "val_top1": value, "hardening_gap": 0.0}
        yield {"kind": "round", **last, "seconds": 0.0}
    yield {"kind": "final", **last, "test_top1": value}


class Timed:
    """Adds up the CPU seconds that this thread spends in some methods of an object."""

    def __init__(self, target: Any, names: tuple[str, ...]) -> None:
        self.spent = 0.0
        for name in names:
            setattr(target, name, self._around(getattr(target, name)))

    def _around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return method(*args, **named)
            finally:
                self.spent += time.thread_time() - began

        return timed


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def accuracy(number: int) -> float:
    """Some accuracy for trial `number`."""
    return 0.5 + 0.4 * (number * 7919 % 1000) / 1000


def instant(trial: TrialView, config: RSSTConfig) -> Iterator[dict[str, Any]]:
    """The curve of a trial."""
    return events(config.rounds, accuracy(trial.number), config.kept_share_after)


def measure(folder: Path, trials: int, sampler: str) -> list[tuple[int, float, float, float]]:
    """Per window: last trial, own ms a trial, sampler's ms a trial, resident MiB."""
    settings, found = settled(["name=many", f"trials={trials}", f"sampler={sampler}"], Space("many", space))
    driver = assemble(Ledger(folder / "ledger.jsonl"), settings, found)
    clock = Timed(driver.searcher, ("ask", "tell", "report_rung"))
    reports = replay.reports(driver, instant)
    table = LiveTable(driver.view, trials, Console(file=io.StringIO()))
    own: list[float] = []
    asked: list[float] = []
    rows = []
    while True:
        began, before = time.process_time(), clock.spent
        if next((trial for trial, _ in reports if trial.ended_at), None) is None:
            return rows
        table.tick()
        spent = clock.spent - before
        own.append(time.process_time() - began - spent)
        asked.append(spent)
        if len(own) % WINDOW == 0:
            late = [1e3 * statistics.median(times[-WINDOW:]) for times in (own, asked)]
            rows.append((len(own), late[0], late[1], resident_mib()))
            print(f"{len(own):6d} of {trials}  own {late[0]:.2f} ms", file=sys.stderr, flush=True)


def draw(rows: list[tuple[int, float, float, float]], path: Path) -> None:
    """The curves as a picture."""
    from benchmarks._common import pyplot

    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
    at = [row[0] for row in rows]
    left.plot(at, [row[1] for row in rows], label="driver, ledger, rungs, table")
    left.plot(at, [row[2] for row in rows], "--", label="sampler and study")
    left.set(xlabel="trials of the sweep", ylabel="CPU ms a trial (median of 100)", ylim=(0, None))
    left.legend()
    right.plot(at, [row[3] for row in rows])
    right.set(xlabel="trials of the sweep", ylabel="driver's memory (MiB)", ylim=(0, None))
    figure.savefig(path)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.trials, options.sampler)
    print(f"sampler {options.sampler}, load {os.getloadavg()[0]:.1f}")
    print("trial   CPU ms a trial   sampler's ms   MiB")
    for trial, own, asked, memory in rows:
        print(f"{trial:5d}   {own:14.2f}   {asked:12.2f}   {memory:.0f}")
    first = next((row for row in rows if row[0] >= 200), rows[0])
    time_ratio, memory_ratio = rows[-1][1] / first[1], rows[-1][3] / first[3]
    print(f"trial {first[0]} to {rows[-1][0]}: CPU time ×{time_ratio:.2f}, memory ×{memory_ratio:.2f}")
    if options.plot:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
