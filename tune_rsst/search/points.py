"""What a sweep tries first: points that the user gave, the guide's, or all of a grid; compared with the space before.

In: a space, the settings. Out: points for the ledger's first line, and what the user should know of them.
The k-th suggestion of the sweep is the k-th point, by Optuna's `enqueue_trial`: what it leaves open the sampler draws.
A grid has every combination of the values that the space names: choices, whole numbers, steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces.inits import guide
from search_spaces.parts import Asked, Suggest
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.text import counted, short
from tune_rsst.search.suggestions import Space, distribution_of
from tune_rsst.settings.points import MOST
from tune_rsst.settings.settings import SweepSettings

COMPLETIONS = 20
"""Random completions that a point is tried with: what the space asks for may hang on values that it leaves open."""
Complete = Callable[[str, BaseDistribution], Any]


@dataclass(frozen=True)
class First:
    """`points`: as the ledger has them. `notes`: for the user. `configs`: trials that they are, for estimates."""

    points: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    configs: tuple[RSSTConfig, ...] = ()

    def trials(self, settings: SweepSettings) -> int:
        """How many trials the sweep has: a grid ends with its last point."""
        if settings.sampler != "grid":
            return settings.trials
        count = len(self.points)
        if "trials" not in settings.model_fields_set:
            return count
        if settings.trials > count:
            raise ConfigError("trials", settings.trials, f"at most {count}, the points of the grid", "or leave it out")
        return settings.trials


class _Open(BaseException):
    """A parameter of a grid that the point has no value for yet. No Exception: a space may catch those."""

    def __init__(self, name: str, asked: BaseDistribution) -> None:
        super().__init__(name)
        self.name, self.asked = name, asked


class _Answers(Asked):
    """Answers a space with a point; `complete` gives what it leaves open. `where` is its name in messages."""

    def __init__(self, point: Mapping[str, Any], complete: Complete, where: str) -> None:
        self.distributions: dict[str, BaseDistribution] = {}
        self.values: dict[str, Any] = {}
        self._point, self._complete, self._where = point, complete, where

    def _answer(self, kind: str, name: str, *limits: Any, **how: Any) -> Any:
        asked = self.distributions[name] = distribution_of(kind, *limits, **how)
        if name not in self.values:
            given = name in self._point
            self.values[name] = self._given(name, asked) if given else self._complete(name, asked)
        return self.values[name]

    def _given(self, name: str, asked: BaseDistribution) -> Any:
        value = self._point[name]
        if isinstance(asked, CategoricalDistribution):
            for choice in asked.choices:
                if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                    return choice
        elif isinstance(value, int | float) and not isinstance(value, bool) and asked._contains(float(value)):
            return int(value) if isinstance(asked, IntDistribution) else float(value)
        raise ConfigError(f"{self._where}: {name}", value, range_words(asked), "as the space has it")


def first(space: Space, settings: SweepSettings) -> First:
    """The points of a new sweep; a ConfigError for one that the space could not give."""
    if settings.sampler == "grid":
        return _grid(space, settings)
    fixed = settings.fixed_in_trials
    asked = [({"by": "guide"}, guides_point(space, fixed), "the guide's point")] if settings.first == "guide" else []
    asked += [({"by": "points"}, dict(p), f"points, point {n}") for n, p in enumerate(settings.points, start=1)]
    found: list[dict[str, Any]] = []
    configs = []
    for by, point, where in asked:
        params, config = _fitted(space, fixed, point, where)
        found.append({"params": params, **by})
        configs.append(config)
    notes = []
    if settings.first == "guide":
        notes.append(f"first trial: the guide's values, {_words(found[0]['params'])} (first=none leaves it out)")
    if settings.points:
        notes.append(f"first {'then ' if notes else ''}{counted(len(settings.points), 'given point')}")
    if len(found) > settings.trials:
        notes.append(f"points: only the first {settings.trials} of {len(found)}, as trials = {settings.trials}")
    return First(tuple(found), tuple(notes), tuple(configs))


def guides_point(space: Space, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The guide's value of every parameter that the space, one of `GUIDED`, searches here."""
    known = guide(cast(Suggest, SimpleNamespace(fixed=fixed)), space.address)
    answers = _Answers({}, lambda name, asked: known.get(name, _at_random(random.Random(0), asked)), "")
    space.draw(answers, fixed)
    return {name: known[name] for name in answers.values if name in known}


def _fitted(
    space: Space, fixed: Mapping[str, Any], point: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], RSSTConfig]:
    """The point in the space's own types, and a trial that it can be."""
    values: dict[str, Any] = {}
    config, problem = None, None
    for seed in range(COMPLETIONS):
        rng = random.Random(seed)
        answers = _Answers(point, lambda name, asked, rng=rng: _at_random(rng, asked), where)  # type: ignore[misc]
        draw = space.draw(answers, fixed)
        values |= answers.values
        try:
            config = space.configured(draw, fixed)
        except ConfigError as error:
            problem = error
        if answers.values.keys() <= point.keys():
            break
    if unknown := [name for name in point if name not in values]:
        raise _not_asked(unknown[0], point, values, fixed, where)
    if config is None:
        assert problem is not None
        raise ConfigError(where, _words(point), "a point that makes a trial", str(problem))
    return {name: values[name] for name in point}, config


