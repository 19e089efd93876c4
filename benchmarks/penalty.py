"""Does the penalty really press to zero? Accuracy lost at hardening, doomed norm left and accuracy, against g.

    python -m benchmarks.penalty              all parts (about 20 minutes on one core; goes on where it stopped)
    python -m benchmarks.penalty --quick      one seed, few epochs, few g: does it work? Writes nothing
    python -m benchmarks.penalty --from-json  prints the tables and the figure again from docs/figures/penalty.json

Prints three Markdown tables for digits, kept share 0.3, AdamW and SGD: (1) at the defaults (rate 0.15: 8 prunings),
5 seeds: gap at hardening, predictions changed, share of the doomed norm left; (2) 20 random draws of g from the range
that search_spaces publishes: how many lose at most 0.01; (3) g over four decades, penalty_form normalized and, for
comparison, l2. Parts 2 and 3 prune once (2 rounds, 0.7 of the units at a time, which is harder on the penalty than
the defaults); runs of one seed share their dense round. Writes docs/figures/penalty.json and penalty.png.
Everything is validation: test images are not read. One CPU thread.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks._common import FIGURES, Progress, Results, mean, percent, pyplot, table
from benchmarks._digits import after_round_0, digits, digits_config, prunings_to
from search_spaces.parts import penalty_height
from trainables.rsst.experiment import run

SHARE = 0.3
SEEDS = (0, 1, 2, 3, 4)
DRAWS = 20
DECADES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
OPTIMIZERS: dict[str, dict[str, Any]] = {"adamw": {}, "sgd": {"optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4}}
SERIES = (("normalized", "adamw", (0,)), ("normalized", "sgd", (0,)), ("l2", "adamw", (0,)), ("l2", "sgd", (0,)))
KEYS = ("part", "form", "optimizer", "seed", "g", "epochs")


class RangeOfG:
    """Listens to a search space instead of drawing: keeps the range of g that it asks for."""

    low, high = 0.0, 0.0

    def suggest_float(self, name: str, low: float, high: float, **_: object) -> float:
        """Keep the range."""
        self.low, self.high = low, high
        return low


def published_range() -> tuple[float, float]:
    """The range of g that the search spaces draw from (on a log scale)."""
    listener = RangeOfG()
    penalty_height(listener)  # type: ignore[arg-type]
    return listener.low, listener.high


def main() -> None:
    """Read the command line, run what is missing, print, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="1 seed, 3 epochs a round, 3 values of g")
    parser.add_argument("--from-json", action="store_true", help="print docs/figures/penalty.json again; run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = FIGURES / ("penalty_quick.json" if options.quick else "penalty.json")
    found = Results(path, KEYS, {} if options.from_json else {"torch": str(torch.__version__), "threads": 1})
    if not options.from_json:
        jobs = quick_jobs() if options.quick else all_jobs()
        run_all(found, jobs)
    print_defaults(found)
    print_draws(found)
    print_decades(found)
    if options.quick:
        path.unlink()
    else:
        draw(found)


def all_jobs() -> list[dict[str, Any]]:
    """Every run of the three parts, by its address."""
    jobs = [_job("defaults", "normalized", name, seed, 0.3) for seed in SEEDS for name in OPTIMIZERS]
    low, high = published_range()
    for name in OPTIMIZERS:
        drawn = random.Random(f"penalty {name}")
        values = [low * (high / low) ** drawn.random() for _ in range(DRAWS)]
        jobs += [_job("draws", "normalized", name, SEEDS[i % 2], g) for i, g in enumerate(values)]
    jobs += [_job("decades", form, name, seed, g) for form, name, seeds in SERIES for seed in seeds for g in DECADES]
    return jobs


def quick_jobs() -> list[dict[str, Any]]:
    """A few short runs of every part."""
    jobs = [_job("defaults", "normalized", name, 0, 0.3, epochs=3) for name in OPTIMIZERS]
    jobs += [_job("draws", "normalized", name, 0, 0.5, epochs=3) for name in OPTIMIZERS]
    return jobs + [_job("decades", form, "adamw", 0, g, epochs=3) for form in ("normalized", "l2") for g in (0.01, 1.0)]


def _job(part: str, form: str, optimizer: str, seed: int, g: float, epochs: int = 14) -> dict[str, Any]:
    return {"part": part, "form": form, "optimizer": optimizer, "seed": seed, "g": float(f"{g:.4g}"), "epochs": epochs}


def run_all(found: Results, jobs: Sequence[dict[str, Any]]) -> None:
    """Run what `found` has not yet."""
    todo = [job for job in jobs if found.find(**job) is None]
    progress = Progress("penalty", len(todo))
    for job in todo:
        found.add({**job, **measure(job)})
        progress.step(" ".join(str(value) for value in job.values()))


def measure(job: dict[str, Any]) -> dict[str, float]:
    """One trial: largest gap, largest share of changed predictions, largest norm left over its prunings, accuracy."""
    knobs = {"penalty_form": job["form"], "seed": job["seed"], "epochs": job["epochs"]}
    ending = {"target_density": SHARE} if job["part"] == "defaults" else prunings_to(SHARE, 1)
    config = digits_config(
        arch="vit_digits", reg_granularity_prune=job["g"], **knobs, **ending, **OPTIMIZERS[job["optimizer"]]
    )
    state = after_round_0(config)
    rounds, left = [], 0.0
    for event in run(config, digits(config.seed), state):
        if event.kind == "epoch" and event.metrics["epoch"] == config.epochs:
            left = max(left, event.metrics["doomed_norm_left"])
        if event.kind == "round":
            rounds.append(event.metrics)
            if len(rounds) == config.rounds - 1:
                break  # the final event would read the test images
    return {
        "gap": max(abs(r["round_gap"]) for r in rounds),
        "gap_signed": max((r["round_gap"] for r in rounds), key=abs),
        "changed": max(r["predictions_changed"] for r in rounds),
        "left": left,
        "val_top1": rounds[-1]["val_top1"],
        "dense_top1": state.meta["history"][-1]["val_top1"],
        "prunings": len(rounds),
        "kept_share": rounds[-1]["kept_share"],
    }


def print_defaults(found: Results) -> None:
    """Part 1: mean over seeds of each seed's largest value over its prunings."""
    rows = []
    for name in OPTIMIZERS:
        runs = [r for r in found.records if r["part"] == "defaults" and r["optimizer"] == name]
        if runs:
            gaps, changed, left = ([r[key] for r in runs] for key in ("gap", "changed", "left"))
            cells = [
                f"{mean(gaps):.4f} (largest {max(gaps):.4f})",
                f"{100 * mean(changed):.2f} % ({100 * max(changed):.2f} %)",
            ]
            cells += [f"{mean(left):.1e} ({max(left):.1e})", percent([r["val_top1"] for r in runs])]
            rows.append((name, runs[0]["prunings"], *cells, percent([r["dense_top1"] for r in runs]), len(runs)))
    head = ("optimizer", "prunings", "largest gap of a trial", "predictions changed", "doomed norm left", "val top-1 %")
    print(f"Defaults, kept share {SHARE}:\n\n" + table((*head, "dense val top-1 %", "seeds"), rows))


def print_draws(found: Results) -> None:
    """Part 2: how many draws stay within 0.01."""
    rows = []
    for name in OPTIMIZERS:
        runs = [r for r in found.records if r["part"] == "draws" and r["optimizer"] == name]
        if runs:
            good = sum(r["gap"] <= 0.01 for r in runs)
            span = f"{min(r['g'] for r in runs):.3g} … {max(r['g'] for r in runs):.3g}"
            worst = max(runs, key=lambda r: float(r["gap"]))
            rows.append((name, span, f"{good} of {len(runs)}", f"{worst['gap']:.4f} at g = {worst['g']:.3g}"))
    low, high = published_range()
    print(f"\nRandom g from the published range {low:g} … {high:g}, one pruning to {SHARE}:\n")
    print(table(("optimizer", "g drawn", "gap ≤ 0.01", "worst gap"), rows))


def print_decades(found: Results) -> None:
    """Part 3: one row per g; cells are gap / norm left / accuracy after hardening."""
    runs = [r for r in found.records if r["part"] == "decades"]
    rows = []
    for g in sorted({r["g"] for r in runs}):
        cells = []
        for form, name, _ in SERIES:
            here = _series(found, form, name, g)
            values = [mean(r[key] for r in here) for key in ("gap", "left", "val_top1")] if here else []
            cells.append("{:.3f} / {:.1e} / {:.3f}".format(*values) if values else "–")
        rows.append((f"{g:g}", *cells))
    print("\ng over four decades, one pruning; gap / doomed norm left / val top-1 after hardening:\n")
    print(table(("g", *(f"{form}, {name}" for form, name, _ in SERIES)), rows))


def _series(found: Results, form: str, name: str, g: float) -> list[dict[str, Any]]:
    wanted = {"part": "decades", "form": form, "optimizer": name, "g": g}
    return [r for r in found.records if all(r[key] == value for key, value in wanted.items())]


def draw(found: Results) -> None:
    """Gap, norm left and accuracy against g, one line per form and optimizer; the published range is shaded."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.1))
    texts = (("gap", "accuracy lost at hardening"), ("left", "share of the doomed norm left"))
    for (form, name, _), style in zip(SERIES, ("o-", "s-", "o:", "s:"), strict=True):
        points = [(g, _series(found, form, name, g)) for g in DECADES]
        points = [(g, runs) for g, runs in points if runs]
        for axis, key in zip(axes, ("gap", "left", "val_top1"), strict=True):
            y = [max(mean(r[key] for r in runs), 1e-12 if key == "left" else 0) for _, runs in points]
            color = "C0" if name == "adamw" else "C1"
            axis.plot([g for g, _ in points], y, style, color=color, markersize=4, label=f"{form}, {name}")
    for axis, (key, text) in zip(axes, (*texts, ("val_top1", "validation accuracy after hardening")), strict=True):
        axis.axvspan(*published_range(), color="0.5", alpha=0.15, linewidth=0)
        axis.set_xscale("log")
        axis.set_xlabel("g (reg_granularity_prune)")
        axis.set_title(text, fontsize=9)
        if key == "left":
            axis.set_yscale("log")
            axis.axhline(1e-2, color="0.4", linewidth=0.8, linestyle="--")
    axes[2].legend(loc="lower right", fontsize=7)
    figure.savefig(FIGURES / "penalty.png")
    plt.close(figure)


if __name__ == "__main__":
    main()
