"""What a model is worth and what it costs: accuracy, parameters, MACs, latency.

Comes in: a model or an architecture, images on its device. Goes out: plain numbers with their units in their names.
Shapes: B images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.rsst.data.batches import Split

_BATCH = 512


@dataclass(frozen=True)
class Accuracy:
    """top1 in [0, 1], mean cross-entropy (nats), predicted classes (B,) on the CPU."""

    top1: float
    loss: float
    predictions: Tensor

    def changed(self, other: Accuracy) -> float:
        """Share of the images whose predicted class differs."""
        return float((self.predictions != other.predictions).double().mean())


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> Accuracy:
    """Accuracy in float32, without augmentation."""
    was_training = model.training
    model.eval()
    losses, predictions = [], []
    for start in range(0, len(split.labels), _BATCH):
        logits = model(split.batch(slice(start, start + _BATCH)))
        labels = split.labels[start : start + _BATCH]
        losses.append(F.cross_entropy(logits.double(), labels, reduction="sum"))
        predictions.append(logits.argmax(dim=1))
    model.train(was_training)
    found = torch.cat(predictions)
    return Accuracy(
        top1=float((found == split.labels).double().mean()),
        loss=float(torch.stack(losses).sum()) / len(split.labels),
        predictions=found.cpu(),
    )
