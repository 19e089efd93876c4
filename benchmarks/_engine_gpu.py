"""Images a second of a training step on a GPU: part of `engine.py --gpu`.

In: a device, sizes. Out: rows on stdout as they are measured, and all of them as JSON.
Needs torch, torchvision, timm and what they bring (no Ray, no network). A cell that fails is a row with its message;
after LIMIT_S seconds the rest are rows that say so. Small cells come first. A figure is the median over windows of
whole epochs after one that is not counted; `spread` is (largest - smallest) / median, `first_s` the time to the end of
the first epoch, compiling included, `of_peak` the share of the bfloat16 rate that this GPU reached on 8192³ products.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.batches import TrialImages
from trainables.rsst.data.split import Split
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.cost import gmacs
from trainables.rsst.model.vit import Architecture, build
from trainables.rsst.training import epoch as epochs
from trainables.rsst.training.evaluation import evaluate
from trainables.rsst.training.schedule import Clock
from trainables.rsst.training.setup import Training

LIMIT_S = 440.0
ARCHS = ("vit_small", "vit_tiny", "vit_base")
BATCHES = (64, 128, 512)
STEPS = 16
WAYS: dict[str, tuple[dict[str, Any], str]] = {
    "float32 without TF32": ({}, "tf32"),
    "float32 (TF32)": ({}, ""),
    "amp": ({"amp": True}, ""),
    "float32 (TF32), compiled": ({"compile": True}, ""),
    "amp, compiled": ({"amp": True, "compile": True}, ""),
}
"""name: knobs, and the context of epoch.py that is left out"""


class Rows:
    """What was measured; a row is printed at once."""

    def __init__(self, device: torch.device, least_s: float, limit_s: float) -> None:
        self.device, self.found = device, list[dict[str, Any]]()
        self._least_s, self._end, self.peak = least_s, time.perf_counter() + limit_s, 0.0

    def add(self, **row: Any) -> None:
        """Print and keep."""
        self.found.append(row)
        shown = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
        )
        print(" | ".join(shown), flush=True)

    def wait(self) -> None:
        """Until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object]) -> tuple[float, float]:
        """Median and spread of `run`, at least three times."""
        took: list[float] = []
        end = time.perf_counter() + self._least_s
        while len(took) < 3 or time.perf_counter() < end:
            began = time.perf_counter()
            run()
            self.wait()
            took.append(time.perf_counter() - began)
        middle = statistics.median(took)
        return middle, (max(took) - min(took)) / middle

    def cell(self, name: str, make: Callable[[], Callable[[], object]], images: int, flop: float, **about: Any) -> None:
        """A row of images a second; `flop` an image."""

        def found() -> dict[str, float]:
            began = time.perf_counter()
            run = make()
            run()
            self.wait()
            first_s = time.perf_counter() - began
            middle, spread = self.seconds(run)
            share = {"of_peak": flop * images / middle / self.peak} if self.peak and flop else {}
            return {"images_per_s": images / middle, "spread": spread, "first_s": first_s, **share}

        self.value(name, found, **about)

    def value(self, name: str, find: Callable[[], dict[str, float]], **about: Any) -> None:
        """A row of what `find` found, of what it failed with, or that there was no time."""
        if time.perf_counter() > self._end:
            self.add(cell=name, **about, left_out="out of time")
            return
        try:
            found: dict[str, Any] = find()
        except Exception as error:  # noqa: BLE001 - the next cell is another one
            found = {"failed": f"{type(error).__name__}: {(str(error) or '-').splitlines()[0][:200]}"}
        self.add(cell=name, **about, **found)


def images_on(device: torch.device, count: int) -> TrialImages:
    """Random images of 32 × 32 pixels, the same ones each time."""
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=draws).to(device)
    split = Split(pixels, torch.randint(10, (count,), generator=draws).to(device))
    mean = torch.full((3, 1, 1), 0.5, device=device)
    return TrialImages(split, split, split, mean, mean / 2, 10)


def config_of(arch: str, batch: int, device: torch.device, **more: Any) -> RSSTConfig:
    """A trial with images of 32 × 32 pixels and augment = standard."""
    knobs = {"arch": arch, "dataset": "synthetic", "img_size": 32, "patch_size": 4, "device": device.type}
    return RSSTConfig.from_knobs({**knobs, "augment": "standard", "batch_size": batch, **more})


def narrowed_to(config: RSSTConfig, share: float) -> Architecture:
    """The model with this share of its heads and neurons in every layer, at least one."""
    full = architecture(config, in_chans=3, num_classes=10)
    heads, neurons = ([max(1, int(share * n + 0.5)) for n in counts] for counts in (full.heads, full.neurons))
    return full.with_counts(heads, neurons)


def own(config: RSSTConfig, device: torch.device, steps: int, left_out: str = "", share: float = 1.0) -> Any:
    """Epochs of the core; `left_out`: a context of epoch.py."""
    torch.manual_seed(0)
    model = build(narrowed_to(config, share)).to(device)
    images = images_on(device, config.batch_size * steps)
    training = Training.begin(config, model, images, clock=Clock(10**6, steps, 0))
    nothing = patch.object(epochs, left_out, lambda *_, **__: nullcontext()) if left_out else nullcontext()

    def run() -> nn.Module:
        with nothing:
            epochs.train_epoch(training, 0)
        return model

    return run


