"""The ranking as text, for a terminal or a log: as many columns as fit, the least telling ones go first.

Comes in: the ledger's view and the sweep's folder. Goes out: printed lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from tune_rsst.home import SweepFolder
from tune_rsst.objective import Objective, best_of, pareto_front, standing
from tune_rsst.results import next_commands, rank
from tune_rsst.view import SweepView, TrialView

LOG_WIDTH = 220
Cell = Callable[[TrialView], str]


def _metric(name: str, form: str) -> Cell:
    return lambda trial: form.format(trial.metrics[name]) if trial.metrics.get(name) is not None else ""


COLUMNS: Mapping[str, Cell] = {
    "val_top1": _metric("val_top1", "{:.4f}"),
    "test_top1": _metric("test_top1", "{:.4f}"),
    "kept": _metric("kept_share", "{:.3f}"),
    "density": _metric("density", "{:.3f}"),
    "params": _metric("params", "{:,}"),
    "gmacs": _metric("gmacs", "{:.3g}"),
    "gap": _metric("hardening_gap", "{:.4f}"),
    "epochs": _metric("epochs_trained", "{}"),
    "init_effective": _metric("init_effective", "{}"),
}
SHORT = {"reg_granularity_prune": "g"}
GO_FIRST = ("density", "gap", "gmacs", "epochs", "params", "test_top1", "kept")


def make_console() -> Console:
    """Standard output; wider than rich would guess where it is no terminal, so that logs have whole tables."""
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH)


def print_table(
    console: Console,
    folder: SweepFolder,
    view: SweepView,
    state: str,
    keep: Callable[[TrialView], bool] = lambda trial: True,
) -> None:
    """The ranking (of the trials that `keep` keeps), what it means, where everything lies, what to type next."""
    counts = ", ".join(f"{n} {s}" for s in ("finished", "stopped", "failed", "running") if (n := view.count(s)))
    best = best_of(view)
    _line(console, f"\nSweep {folder.name}: {state}; {counts or 'no trials yet'}\n")
    if view.trials:
        console.print(_fitting(console, view, best, keep))
        hidden = sum(not keep(trial) for trial in view.trials.values())
        if hidden:
            _line(console, f"{hidden} of {len(view.trials)} trials do not meet the conditions")
    for trial in view.trials.values():
        if trial.state == "failed":
            _line(console, f"{trial.trial} failed: {trial.reason}")
    for line in _summary(folder, view, best):
        _line(console, line)
    for title, command in next_commands(folder, view, state):
        _line(console, f"\n{title}:\n  {command}")


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _fitting(console: Console, view: SweepView, best: TrialView | None, keep: Callable[[TrialView], bool]) -> Table:
    """The ranking with as many columns as the console is wide."""
    names = list(COLUMNS)
    table = _ranking(view, best, names, keep)
    for name in GO_FIRST:
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            break
        names.remove(name)
        table = _ranking(view, best, names, keep)
    return table


def _ranking(view: SweepView, best: TrialView | None, names: list[str], keep: Callable[[TrialView], bool]) -> Table:
    places, front = standing(view), _front(view)
    searched = sorted({name for t in view.trials.values() for name in t.params})
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    for name in ("trial", "state", *names, *(SHORT.get(name, name) for name in searched)):
        table.add_column(
            name, justify="left" if name in ("trial", "state", "init_effective") else "right", no_wrap=True
        )
    for position, trial in enumerate([*rank(view), *view.unfinished], start=1):
        if not keep(trial):
            continue
        place = str(position) if places[trial.trial] == "feasible" else ""
        cells = [COLUMNS[name](trial) for name in names]
        cells += [_short(trial.params.get(name, "")) for name in searched]
        style = "bold green" if best and trial.trial == best.trial else None
        table.add_row(place, trial.trial, _state(trial, places[trial.trial], trial.trial in front), *cells, style=style)
    return table


def _state(trial: TrialView, place: str, on_the_front: bool) -> str:
    """A finished trial that the objective does not allow says so, and one on the front where that is looked for."""
    if on_the_front:
        return "finished, front"
    return "finished, not allowed" if place == "infeasible" else trial.state


def _front(view: SweepView) -> list[str]:
    """Trials on the front of a sweep that looks for one."""
    return pareto_front(view) if view.settings.get("objective") == "pareto" else []


def _summary(folder: SweepFolder, view: SweepView, best: TrialView | None) -> list[str]:
    after = Objective.of(view.settings).words
    if best is None:
        told = f"\nNo finished trial counts yet; the objective: {after}."
    else:
        m = best.metrics
        told = (
            f"\nBest: {best.trial}, val_top1 {m['val_top1']:.4f}, test_top1 {m['test_top1']:.4f}, "
            f"kept share {m['kept_share']:.3f} (objective: {after})"
        )
    if front := _front(view):
        told += f"\nFront, smallest first: {', '.join(front)}"
    former = sorted({name.rpartition("/")[0] for name in view.former})
    guided = [f"Guided by {len(view.former)} trials of {', '.join(former)} (not in the table)"] if former else []
    lines = [told, *guided, f"Folder: {folder.path}", f"MLflow: {view.settings.get('mlflow_tracking_uri')}"]
    if folder.best.exists():
        lines.append(f"Best trial's knobs: {folder.best}")
    if folder.best_model.exists():
        lines.append(f"Best trial's model: {folder.best_model}")
    return lines


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
