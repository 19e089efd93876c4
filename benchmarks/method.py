"""RSST against refill, one-shot removal and Torch-Pruning: digits, equal epochs, equal kept units.

    python -m benchmarks.method --tune     chooses each method's setting by validation accuracy (seeds 10, 11)
    python -m benchmarks.method            the comparison: 5 seeds, kept 0.5, 0.3, 0.15, 0.10; test is read once a run
    python -m benchmarks.method --time     CPU seconds of one run of each method (seed 0, kept 0.3), nothing shared
    python -m benchmarks.method --quick    one seed, one share, few epochs: do all methods work?
    python -m benchmarks.method --from-json     prints table and figure again from docs/figures/method.json

Prints a Markdown table: accuracy mean ± standard deviation over seeds, largest validation accuracy lost at a removal,
parameters, MACs, seconds of training (wall time, dense epochs included: other programs show in it). Writes
docs/figures/method.json after every run, so that an interrupted comparison goes on where it stopped and several
processes can share it (--seeds), and method.png. One CPU thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import FIGURES, Progress, Results, mean, percent, pyplot, spread, table
from benchmarks._digits import forget_dense
from benchmarks._methods import METHODS, Setting, candidates, label, run_setting

EPOCHS = 24
SHARES = (0.5, 0.3, 0.15, 0.10)
SEEDS = (0, 1, 2, 3, 4)
TUNE_SHARES, TUNE_SEEDS = (0.3, 0.10), (10, 11)
KEYS = ("setting", "seed", "share", "epochs")


def main() -> None:
    """Read the command line and run what it asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tune", action="store_true", help="try settings on validation; test images are not read")
    parser.add_argument("--time", action="store_true", help="CPU seconds of one run of each method")
    parser.add_argument("--quick", action="store_true", help="1 seed, 1 share, 12 epochs, written to no figure")
    parser.add_argument("--from-json", action="store_true", help="print again what the JSON files hold; run nothing")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds; several processes may share the work")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Unwrapped parameters")
    if options.quick:
        quick()
    elif options.time:
        print_times()
    elif options.tune:
        tuned = tuning_results()
        if not options.from_json:
            run_all(tuned, candidates(EPOCHS), options.seeds or TUNE_SEEDS, TUNE_SHARES, read_test=False)
        print_tuning(tuned)
    else:
        found = results()
        if not options.from_json:
            run_all(found, list(chosen(tuning_results()).values()), options.seeds or SEEDS, SHARES, read_test=True)
        print_comparison(found)
        draw(found, FIGURES / "method.png")


def results() -> Results:
    """The comparison's records."""
    about = {"torch": str(torch.__version__), "threads": 1, "data": "digits 70/15/15 % by seed", "epochs": EPOCHS}
    return Results(FIGURES / "method.json", KEYS, about)


def tuning_results() -> Results:
    """The records of the settings tried on validation."""
    return Results(FIGURES / "method_tuning.json", KEYS, {"torch": str(torch.__version__), "read": "validation only"})


def run_all(
    into: Results, settings: Sequence[Setting], seeds: Sequence[int], shares: Sequence[float], *, read_test: bool
) -> None:
    """Run what is not in `into` yet; a seed's runs come together, since they share its dense models."""
    todo = [
        (setting, seed, share)
        for seed in seeds
        for setting in settings
        for share in shares
        if into.find(setting=setting, seed=seed, share=share, epochs=EPOCHS) is None
    ]
    progress = Progress("method", len(todo))
    for setting, seed, share in todo:
        into.refresh()
        if into.find(setting=setting, seed=seed, share=share, epochs=EPOCHS) is not None:
            continue  # another process did it
        record = run_setting(setting, seed, share, EPOCHS, read_test=read_test)
        into.add(record)
        progress.step(f"{setting['method']} ({label(setting)}) seed {seed} kept {share}: val {record['val_top1']:.4f}")


def chosen(tuned: Results) -> dict[str, Setting]:
    """Per method the setting with the best mean validation accuracy over the tuning seeds and kept shares."""
    best: dict[str, tuple[float, Setting]] = {}
    for setting in candidates(EPOCHS):
        top1 = [r["val_top1"] for r in tuned.records if r["setting"] == setting and r["epochs"] == EPOCHS]
        method = setting["method"]
        if top1 and (method not in best or mean(top1) > best[method][0]):
            best[method] = (mean(top1), setting)
    return {method: best[method][1] for method in METHODS if method in best}


