"""What a model is worth: its accuracy on one split.

In: a model, the trial's images, one of their splits. Out: an `Accuracy`. Shapes: B images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.progress import tracked
from trainables.rsst.data.batches import TrialImages
from trainables.rsst.data.split import Split

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
def evaluate(model: nn.Module, images: TrialImages, split: Split) -> Accuracy:
    """Accuracy on `split`, which is one of `images`: in float32, without augmentation."""
    was_training = model.training
    model.eval()
    losses, predictions = [], []
    starts = range(0, len(split), _BATCH)
    for start in tracked("evaluating", starts, len(split), size=lambda _: _BATCH):
        batch = images.batch(split[start : start + _BATCH])
        logits = model(batch.images)
        losses.append(F.cross_entropy(logits.double(), batch.targets, reduction="sum"))
        predictions.append(logits.argmax(dim=1))
    model.train(was_training)
    found = torch.cat(predictions)
    return Accuracy(
        top1=float((found == split.labels).double().mean()),
        loss=float(torch.stack(losses).sum()) / len(split),
        predictions=found.cpu(),
    )
