"""Does `tune-rsst confirm` choose better than one run each, and how much of the winner's val_top1 was luck?

    python -m benchmarks.confirmed [--seeds 0 1 2 3 4] [--top 3] [--runs 3] [--home FOLDER] [key=value …]

A sweep for each seed (the default one, with the settings that are given), then `confirm` of its best trials. Prints a
Markdown table: what the ranking by one run each chooses and what confirm chooses; val_top1 and test_top1 of the
winner's single run ("before"), means over the fresh seeds for both choices ("after"); how far val lies above test. The
choices are compared by their mean test_top1 over the same fresh seeds on the same test images. A sweep that is there
already is not run again, and one that was interrupted goes on. Trials are trained in this process, one after the other,
which gives the same numbers as Ray but for the order in which rungs fill. Figures: docs/figures/confirmed.json.
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
from tune_rsst.runners import serial
from tune_rsst.settings.written import written_in
from tune_rsst.storage.folder import Sweep, SweepFolder

COLUMNS = {
    "seed": "seed",
    "single": "chosen by one run",
    "confirmed": "chosen by confirm",
    "val_before": "its val_top1, one run",
    "test_before": "its test_top1, one run",
    "gap_before": "val − test before",
    "test_single": "mean test_top1 of the single run's choice",
    "test_confirmed": "mean test_top1 of confirm's choice",
    "gain": "confirm − single (points)",
    "val_after": "mean val_top1 of confirm's choice",
    "gap_after": "val − test after",
}


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings of the sweeps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="fresh seeds for each trial")
    parser.add_argument("--home", type=Path, default=Path(".tune_rsst").absolute(), help="TUNE_RSST_HOME of the sweeps")
    asked = parser.parse_args()
    began = time.monotonic()
    rows = [row(asked.home, seed, asked.top, asked.runs, asked.words) for seed in asked.seeds]
    about = {"settings": asked.words, "top": asked.top, "runs": asked.runs}
    (FIGURES / "confirmed.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(list(COLUMNS.values()), [[_text(one[name]) for name in COLUMNS] for one in rows]))
    print(f"\nSettings: {' '.join(asked.words) or 'the default'}; top {asked.top}, {asked.runs} fresh seeds each")
    for name in ("gap_before", "gap_after", "test_single", "test_confirmed", "gain"):
        values = [one[name] for one in rows]
        print(f"{COLUMNS[name]}: mean {mean(values):.4f} ± {spread(values):.4f} over {len(values)} sweeps")
    print(f"minutes: {(time.monotonic() - began) / 60:.1f}")


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def row(home: Path, seed: int, top: int, runs: int, words: list[str]) -> dict[str, Any]:
    """One sweep, ranked by one run each and confirmed."""
    os.environ["TUNE_RSST_HOME"] = str(home)
    name, console = f"confirmed-{seed}", Console(stderr=True, width=200)
    runner = partial(serial.run, folder=SweepFolder(home / name))
    resume = (home / name).is_dir()
    plan = make_plan(written_in([*([] if resume else words), f"seed={seed}"], name=name), None, resume)
    if code := conduct.run(plan, console, runner, models=False):
        raise SystemExit(f"the sweep {name} ended with exit code {code}")
    if code := conduct.confirm(confirmation(name), top, runs, console, runner, models=False):
        raise SystemExit(f"confirm {name} ended with exit code {code}")
    return {"seed": seed, **compared(as_json(Sweep.of(SweepFolder(home / name))))}


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """The two choices in what `confirm --json` prints."""
    trials = {one["id"]: one for one in found["trials"]}
    single = trials[found["ranked"][0]]
    confirmed, before = trials[found["chosen"]], single["of_the_trial"]
    test_single, test_confirmed = single["test_top1"]["mean"], confirmed["test_top1"]["mean"]
    return {
        "single": single["id"],
        "confirmed": confirmed["id"],
        "val_before": before["val_top1"],
        "test_before": before["test_top1"],
        "gap_before": before["val_top1"] - before["test_top1"],
        "test_single": test_single,
        "test_confirmed": test_confirmed,
        "gain": 100 * (test_confirmed - test_single),
        "val_after": confirmed["val_top1"]["mean"],
        "gap_after": confirmed["val_top1"]["mean"] - test_confirmed,
    }


if __name__ == "__main__":
    main()
