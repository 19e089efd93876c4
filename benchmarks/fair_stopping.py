"""Which comparison tells early which trial ends better: at equal kept share, at the same round, at the same epoch?

    python -m benchmarks.fair_stopping                      prints the table from docs/figures/curves.json
    python -m benchmarks.fair_stopping --from-home FOLDER   first reads the curves anew from the ledgers that
                                                            `benchmarks.search_pays --home FOLDER` left there

The curves are real: trials of the space `digits`, trained to the end (random search without stopping), five sweeps of
12 trials. For every two trials of a sweep that end at different val_top1 each comparison says which is ahead; counted
is the share of pairs in which it names the one that ends ahead (a tie counts half). "far": trials whose numbers of
rounds differ by 2 or more, where the comparisons differ most. A round has the same number of epochs in all of these
trials, so the same epoch is the same round here.
In: ledgers, or the file.
Out: a Markdown table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks._common import FIGURES, table

CURVES = FIGURES / "curves.json"
TARGET, RUNGS = 0.3, (0.3, 0.6)
Trial = dict[str, Any]


def curves() -> dict[str, dict[str, Trial]]:
    """Sweep → trial → {"rounds": one dict for each hardened round, "val_top1": at the end}."""
    return dict(json.loads(CURVES.read_text(encoding="utf-8")))


def read_from(home: Path) -> None:
    """Write the curves that the ledgers below `home` hold."""
    from tune_rsst.ledger.file import read
    from tune_rsst.ledger.view import SweepView

    names = ("round", "epochs_trained", "kept_share_asked", "val_top1")
    found = {}
    for path in sorted(home.glob("**/random-*/ledger.jsonl")):
        done = [t for t in SweepView.of(read(path)).trials.values() if t.state == "finished"]
        found[path.parent.name] = {
            t.trial: {"rounds": [{n: r[n] for n in names} for r in t.round_events], "val_top1": t.metrics["val_top1"]}
            for t in done
        }
    sweeps = ",\n".join(
        f'"{sweep}": {{\n' + ",\n".join(f' "{name}": {json.dumps(trial)}' for name, trial in trials.items()) + "\n}"
        for sweep, trials in found.items()
    )
    CURVES.write_text(f"{{\n{sweeps}\n}}\n", encoding="utf-8")


def at_share(share: float) -> Callable[[Trial], float]:
    """val_top1 of the first hardened round at that asked kept share or below."""
    return lambda trial: next(float(r["val_top1"]) for r in trial["rounds"] if r["kept_share_asked"] <= share + 1e-9)


def at_round(number: int) -> Callable[[Trial], float]:
    """val_top1 after that round, or after the last where there are fewer."""
    return lambda trial: float(trial["rounds"][min(number, len(trial["rounds"]) - 1)]["val_top1"])


def right(score: Callable[[Trial], float], far: bool) -> tuple[float, int]:
    """Share of pairs that `score` orders as they end, and the number of pairs."""
    points, pairs = 0.0, 0
    for trials in curves().values():
        for a, b in combinations(trials.values(), 2):
            if a["val_top1"] == b["val_top1"] or (far and abs(len(a["rounds"]) - len(b["rounds"])) < 2):
                continue
            ahead = (score(a) - score(b)) * (a["val_top1"] - b["val_top1"])
            points += 1.0 if ahead > 0 else 0.5 if ahead == 0 else 0.0
            pairs += 1
    return points / pairs, pairs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--from-home", type=Path, help="read the curves from these ledgers first")
    options = parser.parse_args()
    if options.from_home:
        read_from(options.from_home)
    scores = {f"equal kept share, {TARGET**q:.2f}": at_share(TARGET**q) for q in RUNGS}
    scores |= {f"after round {k}": at_round(k) for k in (1, 2)}
    rows = []
    for name, score in scores.items():
        every, far = right(score, far=False), right(score, far=True)
        rows.append((name, f"{every[0]:.3f} of {every[1]}", f"{far[0]:.3f} of {far[1]}"))
    print(table(("compared at", "all pairs right", "far pairs right"), rows))


if __name__ == "__main__":
    main()
