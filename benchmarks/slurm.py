"""Does a sweep survive time limits of Slurm by being the same command? docs/cluster/slurm.sbatch on a stand-in.

Everything but Slurm's own commands is real: Ray on two nodes (of this machine), the sweep, its trials on the digits.
Each start of the job is told of its time limit after a few more rounds (SIGTERM to the batch script alone), three
times; then there is time to finish. Printed is what the ledger says: the rounds that were trained, and whether a
checkpoint lacked one of them when a worker opened it.

    python -m benchmarks.slurm [--limits 3] [--rounds 4]
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from tests.ray_nodes import ROOT
from tests.slurm_stand_in import Slurm
from tests.test_slurm import after, environment, lines, rounds, trained_again
from tune_rsst.ledger.view import SweepView

SWEEP = ["trials=4", "target_density=0.4", "epochs=6", "batch_size=64", "stopping=none", "cpus_per_trial=1"]
OURS = '#!/bin/bash\nexec python -m tune_rsst "$@"\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4, help="rounds from one limit to the next")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slurm = Slurm(Path(folder), environment(), tune_rsst=OURS)
        limits = after(words.rounds, words.limits, slurm.folder, "sweep")
        code = slurm.sbatch(
            ROOT / "docs" / "cluster" / "slurm.sbatch",
            *SWEEP,
            name="sweep",
            nodes=2,
            near_the_limit=limits,
            timeout_s=900,
        )
        events = lines(slurm.folder, "sweep")
        if code:
            print(slurm.log)
    trials, trained = SweepView.of(events).trials, Counter(rounds(events))
    due = sum(trial.rounds for trial in trials.values())
    print(f"exit code {code} after {slurm.starts} starts of one job; processes left behind: {len(slurm.left)}")
    opened = sum(event["event"] == "placed" for event in events)
    print(f"{len(trials)} trials, opened {opened} times, {due} rounds due, {len(trained)} trained")
    print(f"trials whose checkpoint was behind a trained round when they went on: {len(trained_again(events))}")


if __name__ == "__main__":
    main()
