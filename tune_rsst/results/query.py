"""Looking at a sweep from any terminal: conditions on trials, the ranking as CSV, the table while a driver writes.

In: a sweep's folder, conditions such as state=finished or val_top1>=0.9.
Out: text.
"""

from __future__ import annotations

import csv
import operator
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from trainables.rsst.config import ConfigError
from trainables.rsst.metrics import is_words
from trainables.text import in_csv
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results.ranking import rank, ranks

Condition = Callable[[TrialView], bool]
COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


def value_of(trial: TrialView, name: str) -> Any:
    """A trial's state, who suggested it, a metric, searched parameter or knob; None where it has none of that name."""
    if name in ("trial", "state", "reason", "suggested_by"):
        return getattr(trial, name)
    return next((d[name] for d in (trial.metrics, trial.params, trial.knobs) if d.get(name) is not None), None)


def conditions(view: SweepView, texts: Sequence[str]) -> Condition:
    """One condition of all `texts`, each NAME OP VALUE."""
    tests: list[Condition] = []
    for text in texts:
        match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|!=|=|>|<)\s*(.+?)\s*", text)
        if match is None:
            raise ConfigError(
                "where", text, "NAME OP VALUE with one of " + " ".join(COMPARE), "such as 'val_top1>=0.9'"
            )
        name, sign, wanted = match.groups()
        if view.trials and all(value_of(trial, name) is None for trial in view.trials.values()) and name != "reason":
            raise ConfigError("where", text, "a metric, knob or state that a trial has", f"none has {name}")
        tests.append(_test(text, name, sign, wanted))
    keep: Condition = lambda trial: all(test(trial) for test in tests)  # noqa: E731
    for trial in view.trials.values():
        keep(trial)  # what can't be compared is said before anything is printed
    return keep


def _test(text: str, name: str, sign: str, wanted: str) -> Condition:
    def test(trial: TrialView) -> bool:
        value = value_of(trial, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return bool(COMPARE[sign](float(value), float(wanted)))
            except ValueError:
                raise ConfigError("where", text, f"a number after {sign}: {name} is one") from None
        if value is None:
            return False
        if sign not in ("=", "!="):
            raise ConfigError("where", text, f"{name}=TEXT or {name}!=TEXT: it is no number")
        return bool(COMPARE[sign](str(value).lower(), wanted.lower()))

    return test


def print_csv(view: SweepView, keep: Condition) -> None:
    """`ranking_rows` as CSV; what is not known is empty. No cell is a formula."""
    names, rows = ranking_rows(view, keep)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows([map(in_csv, row) for row in (names, *rows)])


def ranking_rows(view: SweepView, keep: Condition = lambda trial: True) -> tuple[list[str], list[list[Any]]]:
    """Ended trials by rank, then running ones; every metric that is a number or a text, then what was searched.

    As in the table, only finished trials that the objective allows have a rank. Returns the columns' names, the rows.
    """
    trials, places = [*rank(view), *view.unfinished], ranks(view)
    metrics = [n for t in trials for n, v in t.metrics.items() if not isinstance(v, list | dict) and not is_words(n)]
    names, knobs = list(dict.fromkeys(metrics)), list(dict.fromkeys(name for t in trials for name in t.params))
    rows = [
        [places.get(t.trial), t.trial, t.state, t.reason, *map(t.metrics.get, names), *map(t.searched.get, knobs)]
        for t in trials
        if keep(t)
    ]
    return ["rank", "trial", "state", "reason", *names, *(f"knob.{name}" for name in knobs)], rows
