"""A running sweep as its terminal and its log show it: one line a trial, every round once, started when it is."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.tune_rsst.recorded import reported, sweep_events
from trainables.progress import Work, keeper
from trainables.text import duration
from tune_rsst.ledger.view import SweepView
from tune_rsst.results import live
from tune_rsst.results.live import LiveTable
from tune_rsst.results.progress import Progress
from tune_rsst.results.ranking import best_of
from tune_rsst.storage.folder import SweepFolder

PLACED = {"event": "placed", "trial": "t0000", "host": "box", "node": "ab", "epochs_there": 0}


def events(*more: dict[str, Any], trials: int = 4) -> Iterator[dict[str, Any]]:
    """The made-up sweep, with a searched g, small networks and an event each second; then `more`."""
    for at, event in enumerate([*sweep_events(trials=trials), *more]):
        if event["event"] == "suggested":
            event["params"] = {**event["params"], "reg_granularity_prune": 1.23456, "warmup": 3}
        elif event["event"] == "reported" and event["kind"] == "round":
            event["metrics"] = {**event["metrics"], "gmacs": 0.000187, "seconds": 1.0}
        yield {"time": float(at), **event}


def shown(view: SweepView, width: int) -> str:
    """The table on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(LiveTable(view, 4, console)._table())
    return console.file.getvalue()  # type: ignore[attr-defined]


class Log:
    """What is printed where there is no terminal; the view begins empty."""

    def __init__(self, trials: int = 4) -> None:
        self.view, self._out = SweepView(), io.StringIO()
        self._table = LiveTable(self.view, trials, Console(file=self._out, width=80))

    def after(self, *events: dict[str, Any]) -> list[str]:
        """The lines that one look at the view prints once these events are in it."""
        for event in events:
            self.view.apply({"time": 0.0, **event})
        self._out.seek(0)
        self._out.truncate()
        self._table.tick(force=True)
        return self._out.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_on_a_terminal_every_trial_has_one_line_that_fits(width: int) -> None:
    lines = shown(SweepView.of(events()), width).splitlines()
    assert len(lines) == 5 and max(map(cell_len, lines)) <= width
    assert width == 40 or {line.split()[0] for line in lines} == {"trial", "t0000", "t0001", "t0002", "t0003"}
    assert width == 40 or not any("…" in line for line in lines)


def test_the_live_table_names_and_rounds_as_the_final_one_does() -> None:
    text = shown(SweepView.of(events()), 120)
    heads = text.splitlines()[0].split()
    assert heads[-4:] == ["lr", "rate", "g", "warmup"] and "reg_granularity_prune" not in text
    assert "0.000187" in text and "1.23" in text and "1.234" not in text
    narrow = shown(SweepView.of(events()), 80).splitlines()[0].split()
    assert {"trial", "state", "round", "val_top1"} <= set(narrow) < set(heads)


def test_a_log_has_every_round_also_the_last_and_the_one_that_stopped() -> None:
    lines = Log().after(*events())
    told = [" ".join(re.sub(r"[:,].*", "", line).split()[:3]) for line in lines if line.startswith("t")]
    rounds = {n: [f"t{n:04d} round {r}" for r in range(1, count + 1)] for n, count in enumerate((3, 3, 2, 2))}
    ends = ("finished val_top1", "finished val_top1", "stopped val_top1", "failed val_top1")
    assert told == [line for n, end in enumerate(ends) for line in (f"t{n:04d} started", *rounds[n], f"t{n:04d} {end}")]
    assert "round 3 of 3: kept share 0.301" in lines[3]


def test_a_round_and_an_end_are_told_once_whenever_one_looks() -> None:
    log, lines = Log(), []
    for event in events():
        lines += log.after(event)
    assert len(lines) == len(set(lines)) and sum(" round " in line for line in lines) == 10
    last = [i for i, line in enumerate(lines) if line.startswith("t0001 round 3 of 3")]
    assert lines[last[0] + 1].startswith(("t0001 finished", "t0000 finished", "  1 of 4"))


def test_the_progress_is_told_once_after_the_news_and_without_a_time_when_nothing_is_left() -> None:
    log, all_of_it = Log(), list(events())
    ends = [event for event in all_of_it if event["event"] == "ended"]
    lines = log.after(*(event for event in all_of_it if event not in ends and event["event"] != "sweep_ended"))
    assert not any("trials ended" in line for line in lines)
    two, rest = log.after(*ends[:2]), log.after(*ends[2:])
    assert ["trials ended" in line for line in two] == ["trials ended" in line for line in rest] == [False, False, True]
    assert "2 of 4 trials ended" in two[-1] and re.search(r"about \d+ s left", two[-1])
    assert "4 of 4 trials ended" in rest[-1] and "left" not in rest[-1]
    assert log.after() == []


