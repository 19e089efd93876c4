"""Shared parts of the search spaces: what a space may call, and the ranges that several spaces have in common.

Comes in: an object that suggests values (Optuna's trial, or a sampler of the tests). Goes out: knobs of a trial.
Only ranges live here. A bound that depends on another suggestion is expressed as a share of it, because a sampler
needs the same distribution in every trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Value = bool | int | float | str | None
Knobs = dict[str, Value]


class Suggest(Protocol):
    """The part of `optuna.trial.Trial` that a space uses; search_spaces itself needs no Optuna."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high], on a log scale where `log`."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high], both included."""

    def suggest_categorical(self, name: str, choices: Sequence[bool | int | float | str]) -> bool | int | float | str:
        """One of `choices`."""


def learning_rate(trial: Suggest, low: float, high: float) -> Knobs:
    """`lr`, on a log scale."""
    return {"lr": trial.suggest_float("lr", low, high, log=True)}


def warmup(trial: Suggest, longest_epochs: int) -> Knobs:
    """`warmup`: 0 to `longest_epochs` epochs of linear warm-up in every round."""
    return {"warmup": trial.suggest_int("warmup", 0, longest_epochs)}


def pruning_rate(trial: Suggest, low: float, high: float) -> Knobs:
    """`rate`: share of the alive units that a round removes. With `target_density` it decides the number of rounds."""
    return {"rate": trial.suggest_float("rate", low, high)}


def penalty_height(trial: Suggest) -> Knobs:
    """`reg_granularity_prune` (g) of penalty_form = normalized: over a round it scales doomed weights by exp(-30 g).

    0.2 leaves 0.25 % of its norm and 2 leaves nothing that float32 can hold: all of the range presses to zero
    (METHOD.md: below 0.1 units are cut while they still work), what varies is how early in the round it does so.
    """
    return {"reg_granularity_prune": trial.suggest_float("reg_granularity_prune", 0.2, 2.0, log=True)}
