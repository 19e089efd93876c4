"""Sweeps on a Ray cluster of one and two nodes: submitted as a job, stopped as a job, and with a node taken away."""

from __future__ import annotations

import json
import shutil
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ray_nodes import BIN, Nodes, wait_for
from tune_rsst.ledger.file import read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.view import SweepView
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.tracking.runs import _client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
SETTINGS = "space: digits\ntarget_density: 0.4\nepochs: 2\nbatch_size: 128\nstopping: none\nresume: auto\n"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    found = Nodes(tmp_path_factory.mktemp("cluster"))
    try:
        _client(sqlite_uri(found.home))  # an empty database: making one takes seconds
        job = found.folder / "job"
        job.mkdir()
        (job / "sweep.yaml").write_text(SETTINGS)
        yield found
    finally:
        found.end()
        shutil.rmtree(found.temp, ignore_errors=True)


def submit(nodes: Nodes, job: str, *words: str, working_dir: bool = True) -> None:
    """Nodes on one machine share the job's folder, and one of them removes it: no folder where there are several."""
    file = "sweep.yaml" if working_dir else str(nodes.folder / "job" / "sweep.yaml")
    entry = [str(BIN / "python"), "-m", "tune_rsst", "sweep", file, *words]
    where = ["--address", nodes.address, "--no-wait", "--submission-id", job]
    where += ["--working-dir", "job"] if working_dir else []
    done = nodes.run("ray", "job", "submit", *where, "--", *entry)
    assert done.returncode == 0, done.stdout + done.stderr


def status(nodes: Nodes, job: str) -> str:
    """What `ray job status` says at last, or nothing; asked of its server, because the command takes 3 s of a core."""
    token = Path(nodes.environment["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="ascii")
    request = urllib.request.Request(f"{nodes.address}/api/jobs/{job}", headers={"Authorization": f"Bearer {token}"})
    word = str(json.load(urllib.request.urlopen(request, timeout=20))["status"]).lower()
    return word if word in ("succeeded", "failed", "stopped") else ""


def logs(nodes: Nodes, job: str) -> str:
    return nodes.run("ray", "job", "logs", "--address", nodes.address, job).stdout


def view(nodes: Nodes, sweep: str) -> SweepView:
    try:
        return SweepView.of(read(nodes.home / sweep / "ledger.jsonl"))
    except LedgerError:
        return SweepView()


def mlflow_runs(nodes: Nodes, sweep: str) -> dict[str, str]:
    """Trial ("" for the sweep) → status."""
    query = (
        "select coalesce(t.value, ''), r.status from runs r "
        "join tags s on s.run_uuid = r.run_uuid and s.key = 'sweep' and s.value = ? "
        "left join tags t on t.run_uuid = r.run_uuid and t.key = 'trial'"
    )
    with sqlite3.connect(nodes.home / "mlflow.db") as database:
        return dict(database.execute(query, (sweep,)).fetchall())


def optuna_states(nodes: Nodes, sweep: str) -> list[str]:
    with sqlite3.connect(nodes.home / sweep / "optuna.db") as database:
        return [state for (state,) in database.execute("select state from trials order by number")]


def rounds(found: SweepView) -> int:
    return sum(len(trial.round_events) for trial in found.trials.values())


def finished(nodes: Nodes, job: str) -> None:
    assert wait_for(lambda: status(nodes, job), 200) == "succeeded", logs(nodes, job)


def shown(nodes: Nodes, sweep: str) -> dict[str, Any]:
    done = nodes.run("tune-rsst", "show", sweep, "--json")
    return dict(json.loads(done.stdout))


def test_without_the_token_nothing_is_submitted(nodes: Nodes) -> None:
    wrong = nodes.folder / "wrong"
    wrong.write_text("0" * 64)
    done = nodes.run("ray", "job", "list", "--address", nodes.address, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert done.returncode != 0 and "nvalid" in done.stdout + done.stderr


def test_job_stop_leaves_a_sweep_that_the_next_job_finishes_with_nothing_left_in_its_folder(nodes: Nodes) -> None:
    submit(nodes, "stopped", "name=second", "trials=2", "epochs=4")
    wait_for(lambda: rounds(view(nodes, "second")) >= 2)
    assert nodes.run("ray", "job", "stop", "--address", nodes.address, "stopped").returncode == 0
    wait_for(lambda: status(nodes, "stopped") == "stopped")
    before = view(nodes, "second")
    assert shown(nodes, "second")["state"] == "interrupted" and not before.ended and before.unfinished
    assert any(event["event"] == "interrupted" for event in read(nodes.home / "second" / "ledger.jsonl"))
    assert mlflow_runs(nodes, "second")[""] == "KILLED"
    unfinished = {trial.trial for trial in before.unfinished}
    runs = mlflow_runs(nodes, "second")
    assert {runs[trial] for trial in unfinished} == {"KILLED"} and "RUNNING" not in runs.values()
    assert optuna_states(nodes, "second").count("RUNNING") == len(unfinished)
    submit(nodes, "again", "name=second", "trials=2", "epochs=4")
    finished(nodes, "again")
    after = view(nodes, "second")
    assert after.ended and after.count("finished") == 2
    assert set(mlflow_runs(nodes, "second").values()) == {"FINISHED"}
    assert optuna_states(nodes, "second") == ["COMPLETE"] * 2
    assert {p.name for p in nodes.home.iterdir()} >= {"second", "mlflow.db", "mlartifacts"}
    left = [p.name for p in nodes.temp.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/**/*")]
    assert left == ["sweep.yaml"]
    assert (nodes.home / "second" / "best.yaml").exists() and shown(nodes, "second")["best"]["id"] in after.trials
    for trial in unfinished:
        hardened = [r["epochs_trained"] for r in before.trials[trial].round_events]
        assert after.trials[trial].places[-1]["epochs_there"] >= max(hardened, default=0), "no round was trained again"


def test_a_node_that_is_taken_away_costs_its_trial_no_finished_round(nodes: Nodes) -> None:
    raylet = nodes.add()
    submit(nodes, "third", "name=third", "trials=2", "epochs=6", "cpus_per_trial=2", working_dir=False)

    def both_have_a_round() -> bool:
        found = view(nodes, "third")
        return len(found.trials) == 2 and all(trial.round_events for trial in found.trials.values())

    wait_for(both_have_a_round)
    head = _head_node(nodes)
    assert len({trial.places[0]["node"] for trial in view(nodes, "third").trials.values()}) == 2, "one on each node"
    there = next(t for t in view(nodes, "third").trials.values() if t.places[0]["node"] != head)
    nodes.kill_node(raylet)
    done = max(r["epochs_trained"] for r in view(nodes, "third").trials[there.trial].round_events)
    finished(nodes, "third")
    after = view(nodes, "third")
    assert after.count("finished") == 2
    moved = after.trials[there.trial].places
    assert len(moved) == 2 and moved[1]["node"] == head and moved[1]["epochs_there"] >= done


def _head_node(nodes: Nodes) -> str:
    code = (
        f"import ray; ray.init(address='127.0.0.1:{nodes.port}', log_to_driver=False, logging_level=40); "
        "print(next(n['NodeID'] for n in ray.nodes() if 'node:__internal_head__' in n['Resources']))"
    )
    return nodes.run("python", "-c", code).stdout.strip().splitlines()[-1][:12]
