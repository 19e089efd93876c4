"""MLflow's new database is there whole, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from trainables.storage.files import is_temporary
from tune_rsst.tracking.runs import _client

KILLED = """
import os, signal, sys
from mlflow.store.db import utils
from tune_rsst.tracking.runs import _client
utils._upgrade_db = lambda engine: os.kill(os.getpid(), signal.SIGKILL)  # its first tables are there, no more
_client(sys.argv[1])
"""


@pytest.mark.medium
def test_a_kill_while_its_tables_are_made_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    killed = subprocess.run([sys.executable, "-c", KILLED, uri], capture_output=True, timeout=120, check=False)
    assert killed.returncode == -9, killed.stderr
    left = [path for path in tmp_path.iterdir() if path.name != ".mlflow.db.lock"]
    assert left and all(map(is_temporary, left)), left
    assert _client(uri).search_experiments()[0].name == "Default"
    assert {path.name for path in tmp_path.iterdir()} == {".mlflow.db.lock", "mlflow.db"}, "found by `make chaos`"
    assert isinstance(_client(uri), mlflow.MlflowClient)
