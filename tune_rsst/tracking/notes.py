"""Texts of MLflow runs: short names, and Markdown notes with the commands that rerun and resume.

Comes in: the view of a sweep or of one of its trials. Goes out: text.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results.columns import short_number
from tune_rsst.results.commands import rerun_command, resume_command

SHORT = {"reg_granularity_prune": "g", "target_density": "density", "weight_decay": "wd", "batch_size": "batch"}
NAME_LENGTH = 60
TABLE_ROWS = 10
COLUMNS = ("val_top1", "test_top1", "kept_share", "density", "params", "gmacs", "hardening_gap")


def run_name(trial: str, params: Mapping[str, Any]) -> str:
    """Such as "t0007 lr 8e-4 rate 0.4": the trial, then what was searched, as far as it fits."""
    name = trial
    for key, value in params.items():
        longer = f"{name} {SHORT.get(key, key)} {short_number(value)}"
        if len(longer) > NAME_LENGTH:
            break
        name = longer
    return name


def trial_note(view: SweepView, trial: TrialView) -> str:
    """Markdown note of a child run."""
    lines = [
        f"Trial **{trial.trial}** of sweep **{view.name}**: {trial.state}"
        + (f" ({trial.reason})" if trial.reason else "")
    ]
    if trial.round_events:
        lines += ["", *_table([trial], ranked=False)]
    lines += ["", "Run this trial alone:", "", "```", rerun_command(trial.knobs), "```"]
    lines += ["", "Go on with the sweep:", "", "```", resume_command(view.name), "```"]
    return "\n".join(lines)


def sweep_note(view: SweepView, ranking: Sequence[TrialView], state: str) -> str:
    """Markdown note of the parent run; `ranking` is best first."""
    counts = ", ".join(f"{view.count(name)} {name}" for name in ("finished", "stopped", "failed", "running"))
    searched = ", ".join(next(iter(view.trials.values())).params) if view.trials else "nothing yet"
    lines = [
        f"Sweep **{view.name}**: {state}. {counts}.",
        "",
        f"Searched: {searched}. Objective: {Objective.of(view.settings).words}.",
    ]
    if ranking:
        lines += ["", *_table(ranking[:TABLE_ROWS], ranked=True)]
        lines += ["", "Run the best trial alone:", "", "```", rerun_command(ranking[0].knobs), "```"]
    lines += ["", "Go on with the sweep, and look at it:", "", "```", resume_command(view.name)]
    lines += [shlex.join(["tune-rsst", "show", view.name]), "```"]
    return "\n".join(lines)


def _table(trials: Sequence[TrialView], *, ranked: bool) -> list[str]:
    """Markdown rows; columns that no trial has a value in are left out."""
    columns = [name for name in COLUMNS if any(name in trial.metrics for trial in trials)]
    heads = ["rank", "trial", *columns] if ranked else columns
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for place, trial in enumerate(trials, start=1):
        cells = [_cell(trial.metrics.get(name)) for name in columns]
        rows.append("| " + " | ".join([str(place), trial.trial, *cells] if ranked else cells) + " |")
    return rows


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 0.01 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else "–"
