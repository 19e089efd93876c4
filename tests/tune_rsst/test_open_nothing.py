"""A local sweep listens on the loopback address alone; no secret of its environment is in a file, a log or a list."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from benchmarks import sockets
from trainables.storage.secrets import is_secret

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_a_local_sweep_listens_on_loopback_alone_and_leaves_no_secret_anywhere() -> None:
    with tempfile.TemporaryDirectory(prefix="s-") as short:  # for Ray's sockets
        seen, printed = sockets.scan(Path(short) / "home")
    assert "1 finished" in printed, printed
    assert {"gcs_server", "raylet", "ray::SweepTrainable"} <= seen.processes, seen.processes
    assert len(seen.listening) >= 5 and {address for _, address in seen.listening} <= LOOPBACK, seen.listening
    assert not {"monitor.py", "log_monitor.py", "dashboard.py"} & seen.processes, "nobody asks them for anything"
    assert seen.secrets.keys() == {"the driver"} and not seen.commands and not seen.files


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("AWS_PROFILE", "x", True),
        ("HF_TOKEN", "x", True),
        ("WANDB_API_KEY", "x", True),
        ("MLFLOW_TRACKING_PASSWORD", "x", True),
        ("PGPASSWORD", "x", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/x", True),
        ("GOOGLE_SERVICE_ACCOUNT", "/x", True),
        ("AZURE_STORAGE_ACCOUNT_KEY", "x", True),
        ("AZURE_CLIENT_ID", "x", True),
        ("OPTUNA_STORAGE", "postgresql://u:p@db/x", True),
        ("OPTUNA_STORAGE", "postgresql://u@db/x", False),
        ("HTTPS_PROXY", "http://u:p@proxy:3128", True),
        ("RAY_AUTH_TOKEN_PATH", "/x", False),
        ("PWD", "/x", False),
        ("PATH", "/x", False),
        ("CUDA_VISIBLE_DEVICES", "0", False),
        ("TUNE_RSST_HOME", "/x", False),
    ],
)
def test_secrets_are_told_by_their_name_or_by_a_password_in_an_address(name: str, value: str, secret: bool) -> None:
    assert is_secret(name, value) is secret
