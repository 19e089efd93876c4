"""A sweep that was submitted as a job to a Ray cluster of two nodes, one of which is taken away; wrong tokens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_nodes import BIN, Nodes, answer, job_status, wait_for
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
        yield found
    finally:
        found.end()
        shutil.rmtree(found.temp, ignore_errors=True)


def submit(nodes: Nodes, job: str, *words: str) -> None:
    """Without a folder of the job's own: nodes on one machine share it, and one of them removes it."""
    file = nodes.folder / "sweep.yaml"
    file.write_text(SETTINGS, encoding="utf-8")
    entry = [str(BIN / "python"), "-m", "tune_rsst", "sweep", str(file), *words]
    where = ["--address", nodes.address, "--no-wait", "--submission-id", job]
    done = nodes.run("ray", "job", "submit", *where, "--", *entry)
    assert done.returncode == 0, done.stdout + done.stderr


def token(nodes: Nodes) -> Path:
    return Path(nodes.environment["RAY_AUTH_TOKEN_PATH"])


def view(nodes: Nodes, sweep: str) -> SweepView:
    try:
        return SweepView.of(read(nodes.home / sweep / "ledger.jsonl"))
    except LedgerError:
        return SweepView()


def finished(nodes: Nodes, job: str) -> None:
    ended = wait_for(lambda: job_status(nodes, token(nodes), job), 200)
    assert ended == "succeeded", nodes.run("ray", "job", "logs", "--address", nodes.address, job).stdout


def test_without_the_token_nothing_is_submitted(nodes: Nodes) -> None:
    wrong = nodes.folder / "wrong"
    wrong.write_text("0" * 64)
    done = nodes.run("ray", "job", "list", "--address", nodes.address, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert done.returncode != 0 and "nvalid" in done.stdout + done.stderr


def test_a_node_that_is_taken_away_costs_its_trial_no_finished_round(nodes: Nodes) -> None:
    raylet = nodes.add()
    submit(nodes, "third", "name=third", "trials=2", "epochs=6", "cpus_per_trial=2")

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
    found = answer(nodes, token(nodes), "nodes?view=summary")["data"]["summary"]
    (head,) = [one["raylet"]["nodeId"] for one in found if one["raylet"].get("isHeadNode")]
    return str(head)[:12]
