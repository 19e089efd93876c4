"""A worker that is stopped (SIGSTOP) on a local Ray: noticed, ended with its stack kept; its trial finishes."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.tune_rsst.real_sweep import SPACE
from tests.tune_rsst.test_conduct import lines_until, output, start
from tune_rsst.driver import assemble
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.view import SweepView
from tune_rsst.runners import serial
from tune_rsst.runners.silence import limit_s, own_rounds_s
from tune_rsst.search.spaces import settled
from tune_rsst.storage.folder import SweepFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]
HUNG_AFTER_S, EPOCHS = 6, 6


def words(home: Path) -> list[str]:
    file = home / "small_space.py"
    file.write_text(SPACE.replace('"epochs": 2', f'"epochs": {EPOCHS}'), encoding="utf-8")
    fixed = ["trials=2", "sampler=random", "stopping=none", "target_density=0.45", "max_concurrent_trials=2"]
    return [f"space={file}:small", "name=stopped", *fixed, f"hung_after_s={HUNG_AFTER_S}"]


def workers(driver: int) -> list[int]:
    """Processes that train a trial now."""
    below = psutil.Process(driver).children(recursive=True)
    return [one.pid for one in below if "ray::SweepTrainable.train" in " ".join(one.cmdline())]


def models(folder: SweepFolder, view: SweepView) -> dict[str, str]:
    stores = {t.trial: folder.store(t.fingerprint) / "model.safetensors" for t in view.trials.values()}
    return {trial: hashlib.sha256(path.read_bytes()).hexdigest() for trial, path in stores.items()}


def test_a_stopped_worker_is_noticed_and_its_trial_finishes_elsewhere_with_the_same_model(tmp_path: Path) -> None:
    home, other = tmp_path / "home", SweepFolder(tmp_path / "undisturbed")
    home.mkdir()
    other.path.mkdir()
    process = start(home, "sweep", *words(home))
    try:
        lines_until(process, "round 1 of")
        lines_until(process, "round 1 of")
        stopped = workers(process.pid)[0]
        os.kill(stopped, signal.SIGSTOP)
        at = time.time()
        code, text = output(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert code == 0, text
    events = list(read(home / "stopped" / "ledger.jsonl"))
    (hung,) = [event for event in events if event["event"] == "hung"]
    assert f"its process {stopped} on" in hung["reason"] and not psutil.pid_exists(stopped)
    view, folder = SweepView.of(events), SweepFolder(home / "stopped")
    found = view.trials[hung["trial"]]
    limit = limit_s(HUNG_AFTER_S, 600, own_rounds_s(found)[: found.silences[0]["round"]], spoke=True)
    print(f"its process was ended {hung['time'] - at:.1f} s after SIGSTOP; its limit was {limit:.1f} s of silence")
    assert [t.state for t in view.trials.values()] == ["finished", "finished"]
    log = (folder.store(view.trials[hung["trial"]].fingerprint) / "messages.log").read_text()
    assert "its stack:" in log and "ray_trainable.py:" in log
    reports = [(e["trial"], e["kind"], e["metrics"].get("round"), e["metrics"].get("epoch")) for e in events
               if e["event"] == "reported"]  # fmt: skip
    assert len(reports) == len(set(reports))
    opened_again, rounds_done = found.places[-1]["epochs_there"], found.silences[0]["round"]
    assert opened_again >= EPOCHS * rounds_done, "only the round in progress is trained again"

    settings, space = settled(words(home))
    driver = assemble(Ledger(other.ledger), settings, space)
    serial.run(driver, lambda: None, other)
    assert models(folder, view) == models(other, driver.view)
