"""Which units (or single weights) go: pure functions of scores.

In: scores, the counts of the unpruned model, the kept share asked for.
Out: positions among the alive.
Counts follow the kept share asked for, not the last count, so that rounding never piles up (docs/method.md, "How many
stay"). Among equal scores the lower index stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainables.rsst.model.vit import Kind, PerLayer
from trainables.rsst.pruning.compact import Units
from trainables.rsst.pruning.importance import Scores


def kinds_of(granularity: str) -> tuple[Kind, ...]:
    """The kinds of unit that `granularity` (head, neuron, both) removes."""
    return {"head": ("head",), "neuron": ("neuron",), "both": ("head", "neuron")}[granularity]  # type: ignore[return-value]


def keep_count(total: int, share: float, least: int = 1) -> int:
    """max(⌊share·total + ½⌋, least)."""
    return max(math.floor(share * total + 0.5), least)


def select_units(
    scores: Scores, totals: Mapping[Kind, Sequence[int]], share: float, *, scope: str, granularity: str
) -> Units:
    """Positions (among the alive) of the units to remove.

    `totals[kind]` are the counts per layer of the unpruned model; at least one head and one neuron stay per layer.
    """
    doomed: dict[Kind, PerLayer] = {}
    for kind in kinds_of(granularity):
        choose = _per_layer if scope == "layer" else _globally
        doomed[kind] = choose(scores.of(kind), totals[kind], share)
    nothing: PerLayer = tuple(() for _ in scores.heads)
    return Units(doomed.get("head", nothing), doomed.get("neuron", nothing))


def _per_layer(scores: Sequence[Tensor], totals: Sequence[int], share: float) -> PerLayer:
    return tuple(
        tuple(sorted(_ranked(layer)[keep_count(total, share) :])) for layer, total in zip(scores, totals, strict=True)
    )


def _globally(scores: Sequence[Tensor], totals: Sequence[int], share: float) -> PerLayer:
    """One ranking over all layers, after dividing by the layer's mean score; each layer's best unit stays."""
    keep = keep_count(sum(totals), share, least=len(totals))
    relative = [layer / layer.mean() if layer.mean() > 0 else layer for layer in scores]
    best = {(at, _ranked(layer)[0]) for at, layer in enumerate(relative)}
    others = [
        (-float(value), at, unit)
        for at, layer in enumerate(relative)
        for unit, value in enumerate(layer.tolist())
        if (at, unit) not in best
    ]
    gone = sorted(others)[max(keep - len(best), 0) :]
    return tuple(tuple(sorted(unit for _, at, unit in gone if at == layer)) for layer in range(len(scores)))


def _ranked(layer: Tensor) -> list[int]:
    return [int(i) for i in torch.argsort(layer, descending=True, stable=True)]


def select_elements(weights: Mapping[str, Tensor], dead: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """granularity = element: masks (True = remove) of the smallest |w| over all given matrices together.

    `dead` marks entries that are gone already; the count kept is ⌊share·n + ½⌋ of all n entries.
    """
    names = sorted(weights)
    size = torch.cat([weights[name].detach().abs().reshape(-1) for name in names]).cpu()
    gone = torch.cat(
        [
            dead[name].reshape(-1) if name in dead else torch.zeros(weights[name].numel(), dtype=torch.bool)
            for name in names
        ]
    )
    size[gone] = -1.0
    order = torch.argsort(size, descending=True, stable=True)
    mask = torch.zeros_like(gone)
    mask[order[keep_count(size.numel(), share) :]] = True
    mask &= ~gone
    parts = mask.split([weights[name].numel() for name in names])
    return {name: part.reshape(weights[name].shape) for name, part in zip(names, parts, strict=True)}
