"""What compaction buys in training time: real shrunken networks against the dense one, and against masks alone.

    python -m benchmarks.compaction              both parts (about 30 minutes on one core)
    python -m benchmarks.compaction --quick      2 layers instead of 12 and 9: does it work?
    python -m benchmarks.compaction --from-json  prints the tables again from docs/figures/compaction.json

Prints two Markdown tables. (1) vit_small shapes at 32 × 32 with 1/2 and 1/3 of the units kept: MACs counted and MACs
that the kept units ask for, step time against dense, batch 32 and 128, masks alone beside it. (2) A 15-round run at
rate 0.15 with compaction on and off: sum of step times over the rounds, beside the limit that the MACs set. A round
trains with its doomed units still in, so round r has the shape after r − 1 prunings; every round has as many
steps. A step is the core's `train_epoch` on one batch (forward, backward, penalty, AdamW), one CPU thread. Steps of
the models that are compared run in turn; in part 1 an untimed step of the same model goes before each timed one,
since no training has a step of another network between its own, which leaves caches and memory arranged for that one.
On a shared host the same step was seen to take from 1.5 to 2.6 s: part 1 gives the ratio of the fastest steps, which
is the machine's own, and the median over the pairs (wall and CPU time) beside it; part 2 sums the medians of each
round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks._common import FIGURES, Progress, Results, table
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.batches import TrialImages
from trainables.rsst.data.split import Split
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.cost import gmacs
from trainables.rsst.model.vit import Architecture, build
from trainables.rsst.pruning.compact import Units, unit_masks
from trainables.rsst.pruning.penalty import Penalty
from trainables.rsst.pruning.selection import keep_count
from trainables.rsst.training.epoch import train_epoch
from trainables.rsst.training.schedule import Clock
from trainables.rsst.training.setup import Training

ROUNDS, RATE = 15, 0.15
WALL, CPU = 0, 1
LIMITS = {"vit_small": 0.55, "vit_tiny": 0.65}
Masks = dict[str, Tensor]
Times = dict[str, list[tuple[float, float]]]
"""Per model the (wall, CPU) seconds of its steps."""


class Stepper:
    """A model that can take one training step after another, and say how long the step took."""

    def __init__(self, config: RSSTConfig, arch: Architecture, doomed: Masks, dead: Masks) -> None:
        self.config, self.arch = config, arch
        torch.manual_seed(0)
        self.model = build(arch)
        self.training = Training.begin(config, self.model, _batch(config.batch_size), clock=Clock(100, 1, 0), round=1)
        self.press(doomed, dead)

    def press(self, doomed: Masks, dead: Masks) -> None:
        """Press `doomed`, keep `dead` at zero (the core's masks of granularity = element)."""
        penalty = Penalty(self.config, dict(self.model.named_parameters()), doomed, dead)
        self.training = replace(self.training, penalty=penalty)

    def seconds(self) -> tuple[float, float]:
        """Take one step: wall time and CPU time of the process (s)."""
        began, cpu_began = time.perf_counter(), time.process_time()
        train_epoch(self.training, 50)
        return time.perf_counter() - began, time.process_time() - cpu_began


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="2 layers, 2 pairs; nothing is written")
    parser.add_argument("--from-json", action="store_true", help="print docs/figures/compaction.json again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = FIGURES / ("compaction_quick.json" if options.quick else "compaction.json")
    about = {"torch": str(torch.__version__), "threads": 1, "cpu": _cpu_name()}
    found = Results(path, ("part", "arch", "batch", "share", "round"), {} if options.from_json else about)
    if not options.from_json:
        depth, pairs = (2, 2) if options.quick else (None, 9)
        one_step(found, depth, pairs)
        for arch in LIMITS:
            whole_run(found, arch, depth, min(pairs, 3))
    print_one_step(found)
    print_whole_run(found)
    if options.quick:
        path.unlink(missing_ok=True)


def one_step(found: Results, depth: int | None, pairs: int) -> None:
    """Part 1: dense, compacted, masked, one step each in turn."""
    progress = Progress("compaction, one step", 4)
    for batch in (32, 128):
        for share in (1 / 2, 1 / 3):
            if found.find(part="step", arch="vit_small", batch=batch, share=share, round=None):
                continue
            config, full = _model("vit_small", batch, depth)
            small = _kept(full, share)
            dead = _masks(full, _between(small, full))
            models = {"dense": Stepper(config, full, {}, {}), "compact": Stepper(config, small, {}, {})}
            models["masked"] = Stepper(config, full, {}, dead)
            times = _interleaved(models, pairs if batch == 32 else max(pairs // 3, 2))
            found.add(
                {
                    "part": "step",
                    "arch": "vit_small",
                    "batch": batch,
                    "share": share,
                    "round": None,
                    "depth": full.depth,
                    "mac_ratio_blocks": block_macs(full) / block_macs(small),
                    "gmacs": gmacs(small),
                    "gmacs_asked": asked_macs(small) / 1e9,
                    "seconds": times,
                }
            )
            progress.step(f"batch {batch}, kept {share:.2f}")


def whole_run(found: Results, name: str, depth: int | None, pairs: int) -> None:
    """Part 2: for every round the step with compaction and the step with masks on the dense network, in turn."""
    config, full = _model(name, 32, depth)
    off = Stepper(config, full, {}, {})
    off.seconds()
    progress = Progress(f"compaction, {name}, {ROUNDS} rounds", ROUNDS)
    for number in range(ROUNDS):
        if found.find(part="run", arch=name, batch=32, share=None, round=number):
            continue
        now, after = (_kept(full, (1 - RATE) ** max(k, 0)) for k in (number - 1, number))
        on = Stepper(config, now, _masks(now, _between(after, now)), {})
        off.press(_masks(full, _between(after, now)), _masks(full, _between(now, full)))
        on.seconds()
        times: Times = {"on": [], "off": []}
        for _ in range(pairs):
            times["on"].append(on.seconds())
            times["off"].append(off.seconds())
        record = {"part": "run", "arch": name, "batch": 32, "share": None, "round": number, "depth": full.depth}
        record |= {"macs_of_dense": gmacs(now) / gmacs(full), "seconds": times, "heads": now.heads[0]}
        found.add({**record, "neurons": now.neurons[0]})
        progress.step(f"round {number}: {now.heads[0]} heads, {now.neurons[0]} neurons a layer")


def print_one_step(found: Results) -> None:
    """Table of part 1."""
    rows = []
    for r in (record for record in found.records if record["part"] == "step"):
        same = abs(r["gmacs"] / r["gmacs_asked"] - 1) < 1e-5
        macs = f"{r['gmacs']:.4f} {'=' if same else '≠'} {r['gmacs_asked']:.4f}"
        dense, compact, masked = (r["seconds"][name] for name in ("dense", "compact", "masked"))
        ratio = r["mac_ratio_blocks"]
        faster = [_fastest_ratio(dense, compact), *(_median_ratio(dense, compact, clock) for clock in (WALL, CPU))]
        cells = [f"{ratio:.2f}", *(f"{x:.2f} ({x / ratio:.2f})" for x in faster)]
        cells += [f"{_fastest_ratio(dense, masked):.2f}", f"{_median_ratio(dense, masked, WALL):.2f}"]
        rows.append((r["batch"], f"1/{round(1 / r['share'])}", macs, *cells, len(dense)))
    head = ("batch", "kept", "GMACs counted = asked", "MACs of the blocks, dense ÷ kept")
    faster_head = ("step dense ÷ compacted: fastest (of the MACs' ratio)", "median of pairs, wall", "the same, CPU")
    print(table((*head, *faster_head, "step dense ÷ masks alone: fastest", "median of pairs", "times"), rows))


def print_whole_run(found: Results) -> None:
    """Table of part 2."""
    rows = []
    for name, goal in LIMITS.items():
        records = [r for r in found.records if r["part"] == "run" and r["arch"] == name]
        if not records:
            continue
        ratios = []
        for clock in (WALL, CPU):
            on, off = (sum(_median(r["seconds"][key], clock) for r in records) for key in ("on", "off"))
            ratios.append(on / off)
        limit = statistics.fmean(r["macs_of_dense"] for r in records)
        pairs = min(len(r["seconds"]["on"]) for r in records)
        rows.append((name, len(records), *(f"{x:.3f}" for x in ratios), f"{limit:.3f}", f"≤ {goal:.2f}", pairs))
    head = ("arch", "rounds", "steps' wall time, on ÷ off", "CPU time, on ÷ off", "limit that the MACs set", "goal")
    print("\n" + table((*head, "pairs a round"), rows))


def block_macs(arch: Architecture) -> float:
    """Counted MACs of the blocks alone: the model's less those of the same model without blocks."""
    nothing = replace(arch, arguments={**arch.arguments, "depth": 0}, heads=(), neurons=())
    return (gmacs(arch) - gmacs(nothing)) * 1e9


def asked_macs(arch: Architecture) -> float:
    """MACs by hand: per block N·(4·D·H·K + 2·D·F) + 2·N²·H·K, patch embedding, head."""
    a = arch.arguments
    patches = (a["img_size"] // a["patch_size"]) ** 2
    n, d, k = patches + 1, a["embed_dim"], arch.head_dim
    blocks = sum(
        n * (4 * d * h * k + 2 * d * f) + 2 * n * n * h * k for h, f in zip(arch.heads, arch.neurons, strict=True)
    )
    return float(blocks + patches * a["in_chans"] * a["patch_size"] ** 2 * d + d * a["num_classes"])


def _model(name: str, batch: int, depth: int | None) -> tuple[RSSTConfig, Architecture]:
    knobs: dict[str, Any] = {"arch": name, "dataset": "synthetic", "augment": "none", "batch_size": batch}
    config = RSSTConfig.from_knobs({**knobs, "device": "cpu", "num_threads": 1})
    full = architecture(config, in_chans=3, num_classes=10)
    if depth is not None:
        arguments = {**full.arguments, "depth": depth}
        full = replace(full, arguments=arguments, heads=full.heads[:depth], neurons=full.neurons[:depth])
    return config, full


def _kept(full: Architecture, share: float) -> Architecture:
    heads, neurons = ([keep_count(n, share) for n in full.counts(kind)] for kind in ("head", "neuron"))  # type: ignore[arg-type]
    return full.with_counts(heads, neurons)


def _between(small: Architecture, big: Architecture) -> Units:
    """The units that `big` has and `small` has not; the first ones of a layer stay."""
    pairs = [zip(s, b, strict=True) for s, b in ((small.heads, big.heads), (small.neurons, big.neurons))]
    heads, neurons = (tuple(tuple(range(few, many)) for few, many in pair) for pair in pairs)
    return Units(heads, neurons)


def _masks(arch: Architecture, units: Units) -> Masks:
    return unit_masks(dict(build(arch, "meta").named_parameters()), arch, units)


def _batch(size: int) -> TrialImages:
    numbers = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=numbers)
    labels = torch.randint(0, 10, (size,), generator=numbers)
    split = Split(images, labels)
    return TrialImages(split, split, split, torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25), 10)


def _interleaved(models: dict[str, Stepper], rounds: int) -> Times:
    times: Times = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            model.seconds()
            times[name].append(model.seconds())
    return times


def _median_ratio(over: list[tuple[float, float]], under: list[tuple[float, float]], clock: int) -> float:
    return statistics.median(a[clock] / b[clock] for a, b in zip(over, under, strict=True))


def _fastest_ratio(over: list[tuple[float, float]], under: list[tuple[float, float]]) -> float:
    """Of the fastest steps (wall): what else the machine does only ever makes a step slower."""
    return min(wall for wall, _ in over) / min(wall for wall, _ in under)


def _median(times: list[tuple[float, float]], clock: int) -> float:
    return statistics.median(pair[clock] for pair in times)


def _cpu_name() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
