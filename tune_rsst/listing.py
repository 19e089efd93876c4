"""`tune-rsst spaces`: what spaces there are, what one searches, and trials drawn from it.

Comes in: a space's name or address, and the settings that it should be shown with. Goes out: text.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from search_spaces import SPACES
from tune_rsst import config, objective
from tune_rsst.cost import cost
from tune_rsst.spaces import RandomSuggest, Space, find, samples


def print_spaces(console: Console) -> None:
    """One line for each published space."""
    for name, function in SPACES.items():
        first = (inspect.getdoc(function) or "").splitlines()[0]
        console.print(f"{name:14}{first}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        "\nYour own: space=path/to/file.py:function or space=module:function", highlight=False, soft_wrap=True
    )


def print_space(console: Console, address: str, count: int, given: Mapping[str, Any]) -> None:
    """The space's own words, its ranges, and `count` trials as a sweep with the settings `given` would draw them.

    Cost: rounds and epochs without early stopping; parameters and GMACs (of one image) of the model at the end.

    Raises:
        ConfigError: there is no such space, or it gives trials that are not valid.
    """
    space = find(address)
    settings = config.resolve({**given, "space": address})
    objective.check(settings)
    space, fixed = objective.sized(space, settings), settings.fixed_in_trials
    drawn = list(samples(space, fixed, count))
    words = inspect.getdoc(find(address).function) or "(no description)"
    console.print(words, highlight=False, soft_wrap=True, markup=False)
    console.print()
    for name, shown in _ranges(space, fixed).items():
        console.print(f"  {name:24}{shown}", highlight=False, soft_wrap=True, markup=False)
    names = sorted({name for draw, _ in drawn for name in draw.params})
    table = Table(box=None, header_style="bold", title=f"\n{count} trials drawn at random", title_justify="left")
    for name in (*names, "rounds", "epochs at most", "params at the end", "gmacs", "arch", "dataset"):
        table.add_column(name, justify="right", no_wrap=True)
    for draw, trial in drawn:
        cells = [_short(draw.params.get(name, "")) for name in names]
        paid = cost(trial)
        cells += [str(paid.rounds), f"{paid.epochs_at_most:,}", f"{paid.params:,}", f"{paid.gmacs:.3g}"]
        table.add_row(*cells, trial.arch, trial.dataset)
    console.print(table, soft_wrap=True)


def _ranges(space: Space, fixed: Mapping[str, Any]) -> dict[str, str]:
    """Parameter → its range in words, over several draws, so that dependent parameters show too."""
    found: dict[str, str] = {}
    for seed in range(20):
        suggest = RandomSuggest(seed)
        space.draw(suggest, fixed)
        for name, (kind, *values) in suggest.ranges.items():
            if kind == "categorical":
                found[name] = "one of " + ", ".join(map(str, values))
            else:
                low, high, step, log = values
                scale = ", log scale" if log else f", step {step:g}" if step not in (None, 1) else ""
                found[name] = f"{'whole number ' if kind == 'int' else ''}{low:g} to {high:g}{scale}"
    return found


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def setting_lines() -> list[str]:
    """Every setting of a sweep, then every knob of a trial: name, type or choices, default, meaning."""
    from pydantic_core import PydanticUndefined

    from trainables.rsst.config import KNOBS
    from tune_rsst.config import NOT_IN_A_SWEEP, SweepSettings

    lines = ["Settings of a sweep (key=value, or in a YAML file):"]
    for name, field in SweepSettings.model_fields.items():
        if name != "fixed":
            default = None if field.default is PydanticUndefined else field.default
            shown = "none" if default is None else default
            lines.append(_setting(name, _type_of(field.annotation), shown, field.description or ""))
    lines.append("\nKnobs of a trial (given here they are fixed, and leave the search):")
    for knob in KNOBS.values():
        if knob.name not in NOT_IN_A_SWEEP and knob.name != "seed":
            kind = " | ".join(knob.choices) or knob.type.__name__
            valid = f" ({knob.check[0]})" if knob.check else ""
            lines.append(_setting(knob.name, kind, knob.default, knob.help + valid))
    return lines


def _setting(name: str, kind: str, default: object, text: str) -> str:
    shown = "none, or what arch and dataset ask for" if default is None else default
    return f"  {name}: {kind}, default {shown}\n      {text}"


def _type_of(annotation: object) -> str:
    """`float | auto` and the like, as a person would write it."""
    import typing

    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(str(value) for value in inner)
    if typing.get_origin(annotation) is typing.Annotated:
        return _type_of(inner[0])
    if typing.get_origin(annotation) is tuple:
        return "list of numbers"
    if inner:
        return " | ".join(_type_of(one) for one in inner if one is not type(None))
    return getattr(annotation, "__name__", str(annotation))
