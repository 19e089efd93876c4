"""The images of one trial on its device: uint8 tensors that stay there, normalised batch by batch.

Comes in: an `ImageData` and a device. Goes out: train, validation and test `Split`s and the calibration images.
Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.rsst.data.load import ImageData
from trainables.rsst.seeding import generator


@dataclass(frozen=True)
class Split:
    """uint8 images (B, C, H, W) and int64 labels (B,) on one device; `mean` and `std` are (C, 1, 1) for 0…1 pixels."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def batch(self, index: slice | Tensor) -> Tensor:
        """Normalised float32 images (B, C, H, W)."""
        return (self.images[index].float() / 255.0 - self.mean) / self.std


@dataclass(frozen=True)
class TrialImages:
    """All that a trial sees; `test` is for the final model alone."""

    train: Split
    val: Split
    test: Split
    num_classes: int

    def calibration(self, count: int, seed: int) -> Calibration:
        """`count` training images (all, if there are fewer) drawn by `seed`, always the same ones."""
        labels = self.train.labels
        drawn = torch.randperm(len(labels), generator=generator(seed, "calibration"))[:count].to(labels.device)
        return Calibration(self.train.batch(drawn), labels[drawn])


def on_device(data: ImageData, device: torch.device) -> TrialImages:
    """Move a data set to `device` once."""
    mean = torch.tensor(data.mean, device=device).reshape(-1, 1, 1)
    std = torch.tensor(data.std, device=device).reshape(-1, 1, 1)

    def split(images: Tensor, labels: Tensor) -> Split:
        return Split(images.to(device), labels.to(device), mean, std)

    return TrialImages(
        split(data.train_images, data.train_labels),
        split(data.val_images, data.val_labels),
        split(data.test_images, data.test_labels),
        data.num_classes,
    )


@dataclass(frozen=True)
class Calibration:
    """Fixed images (B, C, H, W), normalised floats, and their labels (B,), on the model's device."""

    images: Tensor
    labels: Tensor
