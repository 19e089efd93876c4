"""Where things lie: what may not be a home, and addresses whose password only the environment has."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.rsst.config import ConfigError
from tune_rsst.settings import addresses
from tune_rsst.storage import home
from tune_rsst.storage.folder import SweepFolder

SECRET, KEPT = "postgresql://tuner:s3cret@db/optuna", "postgresql://tuner:***@db/optuna"


def test_a_home_that_would_go_with_the_job_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray removes the folder that it made of a job's working_dir when the job has ended."""
    folder = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TUNE_RSST_HOME", raising=False)
    with pytest.raises(ConfigError, match="TUNE_RSST_HOME = None: valid is a folder that every node mounts"):
        home.home()
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "mine"))
    assert home.home() == tmp_path / "mine"


@pytest.mark.parametrize(
    ("recorded", "now", "found"),
    [
        (KEPT, SECRET, SECRET),
        (KEPT, "postgresql://tuner:x@other/optuna", None),
        (KEPT, "", None),
        ("memory", SECRET, None),
    ],
)
def test_a_password_comes_back_from_the_environment_for_the_same_address_only(
    recorded: str, now: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", now)
    assert addresses.with_passwords({"optuna_storage": recorded}).get("optuna_storage") == found


def test_weights_are_those_of_this_home(tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path / "new")
    knobs = {"weights": "/old/home/weights/weights-ab.safetensors", "weights_digest": "ab"}
    assert sweep.with_own_weights(knobs) == knobs
    sweep.weights.mkdir(parents=True)
    (sweep.weights / "weights-ab.safetensors").touch()
    assert sweep.with_own_weights(knobs)["weights"] == str(sweep.weights / "weights-ab.safetensors")
    assert sweep.with_own_weights({"weights": None, "weights_digest": None})["weights"] is None
