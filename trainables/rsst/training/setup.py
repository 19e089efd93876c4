"""What a round trains with, as one value: an epoch takes it, and so would another engine.

In: a config, a model, the trial's images, a penalty. Out: a `Training`, with a new optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.batches import TrialImages
from trainables.rsst.training.schedule import Clock, clock_for


class StepPenalty(Protocol):
    """What an epoch calls around each optimizer step; progress t is that of the round, in [0, 1]."""

    def before_step(self, t: float) -> None:
        """Change the gradients; the step ends at progress `t`."""

    def after_step(self, t_from: float, t_to: float) -> None:
        """Change the weights after the step from `t_from` to `t_to`."""


class NoPenalty:
    """Presses nothing."""

    def before_step(self, t: float) -> None:
        """See `StepPenalty`."""

    def after_step(self, t_from: float, t_to: float) -> None:
        """See `StepPenalty`."""


@dataclass(frozen=True)
class Training:
    """All that the epochs of one round share; they change the model and the optimizer in place.

    A new round begins a new one, and so does a model whose shape has changed.
    """

    config: RSSTConfig
    model: nn.Module
    images: TrialImages
    optimizer: torch.optim.Optimizer
    penalty: StepPenalty
    clock: Clock
    round: int

    @classmethod
    def begin(
        cls,
        config: RSSTConfig,
        model: nn.Module,
        images: TrialImages,
        *,
        penalty: StepPenalty | None = None,
        clock: Clock | None = None,
        round: int = 0,
    ) -> Training:
        """Round `round` before its first step; without `clock` it lasts as long as every round of a trial."""
        optimizer, clock = make_optimizer(config, model), clock or clock_for(config, len(images.train))
        return cls(config, model, images, optimizer, penalty or NoPenalty(), clock, round)


def make_optimizer(config: RSSTConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay acts on weight matrices alone.

    Free of it are biases, norms, LayerScale, tokens and latents, the position embedding, and what the model's own
    `no_weight_decay` names.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    spared: set[str] = getattr(model, "no_weight_decay", set)()
    for name, parameter in model.named_parameters():
        matrix = name.endswith(".weight") and parameter.ndim >= 2 and name not in spared
        (decayed if matrix else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
