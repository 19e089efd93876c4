"""What a search space is asked with, and what it gives: suggestions in, the knobs of one trial out.

In: a space, an Optuna trial, the knobs that the sweep fixes.
Out: a `Draw`, and its `RSSTConfig`. What Optuna or the ledger could not keep exactly is refused here, before a sampler
sees it: a range without a value, a step that does not divide it, a choice that is no plain value.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces import SPACES
from search_spaces.parts import Asked, final_size
from search_spaces.space_files import file_of, function_at, line_of
from trainables.rsst.config import ConfigError, RSSTConfig, overlaid
from trainables.user_code.loading import in_one_line
from tune_rsst.ledger.view import POINTS, SweepView, TrialView

SIZES = ("kept_share", "params", "gmacs")


@dataclass(frozen=True)
class Draw:
    """What a space gave once: the searched parameters with their ranges, and every knob of the trial."""

    params: dict[str, Any]
    knobs: dict[str, Any]
    ranges: dict[str, BaseDistribution] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    """Knobs that the space gave or asked for itself, those that the sweep fixes included."""


@dataclass
class Suggestions(Asked):
    """Stands between a space and the sampler: a fixed knob is answered here and never searched."""

    trial: Any
    fixed: Mapping[str, Any]
    shared: bool = False
    params: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, BaseDistribution] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a trial has suggest_float, suggest_int, suggest_categorical and fixed, but no {name}")

    def _answer(self, kind: str, name: str, *limits: Any, **how: Any) -> Any:
        if name in self.fixed:
            self.answered.add(name)
            return self.fixed[name]
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                wanted = distribution_of(kind, *limits, **how)
            if said:
                raise ValueError(str(said[0].message))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name}: {error}") from None
        if self.asked.setdefault(name, wanted) != wanted:
            raise ValueError(f"{name}: suggested twice in one trial, as {self.asked[name]} and as {wanted}")
        self.params[name] = getattr(self.trial, f"suggest_{kind}")(name, *limits, **how)
        return self.params[name]


def distribution_of(kind: str, *limits: Any, **how: Any) -> BaseDistribution:
    """Optuna's description of a question."""
    if kind == "categorical":
        return CategoricalDistribution(_plain(*limits))
    if kind == "float":
        return FloatDistribution(*_numbers(*limits), **how)
    return IntDistribution(*_numbers(*limits, how["step"], whole=True)[:2], **how)


def _numbers(*given: Any, whole: bool = False) -> tuple[Any, ...]:
    """`given` where they are finite numbers, whole ones where `whole`: Optuna cuts 2.5 down to 2."""
    for one in given:
        number = isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
        if not number or (whole and one != int(one)):
            raise ValueError(f"{one!r} is no {'whole' if whole else 'finite'} number")
    return given


def _plain(choices: Any) -> tuple[Any, ...]:
    """The choices in their order, each of them a value that every record can hold."""
    if not isinstance(choices, Sequence) or isinstance(choices, str | bytes):
        raise ValueError(f"choices are a list or a tuple, not a {type(choices).__name__}")
    for one in choices:
        if not (one is None or isinstance(one, bool | int | str | float)) or (
            isinstance(one, float) and not math.isfinite(one)
        ):
            raise ValueError(f"a choice is a text, a finite number, true, false or None, not {one!r}")
    if len(set(choices)) < len(choices):
        raise ValueError(f"one choice is there twice (1, 1.0 and True are equal): {list(choices)}")
    return tuple(choices)


@dataclass(frozen=True)
class Space:
    """A search space that was found: its address, and the function.

    `sizes`: the least and the largest final size that is one more parameter; the space's own `target_density` wins.
    `shared`: lr and warmup come from a grid, so that trials have the same dense round (one of `SHARED`).
    """

    address: str
    function: Callable[[Any], Any]
    sizes: tuple[float, float] | None = None
    shared: bool = False

    def draw(self, trial: Any, fixed: Mapping[str, Any]) -> Draw:
        """Ask `trial` for what is not fixed; fixed knobs win over the space's own."""
        suggestions = Suggestions(trial, fixed, self.shared)
        try:
            size = final_size(suggestions, *self.sizes) if self.sizes else {}
            given = self.function(suggestions)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            hint = f"it raised {in_one_line(error, file_of(self.function).parent)}"
            raise ConfigError("space", self.address, "a function that runs", hint) from error
        if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
            names = given if isinstance(given, Mapping) else ()
            odd = next((f"the key {name!r}" for name in names if not isinstance(name, str)), type(given).__name__)
            hint = f"it returned {odd}{line_of(self.function)}"
            raise ConfigError("space", self.address, "a function that returns a dict of knobs by name", hint)
        given = {**size, **given}
        knobs = overlaid(given, fixed)
        if "pretrained" in suggestions.params and not given.get("pretrained"):
            knobs["weights"] = None  # the sweep's weights are for the trials that start from them
        own = frozenset(given.keys() | suggestions.params.keys() | suggestions.answered)
        return Draw(dict(suggestions.params), knobs, dict(trial.distributions), own)

    def configured(self, draw: Draw, fixed: Mapping[str, Any]) -> RSSTConfig:
        """The trial that `draw` is; a knob of the space's own that is not valid is the space's fault."""
        try:
            return RSSTConfig.from_knobs(draw.knobs)
        except ConfigError as error:
            if self.address in SPACES or error.key in fixed or error.key not in draw.knobs:
                raise
            hint = f"{error}{line_of(self.function, error.key)}"
            raise ConfigError("space", self.address, "a function that gives valid knobs", hint) from None


def records(view: SweepView) -> list[dict[str, Any]]:
    """Everything that the study was asked for, in the order of its numbers; `of` is the trial whose outcome it has."""
    trials = [
        {"number": t.number, "params": t.params, "distributions": t.distributions, "sampler": t.sampler, "of": t.trial}
        for t in (*view.former.values(), *view.trials.values())
    ]
    return sorted([*trials, *view.repeats, *view.infeasible], key=lambda record: int(record["number"]))


def by(suggested_by: str) -> dict[str, Any]:
    """What a study says of a trial that was a point to be tried first."""
    return {"suggested_by": suggested_by} if suggested_by in POINTS else {}


def about(trial: TrialView) -> dict[str, Any]:
    """What a study says of a trial besides its values: which one of the sweep it is, and how large it is by now."""
    return {"trial": trial.trial} | {name: trial.metrics[name] for name in SIZES if name in trial.metrics}


def find(address: str) -> Space:
    """The space of that name, or at path/to/file.py:function or module:function."""
    return Space(address, function_at(address))
