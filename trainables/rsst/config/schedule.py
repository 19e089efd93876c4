"""How often a trial prunes and how much each time: pruning_times, prunings, rate and target_density say it together.

In: the knobs that were given. Out: all of them, so that they agree; a `ConfigError` where they can't.

| given | prunings n | rate |
|---|---|---|
| no target_density | pruning_times − 1 | as given |
| target_density τ, and rate (or nothing else) | ⌈ln τ / ln(1 − rate)⌉ | 1 − τ^(1/n), the effective rate |
| target_density τ, and prunings or pruning_times | as given | 1 − τ^(1/n) |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trainables.errors import ConfigError

MAX_ROUNDS = 1000


def prunings_to(target_density: float, rate: float) -> int:
    """The fewest prunings of at most `rate` each that come down to `target_density`."""
    return math.ceil(math.log(target_density) / math.log1p(-rate) - 1e-9)


def effective_rate(target_density: float, prunings: int) -> float:
    """The share of the alive units that each of `prunings` removes on the way to `target_density`."""
    return -math.expm1(math.log(target_density) / prunings)


def schedule(given: Mapping[str, Any], complete: Mapping[str, Any]) -> dict[str, Any]:
    """pruning_times, prunings and rate of a trial; `complete` is `given` with the defaults."""
    target, rate = complete["target_density"], complete["rate"]
    says = {name: given[name] - less for name, less in (("prunings", 0), ("pruning_times", 1)) if name in given}
    if target is not None and ("rate" in given or not says):
        says["rate"] = prunings_to(target, rate)
    says = says or {"pruning_times": complete["pruning_times"] - 1}
    by = next(reversed(says))
    for name, prunings in says.items():
        if prunings != says[by]:
            valid = f"{says[by] + (name == 'pruning_times')}, which follows from {by} = {given[by]}"
            raise ConfigError(name, given[name], valid, f"leave {name} or {by} out")
    prunings = says[by]
    if target is None:
        return {"pruning_times": prunings + 1, "prunings": prunings, "rate": rate}
    if prunings < 1:
        raise ConfigError(by, given[by], "at least one pruning when target_density is given")
    if prunings >= MAX_ROUNDS:
        raise ConfigError("rate", rate, f"such that target_density takes at most {MAX_ROUNDS} rounds", "raise it")
    return {"pruning_times": prunings + 1, "prunings": prunings, "rate": effective_rate(target, prunings)}


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both; where they differ `above` wins, also where it says the number of prunings by another knob."""
    both = {**below, **above}
    target = both.get("target_density")
    ways = ("prunings", "pruning_times", *(() if target in (None, "none", "null", "") else ("rate",)))
    said = [name for name in ways if name in above]
    if not said and "rate" in ways and below.get("target_density", target) != target:
        said = ["rate"]  # another target at the same rate
    return {name: value for name, value in both.items() if not said or name not in ways or name in said}
