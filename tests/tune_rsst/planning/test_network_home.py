"""sqlite is not put where its locks do not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.storage import filesystem
from tune_rsst.planning import doctor
from tune_rsst.planning.begin import make_plan
from tune_rsst.settings import written


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that the table of mounts says is NFS, with a local folder mounted inside it."""
    home = tmp_path.resolve() / "shared folder"
    table = tmp_path / "mounts"
    inside = f"tmpfs {home}/scratch tmpfs rw 0 0\n".replace("shared folder", "shared\\040folder")
    table.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {str(home).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n{inside}")
    monkeypatch.setattr(filesystem, "MOUNTS", table)
    monkeypatch.setenv("TUNE_RSST_HOME", str(home))
    for name in ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    return home


def test_the_nearest_mount_decides(shared: Path) -> None:
    assert filesystem.network_filesystem(shared / "not" / "there" / "yet") == "nfs4"
    assert filesystem.network_filesystem(shared / "scratch" / "home") is None
    assert filesystem.network_filesystem(shared.parent) is None
    assert filesystem.network_filesystem(shared, mounts=shared.parent / "no table") is None


def test_on_a_network_file_system_the_study_is_kept_in_memory_and_the_plan_says_why(shared: Path) -> None:
    plan = make_plan(written.given(None, []), None, False)
    assert plan.settings.optuna_storage == "memory"
    assert plan.note and "nfs4" in plan.note and "mlflow_tracking_uri" in plan.note
    said = doctor.mlflow(str(plan.settings.mlflow_tracking_uri))
    assert "nfs4" in said.text and "\n" not in said.line()


def test_what_the_user_says_is_taken(shared: Path) -> None:
    words = ["optuna_storage=sqlite:////local/optuna.db", "mlflow_tracking_uri=http://mlflow:5000"]
    plan = make_plan(written.given(None, words), None, False)
    assert plan.settings.optuna_storage == "sqlite:////local/optuna.db" and plan.note is None
