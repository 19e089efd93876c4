"""`tune-rsst confirm` over a small real sweep: what it trains, what it leaves in files, MLflow and text; kill -9."""

from __future__ import annotations

import io
import json
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.tune_rsst.real_sweep import real_sweep
from tests.tune_rsst.test_conduct import lines_until, output, start
from trainables.rsst.config import ConfigError
from tune_rsst import conduct
from tune_rsst.cli.app import app
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.lock import SweepBusy, driving
from tune_rsst.planning.resume import confirmation
from tune_rsst.runners import serial
from tune_rsst.storage.folder import Sweep, SweepFolder


def confirm(name: str, top: int, seeds: int, models: bool = True, split: bool = False) -> tuple[int, str]:
    """Exit code and text; the runs are trained in this process."""
    plan, text = confirmation(name), io.StringIO()
    runner = partial(serial.run, folder=plan.folder)
    console = Console(file=text, width=200)
    code = conduct.confirm(plan, top, seeds, console, runner, split=split, models=models)
    return code, text.getvalue()


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sweep of two trials, both of them again with two seeds."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_HOME", str(home))
        patch.setattr("tune_rsst.tracking.uploader.RunFiles", lambda folder: None)  # pictures take their time
        folder = real_sweep(home, overrides=("trials=2",))
        before = json.loads(CliRunner().invoke(app, ["show", "small", "--json"]).stdout)
        code, text = confirm("small", 3, 2)
        again_code, again = confirm("small", 2, 2, models=False)
        after = json.loads(CliRunner().invoke(app, ["show", "small", "--json"]).stdout)
        shown = CliRunner().invoke(app, ["show", "small"]).stdout
        told = json.loads(CliRunner().invoke(app, ["confirm", "small", "--top", "2", "--seeds", "2", "--json"]).stdout)
    return {"home": home, "folder": folder, "before": before, "code": code, "text": text, "after": after} | {
        "again": (again_code, again),
        "shown": shown,
        "told": told,
    }


@pytest.mark.medium
def test_it_says_what_it_does_and_what_it_found(confirmed: dict[str, Any]) -> None:
    assert confirmed["code"] == 0
    text = confirmed["text"]
    assert "top = 3: the sweep has 2 finished trials to choose from; 2 it is" in text
    assert "fresh seeds each, without early stopping: 4 runs to train" in text
    for name in ("t0000-seed1", "t0001-seed2"):
        assert f"{name} finished val_top1" in text
    assert "Chosen: " in text and "4 of 4 runs ended" in text
    code, again = confirmed["again"]
    assert code == 0 and "to train" not in again and "Chosen: " in again
    assert again[again.index("trial  n") :] == text[text.index("trial  n") :] and "trial  n" in confirmed["shown"]


@pytest.mark.medium
def test_the_best_files_are_those_of_the_choice(confirmed: dict[str, Any]) -> None:
    folder: SweepFolder = confirmed["folder"]
    chosen = confirmed["told"]["chosen"]
    head = folder.best.read_text(encoding="utf-8").splitlines()[:2]
    assert f"trial {chosen}:" in head[0] and head[1].startswith("# Confirmed with 2 fresh seeds: mean val_top1 ")
    trial = next(one for one in confirmed["after"]["trials"] if one["id"] == chosen)
    model = (folder.best_model / "model.safetensors").read_bytes()
    assert model == (folder.store(trial["fingerprint"]) / "model.safetensors").read_bytes()
    assert confirmed["after"]["best"]["id"] == chosen
    assert confirmed["after"]["trials"] == confirmed["before"]["trials"]
    assert confirmed["after"].keys() == confirmed["before"].keys()


@pytest.mark.medium
def test_its_means_are_those_of_the_ledgers_runs(confirmed: dict[str, Any]) -> None:
    told, view = confirmed["told"], Sweep.of(confirmed["folder"]).view
    assert told["complete"] and told["seeds"] == [1, 2] and view.confirm is not None
    for one in told["trials"]:
        values = [run.metrics["val_top1"] for run in view.confirm.trials.values() if run.confirms == one["id"]]
        assert len(values) == 2 and one["val_top1"]["mean"] == pytest.approx(sum(values) / 2)
        digests = {run.data_digest for run in view.confirm.trials.values()}
        assert digests == {trial.data_digest for trial in view.trials.values()}
    assert told["trials"][0]["val_top1"]["mean"] >= told["trials"][1]["val_top1"]["mean"]


