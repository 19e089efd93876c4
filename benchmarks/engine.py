"""How long is a training step? The core's own epoch against a plain PyTorch loop, and its choices one by one.

    python -m benchmarks.engine            vit_digits, vit_tiny, vit_small on this CPU (about 4 minutes on one core)
    python -m benchmarks.engine --quick    vit_digits alone, 2 passes: does it work?

Prints a Markdown table: CPU time of a step and its ratio to `plain` of the same architecture, over PASSES passes that
take turns (a machine that others use is fair to all of them): the median of the ratios, the smallest and the largest.
Random images, one thread, augment = standard, no penalty. `float32` and `amp` are what a trial does on this machine;
the rows below them leave one choice to torch. `plain` is the loop of a textbook: the same model and augmentation image
by image, a DataLoader, AdamW, loss.item() at every step.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks._common import Progress, table
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


def candidates(arch: str) -> dict[str, Callable[[], None]]:
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

    return {
        "plain": _plain(arch, split),
        "float32": own(),
        "float32, torch's linear layers": own("fast_linears"),
        "amp": own(amp=True),
        "amp, torch's attention": own("fast_kernels", amp=True),
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


def main() -> None:
    """Read the command line, take turns, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="vit_digits, 2 passes")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    archs, passes = (["vit_digits"], 2) if quick else (list(SIZES), PASSES)
    progress = Progress("engine", len(archs) * (passes + 1))
    rows = []
    for arch in archs:
        ways = candidates(arch)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(passes + 1):  # the first is not counted
            for name, run in ways.items():
                began = time.process_time()
                run()
                spent[name].append(time.process_time() - began)
            progress.step(f"{arch} pass {number}")
        steps = SIZES[arch][3]
        for name, seconds in spent.items():
            ratios = [a / b for a, b in zip(seconds[1:], spent["plain"][1:], strict=True)]
            shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append([arch, SIZES[arch][2], name, f"{1e3 * min(seconds[1:]) / steps:.1f}", shown])
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread, {passes} passes\n")
    print(table(["arch", "images a step", "way", "fastest step (ms, CPU time)", "ratio to plain"], rows))


if __name__ == "__main__":
    main()
