"""What doctor says of what is wrong, one thing at a time; `tune-rsst settings` lists everything there is to set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from trainables.rsst.config import RSSTConfig
from tune_rsst.cli.spaces import setting_lines
from tune_rsst.planning import doctor
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
        thread = threading.Thread(target=made.serve_forever)
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
    told = doctor.look_from_here(str(probe), [config])
    assert told["storage"] is None and told["data"] is None and told["images"] == 1259
    assert [p.name for p in tmp_path.iterdir()] == ["probe"]
    missing = RSSTConfig.from_knobs({"dataset": "folder", "data": str(tmp_path / "none")})
    told = doctor.look_from_here(str(tmp_path / "elsewhere" / "probe"), [missing])
    assert "is not the driver's" in told["storage"]
    assert told["data"].startswith("data = ")


def test_settings_lists_every_setting_and_every_knob() -> None:
    text = "\n".join(setting_lines())
    for name in [*settings_names(), *KNOBS_OF_A_SWEEP]:
        assert f"  {name}: " in text, name
    assert "cpus_per_trial: float | auto, default 1.0" in text and "lr: float" in text
