"""What a model is worth: its accuracy on one split, of all images and class by class.

In: a model, the trial's images, one of their splits. Out: an `Accuracy`. Shapes: B images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.rsst.data.batches import TrialImages
from trainables.rsst.data.split import Split
from trainables.rsst.training.kernels import tf32
from trainables.rsst.training.linear import fast_linears

EVALUATED_AT_ONCE = 512


@dataclass(frozen=True)
class Accuracy:
    """top1 and top5 in [0, 1], mean cross-entropy (nats), predicted classes (B,) on the CPU.

    `exact_loss`: the same mean, rounded once: no bit of it depends on how many images were evaluated at a time.
    `by_class`: the share of each class's images that were predicted right; None where the split has none of it.
    """

    top1: float
    loss: float
    predictions: Tensor
    by_class: list[float | None]
    top5: float = 1.0
    exact_loss: float = 0.0

    def changed(self, other: Accuracy) -> float:
        """Share of the images whose predicted class differs."""
        return float((self.predictions != other.predictions).double().mean())


def balanced(by_class: Sequence[float | None]) -> float:
    """Balanced accuracy: the mean over the classes that have images, each counting the same."""
    known = [share for share in by_class if share is not None]
    return sum(known) / len(known)


def class_ratio(split: Split, num_classes: int) -> float:
    """Images of the largest class against those of the smallest; a class without images counts as one image."""
    counts = torch.bincount(split.labels, minlength=num_classes)
    return float(counts.max()) / max(1.0, float(counts.min()))


@torch.no_grad()
def evaluate(model: nn.Module, images: TrialImages, split: Split) -> Accuracy:
    """Accuracy on `split`, which is one of `images`: in float32, without augmentation."""
    was_training = model.training
    model.eval()
    losses, predictions, among_five, each = [], [], [], []
    with fast_linears(model, images.device.type):
        for batch in images.batches(split, EVALUATED_AT_ONCE, "evaluating"):
            with tf32(images.device.type, allowed=False):
                logits = model(batch.images)
            losses.append(F.cross_entropy(logits.double(), batch.targets, reduction="sum"))
            each.append(F.cross_entropy(logits.double(), batch.targets, reduction="none"))
            predictions.append(logits.argmax(dim=1))
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices
            among_five.append((best == batch.targets[:, None]).any(dim=1))
    model.train(was_training)
    found = torch.cat(predictions)
    return Accuracy(
        top1=float((found == split.labels).double().mean()),
        loss=float(torch.stack(losses).sum()) / len(split),
        predictions=found.cpu(),
        by_class=_by_class(found, split.labels, images.num_classes),
        exact_loss=math.fsum(torch.cat(each).tolist()) / len(split),
        top5=float(torch.cat(among_five).double().mean()),
    )


def _by_class(found: Tensor, labels: Tensor, num_classes: int) -> list[float | None]:
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    right = torch.bincount(labels[found == labels], minlength=num_classes).tolist()
    return [hits / count if count else None for hits, count in zip(right, counts, strict=True)]
