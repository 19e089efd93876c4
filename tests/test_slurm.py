"""docs/cluster/slurm.sbatch on a stand-in for Slurm: time limits, a cancelled job, every end; and on real Ray."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ray_nodes import BIN, ROOT
from tests.slurm_stand_in import Slurm
from tests.tune_rsst import fake_sweep
from tune_rsst.ledger.file import read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.view import SweepView
from tune_rsst.runners import replay
from tune_rsst.search.spaces import Space

FILE = ROOT / "docs" / "cluster" / "slurm.sbatch"
OUR_OWN = ("SLURM_", "RAY_", "MLFLOW_", "TUNE_RSST_HOME", "OPTUNA_STORAGE")
RAY = f"""#!{sys.executable} -S
import os, signal, socket, sys, time
with open(os.environ["STAND_IN"] + "/ray.log", "a") as log:
    print(os.environ["SLURM_PROCID"], os.environ["RAY_AUTH_TOKEN"], *sys.argv[1:], file=log)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if "--head" in sys.argv:
    port = next(int(word[7:]) for word in sys.argv if word.startswith("--port="))
    server = socket.create_server((os.environ["HEAD"], port))
while True:
    time.sleep(60)
"""
PYTHON = """#!/bin/bash
until [ "$(wc -l < "$STAND_IN/ray.log")" -ge "$4" ]; do sleep 0.1; done
"""
SWEEP = f"""#!{sys.executable}
import sys
from tests.test_slurm import a_sweep_of_formulas
raise SystemExit(a_sweep_of_formulas(sys.argv[1:]))
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OUR_OWN)}
    own = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {**kept, **own, "HEAD": "127.0.0.1", **more}


def a_sweep_of_formulas(words: list[str]) -> int:
    """`tune-rsst sweep` in a second: driver, study and ledger are real, the trials are formulas. SIGTERM as there."""
    given = dict(word.split("=", 1) for word in words[1:])
    assert words[0] == "sweep" and given["resume"] == "auto" and given["ray_address"].startswith("127.0.0.1:"), words
    folder = Path(os.environ["TUNE_RSST_HOME"]) / given["name"]
    folder.mkdir(parents=True, exist_ok=True)
    space = Space("tiny", fake_sweep.tiny)
    settings = fake_sweep.settings_of(space, f"trials={given['trials']}", "stopping=none")
    driver = fake_sweep.FakeSweep(folder, space, settings).driver
    try:
        with driver.interruption.listening():
            for _ in replay.reports(driver, lambda _, config: fake_sweep.events(config)):
                time.sleep(0.01)
    except KeyboardInterrupt:
        driver.record("interrupted")
        return 130
    driver.record("sweep_ended")
    return int(os.environ.get("ENDS_WITH", "0"))


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """The ledger of a sweep so far."""
    try:
        return read(folder / ".tune_rsst" / name / "ledger.jsonl")
    except (LedgerError, OSError):
        return []


def rounds(events: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """(trial, round) of each line that says that a round was trained."""
    reported = [event for event in events if event["event"] == "reported" and event["kind"] == "round"]
    return [(event["trial"], event["metrics"]["round"]) for event in reported]


def trained_again(events: list[dict[str, Any]]) -> list[str]:
    """Trials that were opened with a checkpoint older than a round that the ledger had by then."""
    done: dict[str, int] = {}
    found = []
    for event in events:
        if event["event"] == "reported" and event["kind"] == "round":
            done[event["trial"]] = event["metrics"]["epochs_trained"]
        elif event["event"] == "placed" and event["epochs_there"] < done.get(event["trial"], 0):
            found.append(event["trial"])
    return found


def after(rounds_each: int, starts: int, folder: Path, name: str) -> Callable[[int], bool]:
    """The limits of the first `starts` starts come when each has trained `rounds_each` rounds; then there is time."""
    return lambda start: start <= starts and len(rounds(lines(folder, name))) >= start * rounds_each


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path, environment(), ray=RAY, python=PYTHON, tune_rsst=SWEEP)


def test_a_sweep_survives_three_time_limits_by_being_the_same_command(slurm: Slurm) -> None:
    limits = after(4, 3, slurm.folder, "first")
    code = slurm.sbatch(FILE, "trials=5", name="first", nodes=2, near_the_limit=limits)
    assert code == 0 and slurm.starts == 4 and slurm.left == [], slurm.log
    events = lines(slurm.folder, "first")
    ends = [event["event"] for event in events if event["event"] in ("interrupted", "sweep_ended")]
    assert ends == ["interrupted", "interrupted", "interrupted", "sweep_ended"]
    trials = SweepView.of(events).trials
    assert {trial.state for trial in trials.values()} == {"finished"} and len(trials) == 5
    assert sorted(rounds(events)) == [
        (name, at) for name, trial in sorted(trials.items()) for at in range(trial.rounds)
    ]


