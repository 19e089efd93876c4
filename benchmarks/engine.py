"""How long is a training step? The core's own epoch against a plain PyTorch loop, an earlier commit, and its choices.

    python -m benchmarks.engine                     vit_digits, vit_tiny, vit_small on this CPU (about 4 minutes)
    python -m benchmarks.engine --quick             vit_digits alone, 2 passes: does it work?
    python -m benchmarks.engine --compile           with compiled blocks too (half a minute more for each program)
    python -m benchmarks.engine --against 91a9f00   with the core of that commit too, from this clone's history
    python -m benchmarks.engine --parts             what optimizer, penalty and a checkpoint take (half a minute)
    python -m benchmarks.engine --gpu OUT.json      images/s on this GPU, rows as they are measured (under 8 minutes)

Prints a Markdown table: CPU time of a step and its ratio to `plain` (or the commit) of the same architecture, over
PASSES passes that take turns (a machine that others use is fair to all of them): the median of the ratios, the smallest
and the largest. Random images, one thread, augment = standard, no penalty. `float32` and `amp` are what a trial does on
this machine; the rows below them leave one choice to torch. `plain` is the loop of a textbook: the same model and
augmentation image by image, a DataLoader, AdamW, loss.item() at every step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks._common import Progress, table, tree_of
from benchmarks._engine_gpu import on_gpu
from benchmarks._engine_parts import HEAD, parts_of
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.batches import TrialImages
from trainables.rsst.data.split import Split
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import build
from trainables.rsst.training import epoch as epochs
from trainables.rsst.training.schedule import Clock
from trainables.rsst.training.setup import Training

PASSES = 5
SIZES = {"vit_digits": (1, 8, 32, 20), "vit_tiny": (3, 32, 64, 2), "vit_small": (3, 32, 32, 2)}
"""channels, side, images a step, steps a pass"""
BEFORE = "the earlier commit"


class PerImage(Dataset[Any]):
    """A split as a textbook has it: crop, flip and normalise each image on its own."""

    def __init__(self, split: Split) -> None:
        channels, side = split.images.shape[1:3]
        self._split = split
        self._change = v2.Compose(
            [
                v2.RandomCrop(side, padding=min(4, side // 8)),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * channels, [0.25] * channels),
            ]
        )

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Any:
        return self._change(self._split.images[index]), self._split.labels[index]


def candidates(arch: str, compiles: bool) -> dict[str, Callable[[], None]]:
    """One pass of each way to train `arch`, by name; `plain` first."""
    channels, side, batch, steps = SIZES[arch]
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (batch * steps, channels, side, side), dtype=torch.uint8, generator=draws)
    split = Split(pixels, torch.randint(10, (batch * steps,), generator=draws))
    mean = torch.full((channels, 1, 1), 0.5)
    images = TrialImages(split, split, split, mean, mean / 2, 10)

    def own(left_to_torch: str = "", **more: Any) -> Callable[[], None]:
        knobs = {"arch": arch, "dataset": "digits" if channels == 1 else "synthetic", "device": "cpu"}
        config = RSSTConfig.from_knobs({**knobs, **more, "augment": "standard", "batch_size": batch, "img_size": side})
        model = build(architecture(config, in_chans=channels, num_classes=10))
        training = Training.begin(config, model, images, clock=Clock(10**6, steps, 0))

        def run() -> None:
            usual = patch.object(epochs, left_to_torch, lambda *_: nullcontext()) if left_to_torch else nullcontext()
            with usual:
                epochs.train_epoch(training, 0)

        return run

    compiled = {"float32, compiled": own(compile=True), "amp, compiled": own(compile=True, amp=True)}
    return {
        "plain": _plain(arch, split),
        "float32": own(),
        "float32, torch's linear layers": own("fast_linears"),
        "amp": own(amp=True),
        "amp, torch's attention": own("fast_kernels", amp=True),
        **(compiled if compiles else {}),
    }


def _plain(arch: str, split: Split) -> Callable[[], None]:
    channels, side, batch, _ = SIZES[arch]
    knobs = {"arch": arch, "dataset": "digits" if channels == 1 else "synthetic", "img_size": side}
    model = build(architecture(RSSTConfig.from_knobs(knobs), in_chans=channels, num_classes=10)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    loader = DataLoader(PerImage(split), batch_size=batch, shuffle=True)

    def run() -> None:
        total = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()

    return run


@contextmanager
def earlier(commit: str | None) -> Iterator[Callable[[str], float] | None]:
    """CPU seconds of one pass by the core of `commit`, in a process of its own; None without a commit."""
    if commit is None:
        yield None
        return
    child = Path(__file__).with_name("_engine_before.py")
    with tree_of(commit, "trainables") as folder, subprocess.Popen(
        [sys.executable, str(child), json.dumps(SIZES)], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        asked, answers = process.stdin, process.stdout
        assert asked is not None and answers is not None

        def run(arch: str) -> float:
            print(arch, file=asked, flush=True)
            return float(answers.readline())

        yield run
        asked.close()


def measured(arch: str, passes: int, compiles: bool, before: Callable[[str], float] | None, progress: Progress) -> Any:
    """CPU seconds of each pass by way; all ways take turns, the first pass is not counted."""

    def timed(run: Callable[[], None]) -> float:
        began = time.process_time()
        run()
        return time.process_time() - began

    ways: dict[str, Callable[[], float]] = {
        name: (lambda run=run: timed(run)) for name, run in candidates(arch, compiles).items()
    }
    if before is not None:
        ways = {BEFORE: lambda: before(arch), **ways}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(passes + 1):
        for name, run in ways.items():
            spent[name].append(run())
        progress.step(f"{arch} pass {number}")
    return {name: seconds[1:] for name, seconds in spent.items()}


def main() -> None:
    """Read the command line, take turns, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="vit_digits, 2 passes")
    parser.add_argument("--arch", action="append", choices=list(SIZES), help="this one alone; may be given again")
    parser.add_argument("--passes", type=int, default=PASSES, help="passes that count (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="rows with compiled blocks")
    parser.add_argument("--against", metavar="COMMIT", help="a row with the core of that commit, and ratios to it")
    parser.add_argument("--parts", action="store_true", help="optimizer, penalty and checkpoint alone")
    parser.add_argument("--gpu", metavar="OUT.json", type=Path, help="measure this machine's GPU instead")
    given = parser.parse_args()
    if given.gpu is not None:
        on_gpu(given.gpu)
        return
    torch.set_num_threads(1)
    if given.parts:
        print(table(HEAD, [parts_of(arch, *SIZES[arch][:2]) for arch in SIZES]))
        return
    archs, passes = (["vit_digits"], 2) if given.quick else (given.arch or list(SIZES), given.passes)
    progress = Progress("engine", len(archs) * (passes + 1))
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread, {passes} passes\n")
    with earlier(given.against) as before:
        for arch in archs:
            spent = measured(arch, passes, given.compile, before, progress)
            print(table(head(given.against), rows_of(arch, spent, given.against)), flush=True)


def head(against: str | None) -> list[str]:
    """Of the table of one architecture."""
    return ["arch", "images a step", "way", "fastest step (ms, CPU time)", f"ratio to {against or 'plain'}"]


def rows_of(arch: str, spent: dict[str, list[float]], against: str | None) -> list[list[str]]:
    """A row for each way."""
    first, rows = spent[BEFORE if against else "plain"], []
    for name, seconds in spent.items():
        ratios = [a / b for a, b in zip(seconds, first, strict=True)]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        fastest = f"{1e3 * min(seconds) / SIZES[arch][3]:.1f}"
        rows.append([arch, str(SIZES[arch][2]), against or "" if name == BEFORE else name, fastest, shown])
    return rows


if __name__ == "__main__":
    main()
