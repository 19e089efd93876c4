"""What would fail every trial is refused before a folder is made."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from trainables.rsst.config import ConfigError
from tune_rsst.planning import preflight
from tune_rsst.planning.begin import make_plan
from tune_rsst.settings import written
from tune_rsst.storage import home


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)

    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)


def checked(*words: str) -> None:
    preflight.check(make_plan(written.given(None, words), None, False))


def test_the_default_sweep_passes() -> None:
    checked()
    assert not home.home().exists()


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["arch=banana"], "arch"),
        (["arch=resnet18"], "arch"),
        (["space=scratch", "dataset=cifar10", "data=/nonexistent"], "dataset"),
        (["optuna_storage=postgresql+psycopg://u:secret@127.0.0.1:1/x"], "optuna_storage"),
    ],
)
def test_what_no_trial_could_do_is_refused(words: list[str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(*words)
    assert caught.value.key == key and "secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert not home.home().exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(ConfigError, match="device = cuda"):
        checked("device=cuda")


def test_a_cluster_that_does_not_answer_is_refused_at_once_and_has_the_images_itself() -> None:
    with pytest.raises(ConfigError, match=r"ray_address = 127.0.0.1:1"):
        checked("ray_address=127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        words = ("space=scratch", "dataset=cifar10", "data=/nonexistent", "device=cuda", "gpus_per_trial=1")
        checked(f"ray_address={address}", *words)


def test_what_a_worker_lacks_comes_back_as_the_drivers_own_error() -> None:
    plan = make_plan(written.given(None, ["space=scratch", "dataset=cifar10", "data=/nonexistent"]), None, False)
    missing, _ = preflight.look_here(preflight.distinct(plan))
    key, value, _, hint = missing or ("", "", "", "")
    assert (key, value) == ("dataset", "cifar10") and hint.endswith(f"on {socket.gethostname()}")
    missing, read = preflight.look_here(preflight.distinct(make_plan({}, None, False)))
    assert missing is None and read[0].startswith("images: digits, grey, 10 classes (0, 1, 2,")
