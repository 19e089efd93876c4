"""The replay runner: order, decisions, kills; it and what it plays need neither Ray nor torch."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.tune_rsst.fake_sweep import events, tiny
from trainables.rsst.config import RSSTConfig
from tune_rsst.driver import Driver, assemble
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.runners import replay
from tune_rsst.search.spaces import Space, settled

TINY = Space("tiny", tiny)
WORDS = ("name=fake", "trials=6", "sampler=random")


def driver_in(folder: Path, *words: str) -> Driver:
    folder.mkdir(parents=True, exist_ok=True)
    settings, space = settled([*WORDS, *words], TINY)
    return assemble(Ledger(folder / "ledger.jsonl", clock=lambda: 1.0), settings, space)


def formula(trial: TrialView, config: RSSTConfig) -> Any:
    return events(config)


def ends(view: SweepView) -> list[tuple[Any, ...]]:
    return [(t.trial, t.fingerprint, t.state, t.reason, t.rung, t.final) for t in view.trials.values()]


def test_trials_side_by_side_report_in_turn_and_the_next_begins_where_one_has_ended(tmp_path: Path) -> None:
    seen = [(trial.trial, trial.state) for trial, _ in replay.reports(driver_in(tmp_path, "stopping=none"), formula, 2)]
    assert [name for name, _ in seen[:4]] == ["t0000", "t0001", "t0000", "t0001"]
    first_end = next(i for i, (_, state) in enumerate(seen) if state == "finished")
    assert {name for name, _ in seen[: first_end + 1]} == {"t0000", "t0001"}
    assert "t0002" in {name for name, _ in seen[first_end + 1 : first_end + 4]}
    assert {name for name, state in seen if state == "finished"} == {f"t{n:04d}" for n in range(6)}


def test_a_trial_that_the_driver_stops_is_played_no_further_and_its_curve_is_closed(tmp_path: Path) -> None:
    closed = []

    def curve(trial: TrialView, config: RSSTConfig) -> Any:
        try:
            yield from events(config)
        finally:
            closed.append(trial.trial)

    driver = driver_in(tmp_path, "trials=10")
    after: dict[str, list[str]] = {}
    for trial, _ in replay.reports(driver, curve):
        after.setdefault(trial.trial, []).append(trial.state)
    assert driver.complete and driver.view.count("stopped") and driver.view.count("finished")
    assert all(states.index(states[-1]) == len(states) - 1 for states in after.values()), "nothing after its end"
    assert closed == list(driver.view.trials)


@pytest.mark.parametrize("at_once", [1, 3])
def test_killed_at_any_report_and_resumed_it_ends_as_if_it_had_not_been(tmp_path: Path, at_once: int) -> None:
    """stopping=none: which trials a rung has seen depends on the order, and a resume changes who is beside whom."""
    words = ("stopping=none", "trials=4")
    whole = driver_in(tmp_path / "whole", *words)
    total = sum(1 for _ in replay.reports(whole, formula, at_once))
    for kill in range(1, total, 5):
        folder = tmp_path / str(kill)
        for _ in islice(replay.reports(driver_in(folder, *words), formula, at_once), kill):
            pass
        resumed = driver_in(folder, *words)
        assert sum(len(t.seen) for t in resumed.view.trials.values()) == kill
        replay.run(resumed, lambda: None, formula, at_once)
        assert ends(resumed.view) == ends(whole.view)
        reported = [(e["trial"], e["seq"]) for e in read(folder / "ledger.jsonl") if e["event"] == "reported"]
        assert len(reported) == len(set(reported)) == total


def test_what_a_ledger_recorded_plays_the_same_sweep_again(tmp_path: Path) -> None:
    first = driver_in(tmp_path / "first", "trials=10")
    replay.run(first, lambda: None, formula)
    curve = replay.recorded(read(tmp_path / "first" / "ledger.jsonl"))
    second = driver_in(tmp_path / "second", "trials=10")
    replay.run(second, lambda: None, curve)
    assert second.view.count("stopped") and ends(second.view) == ends(first.view)


def test_a_curve_that_fails_or_ends_early_fails_its_trial_alone(tmp_path: Path) -> None:
    lengths, nan = {0: 2, 1: 3}, "round 0, epoch 2: the loss is nan"

    def failing(trial: TrialView, config: RSSTConfig) -> Any:
        yield from islice(events(config), lengths.get(trial.number))
        if trial.number == 0:
            raise replay.TrialFailed(nan)

    driver = driver_in(tmp_path, "trials=3", "stopping=none")
    replay.run(driver, lambda: None, failing)
    found = driver.view.trials.values()
    assert [t.state for t in found] == ["failed", "failed", "finished"]
    assert [t.reason for t in found] == [nan, "its curve ends before the trial does", None]


def test_a_broken_driver_is_given_nothing_more(tmp_path: Path) -> None:
    driver = driver_in(tmp_path)
    made = 0
    for _ in replay.reports(driver, formula, at_once=2):
        made += 1
        if made == 3:
            driver.interruption.break_off("the disk is full")
    assert made == 3 and driver.view.unfinished


def test_a_whole_sweep_is_played_without_ray_and_without_torch(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from tests.tune_rsst.runners.test_replay import driver_in, formula, replay
driver = driver_in(Path({str(tmp_path)!r}), "sampler=tpe", "startup_trials=2")
replay.run(driver, lambda: None, formula, at_once=2)
assert driver.complete and driver.view.count("finished")
loaded = [name for name in ("ray", "torch", "mlflow") if name in sys.modules]
raise SystemExit(f"it imports {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
