"""Dense rounds that trials share: how many are trained, whether anything else changes, what it saves.

    python -m benchmarks.dense_rounds                                    12 trials, 4 dense rounds, 3 kills
    python -m benchmarks.dense_rounds --trials 64 --dense 1 --epochs 2   one dense round for all, as in `penalty`
    python -m benchmarks.dense_rounds --rungs                            with early stopping, one trial at a time

In: nothing; digits, two workers of a local Ray, the same points in both sweeps. Which trial a rung stops hangs on the
order in which they come to it, so `--rungs` has no Ray: the same order in both, and what the rungs said is compared.
Out: a line each for the sweep that shares (killed -9 at random moments from a seed, and resumed) and for one that does
not (left alone): epochs by the arithmetic, epochs really trained (what a kill cost included), wall time.
Exit code 1 where a report, a state or a model (sha256) differs, or more was trained than the arithmetic / 0.9.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, Progress
from trainables.rsst.metrics import CIRCUMSTANCES
from tune_rsst.ledger.file import read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.storage.folder import SweepFolder

ROUNDS, RATE, TARGET, LIMIT_S, GOAL = 4, 0.4, 0.2, 3000.0, 0.9
NAME = "shared"
OF_THE_SHARING = frozenset({"epochs_adopted", "adopted_from"})


@dataclass(frozen=True)
class Asked:
    """What is compared: so many trials on so many different dense rounds, kills of the driver that shares."""

    trials: int
    dense: int
    epochs: int
    kills: int
    seed: int
    rungs: bool = False

    @property
    def points(self) -> list[dict[str, Any]]:
        """Trials that differ in what comes after the dense round, and every `dense`-th of which has the same one."""
        grain = [0.1 + 0.9 * number / self.trials for number in range(self.trials)]
        rates = [1e-3 * (1 + number % self.dense) for number in range(self.trials)]
        return [{"lr": lr, "reg_granularity_prune": g} for lr, g in zip(rates, grain, strict=True)]

    @property
    def program(self) -> list[str]:
        """What runs a sweep: the product, or the same without Ray."""
        return ["benchmarks._serial"] if self.rungs else ["tune_rsst", "sweep"]

    def epochs_due(self, shared: bool) -> int:
        """By arithmetic: each different dense round once, or once a trial; the other rounds once a trial."""
        return self.epochs * ((self.dense if shared else self.trials) + self.trials * (ROUNDS - 1))

    def words(self, home: Path, shared: bool) -> list[str]:
        """The sweep's settings."""
        size = "" if self.rungs else f"'rate': {RATE}, "
        space = home.with_name(f"{home.name}.py")  # a file below the home would have to be trusted on a resume
        space.write_text(
            "def meeting(trial):\n"
            "    lr = trial.suggest_float('lr', 5e-4, 2e-2, log=True)\n"
            "    g = trial.suggest_float('reg_granularity_prune', 0.05, 2.0, log=True)\n"
            f"    return {{'dataset': 'digits', 'epochs': {self.epochs}, 'warmup': 0, 'batch_size': 128,\n"
            f"            'pruning_times': {ROUNDS}, {size}'lr': lr, 'reg_granularity_prune': g}}\n",
            encoding="utf-8",
        )
        (home / "points.yaml").write_text(json.dumps(self.points), encoding="utf-8")
        fixed = ["sampler=random", "confirm=0", "max_concurrent_trials=2", "optuna_storage=memory"]
        fixed += ["stopping=halving", f"target_density={TARGET}"] if self.rungs else ["stopping=none"]
        more = [f"share_dense={str(shared).lower()}", f"points={home / 'points.yaml'}", f"trials={self.trials}"]
        return [f"space={space}:meeting", f"name={NAME}", "resume=auto", *fixed, *more]


def lines(folder: SweepFolder) -> list[dict[str, Any]]:
    """The ledger so far."""
    with suppress(LedgerError, OSError):
        return list(read(folder.ledger))
    return []


