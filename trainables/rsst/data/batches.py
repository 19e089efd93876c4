"""From splits to batches: the images of one trial stay on its device as uint8 and are normalised batch by batch.

In: an `ImageData` and a device. Out: `TrialImages`, from which every `Batch` of the trial comes.
Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.progress import tracked
from trainables.rsst.data.load import ImageData
from trainables.rsst.data.split import Split
from trainables.rsst.seeding import generator

SCORED_AT_ONCE = 128  # calibration images; only sums leave a batch


@dataclass(frozen=True)
class Batch:
    """What goes through the model at once.

    `images` are normalised float32 (B, C, H, W); `targets` are int64 class numbers (B,), or probabilities
    (B, num_classes) where images were mixed.
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def split(self, size: int) -> list[Batch]:
        """Pieces of `size` images; the last may be smaller."""
        pieces = zip(self.images.split(size), self.targets.split(size), strict=True)
        return [Batch(images, targets) for images, targets in pieces]


@dataclass(frozen=True)
class TrialImages:
    """All that a trial sees, on its device; `test` is for the final model alone.

    `mean` and `std` are (C, 1, 1), for pixels scaled to 0 … 1. `at_a_time`: the most images that go through the model
    at once (micro_batch_size).
    """

    train: Split
    val: Split
    test: Split
    mean: Tensor
    std: Tensor
    num_classes: int
    at_a_time: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.labels.device

    def batch(self, split: Split) -> Batch:
        """The images of `split`, normalised."""
        return Batch(self.normalised(split.images), split.labels)

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, H, W) as the model takes them: float32 with mean 0 and standard deviation 1 over `train`."""
        return (pixels.float() / 255.0 - self.mean) / self.std

    def batches(self, split: Split, most: int, what: str) -> Iterator[Batch]:
        """The images of `split` in order, `most` (or `at_a_time`, if that is fewer) at once; the last may be fewer.

        `what` is being done to them, for the line of progress.
        """
        size = min(most, self.at_a_time or most)
        starts = range(0, len(split), size)
        return tracked(what, (self.batch(split[start : start + size]) for start in starts), len(split))

    def calibration(self, count: int, seed: int) -> Iterator[Batch]:
        """`count` training images (all, if there are fewer) drawn by `seed`, always the same ones, in batches."""
        drawn = torch.randperm(len(self.train), generator=generator(seed, "calibration"))[:count]
        return self.batches(self.train[drawn.to(self.device)], SCORED_AT_ONCE, "scoring units")


def on_device(data: ImageData, device: torch.device, at_a_time: int | None = None) -> TrialImages:
    """Move a data set to `device` once."""
    mean, std = (torch.tensor(values, device=device).reshape(-1, 1, 1) for values in (data.about.mean, data.about.std))
    train, val, test = (split.to(device) for split in (data.train, data.val, data.test))
    return TrialImages(train, val, test, mean, std, data.num_classes, at_a_time)
