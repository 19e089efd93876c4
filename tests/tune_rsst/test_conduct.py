"""The whole way on a local Ray, as a user meets it: run, Ctrl-C, resume, failures. Few tests, because Ray is slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tune_rsst.ledger.file import read
from tune_rsst.ledger.view import SweepView

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]
TINY = ["trials=4", "epochs=1", "warmup=0", "rate=0.5", "max_concurrent_trials=2", "startup_trials=2"]


def start(home: Path, *words: str, mlflow: str | None = None, cwd: Path | None = None) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "tune_rsst", *words],
        cwd=cwd,
        env={**environment, "TUNE_RSST_HOME": str(home), **({"MLFLOW_TRACKING_URI": mlflow} if mlflow else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def output(process: subprocess.Popen[str], timeout_s: float = 300) -> tuple[int, str]:
    text, _ = process.communicate(timeout=timeout_s)
    return process.returncode, text


def lines_until(process: subprocess.Popen[str], word: str) -> str:
    """Read what the process prints until a line has `word`."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if word in line:
            return seen
    raise AssertionError(f"it ended without saying {word}:\n{seen}")


@pytest.fixture(scope="module")
def interrupted_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """In a home whose path is too long for sockets and has blanks: Ctrl-C after the first round, then a resume."""
    home = tmp_path_factory.mktemp("a home with a path that is much too long for sockets of any kind")
    cwd = tmp_path_factory.mktemp("current folder")
    first = start(home, "sweep", *TINY, "--name", "small", cwd=cwd)
    try:
        begun = lines_until(first, "round 1 of")
        os.killpg(first.pid, signal.SIGINT)  # as a terminal does
        code, rest = output(first)
        stopped = SweepView.of(read(home / "small" / "ledger.jsonl"))
        resumed_code, resumed = output(start(home, "sweep", "--resume", cwd=cwd))
    finally:
        first.kill()
    events = read(home / "small" / "ledger.jsonl")
    return {
        "home": home,
        "cwd": cwd,
        "first": (code, begun + rest),
        "stopped": stopped,
        "resumed": (resumed_code, resumed),
        "events": events,
        "view": SweepView.of(events),
    }


def test_ctrl_c_exits_130_with_a_line_that_says_how_to_go_on(interrupted_and_resumed: dict[str, Any]) -> None:
    code, text = interrupted_and_resumed["first"]
    assert code == 130, text
    last = text.strip().splitlines()[-1]
    assert last.startswith("Interrupted.") and "sweep --name small --resume" in last
    assert "Traceback" not in text


def test_resume_finishes_with_no_trial_lost_or_doubled(interrupted_and_resumed: dict[str, Any]) -> None:
    code, text = interrupted_and_resumed["resumed"]
    assert code == 0, text
    view: SweepView = interrupted_and_resumed["view"]
    assert list(view.trials) == ["t0000", "t0001", "t0002", "t0003"] and not view.unfinished and view.ended
    for name, before in interrupted_and_resumed["stopped"].trials.items():
        assert view.trials[name].fingerprint == before.fingerprint
    told = [
        (e["trial"], e["kind"], e["metrics"]["round"], e["metrics"].get("epoch"))
        for e in _reports(interrupted_and_resumed)
    ]
    assert len(told) == len(set(told))


def _reports(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [e for e in found["events"] if e["event"] == "reported"]


def test_a_second_resume_has_nothing_to_do(interrupted_and_resumed: dict[str, Any]) -> None:
    code, text = output(start(interrupted_and_resumed["home"], "sweep", "--name", "small", "--resume"))
    assert code == 0 and "nothing to go on with" in text


def test_everything_lies_below_the_home_and_what_ray_left_is_gone(interrupted_and_resumed: dict[str, Any]) -> None:
    home: Path = interrupted_and_resumed["home"]
    assert list(interrupted_and_resumed["cwd"].iterdir()) == [], "a job's own folder, on a cluster"
    assert {p.name for p in home.iterdir() if not p.name.startswith(".mlflow")} <= {
        "small",
        "mlflow.db",
        "mlartifacts",
        ".ray_token",
        ".matplotlib",
    }
    assert (home / ".ray_token").stat().st_mode & 0o077 == 0
    sweep = {p.name for p in (home / "small").iterdir() if not p.name.startswith(".mlflow")}
    files = {
        "ledger.jsonl",
        "settings.yaml",
        "driver.lock",
        "optuna.db",
        "best.yaml",
        "mlflow_cursor.json",
        "report.html",
    }
    assert sweep == files | {"trials", "best_model", "pictures"}
    assert {"model.safetensors", "architecture.json"} <= {p.name for p in (home / "small" / "best_model").iterdir()}


def test_the_best_trial_rerun_alone_gives_the_same_numbers(
    interrupted_and_resumed: dict[str, Any], tmp_path: Path
) -> None:
    home: Path = interrupted_and_resumed["home"]
    _, shown = output(start(home, "show", "--json"))
    best = json.loads(shown)["best"]
    command = ["-m", "trainables", "--config", str(home / "small" / "best.yaml"), "--save_dir", str(tmp_path / "rerun")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "rerun" / "report.json").read_text())
    assert report["test_top1"] == best["metrics"]["test_top1"]
    assert report["rounds"][-1]["val_top1"] == best["metrics"]["val_top1"]


def test_kill_9_of_a_worker_and_a_trial_that_diverges_do_not_end_the_sweep(tmp_path: Path) -> None:
    """The killed worker's trial goes on from its own store. lr = 1e30 diverges: failed, and exit code 3."""
    space = tmp_path / "mine.py"
    space.write_text(
        "def mine(trial):\n"
        "    lr = trial.suggest_categorical('lr', [1e-3, 1e30])\n"
        "    return {'dataset': 'digits', 'epochs': 2, 'warmup': 0, 'rate': 0.5, 'lr': lr}\n"
    )
    home = tmp_path / "home"
    words = [f"space={space}:mine", "trials=2", "sampler=random", "stopping=none", "max_concurrent_trials=2"]
    process = start(home, "sweep", *words, "--name", "kill")
    begun = lines_until(process, "round 1 of")
    try:
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        code, rest = output(process)
    finally:
        process.kill()
    view = SweepView.of(read(home / "kill" / "ledger.jsonl"))
    assert sorted(t.state for t in view.trials.values()) == ["failed", "finished"], begun + rest
    failed = next(t for t in view.trials.values() if t.state == "failed")
    assert code == 3 and "round" in str(failed.reason) and f"{failed.trial} failed: " in rest


def workers_of(driver: int) -> list[int]:
    """Processes below `driver` that run trials."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in found.splitlines()]
    family = {str(driver)}
    while grown := {pid for pid, parent, _ in rows if parent in family} - family:
        family |= grown
    return [int(pid) for pid, _, title in rows if pid in family and title.startswith("ray::SweepTrainable")]
