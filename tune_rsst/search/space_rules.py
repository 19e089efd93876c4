"""Whether all that a space gives and searches acts: nothing of it may be overruled or do nothing in silence.

In: a space, the sweep's settings, draws of it. Out: lines for the user, or a `ConfigError` that names the space.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainables.rsst.config import KNOBS, ConfigError, RSSTConfig, decisions
from tune_rsst.search.spaces import Draw, Space
from tune_rsst.settings import rules
from tune_rsst.settings.settings import SweepSettings

WAYS = ("prunings", "pruning_times", "rate")
Sample = tuple[Draw, RSSTConfig]


def check(space: Space, settings: SweepSettings, samples: Sequence[Sample]) -> list[str]:
    """Refuse a space whose words would do nothing; says which fixed knobs do nothing, and what a rate means."""
    draws, configs = [draw for draw, _ in samples], [config for _, config in samples]
    _refuse_overruled(space, settings, draws)
    _refuse_unsearchable(space, settings, samples)
    written = {name: value for name, value in settings.fixed_in_trials.items() if name not in settings.assumed}
    lines = [*rules.idle(settings), *decisions(written, configs)]
    if any("rate" in draw.params for draw in draws) and settings.fixed_in_trials.get("target_density") is not None:
        counts = sorted({config.prunings for config in configs})
        hint = f"the space can suggest prunings ({counts[0]} to {counts[-1]}) itself"
        lines.append(f"rate, which the space searches, acts only through the number of prunings to the target; {hint}")
    threads = max(config.num_threads for config in configs)
    if settings.cpus_per_trial != "auto" and settings.cpus_per_trial > threads:
        cpus = f"{settings.cpus_per_trial:g} CPUs are set aside for a trial"
        lines.append(f"{cpus}, and it computes on num_threads = {threads} of them")
    return lines


def _refuse_overruled(space: Space, settings: SweepSettings, draws: Sequence[Draw]) -> None:
    """What the sweep decides although the user did not write it must not be in the space."""
    alone = {name for name, knob in KNOBS.items() if knob.single_run}
    sweeps = ({"seed", "split_seed"} | settings.assumed & settings.fixed_in_trials.keys() | alone) - {"weights"}
    for name in sorted(sweeps & frozenset().union(*(draw.own for draw in draws))):
        value = f"; the sweep has {name} = {settings.fixed[name]}" if name in settings.fixed else ""
        hint = f"it gives {name}, which would do nothing{value}"
        way = "give it as a setting" if name in settings.fixed else "leave it out"
        raise ConfigError("space", space.address, f"a space without {name}", f"{hint}: {way}")


def _refuse_unsearchable(space: Space, settings: SweepSettings, samples: Sequence[Sample]) -> None:
    searched = sorted({name for draw, _ in samples for name in draw.params if name in KNOBS})
    for name in searched:
        knob, condition = KNOBS[name], KNOBS[name].acts_when
        asked = [(draw, config) for draw, config in samples if name in draw.params]
        if not knob.in_fingerprint:
            why = "no number of a trial depends on it"
        elif name in WAYS and not any(name in draw.knobs for draw, _ in asked):
            why = "a fixed knob says the number of prunings"
        elif condition and not any(knob.acts(config) for _, config in asked):
            why = f"it acts with {condition[0]}"
        else:
            continue
        raise ConfigError("space", space.address, f"a space that does not search {name} here", f"{why}: fix it")
    for name, knob in KNOBS.items():
        values = {getattr(config, name) for _, config in samples}
        if not knob.in_fingerprint and name != "weights" and len(values) > 1:
            hint = f"it gives {', '.join(sorted(map(str, values))[:4])}, and equal trials would not be compared alike"
            raise ConfigError("space", space.address, f"a space with one {name} for all trials", hint)


def check_sampler(sampler: str, conditional: bool) -> None:
    """Refuse a sampler that can't model the space."""
    if sampler == "gp" and conditional:
        valid = "tpe, nsga2, nsga3, random, qmc or grid for a space whose parameters depend on a choice"
        raise ConfigError("sampler", "gp", valid, "gp models only parameters that every trial has")
