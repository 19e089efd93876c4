"""Sweeps from Python: the names of the command line, the same plan and run, what was found as objects."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tune_rsst
from tests.tune_rsst.recorded import Recorder, sweep_events
from trainables.rsst.config import ConfigError
from tune_rsst import conduct
from tune_rsst.cli import api, child
from tune_rsst.cli.results import show
from tune_rsst.driver import Driver
from tune_rsst.ledger.lock import driving
from tune_rsst.planning.plan import Finished
from tune_rsst.runners import Tick, serial
from tune_rsst.settings.written import from_python
from tune_rsst.storage import home
from tune_rsst.storage.folder import SweepFolder

SMALL = {"dataset": "digits", "trials": 1, "epochs": 1, "pruning_times": 2, "rate": 0.4, "stopping": None, "seed": 3}
run_on = conduct.run


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))


@pytest.fixture
def recorded(tmp_path: Path) -> tune_rsst.Sweep:
    """A made-up sweep of eight trials."""
    folder = SweepFolder(tmp_path / "home/demo")
    folder.path.mkdir(parents=True)
    Recorder(folder.ledger).write(*sweep_events(trials=8))
    return tune_rsst.load("demo")


def without_ray(monkeypatch: pytest.MonkeyPatch, runner: Callable[..., Any] = serial.run) -> None:
    """The child's work is done in this process, one trial after the other, or as `runner` has it."""

    def run(plan: Any, console: Any, **more: Any) -> int:
        return run_on(
            plan, console, None if isinstance(plan, Finished) else partial(runner, folder=plan.folder), **more
        )

    def run_child(request: Any, progress: bool) -> dict[str, Any]:
        with redirect_stdout(sys.stdout if progress else io.StringIO()):
            return child.answer_to(json.loads(json.dumps(request)), lambda found: None)

    monkeypatch.setattr(conduct, "run", run)
    monkeypatch.setattr(api, "run_child", run_child)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"stopping": None}, {"stopping": "none"}),
        ({"mlflow_experiment": "a", "trials": np.int64(3)}, {"mlflow_experiment": "a", "trials": 3}),
        ({"lr": np.float32(0.5), "pretrained": np.True_}, {"lr": 0.5, "pretrained": True}),
        ({"data": Path("/images")}, {"data": "/images"}),
        ({"warm_start": (Path("a"), "b")}, {"warm_start": ["a", "b"]}),
        ({}, {}),
    ],
)
def test_pythons_values_are_those_of_the_command_line(given: dict[str, Any], taken: dict[str, Any]) -> None:
    found = from_python(given)
    assert found == taken and [type(value) for value in found.values()] == [type(value) for value in taken.values()]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trails": 3}, "did you mean trials"),
        ({"save_dir": "x"}, "not a setting of a sweep"),
        ({"lr": {"low": 1}}, "one value"),
        ({"lr": [1e-3, 1e-2]}, "one value"),
        ({"lr": np.array([1e-3, 1e-2])}, "a text, a number"),
        ({"trials": None}, "a whole number"),
        ({"trials": 0}, "trials"),
        ({"name": "none/such"}, "name"),
        ({"name": "missing", "resume": "must"}, "a sweep in"),
        ({"space": 7}, "space"),
        ({"lr": object()}, "a text, a number"),
        ({"dataset": b"digits"}, "a text, a number"),
        ({"lr": float("nan")}, "a finite number"),
        ({"lr": 1 + 2j}, "a text, a number"),
    ],
    ids=lambda value: str(value)[:30].partition(" object")[0],
)
def test_what_the_command_line_refuses_is_refused_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    without_ray(monkeypatch)
    with pytest.raises(ConfigError, match=said) as refusal:
        tune_rsst.sweep(**given)
    assert "\n" not in str(refusal.value) and not home.sweeps()


def test_a_sweep_in_a_script_prints_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_ray(monkeypatch)
    done = tune_rsst.sweep(name="mine", **SMALL)
    printed = capsys.readouterr().out
    assert "t0000 round 2 of 2" in printed and "Sweep mine: finished" in printed
    assert done.state == "finished" and done.name == "mine" and done.best is not None
    assert tune_rsst.sweep(name="mine", resume="must", progress=False).ledger == done.ledger
    assert not capsys.readouterr().out


@pytest.mark.medium
def test_a_sweep_is_extended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    without_ray(monkeypatch)
    one = tune_rsst.sweep(progress=False, **SMALL)
    more = one.extend(np.int64(1), progress=False)
    assert len(one.trials) == len(more.trials) == 2 and one.name == more.name and not capsys.readouterr().out
    for number in (0, -1, 1.5, True, None, "two"):
        with pytest.raises(ConfigError, match="a whole number from 1 on"):
            one.extend(number)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a sweep with failed trials"):
        one.retry(progress=False)
    with pytest.raises(ConfigError, match="a failed trial of"):
        one.retry("t0000", progress=False)


def broken(driver: Driver, tick: Tick, folder: SweepFolder) -> None:
    raise OSError("the cable was pulled")


def full(driver: Driver, tick: Tick, folder: SweepFolder) -> None:
    driver.interruption._running = False  # no runner that a signal would end
    driver.interruption.break_off("the disk is full")


