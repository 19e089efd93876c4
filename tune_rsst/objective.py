"""What a sweep is after, and which trials are good by it. The one place that ranks trials and says what the front is.

    val_top1      highest val_top1 at `target_density`; the rounds follow from each trial's rate
    constrained   highest val_top1 under max_gmacs, max_params, max_latency_ms (one or more of them)
    pareto        the front of val_top1 against density, gmacs, params or latency_ms; limits may be given too

constrained and pareto search the final size as well: `target_density` is then the smallest, `largest_density` the
largest, in steps of whole units (fixed where both are equal, or where the space gives `target_density` itself).
Comes in: settings as the ledger holds them, and metrics. Goes out: values and constraints for Optuna, ranking, front.
Latency is measured by the trial on its own machine, as it reports it (trainables/rsst/evaluation.py): it is only
comparable between trials that had the same machine to themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from search_spaces.parts import UNITS, Suggest, final_size
from trainables.rsst.config import ConfigError
from tune_rsst.spaces import Space
from tune_rsst.view import SweepView, TrialView

SLACK = 1e-9
LIMITS: Mapping[str, str] = {"max_gmacs": "gmacs", "max_params": "params", "max_latency_ms": "latency_ms"}
Standing = Literal["feasible", "infeasible", "stopped", "failed", "running"]


@dataclass(frozen=True)
class Objective:
    """`limits`: metric → most that is allowed. `against`: the metric that pareto minimises."""

    kind: str
    target_density: float | None
    limits: Mapping[str, float]
    against: str

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Objective:
        """The objective in settings, as the ledger holds them; those of older sweeps have no new keys."""
        target = settings.get("target_density")
        limits = {metric: float(settings[key]) for key, metric in LIMITS.items() if settings.get(key) is not None}
        return cls(
            settings.get("objective", "val_top1"),
            None if target is None else float(target),
            limits,
            settings.get("pareto_against") or "density",
        )

    @property
    def directions(self) -> tuple[str, ...]:
        """For Optuna, in the order of `values`."""
        return ("maximize", "minimize") if self.kind == "pareto" else ("maximize",)

    def values(self, metrics: Mapping[str, Any]) -> tuple[float, ...] | None:
        """What a finished trial is judged by; None where it reported no such number."""
        names = ("val_top1", self.against) if self.kind == "pareto" else ("val_top1",)
        found = [metrics.get(name) for name in names]
        return None if any(value is None for value in found) else tuple(float(str(value)) for value in found)

    def constraints(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Metric → share by which it is over its limit: ≤ 0 is feasible (and the same scale for all)."""
        return {name: metrics.get(name, math.inf) / most - 1.0 for name, most in self.limits.items()}

    def within_limits(self, metrics: Mapping[str, Any]) -> bool:
        """Whether no constraint is broken."""
        return all(over <= SLACK for over in self.constraints(metrics).values())

    def allows(self, metrics: Mapping[str, Any]) -> bool:
        """Whether a model of these metrics is one that the sweep is after: within the limits, at the target."""
        if self.values(metrics) is None or not self.within_limits(metrics):
            return False
        if self.kind != "val_top1" or self.target_density is None:
            return True
        # what the schedule asked for counts: units are whole, and small layers may keep a little more
        asked = metrics.get("kept_share_asked", metrics.get("kept_share", 1.0))
        return bool(asked <= self.target_density + SLACK)

    @property
    def words(self) -> str:
        """For people: "highest val_top1 at target_density 0.3"."""
        under = ", ".join(f"{name} ≤ {most:g}" for name, most in self.limits.items())
        if self.kind == "pareto":
            return f"front of val_top1 against {self.against}" + (f", {under}" if under else "")
        at = f"at target_density {self.target_density:g}" if self.target_density is not None else ""
        return f"highest val_top1 {f'under {under}' if self.kind == 'constrained' else at}".rstrip()


def at_target(view: SweepView, trial: TrialView) -> bool:
    """Whether the trial's newest model is one that the sweep is after; the trial may still run, or be stopped."""
    return Objective.of(view.settings).allows(trial.metrics)


def order(trial: TrialView) -> tuple[float, float, int]:
    """Best first: val_top1, then fewer parameters, then the lower number."""
    return -trial.metrics.get("val_top1", -1.0), trial.metrics.get("params", math.inf), trial.number


