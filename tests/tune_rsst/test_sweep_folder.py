"""A sweep on a folder of PNG files whose pretrained start can't be had: what it trains on, and what it says of both."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from tests.trainables.rsst.data.test_folder import write_pngs
from tests.tune_rsst.real_sweep import real_sweep
from tests.tune_rsst.test_conduct import output, start
from tune_rsst import conduct
from tune_rsst.planning.plan import Finished
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.storage.folder import Sweep
from tune_rsst.tracking.uploader import Uploader

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
TINY = ["trials=2", "epochs=1", "warmup=0", "rate=0.55", "stopping=none", "startup_trials=2"]


def test_a_sweep_on_a_folder_of_pngs_that_falls_back_says_scratch_in_every_record(tmp_path: Path) -> None:
    folder, home = write_pngs(tmp_path / "pngs", 500, 5), tmp_path / "home"
    words = [f"data={folder}", "dataset=folder", "arch=vit_digits", "img_size=8", "patch_size=2", "pretrained=true"]
    code, text = output(start(home, "sweep", *TINY, *words, "--name", "refused"))
    assert code == 2 and text.startswith("error: pretrained = ") and text.count("\n") == 1, text
    assert not (home / "refused").exists()

    sweep = real_sweep(home, "pngs", (*TINY, *words, "on_missing_weights=scratch"))
    view = Sweep.of(sweep).view
    assert view.count("finished") == 2
    for trial in view.trials.values():
        assert trial.metrics["init_effective"] == "scratch"
        assert trial.knobs["data"] == str(folder) and trial.knobs["pretrained"] is True
    uploader = Uploader(sweep, {"mlflow_tracking_uri": sqlite_uri(home), "mlflow_experiment": "digits"}, files=False)
    assert uploader.sync_once(120) == 0
    client = MlflowClient(sqlite_uri(home))
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    children = client.search_runs([experiment.experiment_id], "tags.role = 'trial'")
    assert [run.data.tags["init_effective"] for run in children] == ["scratch", "scratch"]
    assert [run.data.params["init_effective"] for run in children] == ["scratch", "scratch"]


def test_what_a_dead_driver_left_of_ray_goes_though_nothing_is_left_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by `make chaos SEED=7 MINUTES=3`: Ray ends the driver a minute after its control store was killed."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    monkeypatch.setattr(conduct, "finish_again", lambda plan, console: 0)
    (tmp_path / ".ray" / "session_2026-11-28_09-37-17_209292_4194999" / "logs").mkdir(parents=True)
    assert conduct.run(Finished.__new__(Finished), Console()) == 0 and not (tmp_path / ".ray").exists()
