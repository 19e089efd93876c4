"""A whole sweep against the same trials by stock Ray Tune + OptunaSearch + MLflowLoggerCallback (`_stock.py`).

    python -m benchmarks.stock_stack                                     vit_digits, five pairs, none stopped early
    python -m benchmarks.stock_stack --without sharing --without compaction     a row more for each part switched off
    python -m benchmarks.stock_stack --arch vit_tiny --amp --pairs 3     random images of 32 pixels, short rounds
    python -m benchmarks.stock_stack --asha                              early stopping on both sides: ASHA, halving
    python -m benchmarks.stock_stack --from-json                         the tables again, of all that was run

Same model, images, points (lr, g, rounds), epochs, batch, schedule, penalty, criterion (sum of |w|), two trials at a
time with one thread each, a database of MLflow's of its own. The ways take turns, each time from a command to its
prompt, in processes of their own. The points meet: `--dense` different dense rounds among them. Parts: sharing (of
dense rounds), compaction (units stay in the tensors to the last round), linears, attention (both torch's own).
Out: a Markdown table: seconds and CPU seconds of all processes, and how many times as long the stock stack took, pair
by pair: median (smallest to largest). The numbers are in docs/figures/stock_stack.json, with the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import FIGURES, ROOT, Progress, Results, table
from benchmarks._processes import machine, timed
from benchmarks.without.sitecustomize import PARTS
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.load import load
from trainables.rsst.model.accepted import architecture
from tune_rsst.ledger.file import read
from tune_rsst.ledger.view import SweepView
from tune_rsst.storage.folder import SweepFolder

STOCK, OWN, NAME = "stock stack", "tune-rsst", "own"
TARGET, ROUNDS = 0.3, (3, 6)
AT_ONCE = 2
VERSIONS = ("torch", "timm", "ray", "optuna", "mlflow")
KEYS = ("arch", "trials", "dense", "epochs", "train", "asha", "way", "pair")
SIZES = {"vit_digits": (12, 4, 8, 0), "vit_tiny": (6, 2, 2, 512)}
"""trials, different dense rounds, epochs of a round, training images (0: those of the digits)"""

IMAGES = """import numpy as np


def drawn(data):
    found = np.load(data)
    return {part: (found[part], found[part + "_labels"]) for part in ("train", "val", "test")}
"""
SPACE = """def meeting(trial):
    return FIXED | {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "reg_granularity_prune": trial.suggest_float("reg_granularity_prune", 1e-2, 10.0, log=True),
        "prunings": trial.suggest_int("prunings", 1, 20),
    }
