"""What the driver is told when Tune has lost a worker."""

from __future__ import annotations

import io
import logging
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from tests.tune_rsst.fake_sweep import FakeSweep, events, settings_of, tiny
from trainables.rsst.config import RSSTConfig
from tune_rsst.runners import ray_tune
from tune_rsst.runners.ray_tune import LedgerScheduler, LedgerSearcher, _reason
from tune_rsst.search.spaces import Space
from tune_rsst.storage.folder import SweepFolder


class _LostTrial:
    """Tune's trial as far as `_reason` looks: nothing was pickled, because the worker could raise nothing."""

    def __init__(self, error_file: Path | None, error: Exception | None = None) -> None:
        self.error_file, self._error = error_file, error

    def get_pickled_error(self) -> Exception | None:
        return self._error


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        (None, None, "the worker was lost: its process or its node is gone"),
        ("Failure # 1\nThe node died.\n\n", None, "the worker was lost: The node died."),
        (None, ValueError("first\nlast"), "ValueError: last"),
        (None, ValueError(), "ValueError: no message"),
    ],
)  # fmt: skip
def test_the_reason_is_a_line_that_says_something(tmp_path: Path, text: str, error: Any, reason: str) -> None:
    file = tmp_path / "error.txt"
    if text is not None:
        file.write_text(text)
    assert _reason(_LostTrial(file if text is not None else None, error)) == reason  # type: ignore[arg-type]


class _RunningTrial:
    """Tune's count of a trial's lost workers."""

    def __init__(self) -> None:
        self.run_metadata = SimpleNamespace(num_failures=2)


def test_losses_count_from_the_last_progress_and_a_replay_is_none(tmp_path: Path) -> None:
    """Tune gives a trial up after some losses: on spot nodes that is not a fault of a trial that gets on."""
    space = Space("tiny", tiny)
    sweep = FakeSweep(tmp_path, space, settings_of(space))
    trial = sweep.driver.next_trial()
    assert trial is not None
    scheduler, tuned = LedgerScheduler(sweep.driver), _RunningTrial()
    event = {"kind": "epoch", "round": 0, "epoch": 1, "epochs_trained": 1, "train_loss": 1.0}
    report = {"trial_key": trial.trial, "events": [event]}
    scheduler.on_trial_result(None, tuned, report)
    assert tuned.run_metadata.num_failures == 0
    tuned.run_metadata.num_failures = 2
    scheduler.on_trial_result(None, tuned, report)
    assert tuned.run_metadata.num_failures == 2


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("The actor died.\n\tpid: 7\n", "trial a failed: RuntimeError: The actor died.\n"),
        ("", "trial a failed: RuntimeError: no message\n"),
        ("a\x1b[2Jb", "trial a failed: RuntimeError: a\\x1b[2Jb\n"),
    ],
)
def test_what_tune_logs_of_a_lost_worker_is_one_line(message: str, said: str) -> None:
    written, log = io.StringIO(), logging.getLogger("ray.tune.execution.tune_controller")
    handler = logging.StreamHandler(written)
    logging.getLogger("ray").addHandler(handler)
    try:
        with ray_tune.in_lines():
            log.error("trial %s failed", "a", exc_info=RuntimeError(message))
        inside = written.getvalue()
        log.error("outside", exc_info=RuntimeError(message))
    finally:
        logging.getLogger("ray").removeHandler(handler)
    assert inside == said and written.getvalue().startswith(f"{said}outside\nRuntimeError")


@pytest.mark.parametrize("replicates", [1, 2])
def test_tune_waits_for_what_comes_after_a_run_and_no_longer(tmp_path: Path, replicates: int) -> None:
    """Another seed is due only when the one before it has ended: until then there is none, and it is not the end."""
    words = (f"replicates={replicates}", "trials=1", "stopping=none")
    sweep = FakeSweep(tmp_path, Space("tiny", tiny), settings_of(Space("tiny", tiny), *words))
    searcher, driver, asked = LedgerSearcher(sweep.driver, SweepFolder(tmp_path), {}), sweep.driver, []
    assert driver.runs_left == replicates
    for number in range(replicates):
        given = searcher.suggest(f"tune{number}")
        assert isinstance(given, dict)
        asked.append(given["trial_key"])
        assert searcher.suggest("tune") == (None if replicates > 1 else Searcher.FINISHED)
        config = RSSTConfig.from_knobs(given["knobs"])
        assert driver.take({"trial_key": asked[-1], "events": list(events(config))})
        assert driver.runs_left == replicates - number - 1
    assert asked == ["t0000", "t0000-seed1"][:replicates] and driver.complete
    assert searcher.suggest("tune") == Searcher.FINISHED


@pytest.mark.parametrize("meet", [True, False])
def test_a_trial_is_told_whether_its_dense_round_is_of_use_to_others(tmp_path: Path, meet: bool) -> None:
    sweep = FakeSweep(tmp_path, Space("tiny", tiny), settings_of(Space("tiny", tiny), "trials=1", "stopping=none"))
    given = LedgerSearcher(sweep.driver, SweepFolder(tmp_path), {}, meet).suggest("tune")
    assert isinstance(given, dict) and given["dense_meet"] is meet


class Canary:
    """Says that somebody has unpickled it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os.environ['CANARY'] = 'dead'",)


def test_tunes_trials_have_the_sweeps_names() -> None:
    trial = Trial("trainable", config={"trial_key": "t0003"}, stub=True, trial_name_creator=ray_tune.name_of)
    assert str(trial) == "t0003"


@pytest.mark.parametrize("linked", [False, True], ids=["a folder", "a link"])
def test_what_tune_left_in_a_home_goes_before_tune_begins_and_is_not_read(
    linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "alive")
    folder, elsewhere = SweepFolder(tmp_path / "fake"), tmp_path / "elsewhere"
    place = elsewhere if linked else folder.tune
    (place / "run").mkdir(parents=True)
    folder.path.mkdir(exist_ok=True)
    if linked:
        folder.tune.symlink_to(elsewhere)
    for name in ("tuner.pkl", "searcher-state.pkl", "error.pkl"):
        (place / "run" / name).write_bytes(pickle.dumps(Canary()))
    there: list[bool] = []
    fake = SimpleNamespace(fit=lambda: there.append(folder.tune.exists()))
    monkeypatch.setattr(ray_tune.tune, "Tuner", lambda *_, **__: fake)
    driver = SimpleNamespace(settings=SimpleNamespace(storage=None), runs_left=1)
    monkeypatch.setattr(ray_tune, "HungTrials", lambda *_: ray_tune.Ticker(driver, lambda: None))
    ray_tune.fit(driver, folder, {}, 1, lambda: None)
    assert there == [False] and os.environ["CANARY"] == "alive"
    assert not linked or (elsewhere / "run" / "tuner.pkl").exists()
