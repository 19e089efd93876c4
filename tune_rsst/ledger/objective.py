"""What a sweep looks for, and which trials are good by it.

    val_top1      highest val_top1 at `target_density`; the rounds follow from each trial's rate
    constrained   highest val_top1 under max_gmacs, max_params, max_latency_ms (one or more of them)
    pareto        the front of val_top1 against density, gmacs, params or latency_ms; limits may be given too
    METRIC        the best value of a metric that a trial reports, at `target_density`: val_loss, val_top5, …;
                  min:METRIC or max:METRIC where the better direction is another, or not known
    FILE:f        the highest value of a function f of the metrics, a plug-in; min:FILE:f the lowest. The driver
                  writes it into the reports as the metric `objective`

constrained and pareto search the final size as well: `target_density` is then the smallest, `largest_density` the
largest, in steps of whole units (fixed where both are equal, or where the space gives `target_density` itself).
Parameters and MACs follow from a trial's knobs: what breaks such a limit is not trained (tune_rsst/search/limits.py).
In: settings as the ledger has them, and metrics. Out: values and constraints for Optuna, ranking, front.
Each trial measures latency on its own machine (trainables/rsst/model/cost.py). Compare it only between trials that
had the same machine to themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.plugins import PluginError, calling, is_plugin, load, named, said
from trainables.rsst.config import ConfigError
from trainables.rsst.metrics import METRICS

SLACK = 1e-9
LIMITS: Mapping[str, str] = {"max_gmacs": "gmacs", "max_params": "params", "max_latency_ms": "latency_ms"}


TOP1, AIM = "val_top1", "objective"
SEVERAL = ("constrained", "pareto")
"""Objectives that need not end at one size."""
DIRECTIONS: Mapping[str, str] = {"max": "higher", "min": "lower"}
AIMS = tuple(name for name, m in METRICS.items() if {"round", "final"} <= set(m.per) and m.form and name != AIM)
"""Metrics that can be an objective: known after each round, and not of the test images."""


@dataclass(frozen=True)
class Aim:
    """What is to be as high, or as low, as it can be: a metric. `plugin`: the function that computes it, or None."""

    metric: str = TOP1
    better: str = "higher"
    plugin: str | None = None

    @classmethod
    def of(cls, objective: str) -> Aim:
        """The aim in the setting `objective` as it is checked (`checked_objective`)."""
        direction, _, rest = objective.partition(":")
        if direction not in DIRECTIONS:
            direction, rest = "", objective
        if is_plugin(rest):
            return cls(AIM, DIRECTIONS[direction or "max"], rest)
        if rest in SEVERAL or rest not in METRICS:  # a ledger of a later version
            return cls()
        return cls(rest, DIRECTIONS.get(direction) or METRICS[rest].better or "higher")

    def computed(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """The metric `objective` of a round's or a final report, where a function computes it; else nothing.

        Raises:
            PluginError: the function raised, or gave no finite number.
        """
        if self.plugin is None:
            return {}
        function = load(AIM, self.plugin, 1)
        with calling(AIM, self.plugin):
            value = float(function(dict(metrics)))
        if not math.isfinite(value):
            raise PluginError(f"{AIM} {said(self.plugin)}: it gave {value}, which is no finite number")
        return {AIM: value}

    @property
    def words(self) -> str:
        """For people: "highest val_top1", "lowest val_loss"."""
        what = METRICS[self.metric].label if self.plugin is None else said(self.plugin)
        return f"{'highest' if self.better == 'higher' else 'lowest'} {what}"


def checked_objective(written: str) -> str:
    """The setting `objective` as records have it: a plug-in with its direction and the digest of its source."""
    direction, colon, rest = written.partition(":")
    if not colon or direction not in DIRECTIONS:
        direction, rest = "", written
    known = [name for name in AIMS if direction or METRICS[name].better]
    if rest in known or (rest in SEVERAL and not direction):
        return written
    if rest in AIMS:
        raise ConfigError("objective", written, f"min:{rest} or max:{rest}", "neither direction is the better one")
    valid = [*known, *(() if direction else SEVERAL)]
    return f"{direction or 'max'}:{named('objective', rest, valid, written)}"


@dataclass(frozen=True)
class Objective:
    """`limits`: metric → most that is allowed. `against`: the metric that pareto minimises. `aim`: what is ranked by.

    `kind`: at_target (one size, `target_density`), constrained or pareto.
    """

    kind: str
    target_density: float | None
    limits: Mapping[str, float]
    against: str
    aim: Aim = Aim()

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Objective:
        """The objective in settings as the ledger has them; older sweeps lack the newer keys."""
        target = settings.get("target_density")
        name = str(settings.get("objective", TOP1))
        limits = {metric: float(settings[key]) for key, metric in LIMITS.items() if settings.get(key) is not None}
        return cls(
            name if name in SEVERAL else "at_target",
            None if target is None else float(target),
            limits,
            settings.get("pareto_against") or "density",
            Aim.of(name),
        )

    @property
    def metric(self) -> str:
        """What trials are ranked and compared by."""
        return self.aim.metric

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else −1."""
        return 1 if self.aim.better == "higher" else -1

    def merit(self, metrics: Mapping[str, Any]) -> float:
        """The value of `metric`, its sign changed where lower is better: higher is better; −∞ where there is none."""
        value = metrics.get(self.metric)
        return -math.inf if value is None else self.sign * float(value)

    @property
    def directions(self) -> tuple[str, ...]:
        """For Optuna, in the order of `values`."""
        first = "maximize" if self.sign > 0 else "minimize"
        return (first, "minimize") if self.kind == "pareto" else (first,)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of `values`."""
        return (self.metric, self.against) if self.kind == "pareto" else (self.metric,)

    def values(self, metrics: Mapping[str, Any]) -> tuple[float, ...] | None:
        """What a finished trial is judged by; None where it reported no such number."""
        found = [metrics.get(name) for name in self.metrics]
        return None if any(value is None for value in found) else tuple(float(str(value)) for value in found)

    def constraints(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Metric → share by which it is over its limit: ≤ 0 is feasible (and the same scale for all)."""
        return {name: metrics.get(name, math.inf) / most - 1.0 for name, most in self.limits.items()}

    def known_constraints(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """`constraints` of a trial that was not run: those of the metrics that are known."""
        return {name: over for name, over in self.constraints(metrics).items() if name in metrics}

    def within_limits(self, metrics: Mapping[str, Any]) -> bool:
        """Whether no constraint is broken."""
        return all(over <= SLACK for over in self.constraints(metrics).values())

    def allows(self, metrics: Mapping[str, Any]) -> bool:
        """Whether the sweep looks for such a model: within the limits, at the target."""
        if self.values(metrics) is None or not self.within_limits(metrics):
            return False
        if self.kind != "at_target" or self.target_density is None:
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
        return f"{self.aim.words} {f'under {under}' if self.kind == 'constrained' else at}".rstrip()
