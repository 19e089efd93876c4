"""How hard the doomed are pressed: ramps λ(t) of the progress t ∈ [0, 1] of a round, and how λ acts on weights.

Comes in: ramp name, g (`reg_granularity_prune`), p (`exponents`), boolean masks of the doomed entries.
Goes out: a coefficient, or weights (normalized) and gradients (l2) changed in place. Formulas: METHOD.md, "Ramps" and
"How λ acts".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainables.rsst.config import RSSTConfig

DEPTH = 30.0
"""K of METHOD.md: over a round a doomed weight is multiplied by exp(−K·g). A constant, not a knob."""

_E1 = math.e - 1.0
_TERMS = 25  # of the power series below; t ≤ 1, so term n is at most 1/n!


def ramp(name: str, t: float, g: float, p: float = 1.0) -> float:
    """λ(t), the penalty coefficient at progress t ∈ [0, 1] of the round."""
    formulas: dict[str, Callable[[], float]] = {
        "x": lambda: g * t,
        "x^2": lambda: g * t**2,
        "x^3": lambda: g * t**3,
        "exp": lambda: math.expm1(g * t),
        "exp_custom": lambda: g * math.expm1(t) / _E1,
        "exp_custom_exponents": lambda: g * math.expm1(t**p) / _E1,
    }
    return formulas[name]()


def pressed(name: str, t: float, g: float, p: float = 1.0) -> float:
    """Λ(t) / Λ(1), the share of the round's pressure that has acted by progress t, with Λ = ∫λ. For g = 0: 0.

    The ramps that hold an exponential are integrated term by term of its power series.
    """
    if g == 0 or t <= 0:
        return 0.0
    if name == "exp":
        return _pressed_exp(t, g)
    powers = {"x": 1.0, "x^2": 2.0, "x^3": 3.0}
    if name in powers:
        return float(t ** (powers[name] + 1.0))
    q = p if name == "exp_custom_exponents" else 1.0
    return _series(1.0, q, t) / _series(1.0, q, 1.0)


def _pressed_exp(t: float, g: float) -> float:
    """(e^{gt} − 1 − gt) / (e^g − 1 − g): a series where the difference would cancel, else scaled by e^{−g}."""
    if g < 1.0:
        return _series(g, 1.0, t) / _series(g, 1.0, 1.0)
    low = math.exp(-g)
    return (math.exp(g * (t - 1.0)) - low * (1.0 + g * t)) / (1.0 - low * (1.0 + g))


def _series(c: float, q: float, t: float) -> float:
    """∫₀ᵗ (e^{c·s^q} − 1) ds = Σ_{n≥1} cⁿ·t^{qn+1} / (n!·(qn + 1))."""
    return math.fsum(c**n * t ** (q * n + 1.0) / (math.factorial(n) * (q * n + 1.0)) for n in range(1, _TERMS))


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
