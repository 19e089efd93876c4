"""A single run in MLflow: while it runs, when it has finished, again, and below a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.report import report_of
from tune_rsst import single
from tune_rsst.tracking import _client, sqlite_uri

CONFIG = RSSTConfig.from_knobs({"dataset": "digits", "epochs": 2, "warmup": 0, "pruning_times": 2, "rate": 0.4})


def history() -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"kind": "start", "round": 0, "epoch": 0, "init_effective": "scratch"}]
    last: dict[str, Any] = {}
    for number in range(2):
        for epoch in (1, 2):
            about = {"round": number, "epoch": epoch, "epochs_trained": 2 * number + epoch}
            events.append({"kind": "epoch", **about, "train_loss": 1.0 / about["epochs_trained"], "seconds": 0.5})
        last = {"kind": "round", **about, "val_top1": 0.9 - 0.1 * number, "density": 1.0 - 0.4 * number}
        events.append(last)
    return [*events, {**last, "kind": "final", "test_top1": 0.77, "init_effective": "scratch"}]


def folder_of(tmp_path: Path, events: list[dict[str, Any]]) -> Path:
    """SAVE_DIR with a checkpoint that holds `events`, and with the report once they are complete."""
    folder = tmp_path / "run"
    checkpoint = folder / "state" / CONFIG.fingerprint / f"r000-e000-n{len(events):05d}"
    checkpoint.mkdir(parents=True)
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text(json.dumps(CONFIG.knobs()), encoding="utf-8")
    (checkpoint / "state.json").write_text(json.dumps({"history": events}), encoding="utf-8")
    if events[-1]["kind"] == "final":
        (folder / "report.json").write_text(json.dumps(report_of(CONFIG, events)), encoding="utf-8")
    return folder


def test_a_run_is_followed_and_every_point_is_there_once(tmp_path: Path) -> None:
    uri, events = sqlite_uri(tmp_path), history()
    folder = folder_of(tmp_path, events[:4])
    live = single.Follower(folder, uri, "alone", None)
    assert live.step() == 4 and not live.run.finished
    client = _client(uri)
    assert client.get_run(live.run_id).info.status == "RUNNING"
    folder_of(tmp_path, events)
    assert live.step() == len(events) and live.run.finished
    again = single.Follower(folder, uri, "alone", None)
    assert again.step() == len(events) and again.run_id == live.run_id
    run = client.get_run(live.run_id)
    assert (run.info.status, run.data.tags["role"], run.data.tags["init_effective"]) == (
        "FINISHED",
        "single",
        "scratch",
    )
    assert run.data.params["epochs"] == "2" and run.data.metrics["final/test_top1"] == 0.77
    losses = client.get_metric_history(live.run_id, "train_loss")
    assert [(p.step, p.value) for p in losses] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert [p.timestamp - run.info.start_time for p in losses] == [500, 1000, 1500, 2000]
    assert [p.value for p in client.get_metric_history(live.run_id, "val_top1")] == [0.9, 0.8]


def test_it_joins_a_sweep_that_is_there(tmp_path: Path) -> None:
    uri = sqlite_uri(tmp_path)
    client = _client(uri)
    parent = client.create_run(client.create_experiment("e"), tags={"sweep": "demo", "role": "sweep"}).info.run_id
    folder = folder_of(tmp_path, history())
    joined = single.Follower(folder, uri, "e", "demo")
    joined.step()
    tags = client.get_run(joined.run_id).data.tags
    assert (tags["mlflow.parentRunId"], tags["sweep"]) == (parent, "demo")
    with pytest.raises(ConfigError, match="sweep = other"):
        single.Follower(folder, uri, "e", "other")


def test_a_folder_that_holds_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"save_dir = .*the folder of a python -m trainables run"):
        single.read(tmp_path)
