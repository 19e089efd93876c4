"""Sweeps from Python: the names of the command line, the same plan and run, what was found as objects."""

from __future__ import annotations

import csv
import io
import json
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tune_rsst
from tests.tune_rsst.recorded import Recorder, sweep_events
from trainables.rsst.config import ConfigError
from tune_rsst import conduct
from tune_rsst.cli import api
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
    """Trials run here, one after the other, or as `runner` has it."""

    def run(plan: Any, console: Any) -> int:
        own = None if isinstance(plan, Finished) else partial(runner, folder=plan.folder)
        return run_on(plan, console, own)

    monkeypatch.setattr(conduct, "run", run)


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
        ({"lr": np.array([1e-3, 1e-2])}, "a finite number"),
        ({"trials": None}, "a whole number"),
        ({"trials": 0}, "trials"),
        ({"name": "none/such"}, "name"),
        ({"name": "missing", "resume": "must"}, "a sweep in"),
        ({"space": 7}, "space"),
        ({"lr": object()}, "a finite number"),
        ({"dataset": object()}, "dataset"),
    ],
    ids=lambda value: str(value)[:30].partition(" object")[0],
)
def test_what_the_command_line_refuses_is_refused_in_the_same_words(given: dict[str, Any], said: str) -> None:
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
def test_a_sweep_in_a_thread_gives_the_same_and_is_extended_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_ray(monkeypatch)
    found: dict[str, tune_rsst.Sweep] = {}

    def train() -> None:
        found["one"] = tune_rsst.sweep(progress=False, **SMALL)
        found["more"] = found["one"].extend(1, progress=False)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=train)
    thread.start()
    thread.join(100)
    assert not thread.is_alive() and (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    main = tune_rsst.sweep(progress=False, **SMALL)
    first = found["more"].trials.iloc[:2].set_index("trial")
    assert len(found["more"].trials) == 2 and found["one"].name == found["more"].name
    assert main.best is not None and first.loc["t0000", "val_top1"] == main.best["metrics"]["val_top1"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_sweep_that_broke_off_raises_with_its_reason_and_goes_on(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def broken(driver: Driver, tick: Tick, folder: SweepFolder) -> None:
        raise OSError("the cable was pulled")

    without_ray(monkeypatch, broken)
    errors: list[BaseException] = []

    def train() -> None:
        try:
            tune_rsst.sweep(name="mine", progress=False, **SMALL)
        except RuntimeError as error:
            errors.append(error)

    if where == "main":
        train()
    else:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join(60)
    [error] = errors
    assert "mine broke off: OSError: the cable was pulled" in str(error)
    assert "tune_rsst.sweep(name='mine', resume='must')" in str(error)
    without_ray(monkeypatch)
    assert tune_rsst.sweep(name="mine", resume="must", progress=False).state == "finished"


def test_a_driver_that_fails_in_a_thread_ends_without_a_signal_to_whoever_runs_in_the_main_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[int] = []

    def failing(driver: Driver, tick: Tick, folder: SweepFolder) -> None:
        driver.interruption.break_off("the disk is full")

    without_ray(monkeypatch, failing)
    errors: list[str] = []

    def train() -> None:
        try:
            tune_rsst.sweep(name="mine", progress=False, **SMALL)
        except RuntimeError as error:
            errors.append(str(error))

    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join(60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not heard and ["the disk is full" in error for error in errors] == [True]


def test_an_interrupted_sweep_is_a_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(driver: Driver, tick: Tick, folder: SweepFolder) -> None:
        raise KeyboardInterrupt

    without_ray(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt, match="mine is interrupted; go on with"):
        tune_rsst.sweep(name="mine", progress=False, **SMALL)
    assert tune_rsst.load("mine").state == "interrupted"


def test_one_process_has_one_sweep_and_no_ray_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def meanwhile(driver: Driver, tick: Tick, folder: SweepFolder) -> None:
        try:
            tune_rsst.sweep(name="second", progress=False, **SMALL)
        except ConfigError as error:
            refused.append(str(error))
        serial.run(driver, tick, folder)

    without_ray(monkeypatch, meanwhile)
    assert tune_rsst.sweep(name="first", progress=False, **SMALL).state == "finished"
    assert ["no other sweep in this process" in line for line in refused] == [True]
    monkeypatch.setitem(api.sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"call ray.shutdown\(\) before the sweep"):
        tune_rsst.sweep(name="third", progress=False, **SMALL)


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
