"""How the penalty λ(t) of ramps.py acts on the weights of the doomed.

In: a config, parameters, boolean masks of the doomed entries.
Out: weights (normalized) and gradients (l2) changed in place.
Formulas: docs/method.md, "How λ acts".
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.rsst.config import RSSTConfig
from trainables.rsst.pruning.ramps import DEPTH as DEPTH
from trainables.rsst.pruning.ramps import pressed as pressed
from trainables.rsst.pruning.ramps import ramp as ramp


class Penalty:
    """Presses the doomed entries of a model during one round; with no doomed entries it does nothing.

    `masks` hold the doomed, `dead` the entries that were removed before (granularity = element) and stay zero.
    """

    def __init__(
        self,
        config: RSSTConfig,
        parameters: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        dead: Mapping[str, Tensor],
    ) -> None:
        self._name, self._g, self._p = config.RST_schedule, config.reg_granularity_prune, config.exponents
        self._normalized = config.penalty_form == "normalized"
        self._weights = [parameters[name] for name in masks]
        self._masks = [mask.to(parameters[name].device, parameters[name].dtype) for name, mask in masks.items()]
        self._dead_weights = [parameters[name] for name in dead]
        self._alive = [(~mask).to(parameters[name].device, parameters[name].dtype) for name, mask in dead.items()]

    @torch.no_grad()
    def before_step(self, t: float) -> None:
        """l2: add λ(t)·w to the gradients of the doomed; t is the progress that the step ends at."""
        if self._weights and not self._normalized:
            gradients = [weight.grad for weight in self._weights if weight.grad is not None]
            torch._foreach_addcmul_(gradients, self._weights, self._masks, value=ramp(self._name, t, self._g, self._p))

    @torch.no_grad()
    def after_step(self, t_from: float, t_to: float) -> None:
        """normalized: multiply the doomed by exp(−K·g·[Λ(t_to) − Λ(t_from)]/Λ(1)); then keep the dead at zero."""
        if self._weights and self._normalized:
            share = pressed(self._name, t_to, self._g, self._p) - pressed(self._name, t_from, self._g, self._p)
            factor = math.exp(-DEPTH * self._g * share)
            torch._foreach_addcmul_(self._weights, self._weights, self._masks, value=factor - 1.0)
        if self._dead_weights:
            torch._foreach_mul_(self._dead_weights, self._alive)

    @torch.no_grad()
    def doomed_norm(self) -> float:
        """Euclidean norm of all doomed entries together (float64)."""
        squares = [
            (weight.detach().double() * mask).square().sum()
            for weight, mask in zip(self._weights, self._masks, strict=True)
        ]
        return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
