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
