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
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trainables.rsst.metrics import said
from trainables.text import duration, one_line, short
from tune_rsst.ledger.lock import is_running
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.ledger.view import UNFINISHED, SweepView, TrialView
from tune_rsst.results import columns as columns_module
from tune_rsst.results import table as table_module
from tune_rsst.results.progress import Progress, round_of, within_round
from tune_rsst.results.ranking import rank
from tune_rsst.storage.folder import SweepFolder

POLL_S = 0.5

REDRAW_S = 0.5
ROWS = 16
QUIET_S = 60.0  # without a terminal
STYLE = {"waiting": "dim", "running": "cyan", "interrupted": "yellow", "finished": "green", "stopped": "yellow"}
STYLE |= {"failed": "red"}


COLUMNS = ("round", "now", "epochs", "kept", "val_top1", "drop", "gmacs", "time")


@dataclass(frozen=True)
class Told:
    """What has been printed about a trial."""

    begun: bool = False
    rounds: int = 0
    state: str = UNFINISHED
    silences: int = 0

    @classmethod
    def all_of(cls, trial: TrialView) -> Told:
        """Everything that is known."""
        state = UNFINISHED if trial.unfinished else trial.state
        return cls(columns_module.begun(trial), len(trial.round_events), state, len(trial.silences))


class LiveTable:
    """Context manager around a run; call `tick` as often as you like."""

    def __init__(
        self,
        view: SweepView,
        trials: int,
        console: Console | None = None,
        folder: SweepFolder | None = None,
        called: str = "trials",
    ) -> None:
        """`folder`: the sweep's, where running trials leave how far they are within an epoch."""
        self._console = console or Console(file=sys.stdout)
        self._progress = Progress(view, trials, time.monotonic(), called)
        self._view = view
        self._drawn_at, self._news_at = 0.0, time.monotonic()
        self._own: Mapping[str, Callable[[TrialView], str]] = {
            "round": round_of,
            "now": partial(within_round, folder=folder),
            "time": lambda trial: duration(trial.seconds) if trial.seconds else "",
        }
        self._over: set[str] = set()
        self._told = {run.trial: Told.all_of(run) for trial in view.trials.values() for run in trial.all_runs}
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        )

    def __enter__(self) -> LiveTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
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
            self._live.update(Group(self._table(), Text(self._progress.line(now))), refresh=True)
        else:
            self._print_news(now)

    def _table(self) -> Table:
        running = [run for trial in self._view.unfinished for run in trial.all_runs if not run.over]
        knobs = columns_module.searched(self._view)
        trials = [*running, *rank(self._view)[: max(1, ROWS - len(running))]]

        def draw(columns: list[str]) -> Table:
            drawn = table_module.plain_table(["trial", "state", *columns])
            for trial in trials:
                words = columns_module.state_words(trial)
                cells = [self._own[n](trial) if n in self._own else columns_module.cell(trial, n) for n in columns]
                drawn.add([trial.trial, Text(words, STYLE[words]), *cells])
            return drawn

        go_first = (*columns_module.leaving(["epochs", "drop", "gmacs", *knobs]), "time", "kept", "now")
        return table_module.fitting(self._console, [*COLUMNS, *knobs], go_first, draw)[0]

    def _print_news(self, now: float) -> None:
        """Every round and end that was not told yet, trial by trial; then how far the sweep is, where one ended.

        Where nothing was to tell for QUIET_S: where the running trials are.
        """
        one_ended, before_at = False, self._news_at
        for trial in [run for one in self._view.trials.values() for run in _in_order(one)]:
            if trial.trial in self._over and trial.ended_at:
                continue
            before, seen = self._told.get(trial.trial, Told()), Told.all_of(trial)
            if seen == before:
                continue
            self._told[trial.trial] = seen
            if trial.ended_at:
                self._over.add(trial.trial)
            for line in _news(trial, before):
                self._news_at = now
                table_module.say(self._console, one_line(line))
            one_ended = one_ended or seen.state != before.state
        if one_ended:
            table_module.say(self._console, f"  {self._progress.line(now)}")
        if self._news_at == before_at and now - before_at >= QUIET_S:
            self._news_at = now
            for trial in [*self._view.unfinished, *self._view.unfinished_replicas][:ROWS]:
                if where := self._own["now"](trial):
                    table_module.say(self._console, f"  {trial.trial} round {round_of(trial)}: {one_line(where)}")


def _in_order(trial: TrialView) -> tuple[TrialView, ...]:
    """The trial's runs; where it has ended, its end is told after theirs."""
    return (*trial.runs.values(), trial) if trial.ended_at else trial.all_runs


def _news(trial: TrialView, before: Told) -> Iterator[str]:
    """What happened to a trial since `before`, in order."""
    if columns_module.begun(trial) and not before.begun:
        yield f"{trial.trial} started: {', '.join(f'{k} = {short(v)}' for k, v in trial.searched.items())}"
    for m in trial.round_events[before.rounds :]:
        took = f", {duration(m['seconds'])}" if "seconds" in m else ""
        numbers = said(m, "kept_share", "val_top1", "top1_drop", "hardening_gap")
        yield f"{trial.trial} round {m['round'] + 1} of {trial.rounds}: {numbers}{took}"
    for silence in trial.silences[before.silences :]:
        yield f"{trial.trial} hangs: {silence['reason']}"
    if trial.state != before.state and not trial.unfinished:
        m = trial.metrics
        result = f" {said(m, 'val_top1', 'top1_drop')} at {said(m, 'kept_share')}" if "val_top1" in m else ""
        yield f"{trial.trial} {trial.state}{result}{f': {trial.reason}' if trial.reason else ''}"


def watch(console: Console, folder: SweepFolder) -> None:
    """The live table of a sweep that some other process runs, until that process ends or Ctrl-C."""
    tail, view = LedgerTail(folder.ledger), SweepView(home=str(folder.path.parent))
    _read_on(tail, view)
    if not is_running(folder.path):
        return
    trials = int(view.settings.get("trials", len(view.trials)))
    with LiveTable(view, trials, console, folder) as table_module:
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
