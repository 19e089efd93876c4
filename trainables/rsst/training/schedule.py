"""Where a round stands at a step, and its learning rate.

In: a config and the number of batches. Out: progress, learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.rsst.config import RSSTConfig


@dataclass(frozen=True)
class Clock:
    """Where a step stands in its round: epochs and steps count from 0, progress t is in [0, 1]."""

    epochs: int
    steps_per_epoch: int
    warmup_epochs: int

    @property
    def steps(self) -> int:
        """Steps of a round."""
        return self.epochs * self.steps_per_epoch

    def progress(self, step: int) -> float:
        """t after `step` steps of the round."""
        return step / self.steps


def clock_for(config: RSSTConfig, train_images: int) -> Clock:
    """The clock of every round of a trial; the last batch of an epoch may be smaller."""
    return Clock(config.epochs, math.ceil(train_images / config.batch_size), config.warmup)


def learning_rate(config: RSSTConfig, clock: Clock, step: int) -> float:
    """Learning rate of step `step` of a round: linear warm-up per step, then the schedule.

    cosine: ½(1 + cos πu)·lr, u the share of the steps after warm-up that are done; multistep: ×0.1 from u = ½ on and
    ×0.01 from u = ¾ on.
    """
    warm = clock.warmup_epochs * clock.steps_per_epoch
    if step < warm:
        return config.lr * (step + 1) / warm
    u = (step - warm) / max(clock.steps - warm, 1)
    if config.lr_schedule == "cosine":
        return config.lr * 0.5 * (1.0 + math.cos(math.pi * u))
    return config.lr * (0.01 if u >= 0.75 else 0.1 if u >= 0.5 else 1.0)