def standing(view: SweepView) -> dict[str, Standing]:
    """Every trial's place in plots and tables: finished ones are feasible or not, the others are what they are."""
    objective = Objective.of(view.settings)
    return {name: _standing(objective, trial) for name, trial in view.trials.items()}


def _standing(objective: Objective, trial: TrialView) -> Standing:
    if trial.state == "finished":
        return "feasible" if objective.allows(trial.metrics) else "infeasible"
    return {"stopped": "stopped", "failed": "failed"}.get(trial.state, "running")  # type: ignore[return-value]


def ranking(view: SweepView) -> list[TrialView]:
    """Finished trials that the objective allows, best first (`order`); their models are hardened."""
    places = standing(view)
    return sorted((t for t in view.trials.values() if places[t.trial] == "feasible"), key=order)


def best_of(view: SweepView) -> TrialView | None:
    """The first of the ranking (pareto: the most accurate of the front); None while there is none."""
    return next(iter(ranking(view)), None)


def pareto_front(view: SweepView) -> list[str]:
    """Trials that no other feasible one beats in val_top1 and `against` both, smallest first.

    Only finished trials, whose model is hardened, and within the limits. Sweeps with another objective than pareto have
    a front too, against density; equal trials are all on it.
    """
    objective = Objective.of(view.settings)
    against = objective.against
    done = [t for t in view.trials.values() if t.state == "finished" and {"val_top1", against} <= t.metrics.keys()]
    done = [t for t in done if objective.within_limits(t.metrics)]
    done.sort(key=lambda t: (t.metrics[against], -t.metrics["val_top1"], t.number))
    front: list[str] = []
    best, at = -math.inf, -math.inf
    for trial in done:
        value, size = trial.metrics["val_top1"], trial.metrics[against]
        if value > best or (value == best and size == at):
            front.append(trial.trial)
            best, at = value, size
    return front


@dataclass(frozen=True)
class SizedSpace:
    """A space with the final size searched beside it; the trial's own `target_density` wins."""

    function: Any
    least: float
    most: float

    def __call__(self, trial: Suggest) -> dict[str, Any]:
        return {**final_size(trial, self.least, self.most), **self.function(trial)}


def sized(space: Space, settings: Any) -> Space:
    """`space` as the objective needs it: constrained and pareto search the final size too."""
    if not settings.searches_size:
        return space
    return Space(space.address, SizedSpace(space.function, settings.target_density, settings.largest))


def check(settings: Any) -> None:
    """Refuse settings that contradict the objective.

    Raises:
        ConfigError: one line, which key and what to do.
    """
    kind, limits = settings.objective, [key for key in LIMITS if getattr(settings, key) is not None]
    if kind == "val_top1" and limits:
        hint = "add objective=constrained, or leave it out"
        raise ConfigError(limits[0], getattr(settings, limits[0]), "given with objective constrained or pareto", hint)
    if kind == "constrained" and not limits:
        raise ConfigError("objective", kind, f"constrained together with {' or '.join(LIMITS)}", "give one of them")
    if kind != "pareto" and settings.pareto_against is not None:
        hint = "add objective=pareto, or leave it out"
        raise ConfigError("pareto_against", settings.pareto_against, "given with objective pareto", hint)
    if kind == "val_top1":
        if settings.largest_density is not None:
            valid, hint = "given with objective constrained or pareto", "val_top1 has one size: target_density"
            raise ConfigError("largest_density", settings.largest_density, valid, hint)
        return
    least = settings.target_density
    if least is None:
        raise ConfigError("pruning_times", settings.fixed.get("pruning_times"), f"left out with objective={kind}")
    most = settings.largest
    if most != least and most < least + 2 / UNITS:
        valid = f"target_density ({least:g}) for one size, or {least + 2 / UNITS:.3f} and more"
        raise ConfigError("largest_density", most, valid)
    if kind == "pareto" and most == least and settings.against == "density" and "granularity" in settings.fixed:
        hint = "leave largest_density out, or compare against latency_ms"
        raise ConfigError("largest_density", most, "above target_density: all trials would have one density", hint)


def check_sampler(sampler: str, conditional: bool) -> None:
    """Refuse a sampler that can't model the space.

    Raises:
        ConfigError: gp with parameters that only some trials have: it would draw those at random.
    """
    if sampler == "gp" and conditional:
        valid = "tpe, nsga2, nsga3, random or qmc for a space whose parameters depend on a choice"
        raise ConfigError("sampler", "gp", valid, "gp models only parameters that every trial has")
