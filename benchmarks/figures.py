"""The figures of docs/method.md: the ramps, and one run (accuracy around hardening, units per layer over the rounds).

    python -m benchmarks.figures              both (the run takes about 2 minutes on one core)
    python -m benchmarks.figures ramps        docs/figures/ramps.png
    python -m benchmarks.figures run          docs/figures/run.png and run.json
    python -m benchmarks.figures --from-json  both, the run drawn again from docs/figures/run.json

Prints the run's rounds as a Markdown table. `--quick` makes the run 2 epochs a round and writes nothing.
The run: digits, the ViT with 8 heads of 8, 15 rounds at rate 0.15, 6 epochs each, scope global, rewind none, seed 0.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks._common import FIGURES, Progress, pyplot, rounded, table
from benchmarks._digits import digits, digits_config
from trainables.rsst.experiment import run
from trainables.rsst.pruning.ramps import DEPTH, pressed, ramp

RAMPS = (
    ("x", 1.0, "-"),
    ("x^2", 1.0, "--"),
    ("x^3", 1.0, "-."),
    ("exp", 1.0, ":"),
    ("exp_custom", 1.0, "-"),
    ("exp_custom_exponents", 2.0, "--"),
    ("exp_custom_exponents", 3.0, "-."),
)
G = 0.3
RUN = {"pruning_times": 15, "rate": 0.15, "scope": "global", "rewind": "none", "seed": 0}
Rounds = list[dict[str, Any]]


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("which", nargs="?", choices=("ramps", "run", "both"), default="both")
    parser.add_argument("--quick", action="store_true", help="2 epochs a round; nothing is written")
    parser.add_argument("--from-json", action="store_true", help="draw docs/figures/run.json again; run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.which in ("ramps", "both") and not options.quick:
        draw_ramps()
    if options.which in ("run", "both"):
        path = FIGURES / "run.json"
        stored = (
            json.loads(path.read_text(encoding="utf-8")) if options.from_json else one_run(2 if options.quick else 6)
        )
        print_run(stored["rounds"])
        if not options.quick:
            path.write_text(json.dumps(rounded(stored), sort_keys=True) + "\n", encoding="utf-8")
            draw_run(stored["rounds"])


def one_run(epochs: int) -> dict[str, Any]:
    """Every round event of the run, without its times; the final event, which reads the test images, is not run."""
    config = digits_config(**RUN, epochs=epochs)
    progress = Progress("figures, one run", config.rounds)
    rounds: Rounds = []
    for event in run(config, digits(config.seed)):
        if event.kind == "round":
            rounds.append(
                {key: value for key, value in event.metrics.items() if key != "seconds" and "latency" not in key}
            )
            progress.step(f"round {event.metrics['round']}")
            if len(rounds) == config.rounds:
                break
    return {"knobs": config.knobs(), "torch": str(torch.__version__), "rounds": rounds}


def print_run(rounds: Sequence[Mapping[str, Any]]) -> None:
    """One row a round."""
    rows = [
        (
            r["round"],
            f"{r['kept_share_asked']:.3f}",
            f"{r['kept_share']:.3f}",
            f"{r['density']:.3f}",
            f"{100 * r['val_top1_before_hardening']:.2f}",
            f"{100 * r['val_top1']:.2f}",
            " ".join(map(str, r["heads_kept_per_layer"])),
            " ".join(map(str, r["neurons_kept_per_layer"])),
        )
        for r in rounds
    ]
    head = ("round", "kept share asked", "kept share", "density", "val % before", "val % after", "heads", "neurons")
    print(table(head, rows))


def draw_ramps() -> None:
    """λ(t) over the round, and what it leaves of a doomed weight (penalty_form normalized) at g = 0.3."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3))
    ticks = [i / 200 for i in range(201)]
    for number, (name, p, line) in enumerate(RAMPS):
        text = f"{name}, p = {p:g}" if name == "exp_custom_exponents" else name
        style = {"linestyle": line, "color": f"C{number}", "linewidth": 1.4}
        left.plot(ticks, [ramp(name, t, G, p) for t in ticks], label=text, **style)
        remains = [math.exp(-DEPTH * G * pressed(name, t, G, p)) for t in ticks]
        right.plot(ticks, remains, **style)
    left.set_ylabel(f"λ(t) at g = {G}")
    right.set_ylabel("share of a doomed weight left")
    right.set_yscale("log")
    for axis in (left, right):
        axis.set_xlabel("progress t of the round")
    left.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(FIGURES / "ramps.png")
    plt.close(figure)


def draw_run(rounds: Rounds) -> None:
    """Accuracy before and after hardening; maps of heads and neurons kept, layer by round."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), width_ratios=(1.2, 1, 1))
    x = [r["round"] for r in rounds]
    axes[0].plot(x, [100 * r["val_top1_before_hardening"] for r in rounds], "o", markerfacecolor="none", label="before")
    axes[0].plot(x, [100 * r["val_top1"] for r in rounds], "x-", linewidth=1, markersize=4, label="after hardening")
    axes[0].set_xlabel("round")
    axes[0].set_ylabel("validation accuracy (%)")
    axes[0].legend(loc="lower left")
    share = axes[0].twinx()
    share.plot(x, [r["kept_share"] for r in rounds], color="0.5", linestyle="--", linewidth=1)
    share.set_ylim(0, 1.05)
    share.set_ylabel("kept share (dashed)", color="0.4")
    share.grid(visible=False)
    for axis, kind in zip(axes[1:], ("heads", "neurons"), strict=True):
        counts = [list(layer) for layer in zip(*(r[f"{kind}_kept_per_layer"] for r in rounds), strict=True)]
        image = axis.imshow(counts, aspect="auto", cmap="viridis", vmin=0, origin="lower")
        axis.set_yticks(range(len(counts)))
        axis.set_xlabel("round")
        axis.set_ylabel("layer")
        axis.set_title(f"{kind} kept", fontsize=9)
        axis.grid(visible=False)
        figure.colorbar(image, ax=axis)
    figure.tight_layout()
    figure.savefig(FIGURES / "run.png")
    plt.close(figure)


if __name__ == "__main__":
    main()