def test_what_came_after_the_last_look_is_told_at_the_end() -> None:
    out, view = io.StringIO(), SweepView()
    with LiveTable(view, 4, Console(file=out, width=80)):
        for event in events():
            view.apply(event)
    assert "t0000 finished" in out.getvalue() and "t0002 round 2 of 3" in out.getvalue()


def test_a_trial_has_started_when_a_worker_has_it_and_waits_before() -> None:
    log, (began, first, second, *_) = Log(), events()
    assert log.after(began, first, second) == []
    assert log.after(PLACED) == [
        f"t0000 started: {', '.join(f'{k} = {v:.3g}' for k, v in log.view.trials['t0000'].params.items())}"
    ]
    rows = shown(log.view, 80).splitlines()
    assert rows[1].split()[:3] == ["t0000", "running", "–/3"] and rows[2].split()[:3] == ["t0001", "waiting", "–/3"]
    assert "(1 running, 1 waiting)" in log._table._progress.line(0.0)
    start = {"round": 0, "epoch": 0, "epochs_trained": 0}
    assert [line.split(":")[0] for line in log.after(reported("t0001", 0, "start", start))] == ["t0001 started"]
    assert "waiting" not in shown(log.view, 80)
    assert log.view.trials["t0001"].state == "running"  # the ledger's and JSON's word is the same for both


def test_a_trial_that_failed_before_a_worker_had_it_never_started() -> None:
    log, (began, first, *_) = Log(), events()
    failed = {"event": "ended", "trial": "t0000", "state": "failed", "reason": "no node has a GPU", "rung": None}
    lines = log.after(began, first, failed)
    assert lines[0] == "t0000 failed: no node has a GPU" and len(lines) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45.4, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (47.9 * 3600, "47 h 54 min"), (220 * 3600, "9 d 04 h")],
)
def test_a_duration_is_in_units_that_people_count_in(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_best_so_far_is_the_rankings_first_at_every_moment() -> None:
    view, seen = SweepView(), 0
    progress = Progress(view, 12, 0.0)
    for event in sweep_events(trials=12):
        view.apply({**event, "time": 1.0})
        assert progress.best() is best_of(view)
        seen += progress.best() is not None
    assert seen and best_of(view) is not None


def running_one(tmp_path: Path, epochs: int, *works: Work) -> tuple[SweepView, SweepFolder]:
    """A sweep whose t0000 has trained `epochs` epochs (2 a round), and left `works` behind."""
    folder, view = SweepFolder(tmp_path / "sweep"), SweepView()
    mine = [e for e in events(trials=1) if e["event"] == "reported" and e["kind"] in ("epoch", "round")]
    began, suggested, start, *_ = events(trials=1)
    for event in (began, suggested, {"time": 0.0, **PLACED}, start, *mine[: epochs + epochs // 2]):
        view.apply(event)
    for work in works:
        keeper(folder.store(view.trials["t0000"].fingerprint))(work)
    return view, folder


WHERE = [
    (0, None, ""),
    (0, ("preparing the images (train)", 12), "epoch 1/2, preparing the images (train) 12 %"),
    (0, ("training", 43), "epoch 1/2, 43 %"),
    (1, None, "epoch 2/2"),
    (1, ("training", 7), "epoch 2/2, 7 %"),
    (1, ("evaluating", 50), "epoch 2/2, evaluating 50 %"),
    (2, None, "epoch 1/2"),  # of the second round
    (3, ("training", 99), "epoch 2/2, 99 %"),
]


@pytest.mark.parametrize(("epochs", "work", "words"), WHERE)
def test_a_running_trial_says_where_in_its_round_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, work: tuple[str, int] | None, words: str
) -> None:
    left = [Work(work[0], work[1], 100, "images", 60.0)] if work else []
    view, folder = running_one(tmp_path, epochs, *left)
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    console.print(LiveTable(view, 4, console, folder)._table())
    head, row = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert words in row and ("%" in row) is ("%" in words) and "now" in head.split()
    monkeypatch.setattr(live, "QUIET_S", 0.0)
    out = io.StringIO()
    table = LiveTable(view, 4, Console(file=out, width=80), folder)
    table.tick(force=True)
    assert out.getvalue() == (f"  t0000 round {epochs // 2 + 1}/3: {words}\n" if words else "")


def test_a_log_says_where_the_trials_are_only_when_it_was_quiet(tmp_path: Path) -> None:
    view, folder = running_one(tmp_path, 1, Work("training", 7, 100, "images", 60.0))
    out = io.StringIO()
    table = LiveTable(view, 4, Console(file=out, width=80), folder)
    table.tick(force=True)
    assert out.getvalue() == ""
    table._news_at -= live.QUIET_S
    table.tick(force=True)
    table.tick(force=True)
    assert out.getvalue().splitlines() == ["  t0000 round 1/3: epoch 2/2, 7 %"]
