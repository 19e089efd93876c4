"""What doctor says of what is wrong, one thing at a time; `tune-rsst settings` lists everything there is to set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from trainables import provenance
from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.cli.spaces import setting_lines
from tune_rsst.planning import doctor, preflight
from tune_rsst.planning.begin import new_plan
from tune_rsst.settings.settings import settings_names
from tune_rsst.settings.written import KNOBS_OF_A_SWEEP

ANSWERS = {
    "fine": (200, b"{}"),
    "foreign": (403, b"Invalid Host header - possible DNS rebinding attack detected"),
    "locked": (401, b"You are not authenticated."),
    "page": (200, b"<html>"),
}


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, text = ANSWERS[self.path.split("/")[1]]
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "fine", "word"),
    [
        ("fine", True, "answers"),
        ("foreign", False, "start it with --allowed-hosts 127.0.0.1:"),
        ("locked", False, "MLFLOW_TRACKING_USERNAME"),
        ("page", False, "does not answer as an MLflow server"),
    ],
)
def test_a_tracking_server_that_answers_and_ones_that_refuse(server: str, kind: str, fine: bool, word: str) -> None:
    found = doctor.mlflow(f"{server}/{kind}")
    assert found.fine == fine and word in found.text and "\n" not in found.line()


def test_a_server_that_is_not_there_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert not doctor.mlflow("http://127.0.0.1:9").fine
    (tmp_path / "file").write_text("")
    assert doctor.mlflow(f"sqlite:///{tmp_path}/new/mlflow.db").fine
    assert not doctor.mlflow(f"sqlite:///{tmp_path}/file/mlflow.db").fine


def test_bad_settings_are_a_finding_and_the_rest_is_still_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    found = {f.what: f for f in doctor.examine({"rate": 2})}
    assert not found["settings"].fine and found["settings"].text.startswith("rate = 2")
    assert found["storage"].fine and found["versions"].fine and "mlflow" in found


def test_what_a_node_sees_that_has_another_disk_and_no_data(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.write_bytes(b"driver")
    config = RSSTConfig.from_knobs({"dataset": "digits"})
    mine = provenance.versions()
    storage, data, versions, _ = doctor.look_from_here("node a", probe, [config], mine)
    assert storage.fine and data.fine and versions.fine and data.text == "node a: has 1259 training images"
    assert [p.name for p in tmp_path.iterdir()] == ["probe"]
    missing = RSSTConfig.from_knobs({"dataset": "folder", "data": str(tmp_path / "none")})
    elsewhere = tmp_path / "elsewhere" / "probe"
    storage, data, versions, _ = doctor.look_from_here("node b", elsewhere, [missing], {**mine, "torch": "0.1"})
    assert not storage.fine and "is not the driver's" in storage.text
    assert not data.fine and data.text.startswith("node b: data = ")
    assert not versions.fine and versions.text == f"node b: torch {mine['torch']} (here 0.1)"
    versions = doctor.look_from_here("node c", elsewhere, [config], {**mine, "numpy": "0.1"})[2]
    assert not versions.fine and versions.text == f"node c: numpy {mine['numpy']} (here 0.1)"


def test_what_a_sweep_would_refuse_are_the_doctors_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    words = {"optuna_storage": "postgresql+psycopg://u:secret@127.0.0.1:1/x", "ray_address": "127.0.0.1:1"}
    found = [finding for finding in doctor.examine(words) if not finding.fine]
    assert [finding.what for finding in found] == ["optuna", "address"]
    with pytest.raises(ConfigError) as first:
        preflight.check(new_plan(words))
    assert str(first.value) == found[0].text and "secret" not in found[0].text


def test_settings_lists_every_setting_and_every_knob() -> None:
    text = "\n".join(setting_lines())
    for name in [*settings_names(), *KNOBS_OF_A_SWEEP]:
        assert f"  {name}: " in text, name
    assert "cpus_per_trial: float | auto, default 1.0" in text and "lr: float" in text


def test_what_must_agree_on_every_node_is_recorded() -> None:
    assert set(doctor.MUST_AGREE) <= provenance.versions().keys()
