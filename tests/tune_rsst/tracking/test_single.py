"""A single run in MLflow: before and while it runs, interrupted, resumed, finished, again, and below a sweep."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ray_nodes import free_port
from tests.tune_rsst.recorded import IMAGES
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.event import Event
from trainables.rsst.reports import report_of
from trainables.rsst.state import TrialState
from trainables.rsst.store.checkpoint import CheckpointStore
from tune_rsst.cli import results
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.tracking import following, single
from tune_rsst.tracking.following import Follower
from tune_rsst.tracking.reason import LONGEST, reason
from tune_rsst.tracking.runs import _client

CONFIG = RSSTConfig.from_knobs({"dataset": "digits", "epochs": 2, "warmup": 0, "pruning_times": 2, "rate": 0.4})


def history() -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"kind": "start", "round": 0, "epoch": 0, "init_effective": "scratch", "images": IMAGES}
    ]
    last: dict[str, Any] = {}
    for number in range(2):
        for epoch in (1, 2):
            about = {"round": number, "epoch": epoch, "epochs_trained": 2 * number + epoch}
            events.append({"kind": "epoch", **about, "train_loss": 1.0 / about["epochs_trained"], "seconds": 0.5})
        last = {"kind": "round", **about, "val_top1": 0.9 - 0.1 * number, "density": 1.0 - 0.4 * number}
        last["round_gap"] = 0.0
        events.append(last)
    return [*events, {**last, "kind": "final", "test_top1": 0.77, "init_effective": "scratch", "images": IMAGES}]


def folder_of(tmp_path: Path, events: list[dict[str, Any]]) -> Path:
    """SAVE_DIR with a checkpoint that holds `events`, and with the report once they are complete."""
    folder = tmp_path / "run"
    meta = {"fingerprint": CONFIG.fingerprint, "round": 0, "epoch": 0, "history": events}
    CheckpointStore(folder / "state", CONFIG.fingerprint, print).save(TrialState(meta, {}))
    if events[-1]["kind"] == "final":
        report = report_of(CONFIG, [Event.from_json(event) for event in events])
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    if not (folder / "config.json").exists():  # last: whoever follows waits for it
        (folder / "config.json").write_text(json.dumps(CONFIG.knobs()), encoding="utf-8")
    return folder


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """What a process that runs there holds."""
    with (folder / "state" / CONFIG.fingerprint / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def state_of(uri: str, run_id: str) -> tuple[str, str]:
    run = _client(uri).get_run(run_id)
    return run.info.status, run.data.tags["state"]


@pytest.mark.medium
def test_a_run_is_followed_and_every_point_is_there_once(tmp_path: Path) -> None:
    uri, events = sqlite_uri(tmp_path), history()
    folder = folder_of(tmp_path, events[:4])
    live = Follower(folder, uri, "alone", None)
    with running(folder):
        assert live.step() == 4 and live.run.state == "running"
        assert state_of(uri, live.run_id) == ("RUNNING", "running")
    client = _client(uri)
    folder_of(tmp_path, events)
    assert live.step() == len(events) and live.run.state == "finished"
    (read,) = client.get_run(live.run_id).inputs.dataset_inputs
    assert (read.dataset.digest, json.loads(read.dataset.source)) == (IMAGES["digest"], {"uri": "digits"})
    again = Follower(folder, uri, "alone", None)
    assert again.step() == len(events) and again.run_id == live.run_id
    run = client.get_run(live.run_id)
    assert (run.info.status, run.data.tags["role"], run.data.tags["init_effective"]) == (
        "FINISHED",
        "single",
        "scratch",
    )
    assert run.data.params["epochs"] == "2" and run.data.metrics["test_top1"] == 0.77
    losses = client.get_metric_history(live.run_id, "train_loss")
    assert [(p.step, p.value) for p in losses] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert [p.timestamp - run.info.start_time for p in losses] == [500, 1000, 1500, 2000]
    assert [p.value for p in client.get_metric_history(live.run_id, "val_top1")] == [0.9, 0.8]


def test_it_joins_a_sweep_that_is_there(tmp_path: Path) -> None:
    uri = sqlite_uri(tmp_path)
    client = _client(uri)
    parent = client.create_run(client.create_experiment("e"), tags={"sweep": "demo", "role": "sweep"}).info.run_id
    folder = folder_of(tmp_path, history())
    joined = Follower(folder, uri, "e", "demo")
    joined.step()
    tags = client.get_run(joined.run_id).data.tags
    assert (tags["mlflow.parentRunId"], tags["sweep"]) == (parent, "demo")
    with pytest.raises(ConfigError, match="sweep = other"):
        Follower(folder, uri, "e", "other")


def test_a_run_that_is_in_mlflow_already_joins_a_sweep_and_stays_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = sqlite_uri(tmp_path)
    client = _client(uri)
    experiment = client.create_experiment("e")
    parents = [
        client.create_run(experiment, tags={"sweep": n, "role": "sweep"}).info.run_id for n in ("demo", "second")
    ]
    folder = folder_of(tmp_path, history())
    alone = Follower(folder, uri, "e", None)
    alone.step()
    following.keep_level(folder, uri, "e", "demo", follow=False)
    assert "below the sweep demo" in capsys.readouterr().out
    following.keep_level(folder, uri, "e", None, follow=False)
    tags = client.get_run(alone.run_id).data.tags
    assert (tags["mlflow.parentRunId"], tags["sweep"]) == (parents[0], "demo")
    with pytest.raises(ConfigError, match="sweep = second: valid is the sweep that this run is below already, demo"):
        following.keep_level(folder, uri, "e", "second", follow=False)
    assert client.get_run(alone.run_id).data.tags == tags


def test_an_interrupted_run_is_killed_in_mlflow_until_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "FOLLOW_S", 0.01)
    uri, events = sqlite_uri(tmp_path), history()
    folder = folder_of(tmp_path, events[:4])
    following.keep_level(folder, uri, "alone", None, follow=True)  # ends
    assert capsys.readouterr().out.endswith("(interrupted)\n")
    run_id = Follower(folder, uri, "alone", None).run_id
    assert state_of(uri, run_id) == ("KILLED", "interrupted")
    info = _client(uri).get_run(run_id).info
    assert info.end_time - info.start_time == 1000, "when the last epoch that it kept had ended"
    with running(folder):
        following.keep_level(folder, uri, "alone", None, follow=False)
        assert state_of(uri, run_id) == ("RUNNING", "running")
    folder_of(tmp_path, events)
    following.keep_level(folder, uri, "alone", None, follow=False)
    assert state_of(uri, run_id) == ("FINISHED", "finished")


def test_follow_waits_for_a_run_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "FOLLOW_S", 0.01)
    uri, folder = sqlite_uri(tmp_path), tmp_path / "run"
    with pytest.raises(ConfigError, match="save_dir = "):
        following.keep_level(folder, uri, "alone", None, follow=False)
    begins = threading.Timer(0.1, folder_of, (tmp_path, history()))
    begins.start()
    following.keep_level(folder, uri, "alone", None, follow=True)
    begins.join()
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"{folder}: no run has begun there yet, waiting for one; Ctrl-C ends" and "(finished)" in last


def test_ctrl_c_ends_following_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.time, "sleep", interrupted)
    with pytest.raises(SystemExit) as left:
        results.track(tmp_path / "run", None, True, sqlite_uri(tmp_path), "alone")
    assert left.value.code == 130 and len(capsys.readouterr().out.splitlines()) == 2


def test_an_mlflow_that_does_not_answer_is_one_readable_line(tmp_path: Path) -> None:
    folder, uri = folder_of(tmp_path, history()), f"http://me:secret@127.0.0.1:{free_port()}"
    for sweep in (None, "demo"):
        with pytest.raises(ConnectionError) as error:
            following.keep_level(folder, uri, "alone", sweep, follow=False)
        hidden = uri.replace("me:secret", "me:***")
        assert str(error.value) == f"mlflow = {hidden}: can't be reached: Connection refused"


def test_a_long_reason_ends_with_a_whole_word_and_a_silent_one_has_its_type() -> None:
    told = reason(ValueError("many words\n" * 100))
    assert len(told) <= LONGEST and told.endswith(" …") and told.split()[-2] in ("many", "words")
    assert reason(ValueError()) == "ValueError"


def test_a_folder_that_holds_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"save_dir = .*the folder of a python -m trainables run"):
        single.read(tmp_path)