@pytest.mark.medium
def test_mlflow_has_the_runs_below_the_sweep_by_configuration(confirmed: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(Sweep.of(confirmed["folder"]).view.settings["mlflow_tracking_uri"])
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if run.data.tags["role"] == "sweep")
    repeats = [run for run in runs if run.data.tags["role"] == "confirm"]
    assert Counter(run.data.tags["configuration"] for run in repeats) == {"t0000": 2, "t0001": 2}
    assert {run.data.tags["mlflow.parentRunId"] for run in repeats} == {parent.info.run_id}
    assert {run.info.status for run in repeats} == {"FINISHED"} and {run.data.params["seed"] for run in repeats} == {
        "1",
        "2",
    }
    assert parent.data.tags["confirmed_trial"] == parent.data.tags["best_trial"] == confirmed["told"]["chosen"]
    assert "Confirmed with 2 fresh seeds" in parent.data.tags["mlflow.note.content"]
    assert sum(run.data.tags["role"] == "trial" for run in runs) == 2
    assert all("val_top1" in run.data.metrics and "test_top1" in run.data.metrics for run in repeats)


@pytest.mark.medium
def test_it_refuses_in_one_line_what_it_cannot_do(confirmed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    home: Path = confirmed["home"]
    monkeypatch.setenv("TUNE_RSST_HOME", str(home))
    with pytest.raises(ConfigError, match=r"sweep = smal: .*did you mean small"):
        confirmation("smal")
    with driving(home / "small"), pytest.raises(SweepBusy, match="another driver is running this sweep"):
        confirmation("small")
    none = home / "none"
    none.mkdir()
    ledger = Ledger(none / "ledger.jsonl")
    first = read(home / "small" / "ledger.jsonl")[0]
    ledger.append("sweep_started", **{name: held for name, held in first.items() if name not in ("event", "time")})
    ledger.close()
    with pytest.raises(ConfigError, match="confirm = none: valid is a sweep with finished trials; it has none yet"):
        confirmation("none")
    for words in (["--seeds", "1"], ["--top", "0"], ["--seeds", "x"]):
        assert CliRunner().invoke(app, ["confirm", "small", *words]).exit_code == 2
    assert "confirm_started" not in {line["event"] for line in read(none / "ledger.jsonl")}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kill_9_loses_no_run_doubles_none_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Ray, at the third round that is reported; the second command is the first again."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    real_sweep(tmp_path, overrides=("trials=2",))
    command = ("confirm", "small", "--top", "2", "--seeds", "2")
    first = start(tmp_path, *command)
    try:
        seen = "".join(lines_until(first, "round") for _ in range(3))
    finally:
        first.kill()
        output(first)
    ledger = tmp_path / "small" / "ledger.jsonl"
    before = Sweep.of(SweepFolder(tmp_path / "small"))
    assert first.returncode == -signal.SIGKILL and before.killed and before.view.confirm is not None, seen
    assert before.view.confirm.unfinished
    shown = CliRunner().invoke(app, ["show", "small"]).stdout
    assert "runs have ended: nothing is chosen yet" in shown and "confirm small --top 2 --seeds 2" in shown
    code, text = output(start(tmp_path, *command))
    assert code == 0 and "Chosen: " in text, text
    lines = read(ledger)
    reports = [(line["trial"], line["seq"]) for line in lines if line["event"] == "confirm_reported"]
    rounds = [
        (line["trial"], line["metrics"]["round"])
        for line in lines
        if line["event"] == "confirm_reported" and line["kind"] == "round"
    ]
    after = Sweep.of(SweepFolder(tmp_path / "small")).view
    assert after.confirm is not None and {run.state for run in after.confirm.trials.values()} == {"finished"}
    assert len(reports) == len(set(reports)) and len(after.confirm.trials) == 4
    assert len(rounds) == len(set(rounds)) == sum(run.rounds for run in after.confirm.trials.values())
    again, more = confirm("small", 2, 2)
    assert again == 0 and len(read(ledger)) <= len(lines) + 1 and "to train" not in more