def life(asked: Asked, home: Path, shared: bool, reports: int | None) -> int | None:
    """One command, killed -9 with all its processes when the ledger has `reports`; its exit code where it ended."""
    folder = SweepFolder(home / NAME)
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *asked.program, *asked.words(home, shared)],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TUNE_RSST_HOME": str(home),
                "TUNE_RSST_CACHE": str(home / "cache"),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + LIMIT_S
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if reports is not None and sum(e["event"] == "reported" for e in lines(folder)) >= reports:
                    return None
                time.sleep(0.1)
            return process.poll()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(asked: Asked, home: Path, shared: bool, progress: Progress) -> tuple[float, int]:
    """The whole sweep, with its kills where it shares; seconds from the first command to the last prompt, and kills."""
    home.mkdir()
    draw, began = random.Random(asked.seed), time.monotonic()
    in_all = asked.epochs_due(shared) + asked.trials * ROUNDS
    kills = (
        sorted(draw.uniform(0.05, 0.4 if asked.rungs else 0.8) * in_all for _ in range(asked.kills)) if shared else []
    )
    done = 0
    for reports in [*map(int, kills), None]:
        code = life(asked, home, shared, reports)
        last = (home / "log").read_text(encoding="utf-8").strip().rpartition("\n")[2]
        progress.step("killed" if code is None else f"ended with exit code {code}: {last}")
        if code is not None:
            break
        done += 1
    return time.monotonic() - began, done


def told(trial: TrialView) -> dict[str, Any]:
    """What a trial reported, how it ended and why, but for what a clock says and whose its dense round was."""
    leave = CIRCUMSTANCES | OF_THE_SHARING
    rounds = [{k: v for k, v in report.items() if k not in leave} for report in trial.round_events]
    ended = {"state": trial.state, "rung": trial.rung, "reason": trial.reason}
    return ended | {"rounds": rounds, "final": {k: v for k, v in trial.metrics.items() if k not in leave}}


def outcome(home: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Trial → what it told, sha256 of its model."""
    folder = SweepFolder(home / NAME)
    found = {}
    for trial in SweepView.of(lines(folder)).trials.values():
        model = folder.store(trial.fingerprint) / "model.safetensors"
        found[trial.trial] = told(trial), hashlib.sha256(model.read_bytes()).hexdigest() if model.exists() else ""
    return found


def trained(home: Path) -> tuple[int, int]:
    """Epochs that were really trained, those that a kill made necessary again included; dense rounds of their own."""
    reached: dict[str, int] = {}
    adopted: dict[str, str] = {}  # a trial that a kill parted from its own dense round takes that over
    again = 0
    for event in lines(SweepFolder(home / NAME)):
        if event["event"] == "reported":
            adopted |= {event["trial"]: name} if (name := event["metrics"].get("adopted_from")) else {}
            reached[event["trial"]] = max(reached.get(event["trial"], 0), event["metrics"].get("epochs_trained", 0))
        elif event["event"] == "placed":
            again += max(0, reached.get(event["trial"], 0) - event["epochs_there"])
    trials = SweepView.of(lines(SweepFolder(home / NAME))).trials.values()
    own = [trial for trial in trials if adopted.get(trial.trial) in (None, trial.fingerprint)]
    return sum(t.metrics["epochs_trained"] - t.metrics.get("epochs_adopted", 0) for t in trials) + again, len(own)


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Trials that differ."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def main() -> int:
    """Run both, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--dense", type=int, default=4, help="different dense rounds among them")
    parser.add_argument("--epochs", type=int, default=6, help="of a round")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rungs", action="store_true", help="early stopping, one trial at a time without Ray")
    asked = Asked(**vars(parser.parse_args()))
    progress = Progress("dense rounds", asked.kills + 2)
    with tempfile.TemporaryDirectory(prefix="dense") as place:
        homes = {shared: Path(place) / ("shares" if shared else "alone") for shared in (True, False)}
        seconds, kills = {}, {}
        for shared, home in homes.items():
            seconds[shared], kills[shared] = run(asked, home, shared, progress)
        spent, own = trained(homes[True])
        alone, _ = trained(homes[False])
        found = {shared: outcome(home) for shared, home in homes.items()}
        differ = same(*found.values())
        saved = asked.epochs * (asked.trials - asked.dense)
        due = alone - saved if asked.rungs else asked.epochs_due(True)
        print(
            f"shared: {asked.trials} trials, {own} dense rounds trained of {asked.dense} different ones; epochs {due} "
            f"by arithmetic, {spent} trained ({due / spent:.2f}); {seconds[True]:.0f} s with {kills[True]} kills"
        )
        by = "" if asked.rungs else f" {asked.epochs_due(False)} by arithmetic,"
        print(f"not shared: epochs{by} {alone} trained; {seconds[False]:.0f} s")
        if asked.rungs:
            told = [trial for trial, _ in found[False].values()]
            stopped = sum(trial["state"] == "stopped" for trial in told)
            print(f"stopped by a rung: {stopped} of {len(told)} trials; what kills cost is not counted without Ray")
        print(f"trials whose reports, rung, state or model differ: {', '.join(differ) or 'none'}")
        complete = len(found[False]) == asked.trials
    return int(bool(differ) or not complete or own != asked.dense or spent * GOAL > due)


if __name__ == "__main__":
    raise SystemExit(main())
