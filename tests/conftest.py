"""Fixtures that several test folders share; a fixture used by one folder lives there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_rsst.home import SweepFolder


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout that the tests run in."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def digits_sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A finished sweep of four real trials on the digits, complete in a sqlite MLflow beside it."""
    from tests.tune_rsst.real_sweep import real_sweep
    from tune_rsst import results
    from tune_rsst.tracking_files import RunFiles
    from tune_rsst.uploader import Uploader

    folder = real_sweep(tmp_path_factory.mktemp("digits"))
    settings = results.load(folder)[0].settings
    uri, experiment = settings["mlflow_tracking_uri"], settings["mlflow_experiment"]
    uploader = Uploader(folder.ledger, uri, experiment, folder.cursor, RunFiles(folder))
    assert uploader.sync_once(120) == 0, uploader.problems
    return folder
