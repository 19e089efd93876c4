"""The table while a sweep runs: on a terminal it is redrawn in place, elsewhere one line is printed per finished round.

In: the ledger's view.
Out: text; in the table one line a trial, with as many columns as there is room for.
Nothing is drawn more often than twice a second. Rounds are counted from 1 here, in the ledger from 0.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from trainables.rsst.metrics import said
from trainables.text import duration, short
from tune_rsst.ledger.lock import is_running
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.ledger.view import UNFINISHED, SweepView, TrialView
from tune_rsst.results import columns as columns_module
from tune_rsst.results import table as table_module
from tune_rsst.results.ranking import at_target, order, rank
from tune_rsst.storage.folder import SweepFolder

POLL_S = 0.5

REDRAW_S = 0.5
ROWS = 16
STYLE = {"waiting": "dim", "running": "cyan", "interrupted": "yellow", "finished": "green", "stopped": "yellow"}
STYLE |= {"failed": "red"}


class Progress:
    """How far the sweep is, and an estimate of what is left, from the rounds that this run has seen."""

    def __init__(self, view: SweepView, trials: int, clock: float) -> None:
        self.view, self.trials = view, trials
        self._began, self._rounds_at_start = clock, self.rounds_done
        self._judged: set[str] = set()
        self._best: TrialView | None = None

    def best(self) -> TrialView | None:
        """`best_of` the sweep; each ended trial is judged once, because a sweep may have thousands."""
        for trial in self.view.trials.values():
            if trial.ended_at and trial.trial not in self._judged:
                self._judged.add(trial.trial)
                if trial.state == "finished" and at_target(self.view, trial):
                    self._best = min((t for t in (self._best, trial) if t), key=order)
        return self._best

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
        best = self.best()
        ended = len(view.trials) - len(view.unfinished)
        parts = [f"{ended} of {self.trials} trials ended ({columns_module.counts(view) or 'none started'})"]
        if best is not None:
            parts.append(f"best {best.trial} {said(best.metrics, 'val_top1')}")
        parts.append(duration(now - self._began))
        if ended < self.trials:
            eta = self.eta_s(now)
            parts.append("time left not known yet" if eta is None else f"about {duration(max(1.0, eta))} left")
        return " · ".join(parts)


def _mean_rounds(view: SweepView) -> float:
    rounds = [t.rounds for t in view.trials.values()]
    return sum(rounds) / len(rounds) if rounds else 1.0


def _round(trial: TrialView) -> str:
    at = trial.last_epoch.get("round", 0) + 1 if trial.last_epoch else "–"
    return f"{at}/{trial.rounds}"


OWN: Mapping[str, Callable[[TrialView], str]] = {
    "round": _round,
    "time": lambda trial: duration(trial.seconds) if trial.seconds else "",
}
COLUMNS = ("round", "epochs", "kept", "val_top1", "gmacs", "time")


@dataclass(frozen=True)
class Told:
    """What has been printed about a trial."""

    begun: bool = False
    rounds: int = 0
    state: str = UNFINISHED

    @classmethod
    def all_of(cls, trial: TrialView) -> Told:
        """Everything that is known."""
        return cls(
            columns_module.begun(trial), len(trial.round_events), UNFINISHED if trial.unfinished else trial.state
        )


class LiveTable:
    """Context manager around a run; call `tick` as often as you like."""

    def __init__(self, view: SweepView, trials: int, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stdout)
        self._progress = Progress(view, trials, time.monotonic())
        self._view = view
        self._drawn_at = 0.0
        self._over: set[str] = set()
        self._told = {trial.trial: Told.all_of(trial) for trial in view.trials.values()}
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
        else:
            self._print_news(time.monotonic())

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
        running, knobs = self._view.unfinished, columns_module.searched(self._view)
        trials = [*running, *rank(self._view)[: max(1, ROWS - len(running))]]

        def draw(columns: list[str]) -> Table:
            drawn = table_module.plain_table(["trial", "state", *columns])
            for trial in trials:
                words = columns_module.state_words(trial)
                cells = [OWN[n](trial) if n in OWN else columns_module.cell(trial, n) for n in columns]
                drawn.add_row(trial.trial, f"[{STYLE[words]}]{words}[/]", *cells)
            return drawn

        go_first = (*columns_module.leaving(["epochs", "gmacs", *knobs]), "time", "kept")
        return table_module.fitting(self._console, [*COLUMNS, *knobs], go_first, draw)[0]

    def _print_news(self, now: float) -> None:
        """Every round and end that was not told yet, trial by trial; then how far the sweep is, where one ended."""
        one_ended = False
        for trial in self._view.trials.values():
            if trial.trial in self._over and trial.ended_at:
                continue
            before, seen = self._told.get(trial.trial, Told()), Told.all_of(trial)
            if seen == before:
                continue
            self._told[trial.trial] = seen
            if trial.ended_at:
                self._over.add(trial.trial)
            for line in _news(trial, before):
                table_module.say(self._console, line)
            one_ended = one_ended or seen.state != before.state
        if one_ended:
            table_module.say(self._console, f"  {self._progress.line(now)}")


def _news(trial: TrialView, before: Told) -> Iterator[str]:
    """What happened to a trial since `before`, in order."""
    if columns_module.begun(trial) and not before.begun:
        yield f"{trial.trial} started: {', '.join(f'{k} = {short(v)}' for k, v in trial.params.items())}"
    for m in trial.round_events[before.rounds :]:
        took = f", {duration(m['seconds'])}" if "seconds" in m else ""
        numbers = said(m, "kept_share", "val_top1", "hardening_gap")
        yield f"{trial.trial} round {m['round'] + 1} of {trial.rounds}: {numbers}{took}"
    if trial.state != before.state and not trial.unfinished:
        m = trial.metrics
        result = f" {said(m, 'val_top1')} at {said(m, 'kept_share')}" if "val_top1" in m else ""
        yield f"{trial.trial} {trial.state}{result}{f': {trial.reason}' if trial.reason else ''}"


def watch(console: Console, folder: SweepFolder) -> None:
    """The live table of a sweep that some other process runs, until that process ends or Ctrl-C."""
    tail, view = LedgerTail(folder.ledger), SweepView()
    _read_on(tail, view)
    if not is_running(folder.path):
        return
    with LiveTable(view, int(view.settings.get("trials", len(view.trials))), console) as table_module:
        while is_running(folder.path):
            _read_on(tail, view)
            table_module.tick()
            time.sleep(POLL_S)
        _read_on(tail, view)
        view.drive(False)
        table_module.tick(force=True)


def _read_on(tail: LedgerTail, view: SweepView) -> None:
    while events := tail.read():
        for event in events:
            view.apply(event)