def plain(arch: str, batch: int, device: torch.device, steps: int) -> Callable[[], None]:
    """A textbook's loop: normalised images from a DataLoader, autocast in bfloat16, loss.item() at every step."""
    from torch.utils.data import DataLoader, TensorDataset

    model = build(narrowed_to(config_of(arch, batch, device), 1.0)).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    data = TensorDataset(torch.randn(batch * steps, 3, 32, 32), torch.randint(10, (batch * steps,)))
    loader = DataLoader(data, batch_size=batch, shuffle=True, pin_memory=device.type == "cuda")

    def run() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                logits = model(images.to(device, non_blocking=True))
            loss = F.cross_entropy(logits.float(), labels.to(device, non_blocking=True))
            loss.backward()
            optimizer.step()
            loss.item()

    return run


def ceilings(rows: Rows) -> None:
    """What this device gives at most: bytes copied, products of 8192³."""
    if rows.device.type != "cuda":
        return
    source = torch.empty(2**29, dtype=torch.uint8, device=rows.device)
    target = torch.empty_like(source)
    middle, _ = rows.seconds(lambda: target.copy_(source))
    rows.add(cell="copy", TB_per_s=2 * 2**29 / middle / 1e12)
    for name, dtype, allowed in (("bfloat16", torch.bfloat16, True), ("TF32", torch.float32, True),
                                 ("float32", torch.float32, False)):  # fmt: skip
        with epochs.tf32("cuda", allowed=allowed):
            one = torch.randn(8192, 8192, device=rows.device, dtype=dtype)
            middle, _ = rows.seconds(lambda one=one: one @ one)
        rows.add(cell="8192³ products", numbers=name, TFLOP_per_s=2 * 8192**3 / middle / 1e12)
        rows.peak = max(rows.peak, 2 * 8192**3 / middle)


@contextmanager
def blocking_calls(device: torch.device) -> Iterator[list[Any]]:
    """The list grows by a warning for each call that waits for the device."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def waits(device: torch.device, arch: str, batch: int, steps: int, augment: str) -> dict[str, float]:
    """Calls of an epoch that wait for the device."""
    run = own(config_of(arch, batch, device, augment=augment, amp=True), device, steps)
    run()
    with blocking_calls(device) as seen:
        run()
    return {"calls": sum("synchroniz" in str(warning.message) for warning in seen)}


def apart(device: torch.device, arch: str, batch: int, steps: int, amp: bool) -> dict[str, float]:
    """How far an epoch with compiled blocks ends from one without, as a share of the way from the start."""

    def weights(model: nn.Module) -> torch.Tensor:
        return torch.cat([p.detach().flatten().double() for p in model.parameters()])

    torch.manual_seed(0)
    start = weights(build(narrowed_to(config_of(arch, batch, device), 1.0)).to(device))
    eager, compiled = (
        weights(own(config_of(arch, batch, device, amp=amp, compile=on), device, steps)()) for on in (False, True)
    )
    return {"steps": steps, "of_change": float((compiled - eager).norm() / (eager - start).norm())}


def extras(rows: Rows, arch: str, batch: int, steps: int, flop: float) -> None:
    """Pruned widths, another policy, evaluation, blocking calls, and how far compiled weights are from others."""
    device, images = rows.device, batch * steps
    for share in (1 / 2, 1 / 3):
        for name in ("amp", "amp, compiled"):
            make = partial(own, config_of(arch, batch, device, **WAYS[name][0]), device, steps, share=share)
            rows.cell(name, make, images, 0.0, arch=arch, batch=batch, kept=round(share, 3))
    strong = config_of(arch, batch, device, amp=True, augment="strong")
    rows.cell("amp, strong", partial(own, strong, device, steps), images, flop, arch=arch, batch=batch)
    data, model = images_on(device, images), build(narrowed_to(strong, 1.0)).to(device)
    rows.cell("evaluate", lambda: partial(evaluate, model, data, data.val), images, flop / 3, arch=arch)
    for augment in ("none", "standard", "strong"):
        find = partial(waits, device, arch, batch, steps, augment)
        rows.value("blocking calls an epoch", find, arch=arch, augment=augment)
    for amp in (False, True):
        rows.value("compiled against eager", partial(apart, device, arch, batch, steps, amp), arch=arch, amp=amp)


def measure_all(rows: Rows, archs: Sequence[str], batches: Sequence[int], steps: int) -> None:
    """Every row."""
    ceilings(rows)
    flops = {arch: 6e9 * gmacs(narrowed_to(config_of(arch, 1, rows.device), 1.0)) for arch in archs}
    for arch in archs:
        for batch in batches:
            about, images = {"arch": arch, "batch": batch}, batch * steps
            if batch == 128 or len(batches) == 1:
                rows.cell("plain, amp", partial(plain, arch, batch, rows.device, steps), images, flops[arch], **about)
            for name, (knobs, left_out) in WAYS.items():
                make = partial(own, config_of(arch, batch, rows.device, **knobs), rows.device, steps, left_out)
                rows.cell(name, make, images, flops[arch], **about)
    extras(rows, archs[0], batches[-1], max(steps // 2, 1), flops[archs[0]])


def on_gpu(out: Path) -> None:
    """Measure the first GPU; the rows are in `out` however far it came."""
    if not torch.cuda.is_available():
        print("engine --gpu: torch finds no CUDA device; leave --gpu out to measure the CPU", file=sys.stderr)
        sys.exit(2)
    rows = Rows(torch.device("cuda"), least_s=0.7, limit_s=LIMIT_S)
    rows.add(cell="machine", device=torch.cuda.get_device_name(), torch=torch.__version__)
    try:
        measure_all(rows, ARCHS, BATCHES, STEPS)
    finally:
        out.write_text(json.dumps(rows.found, indent=1) + "\n", encoding="utf-8")
        print(f"{len(rows.found)} rows in {out}")
