"""Columns of a trial that tables share: heads, cells, meanings, which leave a narrow terminal first.

A metric's column is named in trainables/rsst/metrics.py, a searched parameter's is knob.NAME: both may have one name.

In: trials and names of columns. Out: text for cells and legends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from trainables.rsst.config import KNOBS
from trainables.rsst.metrics import METRICS, shown
from trainables.text import counted, one_line, short
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import INTERRUPTED, POINTS, UNFINISHED, SweepView, TrialView

KNOB = "knob."
REASONS = 3  # that are shown
SHOWN = 8  # trials that are named
KNOBS_LEAVE = 3  # among Metric.leaves
METRIC_OF: Mapping[str, str] = {metric.column: name for name, metric in METRICS.items() if metric.column}
"""Column → metric, from left to right."""


def metric_columns(view: SweepView) -> list[str]:
    """The metrics' columns that a table of the sweep has, from left to right."""
    names = shown((t.metrics for t in view.trials.values()), Objective.of(view.settings).metric)
    return [METRICS[name].column for name in names if METRICS[name].column]


def heading(column: str) -> str:
    """What stands above a column; a knob's short name, but never one that a metric's column has."""
    name = column.removeprefix(KNOB)
    if name == column:
        return name
    if name in METRIC_OF:
        return column
    named = KNOBS[name].short if name in KNOBS else ""
    return name if named in ("", *METRIC_OF) else named


def cell(trial: TrialView, column: str) -> str:
    """The trial's value in a metric's or a searched parameter's column."""
    if column in METRIC_OF:
        return METRICS[METRIC_OF[column]].text(trial.metrics.get(METRIC_OF[column]))
    return short(trial.searched.get(column.removeprefix(KNOB), ""))


def leaving(columns: Sequence[str]) -> list[str]:
    """Those of `columns` that may leave a narrow terminal, the least telling ones first."""
    when = {n: METRICS[METRIC_OF[n]].leaves if n in METRIC_OF else KNOBS_LEAVE for n in columns}
    return sorted((name for name in reversed(columns) if when[name]), key=lambda name: -when[name])


def legend(columns: Iterable[str], here: Mapping[str, str] | None = None) -> str:
    """What these columns mean, in one line; `here`: columns that mean something of their own."""
    heads: dict[str, list[str]] = {}
    for column in columns:
        if meaning := (here or {}).get(column, _meaning(column)):
            heads.setdefault(meaning, []).append(heading(column))
    return "; ".join(f"{', '.join(names)} = {meaning}" for meaning, names in heads.items())


def _meaning(column: str) -> str:
    if column in METRIC_OF:
        return METRICS[METRIC_OF[column]].legend
    name = column.removeprefix(KNOB)
    return "" if heading(column) in (name, column) else name


def begun(trial: TrialView) -> bool:
    """Whether a worker has it, or had it: until then Ray looks for room, and nothing runs."""
    return bool(trial.places or trial.seen)


def state_words(trial: TrialView, place: str = "", on_the_front: bool = False) -> str:
    """The state for people: does a worker have it yet, does the objective allow it, is it on the front."""
    if trial.state == UNFINISHED:
        return "running" if begun(trial) else "waiting"
    if on_the_front:
        return "finished, front"
    return "finished, not allowed" if place == "infeasible" else trial.state


def counts(view: SweepView) -> str:
    """ "3 finished, 1 stopped, 2 running, 1 waiting"; empty without trials."""
    waiting = sum(state_words(trial) == "waiting" for trial in view.unfinished)
    found = {state: view.count(state) for state in ("finished", "stopped", "failed", INTERRUPTED, UNFINISHED)}
    found |= {UNFINISHED: found[UNFINISHED] - waiting, "waiting": waiting}
    found["over a limit, not trained"] = len(view.infeasible)
    return ", ".join(f"{n} {state}" for state, n in found.items() if n)


def reasons(trials: Iterable[TrialView]) -> list[str]:
    """Why these trials ended, a line for each different reason: "t0003 failed: …" or "12 trials failed: …"."""
    groups: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        groups.setdefault((trial.state, one_line(trial.reason or "no reason known")), []).append(trial.trial)
    who = {key: names[0] if len(names) == 1 else f"{len(names)} trials" for key, names in groups.items()}
    return [f"{who[state, reason]} {state}: {reason}" for state, reason in groups]


def points(view: SweepView) -> list[str]:
    """Which trials were points to be tried first, in a line; nothing where none was."""
    given: dict[str, list[str]] = {}
    for trial in view.trials.values():
        if trial.suggested_by in POINTS:
            given.setdefault(trial.suggested_by, []).append(trial.trial)
    told = (f"{by} {', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''}" for by, names in given.items())
    rest = Counter(t.suggested_by for t in view.trials.values() if t.suggested_by not in POINTS)
    said = [*told, *(f"{name} {counted(count, 'trial')}" for name, count in rest.items())]
    return [f"Suggested by: {'; '.join(said)}"] if given else []


def over_limits(view: SweepView) -> list[str]:
    """How many suggestions were not trained because of a limit that their last model is known to break."""
    if not view.infeasible:
        return []
    limited = view.infeasible[0]["metrics"]
    least = ", ".join(f"{name} {min(r['metrics'][name] for r in view.infeasible):,.9g}" for name in limited)
    told = f"{counted(len(view.infeasible), 'suggestion')} known to break a limit, not trained"
    return [f"{told}: {one_line(view.infeasible[-1]['reason'])} and the like (least {least})"]


def not_valid(view: SweepView) -> list[str]:
    """Why suggestions of the space were no trials: a line for each of the most frequent reasons."""
    found = Counter(one_line(str(record["reason"])) for record in view.repeats if record.get("reason"))
    lines = [f"{counted(n, 'suggestion')} not valid, not trained: {why}" for why, n in found.most_common(REASONS)]
    left = sum(found.values()) - sum(n for _, n in found.most_common(REASONS))
    return [*lines, f"{counted(left, 'suggestion')} more not valid; the ledger has the reasons"] if left else lines


def searched(view: SweepView) -> list[str]:
    """Columns of what was searched: knob.NAME of every parameter that some trial has."""
    return [KNOB + name for name in sorted({name for trial in view.trials.values() for name in trial.params})]
