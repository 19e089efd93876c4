"""`tune-rsst spaces`: what spaces there are, what one searches, trials drawn from it. `tune-rsst settings`: every key.

In: a space's name or address, and settings to show it with. Out: text.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from search_spaces import SPACES
from trainables.plugins import said
from trainables.rsst.config import KNOBS, RSSTConfig
from trainables.rsst.metrics import METRICS
from trainables.rsst.size import cost
from trainables.text import short
from tune_rsst.results import table
from tune_rsst.results.columns import KNOB, legend
from tune_rsst.search import spaces
from tune_rsst.search.points import range_words
from tune_rsst.search.spaces import Draw, find, samples
from tune_rsst.settings import rules
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.settings.written import KNOBS_OF_A_SWEEP

SHOW_RANGES = 20  # draws, so that ranges that depend on a choice are shown as well
HERE = {
    "epochs": "at most, without early stopping",
    "params": "parameters at the end",
    "gmacs": f"{METRICS['gmacs'].legend} at the end",
}


def print_spaces(console: Console) -> None:
    """One line for each published space."""
    for name, function in SPACES.items():
        first = (inspect.getdoc(function) or "").splitlines()[0]
        table.say(console, f"{name:14}{first}")
    table.say(console, "\nYour own: space=path/to/file.py:function or space=module:function")


def print_space(console: Console, address: str, count: int, given: Mapping[str, Any]) -> None:
    """The space's own words, its ranges, and `count` trials as a sweep with the settings `given` would draw them.

    Cost: rounds and epochs without early stopping; parameters and GMACs (of one image) of the model at the end.
    """
    space = find(address)
    settings = resolve({**given, "space": address})
    rules.check(settings)
    space, fixed = spaces.sized(space, settings), settings.fixed_in_trials
    drawn = list(samples(space, fixed, max(count, SHOW_RANGES)))
    words = inspect.getdoc(find(address).function) or "(no description)"
    table.say(console, f"{words}\n")
    for name, found in spaces.ranges(space, [draw for draw, _ in drawn]).items():
        table.say(console, f"  {name:24}{range_words(found)}")
    console.print(f"\n[i]{count} trials drawn at random[/i]", highlight=False)
    _print_draws(console, drawn[:count])


def _print_draws(console: Console, drawn: list[tuple[Draw, RSSTConfig]]) -> None:
    """A line for each draw, with as many columns as a terminal is wide."""
    costs = [cost(trial) for _, trial in drawn]
    searched = sorted({name for draw, _ in drawn for name in draw.params})
    cells = {KNOB + name: [short(draw.params.get(name, "")) for draw, _ in drawn] for name in searched}
    cells |= {
        "rounds": [str(paid.rounds) for paid in costs],
        "epochs": [f"{paid.epochs_at_most:,}" for paid in costs],
        "params": [METRICS["params"].text(paid.params) for paid in costs],
        "gmacs": [METRICS["gmacs"].text(paid.gmacs) for paid in costs],
        "arch": [trial.arch for _, trial in drawn],
        "dataset": [said(trial.dataset) for _, trial in drawn],
    }

    def draw(columns: list[str]) -> Table:
        drawn_table = table.plain_table(columns)
        for row in zip(*(cells[column] for column in columns), strict=True):
            drawn_table.add(row)
        return drawn_table

    columns = list(cells)
    fitted, shown = table.fitting(console, columns, reversed(columns[1:]), draw)
    below = legend(shown, HERE)
    if left_out := [column.removeprefix(KNOB) for column in columns if column not in shown]:
        below += f"; too narrow for {', '.join(left_out)}"
    table.print_fitting(console, fitted, below)


def setting_lines() -> list[str]:
    """Every setting of a sweep, then every knob of a trial: name, type or choices, default, meaning."""
    sweeps_own = resolve({}).fixed
    lines = ["Settings of a sweep (key=value, or in a YAML file):"]
    for name, field in SweepSettings.model_fields.items():
        if name != "fixed":
            lines.append(_setting(name, _type_of(field.annotation), _default(field.default), field.description or ""))
    lines.append(f"\n{_knobs_heading(str(SweepSettings.model_fields['space'].default))}")
    for knob in map(KNOBS.__getitem__, KNOBS_OF_A_SWEEP):
        if knob.name not in SweepSettings.model_fields:
            kind = " | ".join(knob.choices) or knob.type.__name__
            valid = f" ({knob.check[0]})" if knob.check else ""
            asked = knob.default is None and not knob.optional
            default = "what arch and dataset ask for" if asked else _default(knob.default)
            if knob.name in sweeps_own:
                default += f" (in a sweep {_default(sweeps_own[knob.name])})"
            lines.append(_setting(knob.name, kind, default, knob.help + valid))
    return lines


def _knobs_heading(space: str) -> str:
    """What is true of all knobs, and what the default space makes of them."""
    draw, _ = next(samples(find(space), {}, 1))
    own = ", ".join(f"{name}={value}" for name, value in draw.knobs.items() if name not in draw.params)
    return (
        "Knobs of a trial. Given here they are fixed, and leave the search. Else the space fixes or searches some\n"
        f"(the default space, {space}, fixes {own},\nand searches {', '.join(draw.params)}), and a default "
        "holds for the others:"
    )


def _setting(name: str, kind: str, default: str, text: str) -> str:
    return f"  {name}: {kind}, default {default}\n      {text}"


def _default(value: object) -> str:
    """A default as one would write it: none, 0.15, [0.3,0.6]."""
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value)


def _type_of(annotation: object) -> str:
    """`float | auto` and the like, as a person would write it."""
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(str(value) for value in inner)
    if typing.get_origin(annotation) is typing.Annotated:
        return _type_of(inner[0])
    if typing.get_origin(annotation) is tuple:
        return {str: "list of names", float: "list of numbers"}.get(inner[0], "FILE.yaml or list of points")
    if inner:
        return " | ".join(_type_of(one) for one in inner if one is not type(None))
    return getattr(annotation, "__name__", str(annotation))
