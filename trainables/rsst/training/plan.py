"""All that an epoch draws, made on the CPU at its start and copied to the device once.

In: a config, the trial's images, the epoch. Out: an `EpochPlan`; a step takes its draws from it without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.augment import Draws, augmented, drawn
from trainables.rsst.data.batches import Batch, TrialImages
from trainables.rsst.seeding import derived, generator


@dataclass(frozen=True)
class EpochPlan:
    """The steps of one epoch, in order; `images` is how many training images they take together."""

    policy: str
    steps: tuple[Draws, ...]
    images: int

    @classmethod
    def of(cls, config: RSSTConfig, images: TrialImages, round: int, epoch: int) -> EpochPlan:
        """The plan of epoch `epoch` of the round; it depends on the seed and the numbers alone."""
        count, side = len(images.train), images.train.images.shape[-1]
        order = torch.randperm(count, generator=generator(config.seed, "order", round, epoch))
        steps = [
            drawn(config.augment, chosen, side, derived(config.seed, "augment", round, epoch, at))
            for at, chosen in enumerate(order.split(config.batch_size))
        ]
        rows = torch.cat([step.rows for step in steps], dim=1)
        if images.device.type == "cuda":
            rows = rows.pin_memory()
        placed = rows.to(images.device, non_blocking=True).split(config.batch_size, dim=1)
        return cls(config.augment, tuple(step.on(part) for step, part in zip(steps, placed, strict=True)), count)

    def batch(self, images: TrialImages, step: int) -> Batch:
        """The batch of step `step`, on the device of `images`."""
        return augmented(images, self.policy, self.steps[step])
