"""What a sweep looks for, and which trials are good by it.

    val_top1      highest val_top1 at `target_density`; the rounds follow from each trial's rate
    constrained   highest val_top1 under max_gmacs, max_params, max_latency_ms (one or more of them)
    pareto        the front of val_top1 against density, gmacs, params or latency_ms; limits may be given too

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

SLACK = 1e-9
LIMITS: Mapping[str, str] = {"max_gmacs": "gmacs", "max_params": "params", "max_latency_ms": "latency_ms"}


@dataclass(frozen=True)
class Objective:
    """`limits`: metric → most that is allowed. `against`: the metric that pareto minimises."""

    kind: str
    target_density: float | None
    limits: Mapping[str, float]
    against: str

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Objective:
        """The objective in settings as the ledger has them; older sweeps lack the newer keys."""
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
