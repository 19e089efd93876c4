"""The default sweep with several seeds: does it find a good small model whatever the seed?

    python -m benchmarks.sweep_seeds [--seeds 0 1 2 3 4] [--home FOLDER]

Prints a Markdown table: per seed the trials by state, the best trial's validation and test accuracy, kept share,
hardening gap, and the minutes that it took here. A sweep that is there already is shown, not run again;
one that was interrupted goes on. Figures: docs/figures/sweep_seeds.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._common import FIGURES, table


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--home", type=Path, default=Path(".tune_rsst").absolute(), help="TUNE_RSST_HOME of the sweeps")
    options = parser.parse_args()
    rows = [record(options.home, seed) for seed in options.seeds]
    (FIGURES / "sweep_seeds.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(list(rows[0]), [[str(value) for value in row.values()] for row in rows]))


def record(home: Path, seed: int) -> dict[str, Any]:
    """One seed's sweep, as a row."""
    name, began = f"seed{seed}", time.monotonic()
    shown = tune_rsst(home, "show", name, "--json")
    if shown.returncode != 0 or json.loads(shown.stdout)["state"] != "finished":
        resume = ["--resume"] if shown.returncode == 0 else []
        ran = tune_rsst(home, "sweep", "--name", name, f"seed={seed}", *resume, show=True)
        if ran.returncode != 0:
            raise SystemExit(f"the sweep {name} ended with exit code {ran.returncode}")
        shown = tune_rsst(home, "show", name, "--json")
    sweep = json.loads(shown.stdout)
    best = sweep["best"]["metrics"]
    states = [trial["state"] for trial in sweep["trials"]]
    return {
        "seed": seed,
        "finished": states.count("finished"),
        "stopped": states.count("stopped"),
        "failed": states.count("failed"),
        "val_top1": round(best["val_top1"], 4),
        "test_top1": round(best["test_top1"], 4),
        "kept_share": round(best["kept_share"], 3),
        "hardening_gap": round(best["hardening_gap"], 4),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def tune_rsst(home: Path, *arguments: str, show: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command line; `show` lets its output through to stderr."""
    return subprocess.run(
        [sys.executable, "-m", "tune_rsst", *arguments],
        env={**os.environ, "TUNE_RSST_HOME": str(home)},
        stdout=sys.stderr if show else subprocess.PIPE,
        stderr=None if show else subprocess.DEVNULL,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    main()
