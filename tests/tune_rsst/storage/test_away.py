"""A whole sweep away from home, two seeds a trial: in a bucket, Optuna and MLflow on PostgreSQL, killed twice.

Between the first kill and the resume the machine's disk is lost with everything on it.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pytest

from tests.postgres import Postgres
from tests.s3_server import BUCKET, S3Server
from tests.tune_rsst.test_conduct import lines_until, output, start
from trainables.export import files
from trainables.rsst.config import ConfigError
from trainables.storage.bucket import Bucket
from trainables.storage.files import sha256_of
from tune_rsst.driver import assemble
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.planning.begin import make_plan
from tune_rsst.results import export
from tune_rsst.runners import serial
from tune_rsst.search.spaces import settled
from tune_rsst.settings.written import given
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.runs import _client

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]
STORAGE = f"s3://{BUCKET}/group"
KILLS, EPOCHS, TRIALS, SEEDS = 2, 2, 2, 2
HERE = [f"trials={TRIALS}", f"replicates={SEEDS}", f"epochs={EPOCHS}", "warmup=0", "rate=0.5", "stopping=none"]
WORDS = [*HERE, f"storage={STORAGE}"]


def holders(secret: str, folder: Path) -> list[str]:
    """Files below `folder` and running programs' command lines that have `secret` in them."""
    found = []
    spelled = [secret.encode(), quote(secret, safe="").encode()]
    for path in [*folder.rglob("*"), *Path("/proc").glob("[0-9]*/cmdline")]:
        try:
            data = path.read_bytes() if path.is_file() else b""
        except OSError:
            continue
        found += [str(path)] if any(text in data for text in spelled) else []
    return found


def lose(where: Path) -> None:
    """Remove the disk; workers of the killed driver may write to it for an instant yet."""
    deadline = time.monotonic() + 20
    while where.exists() and time.monotonic() < deadline:
        shutil.rmtree(where, ignore_errors=True)
        time.sleep(0.5)
    assert not where.exists()


