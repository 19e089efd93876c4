"""Every command of docs/cluster.md is typed here in the guide's order, or named in NOT_HERE with the reason.

What differs from the guide is in `substitutions`: addresses and ports of this machine's two nodes, folders below a
temporary one, no GPU, a small sweep.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ray_nodes import BIN, ROOT, Nodes, job_status, wait_for
from tune_rsst.ledger.file import read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.view import SweepView
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.tracking.runs import _client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NOT_HERE = {
    "ray up cluster.yaml": "needs an AWS account; tests/test_cluster.py checks the file against Ray's schema",
    "ray dashboard cluster.yaml": "a tunnel to that cluster's head; here the head is on this machine",
    "ray up docs/cluster/on_prem.yaml": "needs machines with ssh; tests/test_cluster.py checks the file",
}
START = ("RAY_AUTH_MODE=token ray start --head --port=6379", "RAY_AUTH_MODE=token ray start --address=HEAD:6379")
SMALL_SWEEP = (
    "trials=2 target_density=0.4 epochs=3 batch_size=128 stopping=none cpus_per_trial=auto gpus_per_trial=auto"
)


def guide() -> list[str]:
    """The lines of the guide's code blocks, as they stand there."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


class Terminal:
    """A person at the guide: each line typed, exports kept."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        here = {"HOME": str(nodes.folder), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self.environment = {**os.environ, **here}
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "OPTUNA_STORAGE", "TUNE_RSST_HOME"):
            self.environment.pop(name, None)
        folder = nodes.folder / "docs" / "cluster"
        folder.mkdir(parents=True)
        env = (ROOT / "docs" / "cluster" / "runtime_env.yaml").read_text(encoding="utf-8")
        (folder / "runtime_env.yaml").write_text(env.replace("/mnt/rsst/home", str(nodes.home)), encoding="utf-8")

    def substitutions(self) -> dict[str, str]:
        """Text of the guide → text here, in this order."""
        nodes = self.nodes
        return {
            "ray start --head --port=6379": shlex.join(["ray", "start", *nodes.head_words]),
            "ray start --address=HEAD:6379": shlex.join(["ray", "start", *nodes.node_words]),
            "http://127.0.0.1:8265": nodes.address,
            "/mnt/rsst/home": str(nodes.home),
            "space=scratch gpus_per_trial=1": "space=scratch gpus_per_trial=0 dataset=digits arch=vit_digits epochs=8",
            "doctor gpus_per_trial=1": "doctor gpus_per_trial=0",
            "name=first": f"name=first {SMALL_SWEEP}",
        }

    def type(self, line: str) -> str:
        """What the line prints; an export changes what the next lines see."""
        for old, new in self.substitutions().items():
            line = line.replace(old, new)
        if line.startswith("export "):
            self.environment.update(word.split("=", 1) for word in shlex.split(line)[1:])  # type: ignore[arg-type]
            return ""
        done = subprocess.run(
            ["bash", "-c", line], env=self.environment, cwd=self.nodes.folder, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    @property
    def ledger(self) -> Path:
        return self.nodes.home / "first" / "ledger.jsonl"

    def events(self) -> list[str]:
        """Kinds of what the sweep's ledger has so far."""
        try:
            return [str(event["event"]) for event in read(self.ledger)]
        except (LedgerError, OSError):
            return []

    def view(self) -> SweepView:
        return SweepView.of(read(self.ledger))

    def job(self, job: str) -> str:
        """How it ended, or nothing; asked of its server, because the command takes 3 s of a core."""
        return job_status(self.nodes, self.nodes.folder / ".ray" / "auth_token", job)

    def mlflow_runs(self) -> dict[str, str]:
        """Trial ("" for the sweep) → status."""
        query = (
            "select coalesce(t.value, ''), r.status from runs r "
            "join tags s on s.run_uuid = r.run_uuid and s.key = 'sweep' and s.value = 'first' "
            "left join tags t on t.run_uuid = r.run_uuid and t.key = 'trial'"
        )
        with sqlite3.connect(self.nodes.home / "mlflow.db") as database:
            return dict(database.execute(query).fetchall())

    def optuna_states(self) -> list[str]:
        with sqlite3.connect(self.nodes.home / "first" / "optuna.db") as database:
            return [state for (state,) in database.execute("select state from trials order by number")]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    nodes = Nodes(tmp_path, head=False)
    try:
        _client(sqlite_uri(nodes.home))  # an empty database: making one takes seconds
        yield Terminal(nodes)
    finally:
        nodes.end()
        shutil.rmtree(nodes.temp, ignore_errors=True)


