"""Finds a search space, fixes knobs in it, draws from it, and checks that its trials can be trained.

In: a space's name or address, fixed knobs, an Optuna trial.
Out: searched parameters and all knobs of a trial; the ranges and a digest of the space, by which a resume notices that
the space has changed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)

from search_spaces import SPACES
from search_spaces.parts import Suggest, final_size
from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.settings import rules
from tune_rsst.settings.settings import SweepSettings, resolve, with_checked_knobs
from tune_rsst.settings.written import given

# Together with the first trial 40: a space may be slow, and the user waits.
VALIDATION_DRAWS = 39
DIGEST_OF_RANGES = "ranges1:"
MANY_VALUES = 8


@dataclass(frozen=True)
class Draw:
    """What a space gave once: the searched parameters with their ranges, and every knob of the trial."""

    params: dict[str, Any]
    knobs: dict[str, Any]
    ranges: dict[str, BaseDistribution] = field(default_factory=dict)


@dataclass
class Suggestions:
    """Stands between a space and the sampler: a fixed knob is answered here and never searched."""

    trial: Any
    fixed: Mapping[str, Any]
    params: dict[str, Any] = field(default_factory=dict)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._answer(name, lambda: self.trial.suggest_float(name, low, high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._answer(name, lambda: self.trial.suggest_int(name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, lambda: self.trial.suggest_categorical(name, choices))

    def _answer(self, name: str, ask: Callable[[], Any]) -> Any:
        if name in self.fixed:
            return self.fixed[name]
        self.params[name] = ask()
        return self.params[name]


@dataclass(frozen=True)
class Space:
    """A search space that was found: its address, and the function."""

    address: str
    function: Callable[[Any], dict[str, Any]]

    def draw(self, trial: Any, fixed: Mapping[str, Any]) -> Draw:
        """Ask `trial` for what is not fixed; fixed knobs win over the space's own."""
        suggestions = Suggestions(trial, fixed)
        try:
            given = self.function(suggestions)
        except Exception as error:
            hint = f"it raised {type(error).__name__}: {error}"
            raise ConfigError("space", self.address, "a function that runs", hint) from error
        if not isinstance(given, dict):
            hint = f"it returned {type(given).__name__}"
            raise ConfigError("space", self.address, "a function that returns a dict of knobs", hint)
        knobs = {**given, **fixed}
        if "pretrained" in suggestions.params and not given.get("pretrained"):
            knobs["weights"] = None  # the sweep's weights are for the trials that start from them
        return Draw(dict(suggestions.params), knobs, dict(trial.distributions))


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


def still_gives(
    space: Space, fixed: Mapping[str, Any], params: Mapping[str, Any], distributions: Mapping[str, str]
) -> bool:
    """Whether the space, answered with the `params` of a recorded trial, asks for the same ranges as it did then."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's, about a value out of its range
            draw = space.draw(optuna.trial.FixedTrial(dict(params)), fixed)
    except ConfigError:  # it asks for a parameter that the trial does not have
        return False
    return draw.ranges == {name: json_to_distribution(text) for name, text in distributions.items()}


def find(address: str) -> Space:
    """The space of that name, or at path/to/file.py:function or module:function."""
    if address in SPACES:
        return Space(address, SPACES[address])
    place, colon, name = address.rpartition(":")
    if not colon:
        close = get_close_matches(address, SPACES, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`tune-rsst spaces` lists them"
        raise ConfigError("space", address, f"{', '.join(SPACES)}, path/to/file.py:function or module:function", hint)
    module = _load(address, place)
    function = getattr(module, name, None)
    if function is None:
        functions = inspect.getmembers(module, inspect.isfunction)
        own = [(n, f) for n, f in functions if f.__name__ == n and n[0] != "_" and f.__module__ == module.__name__]
        known = [n for n, f in own if len(inspect.signature(f).parameters) == 1]
        raise ConfigError("space", address, f"a function that {place} has", f"it has {', '.join(known) or 'none'}")
    if not inspect.isfunction(function) or function.__name__ == "<lambda>" or "<locals>" in function.__qualname__:
        what = "a lambda" if getattr(function, "__name__", "") == "<lambda>" else "no module-level function"
        raise ConfigError("space", address, "a function defined with def at the top of a module", f"{name} is {what}")
    return Space(address, function)


def _load(address: str, place: str) -> Any:
    """The module at `place`, a .py file or a dotted name."""
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).expanduser().resolve()
        spec = importlib.util.spec_from_file_location(f"tune_rsst_space_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        line = " ".join(str(error).split())
        hint = f"{type(error).__name__}: {line}"
        raise ConfigError("space", address, "a file or module that can be imported", hint) from error


def samples(space: Space, fixed: Mapping[str, Any], count: int) -> Iterator[tuple[Draw, RSSTConfig]]:
    """`count` seeded draws at random, each with the trial that it is."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for seed in range(count):  # a study each: one study would refuse a parameter with other choices, without its name
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        draw = space.draw(study.ask(), fixed)
        yield draw, RSSTConfig.from_knobs(draw.knobs)


@dataclass(frozen=True)
class SizedSpace:
    """A space with the final size as one more parameter; the space's own `target_density` wins."""

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
