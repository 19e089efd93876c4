"""An export pushed to a repository of the hub, and used from there; a loopback server stands for the hub."""

from __future__ import annotations

import base64
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from typer.testing import CliRunner

from trainables.rsst.config import ConfigError
from trainables.rsst.model import hub
from tune_rsst.cli.app import app
from tune_rsst.results.export import choose
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking.model_card import card

COMMIT, TOKEN = "a" * 40, "hf_good"


class Hub(http.server.ThreadingHTTPServer):
    """Repositories as far as a push and a download need them; `refuses` is the status of a commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.refuses = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        if self.path == "/api/whoami-v2":
            good = self.headers["Authorization"] == f"Bearer {TOKEN}"
            return self.answer(200 if good else 401, {"name": "me"} if good else {"error": "no such token"})
        content = self.server.files.get(self.path.replace(f"/resolve/{COMMIT}/", "/").replace("/resolve/main/", "/"))
        if content is None:
            return self.answer(404, {})
        return self.answer(200, content, ETag=f'"{len(content)}"', **{"X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.private:
                return self.answer(409, {"error": "it is there", "url": f"{self.server.address}/{name}"})
            if asked["organization"] != "group":
                return self.answer(403, {"error": "you are not of that organization"})
            self.server.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
            return self.answer(200, {"url": f"{self.server.address}/{name}"})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path)
        assert found is not None, self.path
        if found[2] == "preupload":
            paths = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self.answer(200, {"files": modes})
        if self.server.refuses:
            return self.answer(self.server.refuses, {"error": "the hub is full"})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[f"/{found[1]}/{line['value']['path']}"] = base64.b64decode(line["value"]["content"])
        url = f"{self.server.address}/{found[1]}/commit/{COMMIT}"
        return self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def answer(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        for name, value in (("HF_ENDPOINT", running.address), ("HF_HUB_CACHE", str(tmp_path / "cache"))):
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running
        running.shutdown()


@pytest.fixture
def sweep(digits_sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setenv("TUNE_RSST_HOME", str(digits_sweep.path.parent))
    return digits_sweep


def export(tmp_path: Path, *words: str) -> tuple[int, str]:
    """Exit code and text of `tune-rsst export small …`; the command's main function makes 2 of a ConfigError."""
    to = ["--formats", "safetensors", "--to", str(tmp_path / "to")]
    done = CliRunner().invoke(app, ["export", "small", *to, *words])
    refused = isinstance(done.exception, ConfigError)
    return 2 if refused else done.exit_code, done.output + str(done.exception or "")


def test_what_is_pushed_is_the_export_and_is_a_start_by_its_name(
    server: Hub, sweep: SweepFolder, tmp_path: Path
) -> None:
    code, text = export(tmp_path, "--push", "group/pruned", "--private")
    assert code == 0 and f"{server.address}/group/pruned/commit/{COMMIT}" in text, text
    names = {"README.md", "model.safetensors", "architecture.json", "preprocessing.json", "load_model.py"}
    assert {path.removeprefix("/group/pruned/") for path in server.files} == names
    assert server.private == {"group/pruned": True}
    weights = server.files["/group/pruned/model.safetensors"]
    assert weights == (tmp_path / "to" / "model.safetensors").read_bytes()
    found = hub.fetch_named("hf_hub:group/pruned")
    assert found.path is not None and found.path.read_bytes() == weights and found.name.endswith(f"@{COMMIT}")
    code, again = export(tmp_path, "--push", "group/pruned")
    assert code == 0 and server.private == {"group/pruned": True}, again
    everything = b"".join(server.files.values())
    assert str(tmp_path).encode() not in everything and str(sweep.path).encode() not in everything


@pytest.mark.parametrize(
    ("words", "token", "code", "says"),
    [
        (["--push", "pruned"], TOKEN, 2, "push = pruned: valid is ORG/NAME"),
        (["--push", "a/b/c"], TOKEN, 2, "push = a/b/c: valid is ORG/NAME"),
        (["--push", "a/-b"], TOKEN, 2, "push = a/-b: valid is ORG/NAME"),
        (["--push", ""], TOKEN, 2, "push = : valid is ORG/NAME"),
        (["--push", "group/x"], "", 2, "type `hf auth login`, or set HF_TOKEN"),
        (["--push", "group/x"], "hf_bad", 2, "valid is a hub that answers and knows the token; Invalid user token"),
        (["--private"], TOKEN, 2, "private = True: valid is given together with --push"),
        (["--push", "theirs/x"], TOKEN, 1, "push = theirs/x: "),
    ],
)
def test_what_can_not_be_pushed_is_said_in_one_line(
    server: Hub, sweep: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: list[str], token: str, code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    found, text = export(tmp_path, *words)
    assert found == code and says in text and server.files == {}, text
    assert (tmp_path / "to").exists() is (code == 1), "a bad word costs no export, a refused push loses none"


def test_a_hub_that_fails_at_the_end_costs_one_line_and_the_same_command_pushes(
    server: Hub, sweep: SweepFolder, tmp_path: Path
) -> None:
    server.refuses = 507
    code, text = export(tmp_path, "--push", "group/pruned")
    assert code == 1 and (tmp_path / "to" / "model.safetensors").exists() and server.files == {}, text
    server.refuses = 0
    code, text = export(tmp_path, "--push", "group/pruned")
    assert code == 0 and len(server.files) == 5, text


@pytest.mark.parametrize("number", [None, 1])
def test_the_card_says_what_the_ledger_says(sweep: SweepFolder, number: int | None) -> None:
    chosen = choose("small", "t0002", number)
    text = card(chosen, "group/pruned")
    _, head, body = text.split("---\n", 2)
    known = yaml.safe_load(head)
    assert known["pipeline_tag"] == "image-classification" and known["library_name"] == "tune-rsst"
    [entry] = known["model-index"]
    values = {result["metrics"][0]["name"]: result["metrics"][0]["value"] for result in entry["results"]}
    metrics = chosen.metrics
    assert values == {name: metrics[name] for name in ("val_top1", "test_top1") if name in metrics}
    assert f"| `params` | {metrics['params']:,} |" in body and "| `lr` | " in body
    assert ("Of 4 trials the validation images chose this one" in body) is (choose("small").trial is chosen.trial)
    assert str(sweep.path.parent) not in text and "The test images chose nothing." in body


def test_names_from_outside_are_text_in_the_card(sweep: SweepFolder) -> None:
    chosen = choose("small")
    chosen.view.name = "[x](http://evil) <script>\n---\nlicense: none"
    chosen.trial.knobs["data"] = "/home/somebody/secret|folder"
    text = card(chosen)
    assert "<script>" not in text.partition("---\n\n")[2] and "](http://evil)" not in text.partition("---\n\n")[2]
    assert "license" not in yaml.safe_load(text.split("---\n")[1]) and "/home/somebody" not in text