def was_stopped_in_order(terminal: Terminal) -> SweepView:
    """Three seconds after `ray job stop`: ledger, MLflow and Optuna say the same of a sweep that can go on."""
    before, runs = terminal.view(), terminal.mlflow_runs()
    unfinished = {trial.trial for trial in before.unfinished}
    assert terminal.events()[-1] == "interrupted" and not before.ended and unfinished
    assert runs[""] == "KILLED" and {runs[trial] for trial in unfinished} == {"KILLED"}
    assert "RUNNING" not in runs.values() and terminal.optuna_states().count("RUNNING") == len(unfinished)
    return before


def has_ended(terminal: Terminal, before: SweepView) -> None:
    """Both trials, from what they had at the stop; the choice of what each has is measured and written down."""
    after = terminal.view()
    assert after.ended and after.count("finished") == 2
    for trial in before.unfinished:
        hardened = [r["epochs_trained"] for r in trial.round_events]
        assert after.trials[trial.trial].places[-1]["epochs_there"] >= max(hardened, default=0), "trained again"
    assert set(terminal.mlflow_runs().values()) == {"FINISHED"} and terminal.optuna_states() == ["COMPLETE"] * 2
    measured = [event for event in read(terminal.ledger) if event["event"] == "measured"]
    assert measured and measured[0]["measured"]["peak_mib"] > 100
    assert measured[0]["cpus_per_trial"] >= 1 and measured[0]["gpus_per_trial"] == 0
    assert {p.name for p in terminal.nodes.home.iterdir()} >= {"first", "mlflow.db", "mlartifacts"}
    assert (terminal.nodes.home / "first" / "best.yaml").exists()


def test_every_command_of_the_guide(terminal: Terminal) -> None:
    lines = guide()
    assert set(NOT_HERE) | set(START) <= set(lines), "a line that is named here is not in the guide any more"
    typed = [line for line in lines if line not in NOT_HERE and line not in START]
    stop, again = typed.index("ray job stop first"), next(i for i, line in enumerate(typed) if "first-again" in line)
    live = typed.index("tune-rsst show first --live")
    assert stop < again < live
    wait_before: dict[int, Callable[[], bool]] = {
        stop: lambda: "measured" in terminal.events() and any(t.round_events for t in terminal.view().trials.values()),
        again: lambda: "interrupted" in terminal.events() and terminal.job("first") == "stopped",
        live: lambda: "resumed" in terminal.events(),
    }
    said: dict[str, str] = {}
    before = SweepView()
    for number, line in enumerate(typed):
        if number in wait_before:
            wait_for(wait_before[number], 150)
        if number == again:
            before = was_stopped_in_order(terminal)
        said[line] = terminal.type(line)
        if line == "chmod 600 ~/.ray/auth_token":  # what `ray up` does on the machines
            said |= {start: terminal.type(start) for start in START}
    doctor, plan = (next(text for line, text in said.items() if words in line) for words in ("doctor", "--dry-run"))
    assert "2 nodes, 4 CPUs" in doctor and "RAY_AUTH_MODE = token" in doctor
    assert "nothing has been written" in plan and "epochs" in plan
    assert "first" in said["ray job status first"] and "trial" in said["ray job logs first"]
    has_ended(terminal, before)
    assert "first" in said["tune-rsst show first"] and "t0000" in said["tune-rsst show first"]
    assert (terminal.nodes.home / "first" / "report.html").stat().st_size > 100_000
    (weights,) = (terminal.nodes.home / "first" / "exports").glob("*/*.safetensors")
    assert weights.stat().st_size > 1000
    wait_for(lambda: terminal.job("first-again") == "succeeded", 60)
