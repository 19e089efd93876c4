"""Which units matter: one score per alive unit, higher is more important.

In: a trained model, its architecture, fixed calibration images.
Out: `Scores`, float64, by layer.
Shapes: B images, N tokens, H heads, K head dim, F neurons, U units of a layer. Scores are (U,). Formulas:
docs/method.md, "Which stay: criteria". Weights are the entries of weight matrices; biases are not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.plugins import is_plugin, said
from trainables.rsst.data.batches import Batch
from trainables.rsst.model.vit import Architecture, Kind, unit_tensors
from trainables.rsst.pruning.captured import captured
from trainables.rsst.pruning.own_criterion import own_scores


@dataclass(frozen=True)
class Scores:
    """`heads[l]` is a float64 tensor (H,), `neurons[l]` (F,), both on the CPU."""

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]

    def of(self, kind: Kind) -> tuple[Tensor, ...]:
        """Scores of one kind, by layer."""
        return self.heads if kind == "head" else self.neurons


def score(
    criterion: str, model: VisionTransformer, arch: Architecture, calibration: Iterable[Batch], *, rate: float
) -> Scores:
    """Scores of every alive unit by `criterion`; `rate` is the cut of `remain` and unused by the others.

    Raises:
        PluginError: a criterion of the user's raised, or gave other shapes.
        FloatingPointError: one is not finite.
    """
    was_training = model.training
    model.eval()
    try:
        if is_plugin(criterion):
            found = own_scores(criterion, model, arch, calibration)
        elif criterion in ("magnitude", "remain"):
            found = _from_weights(criterion, model, arch, rate)
        else:
            found = _from_activations(criterion, model, arch, calibration)
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
    if not bool(torch.cat([each.reshape(-1) for each in found.values()]).isfinite().all()):
        raise FloatingPointError(f"a score of the criterion {said(criterion)} is not finite")
    layers = range(arch.depth)
    return Scores(tuple(found["head", i].cpu() for i in layers), tuple(found["neuron", i].cpu() for i in layers))


Found = dict[tuple[Kind, int], Tensor]


def _from_weights(criterion: str, model: VisionTransformer, arch: Architecture, rate: float) -> Found:
    """magnitude: Σ|w| of a unit. remain: how many of its weights survive one global magnitude cut at `rate`."""
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    matrices = [entry for entry in unit_tensors(arch) if entry[0] in weights and weights[entry[0]].ndim == 2]
    if criterion == "remain":
        everything = torch.cat([weights[name].abs().reshape(-1) for name, *_ in matrices])
        cut = everything.sort().values[min(int(rate * everything.numel()), everything.numel() - 1)]
    found: Found = {}
    for name, layer, kind, dim, repeats in matrices:
        size = weights[name].abs()
        each = (size >= cut).double() if criterion == "remain" else size.double()
        count = arch.counts(kind)[layer]
        of_unit = each.movedim(dim, 0).reshape(repeats, count, -1).sum(dim=(0, 2))
        found[kind, layer] = found.get((kind, layer), torch.zeros_like(of_unit)) + of_unit
    return found


def _from_activations(
    criterion: str, model: VisionTransformer, arch: Architecture, calibration: Iterable[Batch]
) -> Found:
    """l1: mean |a|. l2: √ mean a². saliency: Σ over images of |Σ over tokens (and head dims) of a · ∂loss/∂a|.

    a is a head's attention output before `proj`, or a neuron after the activation function.
    """
    found: Found = {}
    entries = dict.fromkeys(("head", "neuron"), 0)
    saliency = criterion == "saliency"
    for batch in calibration:
        with torch.set_grad_enabled(saliency), captured(model) as inputs:
            logits = model(batch.images)
            if saliency:  # summed over images, so that each activation's gradient is that of its own image's loss
                F.cross_entropy(logits.float(), batch.targets, reduction="sum").backward()
        for (kind, layer), activation in inputs.items():
            units = arch.counts(kind)[layer]
            a = activation.detach().double().unflatten(-1, (units, -1))  # (B, N, U, K); K = 1 for neurons
            if saliency:
                assert activation.grad is not None, "hooked activations keep their gradient"
                per_image = (a * activation.grad.double().unflatten(-1, (units, -1))).sum(dim=(1, 3))
                value = per_image.abs().sum(dim=0)
            else:
                value = a.abs().sum(dim=(0, 1, 3)) if criterion == "l1" else a.square().sum(dim=(0, 1, 3))
            found[kind, layer] = found.get((kind, layer), torch.zeros_like(value)) + value
            if layer == 0:
                entries[kind] += a.numel() // units
    means: dict[str, Callable[[Kind, Tensor], Tensor]] = {
        "l1": lambda kind, total: total / entries[kind],
        "l2": lambda kind, total: (total / entries[kind]).sqrt(),
        "saliency": lambda kind, total: total,
    }
    return {(kind, layer): means[criterion](kind, total) for (kind, layer), total in found.items()}
