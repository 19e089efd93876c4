"""The settings of a sweep from what the user wrote: read, completed, checked.

In: `key=value` by name, as `written.py` has them. Out: `SweepSettings`.
Every error is one line: key = value: valid is …; what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from search_spaces import GUIDED
from search_spaces.space_files import from_any_folder
from trainables.plugins import named
from trainables.rsst.config import KNOBS, ConfigError, check_range, converted
from trainables.rsst.config.presets import DATASETS
from trainables.storage.files import is_folder, path_or_address
from trainables.terminal import is_text
from tune_rsst.ledger.objective import checked_objective
from tune_rsst.settings import points
from tune_rsst.settings.settings import RUN_ONLY, SweepSettings, settings_names

DEFAULT_TARGET_DENSITY = 0.3
DEFAULT_CONFIRM = 3  # of the sweep that is tried first, on the embedded digits


def resolve(written: Mapping[str, Any]) -> SweepSettings:
    """The settings of a sweep from what the user wrote."""
    own = {k: v for k, v in written.items() if k in settings_names()}
    for name, value in own.items():
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, str) and (not is_text(one) or "\0" in one):
                raise ConfigError(name, value, "a text in UTF-8 without zero bytes")
    fixed = {k: v for k, v in written.items() if k in KNOBS}
    if "pruning_times" not in fixed:
        fixed.setdefault("target_density", DEFAULT_TARGET_DENSITY)
    if "target_density" in fixed:
        fixed["target_density"] = converted(KNOBS["target_density"], fixed["target_density"])
        check_range(KNOBS["target_density"], fixed["target_density"])
    fixed.setdefault("on_missing_weights", "error")
    images = str(fixed.get("dataset", ""))
    if images and images not in DATASETS and is_folder(images):  # as a trial takes it
        fixed |= {"dataset": "folder", "data": images}
    if isinstance(own.get("space"), str):
        own["space"] = from_any_folder(own["space"])
    for path in (name for name, knob in KNOBS.items() if knob.path):
        if isinstance(fixed.get(path), str):
            fixed[path] = path_or_address(fixed[path])
    as_words = ("stopping", "first")
    for name in [k for k, v in own.items() if str(v).lower() in ("none", "null") and k not in as_words]:
        own[name] = None
    if "points" in own:
        own["points"] = points.read(own["points"])
    if isinstance(own.get("objective"), str):
        own["objective"] = checked_objective(own["objective"])
    if isinstance(own.get("stopping"), str):
        own["stopping"] = named("stopping", own["stopping"], ("halving", "none"))
    try:
        settings = SweepSettings(**own)
    except ValidationError as error:
        raise _one_line(error, written) from None
    fixed["seed"] = settings.seed
    if settings.confirm is None:
        as_it_comes = settings.space == "digits" and written.keys() <= RUN_ONLY | {"space", "seed"}
        settings = settings.model_copy(update={"confirm": DEFAULT_CONFIRM if as_it_comes else 0})
    if settings.first is None:
        guided = settings.space in GUIDED and settings.sampler != "grid"
        settings = settings.model_copy(update={"first": "guide" if guided else "none"})
    return settings.model_copy(update={"fixed": fixed, "assumed": frozenset(fixed.keys() - written.keys())})


def with_checked_knobs(settings: SweepSettings, checked: Mapping[str, Any]) -> SweepSettings:
    """`settings` with the fixed knobs as the core understood them (`spaces.samples`), and rules that need both."""
    of_the_sweep = {"weights", *(settings.fixed.keys() - settings.fixed_in_trials.keys())}
    of_the_sweep |= {"rate"} if settings.searches_size else set()  # it is rounded to each trial's own target
    kept = {name: value if name in of_the_sweep else checked[name] for name, value in settings.fixed.items()}
    settings = settings.model_copy(update={"fixed": kept})
    if settings.stopping == "halving" and settings.target_density is None:
        hint = "trials are compared at target_density^q: give it"
        raise ConfigError("stopping", "halving", "none without target_density", hint)
    return settings


def _one_line(error: ValidationError, written: Mapping[str, Any]) -> ConfigError:
    """The first complaint of pydantic in the project's own form."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    valid = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ").partition(", unable to")[0]
    valid = {"a valid integer": "a whole number", "a valid number": "a number"}.get(valid, valid)
    field = SweepSettings.model_fields.get(name)
    return ConfigError(name, written.get(name), valid, (field and field.description) or "")
