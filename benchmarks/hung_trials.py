"""A sweep on a local Ray whose workers are slowed down, or stopped for ever: who is ended for hanging, and how soon.

    python -m benchmarks.hung_trials --trials 40 --slower 4     no worker hangs: none may be ended
    python -m benchmarks.hung_trials --trials 8 --stops 5        SIGSTOP at random moments: each is noticed

Slower: each worker is stopped and continued ten times in 4 s, so that it runs for one part in `--slower`. Prints for
each stop when the worker's process was ended and the limit of its trial; how many were ended that nobody had stopped;
and whether every model has the bytes of a sweep without Ray that was left alone; a trial that is stopped twice in one
round fails. Exit code 1 where a model differs, a stop was not noticed, or one was ended that was not stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tune_rsst.driver import assemble
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.view import SweepView
from tune_rsst.runners import serial
from tune_rsst.runners.silence import limit_s, own_rounds_s
from tune_rsst.search.spaces import settled
from tune_rsst.storage.folder import SweepFolder

CYCLE_S = 0.4
SPACE = """
def small(trial):
    return {"dataset": "digits", "epochs": EPOCHS, "batch_size": 128, "warmup": 0, "rate": 0.5,
            "lr": trial.suggest_float("lr", 1e-3, 4e-3, log=True)}
"""


def workers(driver: int, called: str = "ray::SweepTrainable") -> list[int]:
    """Processes that run trials; `called` ".train": those that are at it now."""
    below = list[psutil.Process]()
    with suppress(psutil.Error):
        below = psutil.Process(driver).children(recursive=True)
    found = []
    for one in below:
        with suppress(psutil.Error):
            if called in " ".join(one.cmdline()):
                found.append(one.pid)
    return found


def tell(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that are there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def disturb(process: subprocess.Popen[bytes], slower: float, stops: int, every_s: float, seed: int) -> dict[int, float]:
    """Slow the workers down and stop some, as long as the sweep runs. Process → when it was stopped for ever."""
    draw, stopped = random.Random(seed), dict[int, float]()
    next_stop = time.monotonic() + draw.uniform(0.5, 1.5) * every_s if stops else float("inf")
    while process.poll() is None:
        found = [pid for pid in workers(process.pid) if pid not in stopped]
        training = [pid for pid in workers(process.pid, "ray::SweepTrainable.train") if pid not in stopped]
        if training and time.monotonic() >= next_stop:
            victim = draw.choice(training)
            tell([victim], signal.SIGSTOP)
            stopped[victim] = time.time()
            next_stop = time.monotonic() + draw.uniform(0.5, 1.5) * every_s if len(stopped) < stops else float("inf")
            found = [pid for pid in found if pid != victim]
        for _ in range(10):
            if slower > 1:
                tell(found, signal.SIGSTOP)
                time.sleep(CYCLE_S * (1 - 1 / slower))
                tell(found, signal.SIGCONT)
            time.sleep(CYCLE_S / slower)
    return stopped


def words(home: Path, arguments: argparse.Namespace) -> list[str]:
    """The settings of the sweep."""
    file = home / "small_space.py"
    file.write_text(SPACE.replace("EPOCHS", str(arguments.epochs)), encoding="utf-8")
    fixed = ["sampler=random", "stopping=none", "target_density=0.45", "max_concurrent_trials=2"]
    limits = [f"hung_after_s={arguments.hung_after_s:g}", f"hung_first_round_s={arguments.hung_first_round_s:g}"]
    return [f"space={file}:small", "name=hung", f"trials={arguments.trials}", *fixed, *limits]


def models(folder: SweepFolder, view: SweepView) -> dict[str, str]:
    """Trial → how it ended, and sha256 of its model."""
    found = {}
    for trial in view.trials.values():
        model = folder.store(trial.fingerprint) / "model.safetensors"
        found[trial.trial] = f"{trial.state} {hashlib.sha256(model.read_bytes()).hexdigest() if model.exists() else ''}"
    return found


def ended(events: Iterable[dict[str, Any]], arguments: argparse.Namespace) -> list[tuple[int, float, float | None]]:
    """Process, time and limit of each trial that was ended for hanging."""
    view, found = SweepView(), []
    for event in events:
        view.apply(event)
        if event["event"] == "hung":
            trial = view.trials[event["trial"]]
            said = re.search(r"its process (\d+) on", event["reason"])
            spoke = len(trial.places) >= len(trial.silences)
            limit = limit_s(arguments.hung_after_s, arguments.hung_first_round_s, own_rounds_s(trial), spoke=spoke)
            found.append((int(said[1]) if said else 0, float(event["time"]), limit))
    return found


def run_disturbed(home: Path, arguments: argparse.Namespace) -> tuple[int, dict[int, float]]:
    """Run the sweep in `home` on a local Ray; its exit code, and who was stopped when."""
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tune_rsst", "sweep", *words(home, arguments)],
            env={**os.environ, "TUNE_RSST_HOME": str(home)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            stopped = disturb(process, arguments.slower, arguments.stops, arguments.every_s, arguments.seed)
        finally:
            if process.poll() is None:  # this program was interrupted
                tell(workers(process.pid), signal.SIGCONT)
                process.send_signal(signal.SIGINT)
                process.wait(60)
    return process.returncode, stopped


def run_alone(folder: SweepFolder, home: Path, arguments: argparse.Namespace) -> dict[str, str]:
    """The models of the same suggestions without Ray."""
    folder.path.mkdir()
    settings, space = settled(words(home, arguments))
    driver = assemble(Ledger(folder.ledger), settings, space)
    serial.run(driver, lambda: None, folder)
    return models(folder, driver.view)


def main() -> int:
    """Run the sweep, disturb it, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--slower", type=float, default=1.0)
    parser.add_argument("--stops", type=int, default=0)
    parser.add_argument("--every_s", type=float, default=40.0, help="mean time from one stop to the next")
    parser.add_argument("--hung_after_s", type=float, default=60.0)
    parser.add_argument("--hung_first_round_s", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hung") as place:
        home, began = Path(place) / "home", time.monotonic()
        home.mkdir()
        code, stopped = run_disturbed(home, arguments)
        passed, folder = time.monotonic() - began, SweepFolder(home / "hung")
        events = list(read(folder.ledger))
        view, ends = SweepView.of(events), ended(events, arguments)
        for pid, at, limit in ends:
            since = f"{at - stopped[pid]:.1f} s after SIGSTOP" if pid in stopped else "though nobody had stopped it"
            print(f"process {pid} ended {since}; its limit was {limit or 0:.1f} s")
        here, alone = models(folder, view), run_alone(SweepFolder(Path(place) / "alone"), home, arguments)
        reports = [(e["trial"], e["seq"]) for e in events if e["event"] == "reported"]
        wrongly = sum(pid not in stopped for pid, _, _ in ends)
        twice = [t.trial for t in view.trials.values() if str(t.reason).startswith("it hung again")]
        equal = sum(here[trial] == alone.get(trial) for trial in here)
        print(
            f"{len(here)} trials in {passed:.0f} s, exit code {code}; {len(stopped)} processes stopped, "
            f"{len(ends) - wrongly} of them ended, {wrongly} ended that were not stopped; {equal} of {len(alone)} "
            f"models as in a sweep left alone, {len(reports) - len(set(reports))} reports twice"
        )
        if twice:
            print(f"failed, as the rule has it, because they were stopped twice in one round: {', '.join(twice)}")
        return int(code not in (0, 3) or wrongly > 0 or len(ends) < len(stopped) or equal + len(twice) < len(alone))


if __name__ == "__main__":
    raise SystemExit(main())
