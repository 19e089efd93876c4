"""The hub: asked once, never waited for, its own cache used; a loopback server stands for it."""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from safetensors.torch import save

from tests.trainables import toy
from trainables.__main__ import main
from trainables.rsst.config import ConfigError
from trainables.rsst.model import hub
from trainables.rsst.model.further import start_by
from trainables.rsst.model.pretrained import resolve
from trainables.rsst.model.vit import build
from trainables.rsst.size import architecture_of
from trainables.storage.files import path_or_address

pytestmark = pytest.mark.usefixtures("toy")
NAME = "vit_small_patch16_224"
REPOSITORY = "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"
CONTENT = b"the weights" * 1000
COMMIT = "0" * 40


class Hub(http.server.ThreadingHTTPServer):
    """Serves one file as the hub does; `status` is what it answers, `asked` the requests for the file."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.asked, self.content, self.paths = status, list[str](), CONTENT, list[str]()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def do_HEAD(self) -> None:
        good = self.path.endswith("/model.safetensors") and self.server.status == 200
        if self.path.endswith("/model.safetensors"):
            self.server.asked.append(self.command)
            self.server.paths.append(self.path)
        self.send_response(self.server.status if good or self.server.status != 200 else 404)
        if good:
            self.send_header("ETag", f'"{hashlib.sha256(self.server.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(self.server.content) if good else 0))
        self.end_headers()
        if good and self.command == "GET":
            self.wfile.write(self.server.content)

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
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
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


@pytest.mark.parametrize(
    ("name", "asked_for"),
    [
        ("hf_hub:group/vit", "/group/vit/resolve/main/model.safetensors"),
        ("hf-hub:group/vit", "/group/vit/resolve/main/model.safetensors"),
        ("hf_hub:group/vit@v1.0", "/group/vit/resolve/v1.0/model.safetensors"),
        ("hf_hub:group/vit@refs/pr/3", "/group/vit/resolve/refs%2Fpr%2F3/model.safetensors"),
    ],
)
def test_a_repository_is_a_start_and_is_asked_for_once(cache: Path, server: Hub, name: str, asked_for: str) -> None:
    config = toy.config(pretrained=True, weights=name)
    server.content = save(build(architecture_of(config)).state_dict())
    found = resolve(config)
    assert found.path is not None and found.path.read_bytes() == server.content
    assert found.source == f"hf_hub:group/vit@{COMMIT}" and set(server.paths) == {asked_for}
    server.asked.clear()
    assert resolve(config) == found and server.asked == []
    assert resolve(toy.config(pretrained=True, weights=found.source)) == found and server.asked == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf_hub:", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:vit", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:a/b/c", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:a/b@", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:a/b@../../x", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:../x", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:a/ü", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:a/b\n", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:a/none", "valid is a repository of the hub with model.safetensors in it"),
        ("hf_hub:a/b--c", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:a/b..c", "valid is hf_hub:ORG/NAME"),
        ("hf_hub:a/b@x..y", "valid is hf_hub:ORG/NAME"),
    ],
)
@pytest.mark.parametrize("server", [404], indirect=True)
def test_what_names_no_model_of_the_hub_is_refused(cache: Path, server: Hub, name: str, says: str) -> None:
    """A fallback to random weights is for a hub that is away, not for a name of one's own."""
    with pytest.raises(ConfigError, match=re.escape(says)) as refused:
        resolve(toy.config(pretrained=True, weights=name, on_missing_weights="scratch"))
    assert str(refused.value).startswith("weights = hf_hub:") and len(server.asked) <= 1


def test_a_pruned_model_in_the_hub_is_pruned_further_by_its_name(cache: Path, server: Hub, tmp_path: Path) -> None:
    words = f"--dataset digits --arch {toy.NAME} --epochs 1 --warmup 0 --pruning_times 2 --batch_size 256"
    pruned = tmp_path / "own"
    assert main([*words.split(), "--save_dir", str(pruned)]) == 0
    server.content = (pruned / "model.safetensors").read_bytes()
    local = start_by(None, {"weights": str(pruned)})
    assert start_by(None, {"weights": "hf_hub:group/pruned"}) == local | {"weights": f"hf_hub:group/pruned@{COMMIT}"}
    with pytest.raises(ConfigError, match="arch = vit_tiny"):
        start_by(None, {"weights": "hf_hub:group/pruned", "arch": "vit_tiny"})


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("hf_hub:a/b", True),
        ("hf-hub:a/b@v1", True),
        ("models:/name/3", True),
        ("s3://bucket/x", True),
        ("runs:/1/model", True),
        ("vit.pth", False),
        ("hf_hub/vit.pth", False),
        ("a:b.pth", False),
        ("./hf_hub:a/b", False),
    ],
)
def test_addresses_stay_and_paths_begin_at_the_root(name: str, kept: bool) -> None:
    assert path_or_address(name) == (name if kept else str(Path.cwd() / name))