"""


@dataclass(frozen=True)
class Case:
    """What both sides train."""

    arch: str
    trials: int
    dense: int
    epochs: int
    train: int
    asha: bool = False

    @property
    def points(self) -> list[dict[str, Any]]:
        """lr, g and rounds of each trial; every `dense`-th has the same lr."""
        low, high = ROUNDS
        return [
            {
                "lr": round(1e-3 * (1 + number % self.dense / self.dense), 6),
                "reg_granularity_prune": round(0.2 + 1.8 * number / self.trials, 4),
                "rounds": low + (number // self.dense) % (high - low + 1),
            }
            for number in range(self.trials)
        ]

    @property
    def fixed(self) -> dict[str, Any]:
        """Knobs that are the same in every trial, but for the images of a file."""
        digits = self.arch == "vit_digits"
        return {"arch": self.arch, "augment": "none", "batch_size": 32 if digits else 64, "epochs": self.epochs,
                "warmup": 1 if self.epochs > 1 else 0, "label_smoothing": 0.1, "criteria": "magnitude",
                "exponents": 2.0} | ({"dataset": "digits"} if digits else {})  # fmt: skip

    def draw(self, folder: Path) -> None:
        """The images, as arrays in a file: the digits split as a trial splits them, or random ones in 10 classes."""
        arrays: dict[str, Any] = {}
        if self.arch == "vit_digits":
            data = load(RSSTConfig.from_knobs(self.fixed))
            splits = {"train": data.train, "val": data.val, "test": data.test}
            for part, split in splits.items():
                arrays |= {part: split.images.numpy(), f"{part}_labels": split.labels.numpy()}
        else:
            draws = np.random.default_rng(0)
            for part, count in (("train", self.train), ("val", self.train // 4), ("test", self.train // 8)):
                arrays[part] = draws.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
                arrays[f"{part}_labels"] = np.arange(count) % 10
        np.savez(folder / "images.npz", **arrays)

    def for_stock(self, folder: Path, amp: bool) -> list[str]:
        """The command of the stock stack, whose case it writes."""
        channels = 1 if self.arch == "vit_digits" else 3
        knobs = {k: v for k, v in self.fixed.items() if k != "epochs"} | {"epochs": self.epochs}
        config = RSSTConfig.from_knobs({"dataset": "synthetic"} | knobs)
        case = {
            "model": architecture(config, in_chans=channels, num_classes=10).arguments,
            "images": str(folder / "images.npz"),
            "points": self.points,
            "epochs": self.epochs,
            "batch": config.batch_size,
            "warmup": config.warmup,
            "target": TARGET,
            "amp": amp,
            "asha": self.asha,
            "at_once": AT_ONCE,
        }
        (folder / "case.json").write_text(json.dumps(case), encoding="utf-8")
        return [sys.executable, "-m", "benchmarks._stock", str(folder / "case.json"), str(folder)]

    def for_own(self, folder: Path, amp: bool, sharing: bool) -> list[str]:
        """The command of the sweep, whose space, points and images it writes."""
        fixed = self.fixed
        if self.arch != "vit_digits":
            (folder / "images.py").write_text(IMAGES, encoding="utf-8")
            fixed |= {"dataset": f"{folder}/images.py:drawn", "data": str(folder / "images.npz")}
        (folder / "space.py").write_text(f"FIXED = {fixed!r}\n\n\n{SPACE}", encoding="utf-8")
        points = [{**point, "prunings": point["rounds"] - 1} for point in self.points]
        for point in points:
            del point["rounds"]
        (folder / "points.yaml").write_text(json.dumps(points), encoding="utf-8")
        words = [f"space={folder}/space.py:meeting", f"points={folder}/points.yaml", f"trials={self.trials}"]
        words += [f"name={NAME}", f"target_density={TARGET}", f"max_concurrent_trials={AT_ONCE}", "confirm=0"]
        words += [f"stopping={'halving' if self.asha else 'none'}", f"amp={str(amp).lower()}"]
        return [sys.executable, "-m", "tune_rsst", "sweep", *words, f"share_dense={str(sharing).lower()}"]


def ways(amp: bool, without: Sequence[str]) -> list[str]:
    """What takes turns; the stock stack in float32 first."""
    more = [f"{STOCK}, amp", f"{OWN}, amp"] if amp else []
    return [STOCK, OWN, *more, *(f"{OWN}, without {part}" for part in without)]


def one_run(case: Case, way: str) -> dict[str, Any]:
    """Seconds, CPU seconds, epochs trained and best accuracy at the target of one sweep, and the load after it."""
    with tempfile.TemporaryDirectory(prefix="stock") as name:
        folder = Path(name)
        case.draw(folder)
        amp, part = way.endswith(", amp"), way.partition("without ")[2]
        path = os.pathsep.join([str(ROOT), *([str(ROOT / "benchmarks" / "without")] if part in PARTS else [])])
        more = {"PYTHONPATH": path, "TUNE_RSST_HOME": f"{folder}/home", "TUNE_RSST_CACHE": f"{folder}/cache"}
        more |= {"RSST_WITHOUT": part} if part in PARTS else {}
        if way.startswith(STOCK):
            spent = timed(case.for_stock(folder, amp), more, folder)
            told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        else:
            spent = timed(case.for_own(folder, amp, part != "sharing"), more, folder)
            told = _told(SweepFolder(folder / "home" / NAME))
        return {"wall_s": spent.wall_s, "cpu_s": spent.cpu_s, "load": os.getloadavg()[0], **told}


def _told(folder: SweepFolder) -> dict[str, Any]:
    """Trials, epochs really trained and best accuracy at the target, of a sweep's ledger."""
    trials = list(SweepView.of(list(read(folder.ledger))).trials.values())
    epochs = sum(t.metrics["epochs_trained"] - t.metrics.get("epochs_adopted", 0) for t in trials)
    ended = [t.metrics["val_top1"] for t in trials if t.state == "finished"]
    return {"ran": len(trials), "trained": epochs, "best": max(ended, default=None)}


