"""A criterion of the user's: one score per alive unit from a function `f(units, batches)`.

In: the trained model, calibration batches. Out: scores by kind and layer, checked.
Shapes: B images, N tokens, U units of a group, K head dim (1 for neurons), W weights of a unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.plugins import PluginError, calling, load, said
from trainables.rsst.data.batches import Batch
from trainables.rsst.model.vit import Architecture, Kind, build, unit_tensors
from trainables.rsst.pruning.captured import captured

KEY = "criteria"


@dataclass(frozen=True)
class UnitGroups:
    """What a criterion is given: the alive heads and neurons of `model`, a group for each kind and layer.

    `groups`: (kind, layer, number of units U); all lists below are in this order.
    """

    model: VisionTransformer
    arch: Architecture

    @property
    def groups(self) -> list[tuple[Kind, int, int]]:
        """("head", layer, U) of every layer, then ("neuron", layer, U)."""
        kinds: tuple[Kind, ...] = ("head", "neuron")
        return [(kind, layer, self.arch.counts(kind)[layer]) for kind in kinds for layer in range(self.arch.depth)]

    def __len__(self) -> int:
        return len(self.groups)

    def weights(self) -> list[Tensor]:
        """For each group the weights of its units, (U, W); biases are not among them."""
        tensors = {name: tensor.detach() for name, tensor in self.model.named_parameters()}
        found: dict[tuple[Kind, int], list[Tensor]] = {}
        for name, layer, kind, dim, repeats in unit_tensors(self.arch):
            if name in tensors and tensors[name].ndim == 2:
                count = self.arch.counts(kind)[layer]
                of_unit = tensors[name].movedim(dim, 0).reshape(repeats, count, -1).movedim(1, 0).reshape(count, -1)
                found.setdefault((kind, layer), []).append(of_unit)
        return [torch.cat(found[kind, layer], dim=1) for kind, layer, _ in self.groups]

    def activations(self, images: Tensor) -> list[Tensor]:
        """For each group what its units give to the next layer, (B, N, U, K)."""
        with torch.no_grad(), captured(self.model) as inputs:
            self.model(images)
        return self._split({place: found.detach() for place, found in inputs.items()})

    def gradients(self, images: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each group activations and the gradient of each image's own loss by them, both (B, N, U, K)."""
        with torch.enable_grad(), captured(self.model) as inputs:
            F.cross_entropy(self.model(images).float(), targets, reduction="sum").backward()
        gradients = {place: found.grad for place, found in inputs.items() if found.grad is not None}
        both = self._split({place: found.detach() for place, found in inputs.items()}), self._split(gradients)
        return list(zip(*both, strict=True))

    def _split(self, found: dict[tuple[Kind, int], Tensor]) -> list[Tensor]:
        return [found[kind, layer].unflatten(-1, (units, -1)) for kind, layer, units in self.groups]


def own_scores(
    criterion: str, model: VisionTransformer, arch: Architecture, calibration: Iterable[Batch]
) -> dict[tuple[Kind, int], Tensor]:
    """What the criterion gives for each kind and layer, (U,) in float64; it may be not finite.

    Raises:
        PluginError: it raised, or gave other shapes.
    """
    function, units = load(KEY, criterion, 2), UnitGroups(model, arch)
    with calling(KEY, criterion):
        given = function(units, _Pairs(calibration))
        found = list(given) if isinstance(given, Sequence | Iterator) else given
    if not isinstance(found, list) or len(found) != len(units):
        what = f"{len(found)} of them" if isinstance(found, list) else type(found).__name__
        raise PluginError(
            f"{KEY} {said(criterion)}: it gave {what}, not a list of {len(units)} tensors, one for each group"
        )
    for (kind, layer, count), scores in zip(units.groups, found, strict=True):
        if not isinstance(scores, Tensor) or scores.shape != (count,) or scores.is_complex():
            what = f"the shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            place = f"the {count} {kind}s of layer {layer}"
            raise PluginError(f"{KEY} {said(criterion)}: for {place} it gave {what}, not ({count},)")
    return {(k, i): s.detach().double() for (k, i, _), s in zip(units.groups, found, strict=True)}


class _Pairs:
    """Calibration batches as (images, targets); they can be gone through more than once."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = list(batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((batch.images, batch.targets) for batch in self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def check(criterion: str) -> None:
    """Call the criterion on a tiny pruned model.

    Raises:
        PluginError: says what is not as it must be.
    """
    arguments: dict[str, Any] = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 3}
    arguments |= {"embed_dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
    arch = Architecture("", arguments, 4, heads=(2, 1), neurons=(16, 5))
    answers = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = build(arch).eval()
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            batches = [Batch(torch.randn(count, 1, 8, 8), torch.arange(count) % 3) for count in (4, 2)]
            torch.manual_seed(seed)
            answers.append(own_scores(criterion, model, arch, batches))
        if any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()):
            raise PluginError(f"{KEY} {said(criterion)}: it changes the weights of the model")
    for (kind, layer), scores in answers[0].items():
        if not bool(scores.isfinite().all()):
            raise PluginError(f"{KEY} {said(criterion)}: a score of the {kind}s of layer {layer} is not finite")
        if not torch.equal(scores, answers[1][kind, layer]):
            raise PluginError(f"{KEY} {said(criterion)}: it gives other scores the second time, for the same model")
