"""The ranking as text, for a terminal or a log: on a terminal as many columns as fit, the least telling ones go first.

In: a sweep.
Out: printed lines, one a trial; `fitting`, `counts` and the other public names are what the live table, the listing of
    spaces, the CSV and the report have in common with it.
A searched parameter's column is called knob.NAME until it is printed: metrics and knobs may have one name (epochs).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainables.rsst.metrics import METRICS, said
from trainables.text import one_line
from tune_rsst.ledger import spending
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results import replicated
from tune_rsst.results.columns import (
    KNOB,
    cell,
    counts,
    heading,
    leaving,
    legend,
    metric_columns,
    not_valid,
    over_limits,
    points,
    reasons,
    searched,
    state_words,
)
from tune_rsst.results.commands import mlflow_page, next_commands
from tune_rsst.results.confirmed import table as confirmed
from tune_rsst.results.ranking import best_of, pareto_front, rank, ranks, rounds_front, standing
from tune_rsst.storage.folder import Sweep

LOG_WIDTH = 220
MOST_ROUNDS = 8
BETWEEN = 2
TOLD_OF_THE_BEST = ("val_top1", "test_top1", "kept_share", "top1_drop")
TO_THE_LEFT = ("trial", "state", "init_effective", "arch", "dataset")


def make_console(*, stderr: bool = False) -> Console:
    """Standard output, or error; wider than rich would guess where it is no terminal, so that logs have whole lines."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(width=None if stream and stream.isatty() else LOG_WIDTH, stderr=stderr)


def say(console: Console, line: str) -> None:
    """One line, or several; what can't be printed is escaped."""
    line = "\n".join(map(one_line, line.split("\n")))
    console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)


class PlainTable(Table):
    """A table whose cells keep to one line and are shown as they are: none is markup, none can move the cursor."""

    def __init__(self) -> None:
        super().__init__(box=None, header_style="bold", pad_edge=False)

    def add(self, cells: Iterable[str | Text], style: str | None = None) -> None:
        """One row."""
        plain = (cell if isinstance(cell, Text) else Text(one_line(cell)) for cell in cells)
        self.add_row(*plain, style=style)


def plain_table(columns: Iterable[str]) -> PlainTable:
    """An empty table with these columns."""
    table = PlainTable()
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.removeprefix(KNOB) in TO_THE_LEFT else "right"
        table.add_column(Text(heading(column)), justify=justify, no_wrap=True)
    return table


def fitting(
    console: Console, columns: Sequence[str], go_first: Iterable[str], draw: Callable[[list[str]], Table]
) -> tuple[Table, list[str]]:
    """A table and those of `columns`, the last ones that `draw` draws, that are in it.

    On a terminal it has as many as there is room for, and leaves those of `go_first` out in this order; in a file or a
    pipe it has them all, however wide that is.
    """
    left = list(columns)
    table = draw(left)
    wide = [max(map(cell_len, (str(c.header), *map(str, c.cells)))) for c in table.columns]
    total = sum(wide) + BETWEEN * (len(wide) - 1)
    if not console.is_terminal:
        table.width = total
        return table, left
    room = dict(zip(left, wide[len(wide) - len(left) :], strict=True))
    for column in go_first:
        if total <= console.width:
            break
        left.remove(column)
        total -= room[column] + BETWEEN
    return (table if len(left) == len(columns) else draw(left)), left


def print_fitting(console: Console, table: Table, *lines: str) -> None:
    """A table that `fitting` made, and lines that explain it; only a terminal breaks them, between words."""
    console.print(table, soft_wrap=not console.is_terminal)
    for line in lines:
        console.print(one_line(line), highlight=False, soft_wrap=not console.is_terminal, markup=False, emoji=False)


# --- the ranking -----------------------------------------------------------------------------------------------------


def print_table(
    console: Console,
    sweep: Sweep,
    keep: Callable[[TrialView], bool] = lambda trial: True,
) -> None:
    """The ranking (of the trials that `keep` keeps), what it means, where everything lies, what to type next."""
    view = sweep.view
    best = best_of(view)
    say(console, f"\nSweep {sweep.name}: {sweep.state}; {counts(view) or 'no trials yet'}\n")
    if view.trials:
        columns = [*metric_columns(view), *searched(view)]
        table, shown = fitting(console, columns, leaving(columns), lambda names: _ranking(view, best, names, keep))
        missing = [_left_out(view, [n for n in columns if n not in shown])] if len(shown) < len(columns) else []
        print_fitting(console, table, legend(shown), *missing)
        hidden = sum(not keep(trial) for trial in view.trials.values())
        if hidden:
            say(console, f"{hidden} of {len(view.trials)} trials do not meet the conditions")
    for line in [
        *reasons(t for t in view.trials.values() if t.state == "failed"),
        *over_limits(view),
        *not_valid(view),
        *(["The ledger's last line was cut off by a crash and does not count"] if sweep.torn else []),
    ]:
        say(console, line)
    for line in _summary(sweep, best):
        say(console, line)
    print_confirmed(console, sweep)
    for title, command in next_commands(sweep):
        say(console, f"\n{title}:\n  {command}")


