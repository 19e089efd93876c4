"""What tracking costs the driver, and whether the uploader keeps up.

python -m benchmarks.tracking [--server] [--seconds 60] [--trials 16] [--per-second 1]

Part 1: `trials` trials report at `per-second` into a ledger while the uploader writes to a fresh database. Printed:
the time of notify() in the event loop, of a whole report (ledger line with fsync, then notify) with the uploader and
without it, how many lines the upload was behind, and how long the rest took at the end.
Part 2: the same lines at once, as `tune-rsst sync` would upload them.
--server: through `mlflow server` on this machine (one worker, sqlite behind it) instead of into the database itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from tune_rsst.ledger.file import Ledger
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking.uploader import Uploader

FIRST_UPLOAD_S, SERVER_START_S = 120.0, 180.0


def begin(ledger: Ledger, trials: int) -> None:
    """A sweep of `trials` trials that have just been suggested."""
    ledger.append("sweep_started", name="bench", settings={"target_density": 0.3}, space="digits", seed=0)
    for number in range(trials):
        about = {"number": number, "params": {"lr": 1e-3}, "distributions": {}, "knobs": {"lr": 1e-3, "epochs": 14}}
        ledger.append("suggested", trial=f"t{number:04d}", fingerprint=f"{number:016x}", rounds=1, **about)


def report(ledger: Ledger, trial: int, epoch: int) -> None:
    """One epoch's line."""
    about = {"round": 0, "epoch": epoch, "epochs_trained": epoch, "train_loss": random.random(), "lr": 1e-3}
    about |= {"val_top1_before_hardening": random.random(), "doomed_norm_left": random.random(), "seconds": 1.0}
    ledger.append("reported", trial=f"t{trial:04d}", seq=epoch, kind="epoch", metrics=about)


def drive(
    ledger: Ledger, notify: Callable[[], None], seconds: float, trials: int, rate: float
) -> dict[str, list[float]]:
    """Report on schedule; the times in ms."""
    costs: dict[str, list[float]] = {"notify": [], "report": []}
    begun = time.monotonic()
    for n in range(int(seconds * trials * rate)):
        time.sleep(max(0.0, begun + n / (trials * rate) - time.monotonic()))
        t0 = time.perf_counter()
        report(ledger, n % trials, n // trials + 1)
        t1 = time.perf_counter()
        notify()
        t2 = time.perf_counter()
        costs["notify"].append(1e3 * (t2 - t1))
        costs["report"].append(1e3 * (t2 - t0))
    return costs


def percentiles(values: list[float]) -> str:
    """Median, 99th percentile, largest."""
    values = sorted(values)
    return f"median {values[len(values) // 2]:.4f}  p99 {values[len(values) * 99 // 100]:.4f}  max {values[-1]:.4f} ms"


@contextmanager
def tracking(home: Path, server: bool) -> Iterator[str]:
    """A tracking address with a fresh database below `home`; ends the server that it started."""
    uri = sqlite_uri(home)
    if not server:
        yield uri
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", uri]
    command = [sys.executable, "-m", "mlflow", *words, "--artifacts-destination", str(home / "artifacts")]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", home / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(address: str, log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_S
    while True:
        with suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
            if answer.status == 200:
                return
        if time.monotonic() > deadline:
            raise SystemExit(f"the server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.3)


def uploader_of(ledger: Path, uri: str) -> Uploader:
    """One without pictures."""
    settings = {"mlflow_tracking_uri": uri, "mlflow_experiment": "bench"}
    return Uploader(SweepFolder(ledger.parent), settings, files=False)


def live(home: Path, uri: str, seconds: float, trials: int, rate: float) -> Path:
    """Part 1; returns the ledger."""
    alone = Ledger(home / "alone.jsonl")
    begin(alone, trials)
    without = drive(alone, lambda: None, seconds / 4, trials, rate)
    ledger = Ledger(home / "ledger.jsonl")
    begin(ledger, trials)
    uploader = uploader_of(ledger.path, uri)
    t0 = time.monotonic()
    uploader.start()
    while uploader.missing() and time.monotonic() - t0 < FIRST_UPLOAD_S:
        time.sleep(0.05)
    print(f"first upload             {time.monotonic() - t0:.1f} s (makes the database, imports mlflow)")
    cpu, t0 = time.process_time(), time.monotonic()
    costs = drive(ledger, uploader.notify, seconds, trials, rate)
    busy = (time.process_time() - cpu) / (time.monotonic() - t0)
    behind, t0 = uploader.missing(), time.monotonic()
    left = uploader.close(60)
    print(f"{trials} trials, {rate:g} report/s each, {seconds:g} s: {len(costs['notify'])} lines")
    print(f"notify                   {percentiles(costs['notify'])}")
    print(f"report with uploader     {percentiles(costs['report'])}")
    print(f"report without           {percentiles(without['report'])}")
    print(f"behind at the end        {behind} lines; the rest took {time.monotonic() - t0:.1f} s, {left} missing")
    print(f"CPU of the process       {100 * busy:.0f} % of a core")
    return ledger.path


def at_once(ledger: Path, home: Path, uri: str) -> None:
    """Part 2."""
    uploader = uploader_of(ledger, uri)
    t0 = time.monotonic()
    left = uploader.sync_once(300)
    took, lines = time.monotonic() - t0, ledger.read_bytes().count(b"\n")
    print(f"all at once (sync)       {took:.1f} s with making the database, {lines / took:.0f} lines/s; {left} missing")


def main() -> None:
    """Run both parts and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--per-second", type=float, default=1)
    parser.add_argument("--server", action="store_true", help="through an MLflow server of this machine")
    options = parser.parse_args()
    where = "mlflow server on loopback, sqlite behind it" if options.server else "sqlite"
    load = os.getloadavg()[0]
    versions = f"Python {platform.python_version()}, mlflow {version('mlflow')}"
    print(f"{platform.machine()}, {versions}, {where}; load {load:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "live", Path(folder) / "at-once"
        first.mkdir()
        second.mkdir()
        with tracking(first, options.server) as uri:
            ledger = live(first, uri, options.seconds, options.trials, options.per_second)
        with tracking(second, options.server) as uri:
            at_once(ledger, second, uri)


if __name__ == "__main__":
    main()