def print_tuning(tuned: Results) -> None:
    """Every setting that was tried, with its validation accuracy; the chosen ones are marked."""
    winners = list(chosen(tuned).values())
    rows = []
    for setting in candidates(EPOCHS):
        records = [r for r in tuned.records if r["setting"] == setting]
        by_share = [[r["val_top1"] for r in records if r["share"] == share] for share in TUNE_SHARES]
        if all(by_share):
            mark = "chosen" if setting in winners else ""
            both = percent([top1 for of_share in by_share for top1 in of_share])
            rows.append((setting["method"], label(setting), *map(percent, by_share), both, mark))
    seeds = sorted({r["seed"] for r in tuned.records})
    print(f"Validation accuracy (%), {EPOCHS} epochs in total, seeds {seeds}; test images were not read.\n")
    print(table(("method", "setting", *(f"kept {s}" for s in TUNE_SHARES), "both", ""), rows))


def cells(found: Results, method: str, share: float) -> list[dict[str, Any]]:
    """The records of one cell of the table."""
    return [r for r in found.records if r["setting"]["method"] == method and r["share"] == share]


def print_comparison(found: Results) -> None:
    """The table, and RSST's difference to each other method, paired by seed."""
    rows = []
    for share in SHARES:
        for method in METHODS:
            runs = cells(found, method, share)
            if runs:
                rows.append(
                    (
                        f"{share:g}",
                        method,
                        label(runs[0]["setting"]),
                        percent([r["test_top1"] for r in runs]),
                        percent([r["val_top1"] for r in runs]),
                        f"{100 * mean(abs(r['gap']) for r in runs):.2f}",
                        f"{mean(r['params'] for r in runs):,.0f}",
                        f"{1e3 * mean(r['gmacs'] for r in runs):.4f}",
                        f"{mean(r['seconds'] for r in runs):.1f} ± {spread([r['seconds'] for r in runs]):.1f}",
                        len(runs),
                    )
                )
    head = ("kept", "method", "setting", "test top-1 %", "val top-1 %", "lost at removal (points)")
    print(table((*head, "params", "10⁶ MACs", "seconds (wall)", "seeds"), rows))
    print("\nRSST minus the other, test points, paired by seed (mean ± standard deviation; seeds won):\n")
    print(table(("kept", *METHODS[1:]), [(f"{s:g}", *(_paired(found, m, s) for m in METHODS[1:])) for s in SHARES]))


def _paired(found: Results, method: str, share: float) -> str:
    ours = {r["seed"]: r["test_top1"] for r in cells(found, "rsst", share)}
    other = {r["seed"]: r["test_top1"] for r in cells(found, method, share)}
    gains = [ours[seed] - other[seed] for seed in sorted(set(ours) & set(other))]
    if not gains:
        return "–"
    return f"{100 * mean(gains):+.2f} ± {100 * spread(gains):.2f} ({sum(g > 0 for g in gains)} of {len(gains)})"


def draw(found: Results, path: Path) -> None:
    """Test accuracy against the share of the parameters that is left, with error bars."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    for number, (method, marker) in enumerate(zip(METHODS, "osD^v", strict=True)):
        points = [(share, cells(found, method, share)) for share in SHARES]
        points = [(share, runs) for share, runs in points if runs]
        if not points:
            continue
        x = [share * (1 + 0.025 * (number - 2)) for share, _ in points]
        y = [100 * mean(r["test_top1"] for r in runs) for _, runs in points]
        error = [100 * spread([r["test_top1"] for r in runs]) for _, runs in points]
        axes.errorbar(x, y, yerr=error, marker=marker, markersize=5, capsize=2, linewidth=1.2, label=method)
    axes.set_xscale("log")
    axes.set_xticks(SHARES, [f"{share:g}" for share in SHARES])
    axes.minorticks_off()
    axes.set_xlabel("kept share of heads and of neurons")
    axes.set_ylabel("test accuracy (%)")
    seeds = len({r["seed"] for r in found.records})
    axes.set_title(f"digits, {EPOCHS} epochs in total, mean ± sd of {seeds} seeds", fontsize=9)
    axes.legend(loc="lower right")
    figure.savefig(path)
    plt.close(figure)


def print_times() -> None:
    """CPU seconds of the process for one run of each method, dense epochs and every evaluation included."""
    rows = []
    for method, setting in chosen(tuning_results()).items():
        forget_dense()
        began = time.process_time()
        run_setting(setting, 0, 0.3, EPOCHS, read_test=False)
        rows.append((method, label(setting), f"{time.process_time() - began:.1f}"))
    print(table(("method", "setting", "CPU seconds"), rows))


def quick() -> None:
    """Every candidate once at a tenth of the size; nothing is written."""
    for setting in candidates(12):
        record = run_setting(setting, 0, 0.3, 12, read_test=False)
        shown = ("val_top1", "gap", "heads_kept", "neurons_kept", "params", "seconds")
        print(setting["method"], label(setting), {name: round(float(record[name]), 4) for name in shown}, flush=True)


if __name__ == "__main__":
    main()
