"""Which settings of an objective fit together.

In: settings. Out: nothing, or a ConfigError.
"""

from __future__ import annotations

from typing import Any

from search_spaces.parts import UNITS
from trainables.rsst.config import ConfigError
from tune_rsst.ledger.objective import LIMITS


def check(settings: Any) -> None:
    """Refuse settings that contradict the objective."""
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