def test_each_node_starts_ray_with_the_jobs_own_token_port_and_folder(slurm: Slurm) -> None:
    assert slurm.sbatch(FILE, "trials=1", name="first", nodes=3, near_the_limit=lambda _: False) == 0, slurm.log
    head, *others = sorted(line.split() for line in (slurm.folder / "ray.log").read_text().splitlines())
    port = 20000 + int(slurm.job) % 10000
    assert {f"--port={port}", "--head", "--num-cpus=1"} <= set(head)
    (own,) = [word.partition("=")[2] for word in head if word.startswith("--temp-dir=")]
    assert Path(own).is_dir() and not any(Path(own).iterdir()), "a new folder of the job's own"
    assert [f"--address=127.0.0.1:{port}" in words and "--head" not in words for words in others] == [True, True]
    assert len(head[1]) == 64 and {words[1] for words in others} == {head[1]}, "one token, and no short one"
    assert len({word for words in (head, *others) for word in words if "agent" in word}) == 3


@pytest.mark.parametrize(
    ("ends_with", "cancelled", "limit", "code", "starts"),
    [
        ("1", False, False, 1, 1),
        ("2", False, False, 2, 1),
        ("3", False, True, 3, 2),
        ("0", True, True, 130, 1),
    ],
)
def test_what_is_queued_again_and_the_exit_code(
    slurm: Slurm, ends_with: str, cancelled: bool, limit: bool, code: int, starts: int
) -> None:
    """Only what a limit has cut short: no sweep that has ended or failed, and no job that somebody cancelled."""
    slurm.environment["ENDS_WITH"] = ends_with
    near = after(1, 1, slurm.folder, "first") if limit else lambda _: False
    found = slurm.sbatch(FILE, "trials=1", name="first", nodes=1, near_the_limit=near, cancelled=cancelled)
    assert (found, slurm.starts, slurm.left) == (code, starts, []), slurm.log


def test_a_limit_that_comes_before_the_sweep_has_begun_queues_the_job_again(slurm: Slurm) -> None:
    """While the nodes are waited for."""
    waits = "#!/bin/bash\ntouch $STAND_IN/waits\n[ $SLURM_RESTART_COUNT = 1 ] || exec sleep 30\n"
    (slurm.bin / "python").write_text(waits)
    near = lambda start: start == 1 and (slurm.folder / "waits").exists()  # noqa: E731
    assert slurm.sbatch(FILE, "trials=1", name="first", nodes=1, near_the_limit=near) == 0, slurm.log
    assert slurm.starts == 2 and slurm.left == []


def test_nodes_that_do_not_come_end_the_job_with_the_reason(slurm: Slurm) -> None:
    (slurm.bin / "python").write_text("#!/bin/bash\necho 'error: 1 of 2 nodes are there'; exit 1\n")
    assert slurm.sbatch(FILE, name="first", nodes=2, near_the_limit=lambda _: False) == 1
    assert "1 of 2 nodes" in slurm.log and slurm.starts == 1 and slurm.left == []
    assert not (slurm.folder / ".tune_rsst").exists()


@pytest.mark.slow
def test_the_file_starts_a_real_ray_and_a_sweep_that_its_time_limit_ends_in_order(tmp_path: Path) -> None:
    """`python -m benchmarks.slurm` goes on with such a job, on two nodes, three times: docs/slurm.md."""
    here = Slurm(tmp_path, environment(), tune_rsst='#!/bin/bash\nexec python -m tune_rsst "$@"\n')
    (here.bin / "scontrol").write_text("#!/bin/bash\necho asked: $*\n")
    words = ["trials=1", "epochs=20", "stopping=none", "optuna_storage=memory", "cpus_per_trial=1"]
    limits = after(1, 1, tmp_path, "first")
    assert here.sbatch(FILE, *words, name="first", nodes=1, near_the_limit=limits) == 0, here.log
    assert here.log.endswith(f"asked: requeue {here.job}\n") and here.left == []
    events = lines(tmp_path, "first")
    assert events[-1]["event"] == "interrupted" and len(rounds(events)) >= 1
