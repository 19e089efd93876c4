"""Ramps and how they act on weights: values by hand, integrals against quadrature, the method's promises about g."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables import toy
from trainables.rsst.config import KNOBS
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.pruning.penalty import Penalty
from trainables.rsst.pruning.ramps import DEPTH, pressed, ramp

RAMPS = KNOBS["RST_schedule"].choices
E = math.e


def test_there_are_six_ramps() -> None:
    assert RAMPS == ("x", "x^2", "x^3", "exp", "exp_custom", "exp_custom_exponents")


@pytest.mark.parametrize(
    ("name", "g", "p", "half"),
    [
        ("x", 0.4, 1, 0.2),
        ("x^2", 0.4, 1, 0.1),
        ("x^3", 0.4, 1, 0.05),
        ("exp", 2.0, 1, E - 1),
        ("exp_custom", 0.3, 1, 0.3 * (math.sqrt(E) - 1) / (E - 1)),
        ("exp_custom_exponents", 0.3, 2, 0.3 * (E**0.25 - 1) / (E - 1)),
        ("exp_custom_exponents", 0.5, 3, 0.5 * (E**0.125 - 1) / (E - 1)),
    ],
)
def test_a_ramp_at_half_time_by_hand(name: str, g: float, p: float, half: float) -> None:
    assert ramp(name, 0.5, g, p) == pytest.approx(half, rel=1e-12)


@pytest.mark.parametrize("name", RAMPS)
@given(g=st.floats(1e-6, 20), p=st.floats(0.1, 10), a=st.floats(0, 1), b=st.floats(0, 1))
def test_ramps_and_their_integrals_start_at_0_and_never_fall(name: str, g: float, p: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert ramp(name, 0.0, g, p) == 0.0 == pressed(name, 0.0, g, p)
    assert 0 <= ramp(name, low, g, p) <= ramp(name, high, g, p)
    slack = 1e-12  # of float64 rounding
    assert -slack <= pressed(name, low, g, p) <= pressed(name, high, g, p) + slack <= 1 + 2 * slack
    assert pressed(name, 1.0, g, p) == pytest.approx(1.0, rel=1e-12)


def quadrature(name: str, t: float, g: float, p: float, pieces: int = 2000) -> float:
    """∫₀ᵗ λ by Simpson's rule, in the variable u = s^¼ where t^p with p < 1 is smooth enough."""
    end, total = t**0.25, 0.0
    for i in range(pieces + 1):
        u = end * i / pieces
        weight = 1 if i in (0, pieces) else 4 if i % 2 else 2
        total += weight * ramp(name, u**4, g, p) * 4 * u**3
    return total * end / pieces / 3


@pytest.mark.parametrize("name", RAMPS)
@pytest.mark.parametrize(
    ("g", "p"), [(0.3, 2.0), (0.5, 3.0), (0.01, 0.5), (1e-9, 2.0), (0.999, 1.0), (1.001, 7.0), (40.0, 2.0)]
)
def test_the_share_of_the_pressure_is_the_ramps_integral(name: str, g: float, p: float) -> None:
    whole = quadrature(name, 1.0, g, p)
    for t in (0.01, 0.3, 0.5, 0.9):
        assert pressed(name, t, g, p) == pytest.approx(quadrature(name, t, g, p) / whole, rel=1e-6, abs=1e-12)


def pressed_weight(steps: int, *, gradient: float = 0.0, **knobs: Any) -> torch.Tensor:
    """Four weights, the first two doomed, after a round of `steps` steps in which no optimizer moves them."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0, -4.0]))
    weight.grad = torch.full((4,), gradient)
    penalty = Penalty(toy.config(**knobs), {"w": weight}, {"w": torch.tensor([True, True, False, False])}, {})
    for step in range(steps):
        penalty.before_step((step + 1) / steps)
        penalty.after_step(step / steps, (step + 1) / steps)
    return weight.detach()


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("name", RAMPS)
@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_normalized_leaves_exp_of_minus_k_g_whatever_the_number_of_steps(name: str, steps: int) -> None:
    left = pressed_weight(steps, RST_schedule=name, reg_granularity_prune=0.1)
    assert DEPTH == 30.0
    factor = math.exp(-3.0)
    assert left.tolist() == pytest.approx([factor, -2 * factor, 3.0, -4.0], rel=2e-4 if steps == 1000 else 1e-5)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("name", RAMPS)
@pytest.mark.parametrize("form", ["normalized", "l2"])
def test_g_0_presses_nothing(name: str, form: str) -> None:
    left = pressed_weight(50, RST_schedule=name, reg_granularity_prune=0.0, penalty_form=form)
    assert left.tolist() == [1.0, -2.0, 3.0, -4.0]


@pytest.mark.usefixtures("toy")
def test_l2_adds_lambda_times_the_weight_to_the_gradient_of_the_doomed_only() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0, -4.0]))
    weight.grad = torch.full((4,), 10.0)
    config = toy.config(penalty_form="l2", RST_schedule="x", reg_granularity_prune=0.8)
    penalty = Penalty(config, {"w": weight}, {"w": torch.tensor([True, True, False, False])}, {})
    penalty.before_step(0.25)  # λ = 0.2
    assert weight.grad.tolist() == pytest.approx([10.2, 9.6, 10.0, 10.0])
    penalty.after_step(0.0, 0.25)
    assert weight.tolist() == [1.0, -2.0, 3.0, -4.0]


@pytest.mark.usefixtures("toy")
def test_the_doomed_norm_by_hand_and_dead_entries_that_stay_zero() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0, 5.0, 6.0]))
    doomed, dead = torch.tensor([True, True, False, False]), torch.tensor([False, False, False, True])
    penalty = Penalty(toy.config(reg_granularity_prune=0.0), {"w": weight}, {"w": doomed}, {"w": dead})
    assert penalty.doomed_norm() == 5.0
    penalty.after_step(0.0, 1.0)
    assert weight.tolist() == [3.0, 4.0, 5.0, 0.0]


def residual(tiny: ImageData, **knobs: Any) -> float:
    """Share of the doomed norm left after round 1."""
    config = toy.config(pruning_times=2, epochs=4, warmup=1, **knobs)
    return next(
        e.metrics["doomed_norm_left"]
        for e in run(config, tiny)
        if (e.kind, e.metrics["round"], e.metrics["epoch"]) == ("epoch", 1, 4)
    )


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_larger_g_never_leaves_a_larger_share_of_the_doomed_norm(tiny: ImageData, optimizer: str) -> None:
    left = [residual(tiny, optimizer=optimizer, reg_granularity_prune=g) for g in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)]
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.9 and left[-2] < 0.05


@pytest.mark.usefixtures("toy")
def test_batch_size_and_steps_changed_together_leave_the_residual_the_same_up_to_noise(tiny: ImageData) -> None:
    """12, 24 and 48 steps in the round; unpressed it would differ by far more than the bound."""
    left = [residual(tiny, batch_size=b, reg_granularity_prune=0.1, optimizer="sgd") for b in (32, 16, 8)]
    assert max(left) / min(left) < 1.15
    assert left[0] == pytest.approx(math.exp(-3.0), rel=0.35)
