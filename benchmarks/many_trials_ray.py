"""The same question as many_trials.py through Ray Tune: a whole sweep of the product with an instant trainable.

python -m benchmarks.many_trials_ray [--trials 2000] [--sampler random]

Everything is the product's own (`tune_rsst.conduct.run`: a local Ray, reused workers, the ledger, the study in sqlite,
the uploader to MLflow in sqlite), except that a trial reports its rounds at once and leaves no model: conduct is given
a runner that runs another trainable on Ray, and told that there are no models to copy or draw.
Printed per window of 200 trials, for the driver's process: wall milliseconds a trial; CPU of the main thread (Tune's
event loop, driver, ledger, rungs, table) without the sampler's; the sampler's beside it; CPU of all threads (Ray's and
the uploader's too); resident memory; how many worker processes there were. Then the ratios of the last window to the
one at trial 200.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.many_trials import Timed, resident_mib

WINDOW = 200  # the uploader writes every 5 s: a window must hold several of its batches
SPACE = "benchmarks.many_trials:space"


Row = tuple[int, *tuple[float, ...]]


class Curves:
    """Called at each step of Tune's loop; keeps a row for each window."""

    def __init__(self, driver: Any, trials: int) -> None:
        self.rows: list[Row] = []
        self._view, self._trials = driver.view, trials
        self._clock = Timed(driver.searcher, ("ask", "tell", "report_rung"))
        self._before, self._count = self._now(), 0

    def _now(self) -> tuple[float, ...]:
        sampler = self._clock.spent
        return time.perf_counter(), time.thread_time() - sampler, sampler, time.process_time()

    def tick(self) -> None:
        count = len(self._view.trials)
        if count // WINDOW == self._count // WINDOW:
            return
        now, trials = self._now(), count - self._count
        each = [1e3 * (after - before) / trials for after, before in zip(now, self._before, strict=True)]
        self.rows.append((count, *each, resident_mib()))
        print(f"{count:6d} of {self._trials}  {each[0]:.0f} ms a trial", file=sys.stderr, flush=True)
        self._before, self._count = now, count


def measure(trials: int, sampler: str) -> tuple[list[Row], int, int]:
    """Rows as in `Curves`, the exit code, the number of worker processes."""
    from tune_rsst import conduct
    from tune_rsst.planning import begin
    from tune_rsst.settings import written
    from tune_rsst.storage.folder import Sweep

    words = [f"space={SPACE}", f"trials={trials}", f"sampler={sampler}", "name=many"]
    made = begin.make_plan(written.given(None, words), None, False)
    rows: list[Row] = []

    def runner(driver: Any, tick: Callable[[], object]) -> None:
        with conduct.on_ray(made, driver, lambda line: None, instant) as play:
            curves = Curves(driver, trials)
            play(driver, lambda: (curves.tick(), tick()))
        rows.extend(curves.rows)

    code = conduct.run(made, Console(file=io.StringIO()), runner, models=False)
    workers = {place["host"] for trial in Sweep.of(made.folder).view.trials.values() for place in trial.places}
    return rows, code, len(workers)


def instant() -> Any:
    """The trainable; Ray is imported only now, because its token must be in the environment by then."""
    from benchmarks.instant_trainable import Instant

    return Instant


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sampler", default="random")
    options = parser.parse_args()
    root = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUNE_RSST_HOME"] = folder
        rows, code, workers = measure(options.trials, options.sampler)
    print(f"sampler {options.sampler}, load {os.getloadavg()[0]:.1f}; exit code {code}; {workers} worker processes")
    print("trial   ms a trial   main thread's CPU ms   sampler's CPU ms   all threads' CPU ms   MiB")
    for trial, wall, main_cpu, sampler_cpu, all_cpu, memory in rows:
        print(f"{trial:5d}   {wall:10.1f}   {main_cpu:20.2f}   {sampler_cpu:16.2f}   {all_cpu:19.1f}   {memory:.0f}")
    names = ("time", "main thread's CPU", "sampler's CPU", "all threads' CPU", "memory")
    ratios = (f"{name} ×{last / first:.2f}" for name, last, first in zip(names, rows[-1][1:], rows[0][1:], strict=True))
    print(f"trial {rows[0][0]} to {rows[-1][0]}: {', '.join(ratios)}")


if __name__ == "__main__":
    main()