def print_confirmed(console: Console, sweep: Sweep) -> None:
    """What repeating the best trials has told; nothing where none was ever repeated."""
    if sweep.view.confirm is None:
        return
    best = confirmed.choice(sweep.view)
    say(console, f"\nSweep {sweep.name}: best trials again with fresh seeds\n")
    drawn = plain_table(confirmed.heads(sweep.view))
    for one, cells in confirmed.rows(sweep.view):
        chosen = best is not None and one.trial.trial == best.trial.trial
        drawn.add(cells, "bold green" if chosen else None)
    print_fitting(console, drawn, *confirmed.lines(sweep.view))


def _ranking(view: SweepView, best: TrialView | None, names: list[str], keep: Callable[[TrialView], bool]) -> Table:
    places, front, numbers = standing(view), _front(view), ranks(view)
    table = plain_table(["#", "trial", "state", *names])
    for trial in filter(keep, [*rank(view), *view.unfinished]):
        cells = [cell(trial, name) for name in names]
        style = "bold green" if best and trial.trial == best.trial else None
        words = state_words(trial, places[trial.trial], trial.trial in front)
        table.add([str(numbers.get(trial.trial, "")), trial.trial, words, *cells], style)
    return table


def _left_out(view: SweepView, names: list[str]) -> str:
    """What the terminal had no room for. What the trials started from is said all the same."""
    starts = sorted({str(t.metrics["init_effective"]) for t in view.trials.values() if "init_effective" in t.metrics})
    said = [f"{n} ({' or '.join(starts)})" if n == "init_effective" else n.removeprefix(KNOB) for n in names]
    return f"Too narrow for {', '.join(said)}; tune-rsst show has them in a wider terminal, or with --csv"


def _front(view: SweepView) -> list[str]:
    """Trials on the front of a sweep that looks for one."""
    return pareto_front(view) if view.settings.get("objective") == "pareto" else []


def _rounds(view: SweepView) -> str:
    """The front over the rounds of all trials, where their models were kept."""
    front = rounds_front(view)
    if not front or not any(trial.knobs.get("keep_rounds") for trial in view.trials.values()):
        return ""
    shown = ", ".join(f"{one.name} {METRICS['val_top1'].text(one.val_top1)}" for one in front[:MOST_ROUNDS])
    more = f" and {len(front) - MOST_ROUNDS} more (--json)" if len(front) > MOST_ROUNDS else ""
    return f"\nFront over all rounds, smallest first: {shown}{more}; take one: tune-rsst export --trial TRIAL --round N"


def _summary(sweep: Sweep, best: TrialView | None) -> list[str]:
    folder, view = sweep.folder, sweep.view
    after = Objective.of(view.settings).words
    if best is None:
        told = f"\nNo finished trial counts yet; the objective: {after}."
    else:
        why = confirmed.remark(view) or f"objective: {after}"  # what confirm has chosen need not be the first above
        told = f"\nBest: {best.trial}, {said(best.metrics, *TOLD_OF_THE_BEST)} ({why[0].lower()}{why[1:]})"
        told += f"\n{seeds}" if (seeds := replicated.remark(view, best)) else ""
    if front := _front(view):
        told += f"\nFront, smallest first: {', '.join(front)}"
    told += _rounds(view)
    former = sorted({one_line(name.rpartition("/")[0]) for name in view.former})
    guided = [f"Guided by {len(view.former)} trials of {', '.join(former)} (not in the table)"] if former else []
    uri = one_line(str(view.settings.get("mlflow_tracking_uri")))
    mlflow = mlflow_page(sweep) if uri.startswith("http") else uri
    spent = f"Spent: {spending.told(view.spending, view.settings)}"
    lines = [told, *points(view), *guided, spent, f"Folder: {folder.path}", f"MLflow: {mlflow}"]
    if folder.best.exists():
        lines.append(f"Best trial's knobs: {folder.best}")
    if folder.best_model.exists():
        lines.append(f"Best trial's model: {folder.best_model}")
    return lines
