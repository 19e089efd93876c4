"""The serial runner: the real core and its checkpoints, one trial after the other, without Ray."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.tune_rsst.real_sweep import SPACE
from trainables.rsst.config import RSSTConfig
from trainables.rsst.metrics import CIRCUMSTANCES
from trainables.rsst.trial import open_trial
from tune_rsst.driver import Driver, assemble
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.runners import serial
from tune_rsst.search.spaces import settled
from tune_rsst.storage.folder import SweepFolder

pytestmark = pytest.mark.medium


def begin(folder: SweepFolder, *words: str) -> Driver:
    folder.path.mkdir(parents=True, exist_ok=True)
    file = folder.path / "space.py"
    file.write_text(SPACE, encoding="utf-8")
    fixed = ("name=serial", "trials=3", "sampler=random", "target_density=0.45", "startup_trials=3")
    settings, space = settled([f"space={file}:small", *fixed, *words])
    return assemble(Ledger(folder.ledger), settings, space)


def exact(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Without what differs between identical runs."""
    return {n: value for n, value in (metrics or {}).items() if n not in CIRCUMSTANCES}


def end_state(driver: Driver, folder: SweepFolder) -> dict[str, Any]:
    """Trial → how it ended, and its model's sha256."""
    found = {}
    for trial in driver.view.trials.values():
        model = folder.store(trial.fingerprint) / "model.safetensors"
        digest = hashlib.sha256(model.read_bytes()).hexdigest() if trial.state == "finished" else None
        rounds = [exact(event) for event in trial.round_events]
        found[trial.trial] = (trial.fingerprint, trial.state, trial.reason, rounds, exact(trial.final), digest)
    return found


class Whole(NamedTuple):
    """A sweep that was not disturbed; `reports`: (trial, kind)."""

    folder: SweepFolder
    driver: Driver
    reports: list[tuple[str, str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = SweepFolder(tmp_path_factory.mktemp("whole"))
    driver = begin(folder)
    reports = [(trial.trial, event["kind"]) for trial, event in serial.reports(driver, folder)]
    assert driver.complete
    return Whole(folder, driver, reports)


@pytest.mark.parametrize("kill", [4, 9])
def test_killed_after_some_reports_and_resumed_it_ends_as_if_it_had_not_been(
    tmp_path: Path, whole: Whole, kill: int
) -> None:
    folder = SweepFolder(tmp_path)
    for _ in islice(serial.reports(begin(folder), folder), kill):
        pass
    driver = begin(folder)
    assert sum(len(t.seen) for t in driver.view.trials.values()) == kill and not driver.complete
    ticks: list[None] = []
    serial.run(driver, lambda: ticks.append(None), folder)
    assert driver.complete and ticks
    assert end_state(driver, folder) == end_state(whole.driver, whole.folder)
    reported = [(e["trial"], e["seq"]) for e in read(folder.ledger) if e["event"] == "reported"]
    assert len(reported) == len(set(reported)) == len(whole.reports)


def test_one_trial_ends_before_the_next_begins(whole: Whole) -> None:
    order = [name for name, _ in whole.reports]
    assert order == sorted(order) and set(order) == {"t0000", "t0001", "t0002"}
    assert [kind for name, kind in whole.reports if name == "t0000"][:2] == ["start", "epoch"]


def test_a_trial_that_the_driver_stops_is_trained_no_further_and_its_store_is_released(whole: Whole) -> None:
    stopped = next(trial for trial in whole.driver.view.trials.values() if trial.state == "stopped")
    assert [kind for name, kind in whole.reports if name == stopped.trial][-1] == "round"
    config = RSSTConfig.from_knobs(whole.driver.knobs_of(stopped))
    with open_trial(config, whole.folder.trials, say=lambda line: None) as again:
        assert again.history[-1].key[:2] == ("round", len(stopped.round_events) - 1)
    assert len(stopped.round_events) < stopped.rounds


def test_a_loss_that_is_not_finite_fails_its_trial_and_the_sweep_continues(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    driver = begin(folder, "trials=1", "lr=1e30", "stopping=none")
    serial.run(driver, lambda: None, folder)
    (found,) = driver.view.trials.values()
    assert driver.complete and found.state == "failed" and "round 0, epoch" in str(found.reason)


MEETING = """
def meeting(suggest):
    lr = suggest.suggest_categorical("lr", [1e-3, 2e-3])
    g = suggest.suggest_float("reg_granularity_prune", 0.1, 1.0)
    return {"dataset": "digits", "epochs": 2, "warmup": 0, "batch_size": 256, "lr": lr, "reg_granularity_prune": g}
"""


def test_trials_with_the_same_dense_round_train_it_once_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "meeting.py").write_text(MEETING, encoding="utf-8")
    ends = {}
    for shared in ("true", "false"):
        folder = SweepFolder(tmp_path / shared)
        folder.path.mkdir()
        words = (
            "trials=5",
            "sampler=random",
            "target_density=0.5",
            "pruning_times=3",
            f"share_dense={shared}",
            "rungs=[0.5]",
        )
        settings, space = settled([f"space={tmp_path / 'meeting.py'}:meeting", "name=serial", *words])
        driver = assemble(Ledger(folder.ledger), settings, space)
        if shared == "true":  # killed on the way
            list(islice(serial.reports(driver, folder), 7))
            driver = assemble(Ledger(folder.ledger), settings, space)
        serial.run(driver, lambda: None, folder)
        trials = list(driver.view.trials.values())
        distinct = len({trial.knobs["lr"] for trial in trials})
        adopted = sum(trial.metrics["epochs_adopted"] for trial in trials)
        assert distinct == 2 and adopted == (2 * (5 - distinct) if shared == "true" else 0)
        ends[shared] = end_state(driver, folder)
    assert ends["true"] == ends["false"]


def test_it_imports_no_ray() -> None:
    program = "import sys; import tune_rsst.runners.serial, tune_rsst.driver; raise SystemExit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
