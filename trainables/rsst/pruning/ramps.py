"""The ramps λ(t) of the progress t ∈ [0, 1] of a round, and how much of a round's pressure has acted by t.

In: ramp name, g (`reg_granularity_prune`), p (`exponents`).
Out: numbers.
Formulas: docs/method.md, "Ramps". Imports no torch, so that whoever only draws a ramp need not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

DEPTH = 30.0
"""K of docs/method.md, "How λ acts": a round multiplies a doomed weight by exp(−K·g). A constant, not a knob."""

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
