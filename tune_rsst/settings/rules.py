"""Which settings fit together.

In: settings. Out: nothing, or a ConfigError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from search_spaces import GUIDED, SHARED
from search_spaces.parts import UNITS
from trainables.rsst.config import ConfigError
from tune_rsst.ledger.objective import LIMITS, SEVERAL

ACTS_WITH: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "startup_trials": ("sampler = tpe or gp", lambda s: s.sampler in ("tpe", "gp")),
    "reduction_factor": ("stopping = halving", lambda s: s.stopping == "halving"),
    "shared": ("lr or warmup searched", lambda s: not {"lr", "warmup"} <= s.fixed.keys()),
    "rungs": ("stopping = halving", lambda s: s.stopping == "halving"),
}
"""Settings that act with some values of others only."""


def idle(settings: Any) -> list[str]:
    """A line for each setting that does nothing beside the others."""
    found = {name: getattr(settings, name) for name in ACTS_WITH}
    return [
        f"{name} = {value} does nothing here: it acts with {ACTS_WITH[name][0]}"
        for name, value in found.items()
        if value != type(settings).model_fields[name].default and not ACTS_WITH[name][1](settings)
    ]


def check(settings: Any) -> None:
    """Refuse settings that contradict each other."""
    device, gpus = settings.fixed.get("device"), settings.gpus_per_trial
    if device == "cuda" and gpus == 0:
        raise ConfigError(
            "device", device, "auto or cpu with gpus_per_trial = 0", "or give gpus_per_trial=1, or a share"
        )
    if device == "cpu" and gpus not in (0, "auto"):
        raise ConfigError("gpus_per_trial", gpus, "0 with device = cpu", "no trial would compute on it")
    if settings.gpu_hours_budget is not None and gpus == 0:
        hint = "trials hold no GPU; epoch_budget and time_budget_s limit what they take"
        raise ConfigError("gpu_hours_budget", settings.gpu_hours_budget, "given with gpus_per_trial above 0", hint)
    if settings.first == "guide" and settings.space not in GUIDED:
        raise ConfigError("first", "guide", f"none here: the guide speaks of the spaces {' and '.join(GUIDED)}")
    if settings.first == "guide" and settings.sampler == "grid":
        raise ConfigError("first", "guide", "none with sampler = grid: the grid is all that is tried")
    if settings.shared and settings.space not in SHARED:
        hint = "a space of yours can name its values by suggest_categorical"
        raise ConfigError("shared", "true", f"false here: the spaces {', '.join(SHARED)} have such a grid", hint)
    _check_objective(settings)


def _check_objective(settings: Any) -> None:
    kind, limits = settings.objective, [key for key in LIMITS if getattr(settings, key) is not None]
    if kind not in SEVERAL and limits:
        hint = "add objective=constrained, or leave it out"
        raise ConfigError(limits[0], getattr(settings, limits[0]), "given with objective constrained or pareto", hint)
    if kind == "constrained" and not limits:
        raise ConfigError("objective", kind, f"constrained together with {' or '.join(LIMITS)}", "give one of them")
    if kind != "pareto" and settings.pareto_against is not None:
        hint = "add objective=pareto, or leave it out"
        raise ConfigError("pareto_against", settings.pareto_against, "given with objective pareto", hint)
    if kind not in SEVERAL:
        if settings.largest_density is not None:
            valid, hint = "given with objective constrained or pareto", f"{kind} has one size: target_density"
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
