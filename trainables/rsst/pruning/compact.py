"""How doomed parts are removed: the tensors shrink (units), or entries become zero for good (element).

In: weights and what is kept.
Out: narrower weights and the architecture that fits them.
All functions are pure; the dead entries of granularity = element are a dict of boolean masks by tensor name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.rsst.model.vit import Architecture, Kind, PerLayer, unit_index, unit_tensors

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Units:
    """Units by layer: numbers in the order of the unpruned model (alive) or positions among the alive (doomed)."""

    heads: PerLayer
    neurons: PerLayer

    def of(self, kind: Kind) -> PerLayer:
        """Layers of one kind."""
        return self.heads if kind == "head" else self.neurons

    def counts(self, kind: Kind) -> tuple[int, ...]:
        """How many per layer."""
        return tuple(len(layer) for layer in self.of(kind))

    def without(self, positions: Units) -> Units:
        """The units that stay when those at `positions` go."""
        return Units(_without(self.heads, positions.heads), _without(self.neurons, positions.neurons))

    def to_json(self) -> dict[str, list[list[int]]]:
        """Lists by kind."""
        return {"heads": [list(x) for x in self.heads], "neurons": [list(x) for x in self.neurons]}

    @classmethod
    def from_json(cls, d: Mapping[str, list[list[int]]]) -> Units:
        """The units that `to_json` wrote."""
        return cls(tuple(tuple(x) for x in d["heads"]), tuple(tuple(x) for x in d["neurons"]))


def all_units(arch: Architecture) -> Units:
    """Every unit of `arch`, by its own position."""
    return Units(tuple(tuple(range(n)) for n in arch.heads), tuple(tuple(range(n)) for n in arch.neurons))


def slice_weights(weights: Mapping[str, Tensor], arch: Architecture, keep: Units) -> Weights:
    """Only the rows and columns of the units at positions `keep`; other tensors as they are. Returns copies."""
    sliced = {name: tensor.clone() for name, tensor in weights.items()}
    for name, layer, kind, dim, repeats in unit_tensors(arch):
        if name in sliced:
            index = unit_index(arch, kind, layer, keep.of(kind)[layer], repeats).to(sliced[name].device)
            sliced[name] = sliced[name].index_select(dim, index)
    return sliced


def narrowed(arch: Architecture, keep: Units) -> Architecture:
    """`arch` with only the units at positions `keep`."""
    return arch.with_counts(keep.counts("head"), keep.counts("neuron"))


def unit_masks(weights: Mapping[str, Tensor], arch: Architecture, units: Units) -> dict[str, Tensor]:
    """Per tensor that holds some of `units` (positions): a boolean mask of its shape, True on their entries."""
    masks = {}
    for name, layer, kind, dim, repeats in unit_tensors(arch):
        if name in weights and units.of(kind)[layer]:
            mask = torch.zeros(weights[name].shape, dtype=torch.bool)
            mask.index_fill_(dim, unit_index(arch, kind, layer, units.of(kind)[layer], repeats), True)
            masks[name] = mask
    return masks


def zeroed(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Weights:
    """Copies of `weights` with zeros where a mask is True."""
    return {
        name: tensor.masked_fill(masks[name].to(tensor.device), 0.0) if name in masks else tensor.clone()
        for name, tensor in weights.items()
    }


def unit_parameters(arch: Architecture, kind: Kind, layer: int, weights: Mapping[str, Tensor]) -> int:
    """Parameters (weights and biases) that one unit of this kind owns in this layer."""
    owned = 0
    for name, at, of_kind, _, _ in unit_tensors(arch):
        if at == layer and of_kind == kind and name in weights:
            owned += weights[name].numel() // arch.counts(kind)[layer]
    return owned


def _without(layers: PerLayer, positions: PerLayer) -> PerLayer:
    return tuple(
        tuple(unit for at, unit in enumerate(layer) if at not in set(gone))
        for layer, gone in zip(layers, positions, strict=True)
    )
