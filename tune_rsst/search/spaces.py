"""Draws from a search space, and checks that its trials can be trained and that it gives the same ones again.

In: settings, or a space's name or address and fixed knobs.
Out: checked settings, the space as the objective needs it, draws; the ranges and a digest of the space, by which a
resume notices that the space has changed. A single draw is in suggestions.py, the search for a
function in search_spaces/space_files.py.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json

from search_spaces import SPACES, same_again
from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.search.suggestions import Draw, Space, find
from tune_rsst.settings import rules
from tune_rsst.settings.resolved import resolve, with_checked_knobs
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.settings.written import given

# Together with the first trial 40: a space may be slow, and the user waits.
VALIDATION_DRAWS = 39
DIGEST_OF_RANGES = "ranges1:"
MANY_VALUES = 8


def ranges(space: Space, drawn: Iterable[Draw]) -> dict[str, BaseDistribution]:
    """The range of every parameter that `drawn` shows, those that depend on a choice too.

    Refuses parameters that Optuna or MLflow would refuse later, in the middle of the sweep.
    """
    found: dict[str, BaseDistribution] = {}
    for draw in drawn:
        for name, distribution in draw.ranges.items():
            if not re.fullmatch(r"[\w.-][\w ./-]*", name):
                raise ConfigError("space", space.address, "names of letters, digits, _ . and -", f"it has {name!r}")
            try:
                check_distribution_compatibility(found.setdefault(name, distribution), distribution)
            except ValueError:
                hint = f"{name} has other choices, or another kind or scale, in some trials: give it a name of its own"
                valid = "one set of choices for each parameter's name"
                raise ConfigError("space", space.address, valid, hint) from None
    return found


def digest(drawn: Iterable[Draw], fixed: Mapping[str, Any]) -> str:
    """A mark and 16 hex digits over the ranges in `drawn` and the values that the space itself gives to knobs.

    Comments, names and the drawn values do not matter. A knob with many values is computed from drawn ones: only its
    name counts, so that a sampler that draws other values gives the same digest.
    """
    seen: dict[str, set[str]] = {}
    for draw in drawn:
        for name, distribution in draw.ranges.items():
            seen.setdefault(f"range {name}", set()).add(distribution_to_json(distribution))
        for name in draw.knobs.keys() - draw.params.keys() - fixed.keys():
            seen.setdefault(f"knob {name}", set()).add(json.dumps(draw.knobs[name], default=str))
    behaviour = {name: sorted(values) if len(values) <= MANY_VALUES else "many" for name, values in seen.items()}
    text = json.dumps(behaviour, sort_keys=True)
    return DIGEST_OF_RANGES + hashlib.sha256(text.encode()).hexdigest()[:16]


def samples(space: Space, fixed: Mapping[str, Any], count: int) -> Iterator[tuple[Draw, RSSTConfig]]:
    """`count` seeded draws at random, each with the trial that it is."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for seed in range(count):  # a study each: one study would refuse a parameter with other choices, without its name
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        draw = space.draw(study.ask(), fixed)
        yield draw, space.configured(draw, fixed)


def check_same_again(space: Space, fixed: Mapping[str, Any], drawn: Iterable[Draw]) -> None:
    """Refuse a space of the user's that is no function of its suggestions; the published ones are tested."""
    if space.address not in SPACES:
        same_again.check(space.address, space.function, fixed, [draw.params for draw in drawn])


def sized(space: Space, settings: Any) -> Space:
    """`space` as the settings need it: constrained and pareto search the final size too, `shared` has a grid."""
    sizes = (settings.target_density, settings.largest) if settings.searches_size else None
    as_it_is = (space.sizes, space.shared) == (sizes, settings.shared)
    return space if as_it_is else replace(space, sizes=sizes, shared=settings.shared)


def settle(
    settings: SweepSettings, space: Space | None = None, count: int = 1
) -> tuple[SweepSettings, Space, list[tuple[Draw, RSSTConfig]]]:
    """Checked settings, their space (or `space`) as the objective needs it, and `count` samples of it."""
    rules.check(settings)
    space = sized(space or find(settings.space), settings)
    drawn = list(samples(space, settings.fixed_in_trials, count))
    return with_checked_knobs(settings, drawn[0][1].knobs()), space, drawn


def settled(words: Iterable[str], space: Space | None = None) -> tuple[SweepSettings, Space]:
    """`settle` of `key=value` words, as a driver takes them; a plan checks more."""
    return settle(resolve(given(None, list(words))), space)[:2]