def shown(values: Sequence[float], digits: int) -> str:
    """Median (smallest to largest)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def rows_of(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row for each way of one case: its seconds, and the stock stack's as a multiple of them, pair by pair."""
    by = {(record["way"], record["pair"]): record for record in records}
    rows = []
    for way in dict.fromkeys(record["way"] for record in records):
        own = [record for record in records if record["way"] == way and (STOCK, record["pair"]) in by]
        if not own:
            continue
        cells = [shown([record[key] for record in own], 0) for key in ("wall_s", "cpu_s")]
        for key in ("wall_s", "cpu_s"):
            cells.append(shown([by[STOCK, record["pair"]][key] / record[key] for record in own], 2))
        epochs = sorted({record["trained"] for record in own})
        best = [record["best"] for record in own if record["best"] is not None]
        rows.append([way, str(len(own)), *cells, " to ".join(map(str, dict.fromkeys((epochs[0], epochs[-1])))),
                     f"{100 * statistics.median(best):.1f} %" if best else ""])  # fmt: skip
    return rows


HEAD = ["way", "runs", "seconds", "CPU seconds", "times faster", "by CPU seconds", "epochs trained", "best val top-1"]


def print_all(found: Results) -> None:
    """A table for each case that was run."""
    print(", ".join(f"{name} {value}" for name, value in found.about.items()))
    for key in dict.fromkeys(tuple(record[k] for k in KEYS[:-2]) for record in found.records):
        of_case = [record for record in found.records if tuple(record[k] for k in KEYS[:-2]) == key]
        case = Case(*key)
        stopping = "early stopping" if case.asha else "none stopped early"
        load = [record["load"] for record in of_case]
        print(f"\n{case.arch}, {case.trials} trials of {ROUNDS[0]} to {ROUNDS[1]} rounds of {case.epochs} epochs, "
              f"{case.dense} different dense rounds, {stopping}; load of the machine {min(load):.1f} to "
              f"{max(load):.1f}\n")  # fmt: skip
        print(table(HEAD, rows_of(of_case)))


def main() -> None:
    """Read the command line, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=list(SIZES), default="vit_digits")
    for position, name in enumerate(("trials", "dense", "epochs", "train")):
        usual = ", ".join(f"{arch}: {size[position]}" for arch, size in SIZES.items())
        parser.add_argument(f"--{name}", type=int, help=f"default: {usual}")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--amp", action="store_true", help="both sides in bfloat16 too")
    parser.add_argument("--asha", action="store_true", help="early stopping: ASHA there, halving here")
    parser.add_argument("--without", action="append", default=[], choices=["sharing", *PARTS], help="may be repeated")
    parser.add_argument("--json", type=Path, default=FIGURES / "stock_stack.json", help="default: %(default)s")
    parser.add_argument("--from-json", action="store_true", help="print what is there")
    given = parser.parse_args()
    found = Results(given.json, KEYS, {} if given.from_json else machine(*VERSIONS))
    if not given.from_json:
        asked = [getattr(given, name) for name in ("trials", "dense", "epochs", "train")]
        sizes = [usual if own is None else own for own, usual in zip(asked, SIZES[given.arch], strict=True)]
        case = Case(given.arch, *sizes, asha=given.asha)
        turns = [(pair, way) for pair in range(given.pairs) for way in ways(given.amp, given.without)]
        progress = Progress("stock stack", len(turns))
        for pair, way in turns:
            address = asdict(case) | {"way": way, "pair": pair}
            if (record := found.find(**address)) is None:
                found.add(record := address | one_run(case, way))
            progress.step(f"{way}: {record['wall_s']:.0f} s, {record['cpu_s']:.0f} s of CPU")
    print_all(found)


if __name__ == "__main__":
    main()
