"""Shared parts of the search spaces: what a space may call, and the ranges that several spaces have in common.

In: an object that suggests values (Optuna's trial, or a sampler of the tests).
Out: knobs of a trial.
Only ranges live here. A bound that depends on another suggestion is expressed as a share of it, or the parameter gets a
name of its own (`prefix`), because a sampler needs the same distribution for a name in every trial.

A sweep hands in an object that also knows the knobs that the user fixed (`trial.fixed`): by it a space that was made
for CIFAR follows `dataset=digits epochs=6` with ranges that fit. A bare Optuna trial has none: the space as it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from trainables.rsst.config import KNOBS, presets, prunings_to

Value = bool | int | float | str | None
Knobs = dict[str, Value]

HEIGHTS: Mapping[str, tuple[float, float]] = {"normalized": (0.2, 2.0), "l2": (0.3, 30.0)}
SHARED_LRS = 5
"""Learning rates of a grid (`shared`)."""
DECIDE_PRESETS = frozenset(name for name, knob in KNOBS.items() if knob.decides_presets)


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


class Asked(ABC):
    """What a space is given in place of Optuna's trial: every suggestion is one question."""

    @abstractmethod
    def _answer(self, kind: str, name: str, *limits: Any, **how: Any) -> Any:
        """The value of `name`. `kind`: float, int or categorical; the rest as the space gave it."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> Any:
        """As Optuna's."""
        return self._answer("float", name, low, high, step=step, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> Any:
        """As Optuna's."""
        return self._answer("int", name, low, high, step=step, log=log)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """As Optuna's."""
        return self._answer("categorical", name, choices)


def fixed(trial: Suggest) -> Mapping[str, Value]:
    """The knobs that the user fixed for the sweep; none for a bare Optuna trial."""
    found: Mapping[str, Value] = getattr(trial, "fixed", {})
    return found


def shared(trial: Suggest) -> bool:
    """Whether trials are to meet in their dense rounds: lr and warmup from a grid. Not for a bare Optuna trial."""
    return bool(getattr(trial, "shared", False))


def preset(trial: Suggest, pretrained: bool) -> Knobs:
    """The guide's values (trainables/rsst/config/presets.py) for the sweep's dataset and arch: epochs, lr, warmup, …"""
    own: Knobs = {"pretrained": pretrained} | {k: v for k, v in fixed(trial).items() if k in DECIDE_PRESETS}
    return {**presets.defaults(own), **own}


def epochs_of(knobs: Mapping[str, Value], usual: int = 1) -> int:
    """Epochs of a round; where the user wrote no number, 1 does until the trial's own check names the mistake."""
    try:
        return max(int(float(str(knobs.get("epochs", usual)))), 1)
    except (ValueError, OverflowError):
        return 1


def learning_rate(trial: Suggest, low: float, high: float, prefix: str = "") -> Knobs:
    """`lr`, on a log scale; `prefix` gives the parameter a name of its own where its range depends on a choice.

    Where trials are to meet: one of `SHARED_LRS` from `low` to `high`, equal factors apart, to 4 digits.
    """
    if "lr" in fixed(trial):
        return {"lr": fixed(trial)["lr"]}
    if shared(trial):
        steps = [low * (high / low) ** (step / (SHARED_LRS - 1)) for step in range(SHARED_LRS)]
        return {"lr": trial.suggest_categorical(f"{prefix}lr", tuple(float(f"{lr:.4g}") for lr in steps))}
    return {"lr": trial.suggest_float(f"{prefix}lr", low, high, log=True)}


def warmup(trial: Suggest, longest_epochs: int, prefix: str = "", usual_epochs: int = 2) -> Knobs:
    """`warmup`: 0 to `longest_epochs` epochs of linear warm-up in every round.

    Where trials are to meet: none, or `usual_epochs`, which a short round may shorten to the longest.
    """
    if "warmup" in fixed(trial):
        return {"warmup": fixed(trial)["warmup"]}
    if shared(trial):
        choices = tuple(dict.fromkeys((0, min(usual_epochs, longest_epochs))))
        return {"warmup": trial.suggest_categorical(f"{prefix}warmup", choices)}
    return {"warmup": trial.suggest_int(f"{prefix}warmup", 0, longest_epochs)}


def guides(trial: Suggest, pretrained: bool) -> Knobs:
    """The guide's `lr` and `warmup`, for a space that does not search them; a short round gets a short warm-up."""
    base = preset(trial, pretrained)
    return {"lr": base["lr"], "warmup": min(int(str(base["warmup"])), _longest_warmup(base))}


def _longest_warmup(base: Knobs) -> int:
    return math.floor(0.4 * epochs_of(base))


def training(trial: Suggest, pretrained: bool, prefix: str = "") -> Knobs:
    """`lr` from a quarter to four times the guide's value, `warmup` up to 0.4 of the round (the guide's: 0.26)."""
    base = preset(trial, pretrained)
    lr = float(str(base["lr"]))
    return {
        **learning_rate(trial, lr / 4, lr * 4, prefix),
        **warmup(trial, _longest_warmup(base), prefix, int(str(base["warmup"]))),
    }


def pruning_rate(trial: Suggest, low: float, high: float) -> Knobs:
    """How fast units go: each round removes a share of the alive ones, from `low` to `high`.

    With a `target_density` of the sweep only the number of rounds is free: `prunings`, those that such shares take.
    Else `rate`, where each trial has a target of its own (objective = constrained or pareto) too: how many prunings a
    rate means hangs on the target there.
    """
    target = fixed(trial).get("target_density")
    if not isinstance(target, float):
        return {"rate": trial.suggest_float("rate", low, high)}
    if fixed(trial).keys() & {"rate", "pruning_times"}:
        return {}
    fewest, most = prunings_to(target, high), prunings_to(target, low)
    return {"prunings": trial.suggest_int("prunings", fewest, most)}


def penalty_height(trial: Suggest) -> Knobs:
    """`reg_granularity_prune` (g), with a range for each penalty_form; nothing where the user fixed struct = refill.

    normalized: over a round it scales doomed weights by exp(-30 g). 0.2 leaves 0.25 % of their norm and 2 leaves
    nothing that float32 can hold: all of the range presses to zero (docs/experiments.md: below 0.1 units
    are cut while they still work), what varies is how early in the round it does so. l2: its effect hangs on lr ×
    steps, so the range is wide.
    """
    if fixed(trial).get("struct") == "refill":
        return {}
    low, high = HEIGHTS["l2" if fixed(trial).get("penalty_form") == "l2" else "normalized"]
    return {"reg_granularity_prune": trial.suggest_float("reg_granularity_prune", low, high, log=True)}


def ramp(trial: Suggest) -> Knobs:
    """`RST_schedule`, and `exponents` for the one ramp that has them; nothing where the user fixed struct = refill."""
    if fixed(trial).get("struct") == "refill":
        return {}
    chosen = trial.suggest_categorical("RST_schedule", KNOBS["RST_schedule"].choices)
    if chosen != "exp_custom_exponents":
        return {"RST_schedule": chosen}
    return {"RST_schedule": chosen, "exponents": trial.suggest_float("exponents", 0.5, 4.0, log=True)}


UNITS = 128
"""Neurons of every named model come in multiples of this, so that each step of `final_size` removes another number."""


def final_size(trial: Suggest, least: float, most: float) -> Knobs:
    """`target_density` in steps of whole units of the model (1/128 of its neurons), from `least` to `most`."""
    first, last = math.ceil(least * UNITS - 1e-9), math.floor(most * UNITS + 1e-9)
    return {"target_density": trial.suggest_float("target_density", first / UNITS, last / UNITS, step=1 / UNITS)}
