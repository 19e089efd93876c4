"""A training step of an earlier commit, in a process of its own, one pass at a time: part of `engine.py`.

In: `python _engine_before.py SIZES` with that commit's folder in PYTHONPATH; SIZES is JSON, as in `engine.py`. Then a
line on stdin for each pass, the architecture's name.
Out: a line for each, the pass's CPU seconds. It knows the core as it was at 91a9f00.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch


def pass_of(arch: str, channels: int, side: int, batch: int, steps: int) -> Callable[[], None]:
    """One epoch of `steps` steps, in float32, with augment = standard and no penalty."""
    core: dict[str, Any] = {
        name: importlib.import_module(f"trainables.rsst.{name}")
        for name in ("config", "images", "penalty", "training", "vit")
    }
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (batch * steps, channels, side, side), dtype=torch.uint8, generator=draws)
    mean = torch.full((channels, 1, 1), 0.5)
    split = core["images"].Split(pixels, torch.randint(10, (batch * steps,), generator=draws), mean, mean / 2)
    knobs = {"arch": arch, "dataset": "digits" if channels == 1 else "synthetic", "device": "cpu", "img_size": side}
    config = core["config"].RSSTConfig.from_knobs({**knobs, "augment": "standard", "batch_size": batch})
    model = core["vit"].build(core["vit"].architecture(config, in_chans=channels, num_classes=10))
    optimizer = core["training"].make_optimizer(config, model)
    penalty, clock = core["penalty"].Penalty(config, {}, {}, {}), core["training"].Clock(10**6, steps, 0)

    def run() -> None:
        core["training"].train_epoch(model, split, optimizer, penalty, config, clock, num_classes=10, round=0, epoch=0)

    return run


def main() -> None:
    """Answer until stdin ends."""
    torch.set_num_threads(1)
    sizes, passes = json.loads(sys.argv[1]), {}
    for line in sys.stdin:
        arch = line.strip()
        if arch not in passes:
            passes[arch] = pass_of(arch, *sizes[arch])
        began = time.process_time()
        passes[arch]()
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