@pytest.mark.medium
@pytest.mark.parametrize(("runner", "reason"), [(broken, "OSError: the cable was pulled"), (full, "the disk is full")])
def test_a_sweep_that_broke_off_raises_with_its_reason_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, runner: Callable[..., Any], reason: str
) -> None:
    without_ray(monkeypatch, runner)
    with pytest.raises(RuntimeError) as error:
        tune_rsst.sweep(name="mine", progress=False, **SMALL)
    assert str(error.value) == f"mine broke off: {reason}; go on with tune_rsst.sweep(name='mine', resume='must')"
    without_ray(monkeypatch)
    assert tune_rsst.sweep(name="mine", resume="must", progress=False).state == "finished"


def test_an_interrupted_sweep_is_a_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(driver: Driver, tick: Tick, folder: SweepFolder) -> None:
        raise KeyboardInterrupt

    without_ray(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt, match="mine is interrupted; go on with"):
        tune_rsst.sweep(name="mine", progress=False, **SMALL)
    assert tune_rsst.load("mine").state == "interrupted"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (
            {"code": -9, "sweep": "mine"},
            RuntimeError,
            "mine broke off: its process ended with exit code -9; go on with",
        ),
        ({"code": 1}, RuntimeError, "the sweep's process ended with exit code 1"),
        ({"code": 1, "reason": "the ledger is damaged"}, RuntimeError, "the ledger is damaged"),
        ({"code": 130, "sweep": "mine"}, KeyboardInterrupt, "mine is interrupted; go on with"),
        ({"code": 2, "refused": ["lr", 7, "less", "or so"]}, ConfigError, "lr = 7: valid is less; or so"),
    ],
)
def test_how_the_child_ended_is_an_exception_here(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], error: type[BaseException], said: str
) -> None:
    monkeypatch.setattr(api, "run_child", lambda request, progress: answer)
    with pytest.raises(error, match=re.escape(said)):
        tune_rsst.sweep()


@pytest.mark.medium
def test_the_child_prints_here_and_its_refusal_is_raised_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="stopping = halvin: valid is"):
        tune_rsst.sweep(stopping="halvin", arch="vit_tiny_digits")
    assert not capsys.readouterr().out
    found = api.run_child({"command": "extend", "sweep": "none", "trials": 1}, progress=True)
    assert found["code"] == 2 and found["refused"][0] == "sweep"


def test_trials_are_the_rows_of_the_csv(recorded: tune_rsst.Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    show("demo", as_csv=True)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    trials = recorded.trials
    assert list(trials.columns) == list(rows[0]) and trials["trial"].tolist() == [row["trial"] for row in rows]
    assert trials["rank"].dropna().tolist() == [1, 2, 3, 4] and trials["rank"].dtype == "Int64"
    known = trials["val_top1"].notna()
    assert trials["val_top1"][known].tolist() == [float(row["val_top1"]) for row in rows if row["val_top1"]]


def test_best_and_front_are_those_of_the_json(recorded: tune_rsst.Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    show("demo", as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert json.loads(json.dumps(recorded.best)) == said["best"]
    assert [trial["id"] for trial in recorded.front] == said["pareto"]
    assert recorded.state == said["state"] and str(recorded.path) == said["folder"]
    assert recorded.settings["target_density"] == said["target_density"]


def test_a_handle_sees_what_is_written_after_it_was_made(recorded: tune_rsst.Sweep) -> None:
    before = recorded.ledger
    with driving(recorded.path):
        Recorder(recorded.path / "ledger.jsonl").write({"event": "interrupted", "reason": "a test"})
        assert recorded.state == "running"
    assert len(recorded.ledger) == len(before) + 1 and recorded.ledger[-1]["reason"] == "a test"
    assert repr(recorded) == f"<Sweep demo: finished, 8 trials, in {recorded.path}>"


def test_a_sweep_without_a_finished_trial_has_no_best(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "home/young")
    folder.path.mkdir(parents=True)
    Recorder(folder.ledger).write(*list(sweep_events("young"))[:3])
    young = tune_rsst.load("young")
    assert young.best is None and young.front == [] and young.trials["rank"].isna().all()
    with pytest.raises(ConfigError, match="a finished trial of young"):
        young.export()


def test_no_sweep_is_one_line() -> None:
    with pytest.raises(ConfigError):
        tune_rsst.load("none")
    with pytest.raises(AttributeError, match="no attribute 'swepe'"):
        _ = tune_rsst.swepe
    with pytest.raises(ConfigError):
        tune_rsst.load()


@pytest.mark.medium
def test_report_and_export_write_what_the_commands_write(
    digits_sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(digits_sweep.path.parent))
    found = tune_rsst.load(digits_sweep.name)
    page = found.report(tmp_path / "page.html")
    assert page == tmp_path / "page.html" and "t0002" in page.read_text(encoding="utf-8")
    folder = found.export("t0002", round=1, to=tmp_path / "model", formats=("safetensors",))
    assert folder == tmp_path / "model" and (folder / "model.safetensors").is_file()
    with pytest.raises(ConfigError, match="a file in a folder that exists"):
        found.report(tmp_path / "none" / "page.html")
    with pytest.raises(ConfigError):
        found.export(formats="tiff")
