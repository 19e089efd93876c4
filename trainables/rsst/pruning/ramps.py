"""The ramps λ(t) of the progress t ∈ [0, 1] of a round, and how much of a round's pressure has acted by t.

In: ramp name, or a plug-in's value; g (`reg_granularity_prune`), p (`exponents`).
Out: numbers.
A plug-in f(t) gives the shape alone: λ(t) = g·f(t) with f(0) = 0, f(1) = 1, not falling; ∫f is summed by trapezoids.
Formulas: docs/method.md, "Ramps". Imports no torch, so that whoever only draws a ramp need not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

from trainables.plugins import PluginError, calling, is_plugin, load, said

DEPTH = 30.0
"""K of docs/method.md, "How λ acts": a round multiplies a doomed weight by exp(−K·g). A constant, not a knob."""

_E1 = math.e - 1.0
_TERMS = 25  # of the power series below; t ≤ 1, so term n is at most 1/n!


def ramp(name: str, t: float, g: float, p: float = 1.0) -> float:
    """λ(t), the penalty coefficient at progress t ∈ [0, 1] of the round.

    Raises:
        PluginError: the user's ramp raised, or is none.
    """
    if is_plugin(name):
        _sums(name)
        return g * _own(name, t)
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
    if is_plugin(name):
        return _pressed_own(name, t)
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


KEY = "RST_schedule"
STEPS = 4096  # of the trapezoids


def check(name: str) -> None:
    """Whether a plug-in is a ramp: 0 at 0, 1 at 1, never falling in between.

    Raises:
        PluginError: says where it is not.
    """
    _sums(name)


def _own(name: str, t: float) -> float:
    with calling(KEY, name):
        return float(load(KEY, name, 1)(t))


@lru_cache(maxsize=64)
def _sums(name: str) -> tuple[float, ...]:
    """∫₀ᵗ f at t = 0, 1/STEPS, …, 1 by trapezoids; f is looked at there."""
    values = [_own(name, step / STEPS) for step in range(STEPS + 1)]
    if not all(map(math.isfinite, values)) or values[0] != 0.0 or abs(values[-1] - 1.0) > 1e-9:
        ends = f"f(0) = {values[0]:g}, f(1) = {values[-1]:g}"
        raise PluginError(f"{KEY} {said(name)}: a ramp is finite, 0 at 0 and 1 at 1; here {ends}")
    for step, (before, after) in enumerate(pairwise(values)):
        if after < before:
            at = f"f({step / STEPS:.4f}) = {before:g}, f({(step + 1) / STEPS:.4f}) = {after:g}"
            raise PluginError(f"{KEY} {said(name)}: a ramp does not fall; here {at}")
    sums = [0.0]
    for before, after in pairwise(values):
        sums.append(sums[-1] + (before + after) / (2 * STEPS))
    return tuple(sums)


def _pressed_own(name: str, t: float) -> float:
    sums, place = _sums(name), min(t, 1.0) * STEPS
    step = min(int(place), STEPS - 1)
    return (sums[step] + (place - step) * (sums[step + 1] - sums[step])) / sums[-1]