def _not_asked(
    name: str, point: Mapping[str, Any], asked: Mapping[str, Any], fixed: Mapping[str, Any], where: str
) -> ConfigError:
    close = get_close_matches(name, asked, n=1)
    hint = f"did you mean {close[0]}?" if close else "the space does not ask for it, with these values"
    if name in fixed:
        hint = f"the sweep fixes {name} = {fixed[name]}"
    return ConfigError(f"{where}: {name}", point[name], f"a parameter of the space here: {', '.join(asked)}", hint)


def _grid(space: Space, settings: SweepSettings) -> First:
    """Every combination of the space's values; given points narrow it: a grid over what each of them leaves open."""
    fixed, left_out = settings.fixed_in_trials, {"not valid": 0, "the same trial as another": 0}
    found: dict[str, tuple[dict[str, Any], RSSTConfig]] = {}
    problem: ConfigError | None = None
    for number, point in enumerate(settings.points or ({},), start=1):
        for values, draw in _combinations(space, fixed, point, f"points, point {number}"):
            if unknown := [name for name in point if name not in values]:
                raise _not_asked(unknown[0], point, values, fixed, f"points, point {number}")
            try:
                config = space.configured(draw, fixed)
            except ConfigError as error:
                problem = error
                left_out["not valid"] += 1
                continue
            left_out["the same trial as another"] += config.fingerprint in found
            found.setdefault(config.fingerprint, ({"params": values, "by": "grid"}, config))
            if len(found) > MOST:
                raise _too_many()
    if not found:
        raise ConfigError("sampler", "grid", "a space with valid combinations", f"none is: {problem}")
    notes = [f"grid: {counted(len(found), 'point')}, in this order"]
    if said := ", ".join(f"{count} {what}" for what, count in left_out.items() if count):
        notes.append(f"grid: combinations left out: {said}")
    found_first = First(tuple(p for p, _ in found.values()), tuple(notes), tuple(c for _, c in found.values()))
    if (trials := found_first.trials(settings)) < len(found):
        more = f"only the first {trials} points, as trials = {trials}; tune-rsst extend goes on with the rest"
        return First(found_first.points, (*notes, f"grid: {more}"), found_first.configs)
    return found_first


def _combinations(
    space: Space, fixed: Mapping[str, Any], point: Mapping[str, Any], where: str
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Values and draw of each combination; the parameter that the space asks for last changes fastest."""

    def ask(name: str, asked: BaseDistribution) -> Any:
        raise _Open(name, asked)

    left = [dict(point)]
    while left:
        answers = _Answers(known := left.pop(), ask, where)
        try:
            draw = space.draw(answers, fixed)
        except _Open as question:
            values = values_of(question.name, question.asked)
            if len(left) + len(values) > MOST:
                raise _too_many() from None
            left += [{**known, question.name: value} for value in reversed(values)]
            continue
        yield dict(answers.values), draw


def _too_many() -> ConfigError:
    hint = "fix parameters (lr=0.001), give their values in points=FILE.yaml, or take coarser steps"
    return ConfigError("sampler", "grid", f"a grid of at most {MOST:,} points", hint)


def values_of(name: str, asked: BaseDistribution) -> Sequence[Any]:
    """Every value of a parameter of a grid, in order."""
    if isinstance(asked, CategoricalDistribution):
        return asked.choices
    if isinstance(asked, IntDistribution):
        if (asked.high - asked.low) // asked.step >= MOST:
            raise _too_many()
        return range(asked.low, asked.high + 1, asked.step)
    assert isinstance(asked, FloatDistribution)
    if asked.low == asked.high:
        return (asked.low,)
    if asked.step is None:
        hint = f"list its values in points=FILE.yaml, - {name}: [{asked.low:g}, {asked.high:g}], or fix it"
        valid = f"choices, whole numbers and steps, but {name} is {range_words(asked)} without steps"
        raise ConfigError("sampler", "grid", valid, hint)
    low, high, step = (Decimal(str(one)) for one in (asked.low, asked.high, asked.step))
    if (high - low) // step >= MOST:
        raise _too_many()
    return [float(low + step * number) for number in range(int((high - low) // step) + 1)]


def _at_random(rng: random.Random, asked: BaseDistribution) -> Any:
    if isinstance(asked, CategoricalDistribution):
        return rng.choice(asked.choices)
    if isinstance(asked, IntDistribution):
        return asked.low + asked.step * rng.randrange((asked.high - asked.low) // asked.step + 1)
    assert isinstance(asked, FloatDistribution)
    if asked.step is None:
        return rng.uniform(asked.low, asked.high)
    return asked.low + asked.step * rng.randrange(int((asked.high - asked.low) / asked.step + 1e-9) + 1)


def range_words(asked: BaseDistribution) -> str:
    """An Optuna distribution in words."""
    if isinstance(asked, CategoricalDistribution):
        return "one of " + ", ".join(map(str, asked.choices))
    assert isinstance(asked, FloatDistribution | IntDistribution)
    whole = "whole number " if isinstance(asked, IntDistribution) else ""
    scale = ", log scale" if asked.log else f", step {asked.step:g}" if asked.step not in (None, 1) else ""
    return f"{whole}{asked.low:g} to {asked.high:g}{scale}"


def _words(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={short(value)}" for name, value in point.items())
