"""Columns of a trial that tables share: names, formats, meanings.

In: trials. Out: text for cells and legends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rich.markup import escape

from tune_rsst.ledger.view import UNFINISHED, SweepView, TrialView

KNOB = "knob."
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
LEGEND: Mapping[str, str] = {
    "val_top1": "val_top1, test_top1 = accuracy (share)",
    "kept": "kept = share of units",
    "density": "density = share of prunable parameters",
    "gmacs": "gmacs = 1e9 MACs of an image",
    "gap": "gap = accuracy lost by hardening (share)",
    "knob.reg_granularity_prune": "g = reg_granularity_prune",
}
SHORT = {"reg_granularity_prune": "g"}


# --- what other tables share -----------------------------------------------------------------------------------------


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
    waiting = sum(not begun(trial) for trial in view.unfinished)
    found = {state: view.count(state) for state in ("finished", "stopped", "failed", UNFINISHED)}
    found |= {UNFINISHED: found[UNFINISHED] - waiting, "waiting": waiting}
    return ", ".join(f"{n} {state}" for state, n in found.items() if n)


def reasons(trials: Iterable[TrialView]) -> list[str]:
    """Why these trials ended, a line for each different reason: "t0003 failed: …" or "12 trials failed: …"."""
    groups: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        groups.setdefault((trial.state, trial.reason or "no reason known"), []).append(trial.trial)
    who = {key: names[0] if len(names) == 1 else f"{len(names)} trials" for key, names in groups.items()}
    return [f"{who[state, reason]} {state}: {reason}" for state, reason in groups]


def short(value: object) -> str:
    """A number with three significant digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def searched(view: SweepView) -> list[str]:
    """Columns of what was searched: knob.NAME of every parameter that some trial has."""
    return [KNOB + name for name in sorted({name for trial in view.trials.values() for name in trial.params})]


def searched_cell(trial: TrialView, column: str) -> str:
    """The trial's value in a column of `searched`."""
    return escape(short(trial.params.get(column.removeprefix(KNOB), "")))


def legend(meanings: Mapping[str, str], shown: Iterable[str]) -> str:
    """What the columns that are shown mean, in one line."""
    return "; ".join(text for name, text in meanings.items() if name in set(shown))


def short_number(value: object) -> str:
    """8e-4 rather than 0.00080000001; other values as they are."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.2g}"
    mantissa, e, exponent = f"{value:.1e}".partition("e")
    if "e" in text or abs(value) < 0.01:
        return f"{mantissa.removesuffix('.0')}{e}{int(exponent)}" if value else "0"
    return text
