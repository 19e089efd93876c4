"""What a model costs: parameters, MACs, latency.

In: a model. Out: counts, and measured times.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainables.progress import tracked
from trainables.rsst.model.vit import Architecture, build


def parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def gmacs(arch: Architecture) -> float:
    """Multiply-accumulates of one image's forward pass (10⁹), by torch's FLOP counter on the meta device."""
    return _gmacs(json.dumps(arch.to_json()))


@lru_cache(maxsize=1024)
def _gmacs(architecture_json: str) -> float:
    arch = Architecture.from_json(json.loads(architecture_json))
    model = build(arch, "meta").eval().requires_grad_(False)  # the counter's hooks fail on expanded parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *arch.input_shape(), device="meta"))
    return float(counter.get_total_flops()) / 2e9


@dataclass(frozen=True)
class Latency:
    """Forward pass of one batch: median and interquartile range (ms) over the repetitions."""

    median_ms: float
    iqr_ms: float


LEAST_REPETITIONS, WARMUPS, MOST_S = 5, 2, 0.15


def latency_budget_s(round_s: float) -> float:
    """Seconds for one of the two measurements after a round whose epochs took `round_s`: together 1 % of it at most."""
    return min(MOST_S, 0.005 * round_s)


@torch.no_grad()
def latency(
    model: nn.Module,
    shape: tuple[int, int, int],
    batch: int,
    *,
    at_a_time: int | None = None,
    budget_s: float = MOST_S,
    warmups: int = WARMUPS,
) -> Latency:
    """Measured latency of a forward pass over `batch` images of `shape` (C, H, W), `at_a_time` of them at once.

    At least 5 repetitions after `warmups` untimed ones, at most 50, stopping when `budget_s` is used up.
    """
    device = next(model.parameters()).device
    size = min(batch, at_a_time or batch)
    images = torch.zeros(size, *shape, device=device)
    pieces = [images] * (batch // size) + ([images[: batch % size]] if batch % size else [])
    was_training = model.training
    model.eval()
    times: list[float] = []
    spent = 0.0
    passes = range(warmups + 50)
    for repetition in tracked("measuring latency", passes, 0, unit="passes", size=lambda _: 1):
        began = time.perf_counter()
        for piece in pieces:
            model(piece)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - began
        if repetition >= warmups:
            times.append(took * 1e3)
        spent += took
        if len(times) >= LEAST_REPETITIONS and spent > budget_s:
            break
    model.train(was_training)
    quartiles = statistics.quantiles(times, n=4)
    return Latency(statistics.median(times), quartiles[2] - quartiles[0])
