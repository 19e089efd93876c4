"""What a step's optimizer and penalty, and a checkpoint, take beside the step: part of `engine.py --parts`.

In: an architecture and its sizes. Out: the best of REPEATS times, in ms of CPU time (the save's: of wall time).
`flat` is torch's AdamW over the same numbers in two long tensors, one with and one without weight decay: what an
optimizer over flat buffers would take at best, without the copies of gradients into them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from trainables.rsst.config import RSSTConfig
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import build
from trainables.rsst.pruning.compact import Units, unit_masks
from trainables.rsst.pruning.penalty import Penalty
from trainables.rsst.state import TrialState, grouped, optimizer_tensors
from trainables.rsst.store.checkpoint import CheckpointStore
from trainables.rsst.training.setup import make_optimizer

REPEATS = 9
HEAD = ("arch", "optimizer (ms)", "optimizer, flat (ms)", "penalty (ms)", "copy of the state (ms)", "save (ms)", "MB")


def parts_of(arch: str, channels: int, side: int) -> list[str]:
    """A row under HEAD."""
    knobs = {"arch": arch, "dataset": "digits" if channels == 1 else "synthetic", "device": "cpu", "img_size": side}
    config = RSSTConfig.from_knobs(knobs)
    full = architecture(config, in_chans=channels, num_classes=10)
    model = build(full)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = make_optimizer(config, model)
    doomed = Units(tuple((0,) for _ in full.heads), tuple(tuple(range(n // 7)) for n in full.neurons))
    weights = dict(model.named_parameters())
    penalty = Penalty(config, weights, unit_masks(weights, full, doomed), {})
    steps = 0

    def pressed() -> None:
        nonlocal steps
        steps += 1
        penalty.after_step(steps / 1e6, (steps + 1) / 1e6)

    groups = []
    for group in optimizer.param_groups:
        long = nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]))
        long.grad = torch.randn_like(long)
        groups.append({"params": [long], "weight_decay": group["weight_decay"]})
    flat = torch.optim.AdamW(groups, lr=config.lr, fused=True)
    found = [_best(run) for run in (optimizer.step, flat.step, pressed)]

    def copied() -> dict[str, torch.Tensor]:
        groups = {"weights": model.state_dict(), "optimizer": optimizer_tensors(optimizer, model)}
        return grouped(groups | {"rewind": model.state_dict()})

    tensors = copied()
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), "t", print)
        meta = {"fingerprint": "t", "round": 0, "epoch": 0, "history": []}
        saved = _best(lambda: store.save(TrialState(meta, tensors)), time.perf_counter)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6
    times = [*found, _best(copied), saved]
    return [arch, *(f"{1e3 * seconds:.3g}" for seconds in times), f"{size:.3g}"]


def _best(run: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    took = []
    for _ in range(REPEATS):
        began = clock()
        run()
        took.append(clock() - began)
    return min(took)
