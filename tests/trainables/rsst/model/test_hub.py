"""The hub: asked once, never waited for, its own cache used; a loopback server stands for it."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from trainables.rsst.model import hub

NAME = "vit_small_patch16_224"
REPOSITORY = "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"
CONTENT = b"the weights" * 1000


class Hub(http.server.ThreadingHTTPServer):
    """Serves one file as the hub does; `status` is what it answers, `asked` the requests for the file."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.asked = status, list[str]()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def do_HEAD(self) -> None:
        good = self.path.endswith("/model.safetensors") and self.server.status == 200
        if self.path.endswith("/model.safetensors"):
            self.server.asked.append(self.command)
        self.send_response(self.server.status if good or self.server.status != 200 else 404)
        if good:
            self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(CONTENT) if good else 0))
        self.end_headers()
        if good and self.command == "GET":
            self.wfile.write(CONTENT)

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, in this process and in the child."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(getattr(request, "param", 200)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        yield running
        running.shutdown()


def test_a_reachable_hub_gives_the_file_and_the_cache_gives_it_again(cache: Path, server: Hub) -> None:
    first = hub.fetch(NAME)
    assert first.problem == "" and first.path is not None and first.path.read_bytes() == CONTENT
    assert first.repository == REPOSITORY
    server.asked.clear()
    assert hub.fetch(NAME) == first and server.asked == []


@pytest.mark.parametrize("server", [503, 404, 401], indirect=True)
def test_a_hub_that_refuses_is_asked_once(cache: Path, server: Hub) -> None:
    found = hub.fetch(NAME)
    assert found.path is None and REPOSITORY in found.problem
    assert server.asked == ["HEAD"]


def test_a_hub_that_accepts_and_never_answers_costs_a_bounded_time(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.ASK_S <= 10
    monkeypatch.setattr(hub, "ASK_S", 3.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        found = hub.fetch(NAME)
        assert time.monotonic() - began < 4.0
    assert found.path is None and found.problem


def test_a_download_that_stands_still_is_ended(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "STALL_S", 0.5)
    blobs = cache / "blobs"
    child = hub.subprocess.Popen(
        [hub.sys.executable, "-c", f"import pathlib, time; p = pathlib.Path({str(blobs)!r}); p.mkdir(); "
         "(p / 'x').write_bytes(b'1'); time.sleep(60)"], text=True
    )  # fmt: skip
    try:
        assert "stood still" in hub._watch(child, cache)
    finally:
        child.kill()
        child.wait()


def test_offline_mode_asks_nobody(cache: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = hub.fetch(NAME)
    assert found.path is None and "HF_HUB_OFFLINE" in found.problem and server.asked == []


def test_a_model_without_weights_is_said_to_have_none() -> None:
    assert hub.fetch("vit_small_patch16_18x2_224") == hub.HubFile(
        None, None, "timm has no pretrained weights for vit_small_patch16_18x2_224"
    )


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("vit_base_patch16_224_in21k", "timm/vit_base_patch16_224.augreg_in21k"),
        ("vit_tiny_patch16_224_in21k", "timm/vit_tiny_patch16_224.augreg_in21k"),
        ("vit_small_patch16_224_dino", "timm/vit_small_patch16_224.dino"),
        ("deit3_small_patch16_224_in21ft1k", "timm/deit3_small_patch16_224.fb_in22k_ft_in1k"),
        ("vit_small_patch16_224", "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"),
        ("vit_small_patch16_224.dino", "timm/vit_small_patch16_224.dino"),
        ("vit_base_patch32_224_sam", None),  # timm keeps the name and has dropped the weights
        ("vit_small_patch16_224.no_such_tag", None),
        ("no_such_model", None),
    ],
)
def test_old_names_of_timm_find_the_weights_of_the_new_ones(
    name: str, repository: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch(name).repository == repository
