"""A sweep from Python and the process it runs in: Ctrl-C, a killed caller, the terminal's thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tune_rsst
from tests.ray_nodes import wait_for
from tune_rsst.ledger.lock import is_running
from tune_rsst.storage import home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
SCRIPT = """
import sys, threading
import tune_rsst

knobs = {"dataset": "digits", "epochs": 40, "pruning_times": 4, "rate": 0.3, "num_threads": 1}
def train():
    tune_rsst.sweep(name="mine", resume="auto", trials=2, stopping=None, **knobs)
if sys.argv[1] == "thread":
    one = threading.Thread(target=train)
    one.start()
    one.join()
else:
    train()
"""


def begun(folder: Path, script: Path, where: str) -> subprocess.Popen[str]:
    """The script, once its sweep has a report more than before."""
    ledger = folder / "mine/ledger.jsonl"
    before = ledger.read_text(encoding="utf-8").count('"reported"') if ledger.exists() else 0
    started = subprocess.Popen(
        [sys.executable, str(script), where],
        env={**os.environ, "TUNE_RSST_HOME": str(folder), "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: ledger.exists() and ledger.read_text(encoding="utf-8").count('"reported"') > before + 3, 200)
    except TimeoutError:
        started.kill()
        raise
    return started


@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_caller_that_is_interrupted_or_killed_leaves_a_sweep_that_ended_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    killed = begun(tmp_path, script, where)
    killed.kill()
    wait_for(lambda: not is_running(home.find("mine").path), timeout_s=60)
    killed.communicate(timeout=30)
    found = tune_rsst.load("mine")
    assert found.state == "interrupted" and found.ledger[-1]["event"] == "interrupted"
    if where == "thread":
        return
    again = begun(tmp_path, script, where)
    again.send_signal(signal.SIGINT)
    printed, _ = again.communicate(timeout=90)
    assert "KeyboardInterrupt: mine is interrupted; go on with tune_rsst.sweep(name='mine', resume='must')" in printed
    assert again.returncode not in (0, None) and found.ledger[-1]["event"] == "interrupted"
    assert [event["event"] for event in found.ledger].count("resumed") == 1
