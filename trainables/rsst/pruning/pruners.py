"""Removal behind one interface: whole units that shrink the network, or single weights that stay as zeros.

In: the trained model, its `Form`, the kept share asked for.
Out: `Doomed`, masks for the penalty, and weights and form after the removal. `experiment.py` knows no granularity: it
    calls these three methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.batches import Batch
from trainables.rsst.model.vit import Architecture, unit_tensors
from trainables.rsst.pruning.compact import (
    Units,
    Weights,
    all_units,
    narrowed,
    slice_weights,
    unit_masks,
    unit_parameters,
    zeroed,
)
from trainables.rsst.pruning.importance import score
from trainables.rsst.pruning.selection import kinds_of, select_elements, select_units

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class Form:
    """What is alive: the unpruned architecture, the present one, the original numbers of its units, dead entries.

    `start`: what the trial began with, where that was pruned already; its units then count as the first of each layer.
    """

    full: Architecture
    arch: Architecture
    alive: Units
    dead: Masks = field(default_factory=dict)
    start: Architecture | None = None

    @classmethod
    def unpruned(cls, full: Architecture, start: Architecture | None = None) -> Form:
        """The form before this trial removes anything."""
        return cls(full, start or full, all_units(start or full), start=start)

    @property
    def began(self) -> Architecture:
        """What the kept share that is asked for is a share of."""
        return self.start or self.full


@dataclass(frozen=True)
class Doomed:
    """What this round presses and removes: positions of alive units, or masks of single entries."""

    units: Units | None = None
    entries: Masks = field(default_factory=dict)


class Pruner(Protocol):
    """How a granularity chooses, masks, removes and counts."""

    def choose(
        self, model: VisionTransformer, form: Form, config: RSSTConfig, calibration: Iterable[Batch], share: float
    ) -> Doomed:
        """What goes when `share` of the units should be left, by the scores of `model`'s present weights."""

    def masks(self, weights: Mapping[str, Tensor], form: Form, doomed: Doomed) -> Masks:
        """Per tensor a boolean mask, True on the doomed entries."""

    def remove(self, weights: Mapping[str, Tensor], form: Form, doomed: Doomed) -> tuple[Weights, Form]:
        """Weights and form without the doomed; copies, nothing is changed in place."""

    def kept_share(self, form: Form, config: RSSTConfig) -> float:
        """Units kept of units, over the kinds that the granularity removes (element: entries of entries)."""


class UnitPruner:
    """Heads and neurons: the tensors shrink, the model's shape is the mask."""

    def choose(
        self, model: VisionTransformer, form: Form, config: RSSTConfig, calibration: Iterable[Batch], share: float
    ) -> Doomed:
        """See `Pruner`."""
        scores = score(config.criteria, model, form.arch, calibration, rate=config.rate)
        totals = {kind: form.began.counts(kind) for kind in kinds_of("both")}
        return Doomed(select_units(scores, totals, share, scope=config.scope, granularity=config.granularity))

    def masks(self, weights: Mapping[str, Tensor], form: Form, doomed: Doomed) -> Masks:
        """See `Pruner`."""
        return unit_masks(weights, form.arch, doomed.units) if doomed.units else {}

    def remove(self, weights: Mapping[str, Tensor], form: Form, doomed: Doomed) -> tuple[Weights, Form]:
        """See `Pruner`."""
        if doomed.units is None:
            return dict(weights), form
        keep = all_units(form.arch).without(doomed.units)
        smaller = replace(form, arch=narrowed(form.arch, keep), alive=form.alive.without(doomed.units))
        return slice_weights(weights, form.arch, keep), smaller

    def kept_share(self, form: Form, config: RSSTConfig) -> float:
        """See `Pruner`."""
        kinds = kinds_of(config.granularity)
        return sum(sum(form.arch.counts(k)) for k in kinds) / sum(sum(form.full.counts(k)) for k in kinds)


class ElementPruner:
    """Single weights, by one global magnitude ranking: nothing is compacted, masks keep the dead at zero."""

    def choose(
        self, model: VisionTransformer, form: Form, config: RSSTConfig, calibration: Iterable[Batch], share: float
    ) -> Doomed:
        """See `Pruner`."""
        matrices = {name: w for name, w in model.state_dict().items() if name in _matrices(form.arch, model)}
        return Doomed(entries=select_elements(matrices, form.dead, share))

    def masks(self, weights: Mapping[str, Tensor], form: Form, doomed: Doomed) -> Masks:
        """See `Pruner`."""
        return dict(doomed.entries)

    def remove(self, weights: Mapping[str, Tensor], form: Form, doomed: Doomed) -> tuple[Weights, Form]:
        """See `Pruner`."""
        dead = {
            name: mask | form.dead[name] if name in form.dead else mask for name, mask in doomed.entries.items()
        } or form.dead
        return zeroed(weights, dead), replace(form, dead=dead)

    def kept_share(self, form: Form, config: RSSTConfig) -> float:
        """See `Pruner`."""
        entries = sum(mask.numel() for mask in form.dead.values())
        return 1.0 - sum(int(mask.sum()) for mask in form.dead.values()) / entries if entries else 1.0


def pruner_for(granularity: str) -> Pruner:
    """The pruner of a granularity (head, neuron, both, element)."""
    return ElementPruner() if granularity == "element" else UnitPruner()


def density(form: Form, weights: Mapping[str, Tensor]) -> float:
    """Share of the prunable parameters (weights and biases that belong to units) that is still kept."""
    kept = total = 0
    for kind in kinds_of("both"):
        for layer in range(form.full.depth):
            each = unit_parameters(form.arch, kind, layer, weights)
            kept += each * form.arch.counts(kind)[layer]
            total += each * form.full.counts(kind)[layer]
    return (kept - sum(int(mask.sum()) for mask in form.dead.values())) / total


def _matrices(arch: Architecture, model: torch.nn.Module) -> set[str]:
    parameters = dict(model.named_parameters())
    return {name for name, *_ in unit_tensors(arch) if name in parameters and parameters[name].ndim == 2}
