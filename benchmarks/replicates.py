"""Does a sweep that ranks by the mean of several seeds choose better, for the same epochs?

    python -m benchmarks.replicates [--seeds 0 1 2] [--replicates 3] [--runs 3] [--home FOLDER] [key=value …]

For each sweep seed two sweeps: one with one seed a trial, and one with `replicates=n` that may train as many epochs as
the first one did (`epoch_budget`). Then the trial that each has chosen is trained again with fresh seeds, which neither
has ranked by. Prints a Markdown table: val_top1 and test_top1 by which each was chosen (of one run; means of n) and how
far the first lies above the second; test_top1 over the fresh seeds. A sweep that is there already is not run again, and
one that was interrupted goes on. Trials are trained in this process, one after the other. Figures:
docs/figures/replicates.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._common import FIGURES, mean, spread, table
from tune_rsst import conduct
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.resume import confirmation
from tune_rsst.results.confirmed.table import as_json
from tune_rsst.results.ranking import best_of
from tune_rsst.runners import serial
from tune_rsst.settings.written import written_in
from tune_rsst.storage.folder import Sweep, SweepFolder

COLUMNS = {
    "seed": "seed",
    "replicates": "seeds a trial",
    "trials": "trials ended",
    "runs": "runs",
    "epochs": "epochs",
    "best": "chosen",
    "val": "its val_top1",
    "test": "its test_top1",
    "gap": "val − test",
    "fresh_val": "fresh val_top1",
    "fresh_test": "fresh test_top1",
    "fall": "val − fresh val",
}


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings of the sweeps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--replicates", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="fresh seeds for each choice")
    parser.add_argument("--home", type=Path, default=Path(".tune_rsst").absolute(), help="TUNE_RSST_HOME of the sweeps")
    asked = parser.parse_args()
    began, rows = time.monotonic(), list[dict[str, Any]]()
    for seed in asked.seeds:
        single = row(asked.home, seed, 1, asked.runs, asked.words)
        budget = [*asked.words, f"epoch_budget={single['epochs']}"]
        rows += [single, row(asked.home, seed, asked.replicates, asked.runs, budget)]
    about = {"settings": asked.words, "runs": asked.runs}
    (FIGURES / "replicates.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(list(COLUMNS.values()), [[_text(one[name]) for name in COLUMNS] for one in rows]))
    print(f"\nSettings: {' '.join(asked.words) or 'the default'}; {asked.runs} fresh seeds for each choice")
    for number in (1, asked.replicates):
        for name in ("gap", "fall", "fresh_test"):
            values = [one[name] for one in rows if one["replicates"] == number]
            told = f"{mean(values):.4f} ± {spread(values):.4f} over {len(values)} sweeps"
            print(f"replicates={number}, {COLUMNS[name]}: mean {told}")
    print(f"minutes: {(time.monotonic() - began) / 60:.1f}")


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def row(home: Path, seed: int, replicates: int, runs: int, words: list[str]) -> dict[str, Any]:
    """One sweep, and what it has chosen again with fresh seeds."""
    os.environ["TUNE_RSST_HOME"] = str(home)
    name, console = f"replicates-{replicates}-{seed}", Console(stderr=True, width=200)
    folder = SweepFolder(home / name)
    runner, resume = partial(serial.run, folder=folder), (home / name).is_dir()
    settings = [] if resume else [*words, f"replicates={replicates}", f"seed={seed}", "confirm=0"]
    plan = make_plan(written_in(settings, name=name), None, resume)
    if code := conduct.run(plan, console, runner, models=False):
        raise SystemExit(f"the sweep {name} ended with exit code {code}")
    view = Sweep.of(folder).view
    best = best_of(view)
    if best is None:
        raise SystemExit(f"no trial of {name} has finished")
    if code := conduct.confirm(confirmation(name), 1, runs, console, runner, models=False):
        raise SystemExit(f"confirm {name} ended with exit code {code}")
    (fresh,) = as_json(Sweep.of(folder))["trials"]
    val, test = best.metrics["val_top1"], best.metrics["test_top1"]
    return {
        "seed": seed,
        "replicates": replicates,
        "trials": sum(not trial.unfinished for trial in view.trials.values()),
        "runs": len(view.trials) + len(view.replicas),
        "epochs": view.spending.epochs,
        "best": best.trial,
        "val": val,
        "test": test,
        "gap": val - test,
        "fresh_val": fresh["val_top1"]["mean"],
        "fresh_test": fresh["test_top1"]["mean"],
        "fall": val - fresh["val_top1"]["mean"],
    }


if __name__ == "__main__":
    main()
