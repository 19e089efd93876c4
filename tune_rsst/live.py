"""The table while a sweep runs: on a terminal it is redrawn in place, elsewhere one line is printed per finished round.

Comes in: the ledger's view. Goes out: text. Nothing is drawn more often than twice a second.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tune_rsst.objective import best_of
from tune_rsst.results import rank
from tune_rsst.view import SweepView, TrialView

REDRAW_S = 0.5
ROWS = 16
STYLE = {"running": "cyan", "finished": "green", "stopped": "yellow", "failed": "red"}


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 05 min"""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """How far the sweep is, and an estimate of what is left, from the rounds that this run has seen."""

    def __init__(self, view: SweepView, trials: int, clock: float) -> None:
        self.view, self.trials = view, trials
        self._began, self._rounds_at_start = clock, self.rounds_done

    @property
    def rounds_done(self) -> int:
        return sum(len(t.round_events) for t in self.view.trials.values())

    def rounds_left(self) -> float:
        """Rounds still to run; trials that are not suggested yet count as much as the ended ones took on average."""
        ended = [t for t in self.view.trials.values() if t.ended_at]
        each = sum(len(t.round_events) for t in ended) / len(ended) if ended else _mean_rounds(self.view)
        open_rounds = sum(
            min(t.rounds, max(each, len(t.round_events) + 1)) - len(t.round_events) for t in self.view.unfinished
        )
        return open_rounds + max(0, self.trials - len(self.view.trials)) * each

    def eta_s(self, now: float) -> float | None:
        """Seconds to the end, None before the first rounds."""
        done = self.rounds_done - self._rounds_at_start
        return (now - self._began) / done * self.rounds_left() if done >= 2 else None

    def line(self, now: float) -> str:
        """One line of counts, best and ETA."""
        view = self.view
        counts = ", ".join(f"{n} {s}" for s in ("finished", "stopped", "failed", "running") if (n := view.count(s)))
        best = best_of(view)
        text = f"{len(view.trials) - len(view.unfinished)} of {self.trials} trials ended ({counts or 'none started'})"
        if best is not None:
            text += f" · best {best.trial} val_top1 {best.metrics['val_top1']:.4f}"
        eta = self.eta_s(now)
        left = f"about {duration(eta)} left" if eta is not None else "time left not known yet"
        return f"{text} · {duration(now - self._began)} · {left}"


def _mean_rounds(view: SweepView) -> float:
    rounds = [t.rounds for t in view.trials.values()]
    return sum(rounds) / len(rounds) if rounds else 1.0


def _row(trial: TrialView) -> list[str | Text]:
    m = trial.metrics
    epoch = trial.last_epoch
    now = f"{trial.last_epoch.get('round', 0) + 1}/{trial.rounds}" if epoch else f"–/{trial.rounds}"
    return [
        trial.trial,
        Text(trial.state, STYLE[trial.state]),
        now,
        str(m.get("epochs_trained", "")),
        _number(m.get("kept_share"), 2),
        _number(m.get("val_top1"), 4),
        _number(m.get("gmacs"), 4),
        duration(trial.seconds) if trial.seconds else "",
        " ".join(f"{k} {_short(v)}" for k, v in trial.params.items()),
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class LiveTable:
    """Context manager around a run; call `tick` as often as you like."""

    def __init__(self, view: SweepView, trials: int, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stdout)
        self._progress = Progress(view, trials, time.monotonic())
        self._view = view
        self._drawn_at = 0.0
        self._told: dict[str, tuple[int, str]] = {t.trial: (len(t.round_events), t.state) for t in view.trials.values()}
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        )

    def __enter__(self) -> LiveTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def tick(self, force: bool = False) -> None:
        """Draw again when it is time."""
        now = time.monotonic()
        if not force and now - self._drawn_at < REDRAW_S:
            return
        self._drawn_at = now
        if self._live:
            self._live.update(Group(self._table(), self._progress.line(now)), refresh=True)
        else:
            self._print_news(now)

    def _table(self) -> Table:
        table = Table(box=None, header_style="bold")
        for name in (
            "trial",
            "state",
            "round",
            "epochs",
            "kept share",
            "val_top1",
            "gmacs",
            "trained for",
            "parameters",
        ):
            table.add_column(name, no_wrap=name != "parameters")
        running, ended = self._view.unfinished, rank(self._view)
        for trial in [*running, *ended[: max(1, ROWS - len(running))]]:
            table.add_row(*_row(trial))
        return table

    def _print_news(self, now: float) -> None:
        for trial in self._view.trials.values():
            seen = (len(trial.round_events), trial.state)
            if self._told.get(trial.trial) == seen:
                continue
            self._told[trial.trial] = seen
            self._console.print(self._news(trial), highlight=False, soft_wrap=True, markup=False)
            if trial.ended_at:
                self._console.print(f"  {self._progress.line(now)}", highlight=False, soft_wrap=True, markup=False)

    def _news(self, trial: TrialView) -> str:
        if trial.state != "running":
            why = f": {trial.reason}" if trial.reason else ""
            m = trial.metrics
            result = f" val_top1 {m['val_top1']:.4f} at kept share {m['kept_share']:.3f}" if "val_top1" in m else ""
            return f"{trial.trial} {trial.state}{result}{why}"
        if not trial.round_events:
            return f"{trial.trial} started: {', '.join(f'{k} = {_short(v)}' for k, v in trial.params.items())}"
        m = trial.round_events[-1]
        return (
            f"{trial.trial} round {m['round'] + 1} of {trial.rounds}: kept share {m['kept_share']:.3f}, "
            f"val_top1 {m['val_top1']:.4f}, hardening gap {m['hardening_gap']:.4f}, {duration(m['seconds'])}"
        )
