"""Texts of MLflow runs: short names, and Markdown notes with the commands that rerun and resume.

In: a sweep, one of its trials.
Out: text. The commands are those of the table (tune_rsst/results/commands.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainables.rsst.config import KNOBS
from trainables.rsst.metrics import METRICS, shown
from trainables.text import fenced, in_markdown, one_line
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import TrialView
from tune_rsst.results import replicated
from tune_rsst.results.columns import KNOB, counts, searched
from tune_rsst.results.commands import RESUME, go_on, next_commands, rerun_command, resume
from tune_rsst.results.confirmed.table import remark
from tune_rsst.results.ranking import best_of
from tune_rsst.storage.folder import Sweep

NAME_LENGTH, NOTE_LENGTH = 60, 4000
TABLE_ROWS = 10


def run_name(trial: str, params: Mapping[str, Any]) -> str:
    """Such as "t0007 lr 8e-4 rate 0.4": the trial, then what was searched, as far as it fits."""
    name = trial
    for key, value in params.items():
        called = KNOBS[key].short if key in KNOBS else ""
        longer = f"{name} {called or key} {short_number(value)}"
        if len(longer) > NAME_LENGTH:
            break
        name = longer
    return name


def trial_note(sweep: Sweep, trial: TrialView) -> str:
    """Markdown note of a child run."""
    of = trial.confirms or trial.replicates
    what = "Trial" if of is None else f"Trial {of} again with seed {trial.knobs['seed']}: run"
    lines = [
        f"{what} **{trial.trial}** of sweep **{sweep.view.name}**: {trial.state}"
        + (f" ({in_markdown(trial.reason)})" if trial.reason else "")
    ]
    if trial.round_events:
        lines += ["", *_table([trial], Objective.of(sweep.view.settings).metric, ranked=False)]
    lines += _pasted("Run this trial alone", rerun_command(trial.knobs))
    return "\n".join(lines + _pasted("Go on with the sweep", go_on(sweep.folder, sweep.view)))


def sweep_note(sweep: Sweep, ranking: Sequence[TrialView]) -> str:
    """Markdown note of the parent run; `ranking` is best first. As many rows as leave room for the commands."""
    for rows in range(min(len(ranking), TABLE_ROWS), -1, -1):
        note = _sweep_note(sweep, ranking[:rows])
        if len(note) <= NOTE_LENGTH:
            break
    return note


def _sweep_note(sweep: Sweep, ranking: Sequence[TrialView]) -> str:
    view = sweep.view
    names = ", ".join(name.removeprefix(KNOB) for name in searched(view)) or "nothing yet"
    lines = [
        f"Sweep **{view.name}**: {sweep.state}. {counts(view) or 'no trials yet'}.",
        "",
        f"Searched: {in_markdown(names)}. Objective: {Objective.of(view.settings).words}.",
    ]
    if ranking:
        lines += ["", *_table(ranking, Objective.of(view.settings).metric, ranked=True)]
        best = best_of(view) or ranking[0]
        lines += [line for told in (remark(view), replicated.remark(view, best)) if told for line in ("", told)]
        lines += _pasted("Run the best trial alone", rerun_command(best.knobs))
    commands = next_commands(sweep)
    if sweep.state == "running":  # MLflow does not hear of a kill
        commands.append((f"{RESUME}, should it be interrupted", resume(sweep.folder, view.settings)))
    for what, command in commands:
        lines += _pasted(what, command)
    return "\n".join(lines)


def _pasted(what: str, command: str) -> list[str]:
    return ["", f"{one_line(what)}:", "", *fenced(command)]


def _table(trials: Sequence[TrialView], aim: str, *, ranked: bool) -> list[str]:
    """Markdown rows of what one trial can be better in than another; no column without a value."""
    better = [name for name in shown((t.metrics for t in trials), aim) if METRICS[name].column]
    better = [name for name in better if METRICS[name].better or name == aim]
    columns = [name for name in better if any(name in trial.metrics for trial in trials)]
    heads = ["rank", "trial", *columns] if ranked else columns
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for place, trial in enumerate(trials, start=1):
        cells = [in_markdown(METRICS[name].text(trial.metrics.get(name))) or "–" for name in columns]
        rows.append("| " + " | ".join([str(place), trial.trial, *cells] if ranked else cells) + " |")
    return rows


def short_number(value: object) -> str:
    """8e-4 rather than 0.00080000001; other values as they are."""
    if not isinstance(value, float):
        return one_line(str(value))
    text = f"{value:.2g}"
    mantissa, e, exponent = f"{value:.1e}".partition("e")
    if "e" in text or abs(value) < 0.01:
        return f"{mantissa.removesuffix('.0')}{e}{int(exponent)}" if value else "0"
    return text
