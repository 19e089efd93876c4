"""Finds a search space, fixes knobs in it, draws from it, and checks that what it gives can be trained.

Comes in: a space's name or address, fixed knobs, something that suggests. Goes out: searched parameters and all knobs
of a trial; a digest of the space's behaviour, by which a resume notices that it was changed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from search_spaces import SPACES
from search_spaces.parts import Suggest, final_size
from trainables.rsst.config import ConfigError, RSSTConfig

# Together with the first trial at most 40: a space may be slow, and the user waits.
VALIDATION_DRAWS = 23
DIGEST_DRAWS = 16


@dataclass(frozen=True)
class Draw:
    """What a space gave once: the searched parameters, every knob of the trial, and the ranges of a random draw."""

    params: dict[str, Any]
    knobs: dict[str, Any]
    ranges: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


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


@dataclass
class RandomSuggest:
    """Uniform draws with a seed of their own; needs no Optuna. `ranges` records what was asked for."""

    seed: int
    ranges: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.ranges[name] = ("float", low, high, step, log)
        if step:
            return low + step * self._random.randint(0, int((high - low) / step + 1e-9))
        if log:
            return math.exp(self._random.uniform(math.log(low), math.log(high)))
        return self._random.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.ranges[name] = ("int", low, high, step, log)
        if log:
            return min(high, int(math.exp(self._random.uniform(math.log(low), math.log(high + 1)))))
        return low + step * self._random.randint(0, (high - low) // step)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.ranges[name] = ("categorical", *choices)
        return self._random.choice(list(choices))


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
            raise ConfigError(
                "space", self.address, "a function that runs", f"it raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(given, dict):
            raise ConfigError(
                "space", self.address, "a function that returns a dict of knobs", f"it returned {type(given).__name__}"
            )
        knobs = {**given, **fixed}
        if "pretrained" in suggestions.params and not given.get("pretrained"):
            knobs["weights"] = None  # the sweep's weights are for the trials that start from them
        return Draw(dict(suggestions.params), knobs, getattr(trial, "ranges", {}))

    def digest(self) -> str:
        """16 hex digits over ranges and knobs that seeded draws show; comments and names do not matter."""
        seen = []
        for seed in range(DIGEST_DRAWS):
            draw = self.draw(RandomSuggest(seed), {})
            seen.append([draw.ranges, {k: v for k, v in draw.knobs.items() if k not in draw.params}])
        return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()[:16]


def check_parameters(space: Space, drawn: Iterable[Draw]) -> None:
    """Refuse parameters that Optuna or MLflow would refuse later, in the middle of the sweep."""
    known: dict[str, tuple[Any, ...]] = {}
    for draw in drawn:
        for name, (kind, *details) in draw.ranges.items():
            if not re.fullmatch(r"[\w.-][\w ./-]*", name):
                raise ConfigError("space", space.address, "names of letters, digits, _ . and -", f"it has {name!r}")
            shape = (kind, *details) if kind == "categorical" else (kind, details[-1])
            if known.setdefault(name, shape) != shape:
                hint = f"{name} has other choices, or another kind or scale, in some trials: give it a name of its own"
                raise ConfigError("space", space.address, "one set of choices for each parameter's name", hint)


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
            raise ImportError("it is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        line = " ".join(str(error).split())
        raise ConfigError(
            "space", address, "a file or module that can be imported", f"{type(error).__name__}: {line}"
        ) from error


def samples(space: Space, fixed: Mapping[str, Any], count: int) -> Iterator[tuple[Draw, RSSTConfig]]:
    """`count` seeded draws, each with the trial that it is."""
    for seed in range(count):
        draw = space.draw(RandomSuggest(seed), fixed)
        yield draw, RSSTConfig.from_knobs(draw.knobs)


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
