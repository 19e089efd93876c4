"""How long is a sweep of one trivial trial, from the command to the prompt, and where do its seconds go?

    python -m benchmarks.start_up                    3 runs (about a minute on two quiet cores)
    python -m benchmarks.start_up --against 91a9f00  with that commit too, in turn, from this clone's history

In: nothing; each run has a home and a cache of its own, and MLflow in that home.
Out: a Markdown table, medians with the smallest and largest: wall seconds of each part (by the ledger's times), of the
whole, and CPU seconds of all processes that the command started, Ray's own too; with `--against` the ratio of each pair
of runs. Wall seconds hold whatever else the machine does, CPU seconds nearly not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks._common import ROOT, Progress, table, tree_of
from benchmarks._processes import timed

SWEEP = ("sweep", "name=trivial", "trials=1", "epochs=1", "pruning_times=2", "target_density=0.9")
PARTS = {
    "until the ledger begins": ("", "sweep_started"),
    "until the first trial is given out": ("sweep_started", "suggested"),
    "until a worker has opened it": ("suggested", "placed"),
    "the trial": ("placed", "ended"),
    "until the end is recorded": ("ended", "sweep_ended"),
    "until the prompt": ("sweep_ended", ""),
}


def one_run(tree: Path) -> dict[str, float]:
    """Seconds of each part, of the whole ("all") and on all cores ("CPU") of one sweep by the code in `tree`."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"TUNE_RSST_HOME": f"{folder}/home", "TUNE_RSST_CACHE": f"{folder}/cache", "PYTHONPATH": str(tree)}
        words = [*SWEEP, *(["confirm=0"] if (tree / "docs" / "confirm.md").exists() else [])]
        spent = timed([sys.executable, "-m", "tune_rsst", *words], own, Path(folder))
        lines = (Path(folder) / "home" / "trivial" / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
        times = {event["event"]: float(event["time"]) for event in map(json.loads, reversed(lines))}
        parts = {
            name: times.get(to, spent.ended) - times.get(start, spent.began) for name, (start, to) in PARTS.items()
        }
        return parts | {"all": spent.wall_s, "CPU": spent.cpu_s}


def _cell(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def rows_of(spent: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    """A row for each part; with two ways the ratio of the first to the second, pair by pair."""
    rows = []
    for part in (*PARTS, "all", "CPU"):
        columns = [[run[part] for run in runs] for runs in spent.values()]
        name = {"all": "from the command to the prompt", "CPU": "CPU seconds of all processes"}.get(part, part)
        ratio = [_cell([own / other for own, other in zip(*columns, strict=True)])] if len(columns) == 2 else []
        rows.append([name, *map(_cell, columns), *ratio])
    return rows


def main() -> None:
    """Read the command line, take turns, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=3, help="of each way")
    parser.add_argument("--against", metavar="COMMIT", help="that commit in turn, and ratios to it")
    given = parser.parse_args()
    with ExitStack() as stack:
        ways = {"now": ROOT}
        if given.against:
            ways[given.against] = stack.enter_context(tree_of(given.against))
        progress = Progress("start_up", given.runs * len(ways))
        spent: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(given.runs):
            for name, tree in ways.items():
                spent[name].append(one_run(tree))
                progress.step(f"{name}: {spent[name][-1]['all']:.1f} s, {spent[name][-1]['CPU']:.1f} s of CPU")
    head = ["seconds", *spent, *([f"ratio to {given.against}"] if given.against else [])]
    print(table(head, rows_of(spent)))


if __name__ == "__main__":
    main()