@pytest.fixture(scope="module")
def away(s3: S3Server, database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    s3.empty()
    where = tmp_path_factory.mktemp("away") / "home"
    with pytest.MonkeyPatch.context() as patch:
        optuna_at = database.make("optuna")
        patch.setenv("OPTUNA_STORAGE", optuna_at)
        mlflow = database.make("mlflow")
        _client(mlflow)  # its tables: making them takes seconds
        seen: list[str] = []
        said = []
        process = None
        try:
            for kill in range(KILLS):
                process = start(
                    where, "sweep", *WORDS, "--name", "away", *(["--resume"] if kill else []), mlflow=mlflow
                )
                said.append(lines_until(process, " round 1 of" if kill == 0 else " round "))
                seen += holders(database.password, where)
                time.sleep(1.0)  # what was reported is on its way to the bucket
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
                seen += holders(database.password, where)
                if kill == 0:
                    lose(where)
            process = start(where, "sweep", "--name", "away", "--resume", f"storage={STORAGE}", mlflow=mlflow)
            code, text = output(process)
        finally:
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        seen += holders(database.password, where)
        told: dict[str, Any] = {"home": where, "code": code, "said": [*said, text], "seen": seen}
        told |= {"lines": list(read(where / "away" / "ledger.jsonl")), "mlflow": mlflow, "optuna": optuna_at}
        yield {**told, "view": SweepView.of(told["lines"])}


def runs(view: SweepView) -> list[TrialView]:
    """All runs of all trials."""
    return [run for trial in view.trials.values() for run in trial.all_runs]


def test_it_finishes_with_no_trial_lost(away: dict[str, Any]) -> None:
    assert away["code"] == 0, away["said"][-1]
    view: SweepView = away["view"]
    assert [t.state for t in view.trials.values()] == ["finished"] * TRIALS and view.ended
    assert len(runs(view)) == TRIALS * SEEDS and {len(run.round_events) for run in runs(view)} == {3}
    reports = [(e["trial"], e["seq"]) for e in away["lines"] if e["event"].endswith("reported")]
    assert len(reports) == len(set(reports))


def test_its_models_and_means_are_those_of_a_sweep_that_was_left_alone(away: dict[str, Any], tmp_path: Path) -> None:
    """Without Ray, a bucket, a database, or a kill."""
    alone = SweepFolder(tmp_path / "away")
    alone.path.mkdir()
    settings, space = settled([*HERE, "name=away", "optuna_storage=memory"])
    driver = assemble(Ledger(alone.ledger), settings, space)
    serial.run(driver, lambda: None, alone)
    found = away["view"]
    assert {run.trial: run.fingerprint for run in runs(found)} == {r.trial: r.fingerprint for r in runs(driver.view)}
    for run in runs(found):
        stores = (away["home"] / "away" / "trials" / run.fingerprint, alone.store(run.fingerprint))
        assert len({sha256_of(store / "model.safetensors") for store in stores}) == 1
    for name in ("val_top1", "test_top1", "seeds", "val_top1_std"):
        means = [{t.trial: t.metrics[name] for t in view.trials.values()} for view in (found, driver.view)]
        assert means[0] == means[1], name


def test_after_the_disk_was_lost_a_trial_went_on_from_the_bucket(away: dict[str, Any]) -> None:
    """The first to report a round had put its checkpoint there by then."""
    again = [run for run in runs(away["view"]) if len(run.places) > 1]
    assert again, "somebody was in the middle of something"
    assert any(place["epochs_there"] >= EPOCHS for t in again for place in t.places[1:])


def test_the_bucket_has_ledger_models_and_best_and_no_lease(away: dict[str, Any]) -> None:
    bucket, view = Bucket(f"{STORAGE}/away"), away["view"]
    keys = bucket.keys()
    assert "driver.json" not in keys and {"files/best.yaml", "files/best_model/model.safetensors"} <= set(keys)
    assert all(f"trials/{t.fingerprint}/results/manifest.json" in keys for t in runs(view))


def test_optunas_trials_in_postgresql_are_those_of_the_ledger(away: dict[str, Any], database: Postgres) -> None:
    query = "select t.state, v.value from trials t join trial_values v using (trial_id) order by 2"
    rows = database.ask("optuna", query)
    assert [state for state, _ in rows] == ["COMPLETE"] * TRIALS
    assert [v for _, v in rows] == sorted(t.metrics["val_top1"] for t in away["view"].trials.values())
    assert database.ask("optuna", "select count(*) from trials where state = 'RUNNING'") == [(0,)]


def test_mlflow_has_one_run_a_trial_with_no_step_missing_or_doubled(away: dict[str, Any]) -> None:
    client = _client(away["mlflow"])
    experiment = client.get_experiment_by_name("tune-rsst")
    assert experiment.artifact_location == str(away["home"] / "mlartifacts" / "tune-rsst"), "not in the current folder"
    children = client.search_runs([experiment.experiment_id], "tags.role != 'sweep'")
    assert sorted(run.data.tags["trial"] for run in children) == sorted(run.trial for run in runs(away["view"]))
    for run in children:
        assert run.info.status == "FINISHED"
        trial = away["view"].run(run.data.tags["trial"])
        by_round = client.get_metric_history(run.info.run_id, "val_top1")
        assert [(p.step, p.value) for p in by_round] == [(e["round"], e["val_top1"]) for e in trial.round_events]
        steps = [p.step for p in client.get_metric_history(run.info.run_id, "train_loss")]
        assert steps == list(range(1, 3 * EPOCHS + 1))


def test_the_study_names_each_trials_run_in_mlflow(away: dict[str, Any]) -> None:
    """On the trial, or on the study where the run was made after the trial had ended; both over kills and a rebuild."""
    client, study = _client(away["mlflow"]), optuna.load_study(study_name="away", storage=away["optuna"])
    experiment = client.get_experiment_by_name("tune-rsst")
    found = client.search_runs([experiment.experiment_id], "tags.role != 'replicate'")
    known = {run.data.tags.get("trial", ""): run.info.run_id for run in found}
    said = {t.user_attrs["trial"]: t.user_attrs.get("mlflow_run_id") for t in study.trials}
    said |= {"": study.user_attrs["mlflow_run_id"], **study.user_attrs.get("mlflow_run_ids", {})}
    assert said == known and len(known) == 1 + TRIALS


def test_the_password_is_in_no_file_and_in_no_list_of_processes(away: dict[str, Any]) -> None:
    assert away["seen"] == []
    bucket = Bucket(STORAGE)
    assert not any(b"p@ss/" in data or b"p%40ss" in data for data in map(bucket.read, bucket.keys()) if data)
    client = _client(away["mlflow"])
    for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        assert "p%40ss" not in str(run.to_dictionary()) and "p@ss" not in str(run.to_dictionary())


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    return tmp_path


def test_another_machine_fetches_it_and_looks(away: dict[str, Any], elsewhere: Path) -> None:
    code, text = output(start(elsewhere, "fetch", STORAGE))
    assert code == 0 and text == f"away: {elsewhere / 'away'}\n"
    away_now = Sweep.of(home.find("away"))
    view, state = away_now.view, away_now.state
    assert state == "finished" and list(view.trials) == list(away["view"].trials)
    chosen = export.choose("away/t0001")
    [model, *_] = files.export(chosen.model, elsewhere / "model", ["safetensors"], lambda line: None)
    there = away["home"] / "away" / "trials" / chosen.trial.fingerprint
    assert (elsewhere / "away" / "trials" / chosen.trial.fingerprint / "report.json").exists() and model.exists()
    assert (chosen.store / "model.safetensors").read_bytes() == (there / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("away", WORDS, r"^name = away: .*--resume"),
        (None, ["storage=s3://not-there"], r"^storage = s3://not-there: valid is a bucket that can be written"),
        (None, ["storage=/mnt/folder"], r"^storage = /mnt/folder: valid is s3://BUCKET"),
    ],
)
def test_what_is_not_there_or_not_free_is_said_before_anything_begins(
    away: dict[str, Any], elsewhere: Path, name: str | None, words: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        make_plan(given(None, words), name, False)
    assert list(elsewhere.iterdir()) == []
