"""How well does `tune-rsst sweep --dry-run` foresee how long the sweep takes, on a machine that others use?

    python -m benchmarks.dry_run                          five dry runs, a sweep after each (about 25 minutes)
    python -m benchmarks.dry_run --sweeps 2               five dry runs, two sweeps among them
    python -m benchmarks.dry_run trials=4 epochs=4        with other settings

In: settings of the sweep; none: the digits with its defaults. Out: a Markdown table: what each dry run said from the
command to the prompt ("in all"), what the sweep took that came next (the last one, where none did), their ratio, the
load of the machine after each. Exit code 1 where one said is off by more than 30 % of what was taken.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._common import ROOT, Progress, table
from benchmarks._processes import timed

GOAL = 0.3
UNITS_S = {"d": 86400, "h": 3600, "min": 60, "s": 1}
HEAD = ("said (s)", "taken (s)", "said / taken", "load at the dry run", "load after the sweep")


def seconds(words: str) -> int:
    """The inverse of `trainables.text.duration`: "3 min 20 s" is 200."""
    return sum(int(number) * UNITS_S[unit] for number, unit in re.findall(r"(\d+) (d|h|min|s)\b", words))


def said(output: str) -> int:
    """Seconds that a plan names in its line "in all"."""
    line = next(line for line in output.splitlines() if line.startswith("  in all"))
    return seconds(line.partition("from the command")[0])


def run(words: Sequence[str], folder: Path, dry: bool) -> tuple[float, float]:
    """Seconds that a dry run says, or that a sweep takes; the load of the machine after it."""
    folder.mkdir()
    more = {"TUNE_RSST_HOME": f"{folder}/home", "TUNE_RSST_CACHE": f"{folder}/cache", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tune_rsst", "sweep", "name=foreseen", *words, *(["--dry-run"] if dry else [])]
    spent = timed(command, more, folder)
    took = said((folder / "output.txt").read_text(encoding="utf-8")) if dry else spent.wall_s
    return took, os.getloadavg()[0]


def turns(runs: int, sweeps: int) -> list[bool]:
    """The order: True a dry run; the sweeps lie evenly among them."""
    after = {round((number + 1) * runs / sweeps) for number in range(sweeps)}
    return [dry for number in range(1, runs + 1) for dry in ([True, False] if number in after else [True])]


def pairs(done: Sequence[tuple[bool, float, float]]) -> list[tuple[float, float, float, float]]:
    """Of each dry run what it said, what the next sweep took (else the last one), and both loads."""
    found = []
    for position, (dry, value, load) in enumerate(done):
        if dry:
            sweeps = [turn for turn in done[position:] if not turn[0]] or [turn for turn in done if not turn[0]][-1:]
            found.append((value, sweeps[0][1], load, sweeps[0][2]))
    return found


def main() -> int:
    """Take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings of the sweep")
    parser.add_argument("--runs", type=int, default=5, help="dry runs (default: %(default)s)")
    parser.add_argument("--sweeps", type=int, help="default: as many as dry runs")
    given = parser.parse_args()
    order = turns(given.runs, given.sweeps or given.runs)
    progress, done = Progress("dry run", len(order)), []
    with tempfile.TemporaryDirectory(prefix="dry") as place:
        for number, dry in enumerate(order):
            done.append((dry, *run(given.words, Path(place) / str(number), dry)))
            progress.step(f"{'said' if dry else 'taken'} {done[-1][1]:.0f} s")
    found = pairs(done)
    ratios = [told / took for told, took, *_ in found]
    rows = [[f"{told:.0f}", f"{took:.0f}", f"{told / took:.2f}", *(f"{x:.1f}" for x in loads)]
            for told, took, *loads in found]  # fmt: skip
    print(table(HEAD, rows))
    within = sum(abs(ratio - 1) <= GOAL for ratio in ratios)
    print(f"\nwithin {GOAL:.0%}: {within} of {len(ratios)}; median of the ratios {statistics.median(ratios):.2f}")
    return int(within < len(ratios))


if __name__ == "__main__":
    raise SystemExit(main())
