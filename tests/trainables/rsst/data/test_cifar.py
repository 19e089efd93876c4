"""CIFAR on archives made by us in its own format: one download for many processes, checks, refusals."""

from __future__ import annotations

import http.server
import multiprocessing
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainables.rsst.data.cifar_format import make_archive
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import cifar
from trainables.rsst.data import load as data
from trainables.rsst.data.split import stratified_split


class Mirror(http.server.ThreadingHTTPServer):
    """Serves a folder slowly and counts what is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), MirrorHandler)
        self.folder, self.asked, self.cut = folder, list[str](), 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class MirrorHandler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        time.sleep(0.3)  # long enough for every process to ask while the first one is at it
        content = (self.server.folder / self.path[1:]).read_bytes()
        content = content[: len(content) - self.server.cut]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    folder = tmp_path / "mirror"
    folder.mkdir()
    with Mirror(folder) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ours(monkeypatch: pytest.MonkeyPatch, kind: Any, dataset: str = "cifar10") -> None:
    monkeypatch.setitem(cifar.CLASSES, dataset, kind)


def load(dataset: str = "cifar10", **knobs: Any) -> data.ImageData:
    return data.load(RSSTConfig.from_knobs({"dataset": dataset, **knobs}))


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_an_archive_in_a_given_folder(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    per_batch = 200 if dataset == "cifar10" else 1000
    kind = make_archive(tmp_path, dataset, per_batch)
    ours(monkeypatch, kind, dataset)
    batches = len(kind.train_list)
    d = load(dataset, data=str(tmp_path))
    assert len(d.about.classes) == d.num_classes == int(dataset.removeprefix("cifar")) and d.about.name == dataset
    assert len(d.train) + len(d.val) == per_batch * batches
    assert len(d.test) == per_batch and len(d.val) == per_batch * batches // 10
    for split in (d.train, d.val, d.test):
        assert split.images.shape[1:] == (3, 32, 32)
        assert (
            split.images[:, 0, 0, 0].tolist() == split.labels.tolist()
        )  # our archives write the label into the first pixel
    assert d.about.mean == pytest.approx([0.5] * 3, abs=0.01)
    assert not list((tmp_path / "cache").glob(".unpack-*"))


def test_unpacked_batches_in_a_given_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = make_archive(tmp_path)
    ours(monkeypatch, kind)
    with tarfile.open(tmp_path / kind.filename) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / kind.filename).unlink()
    digest = load(data=str(tmp_path)).digest
    batch = tmp_path / kind.base_folder / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    assert load().digest == digest  # prepared already: the folder is not read again
    with pytest.raises(ConfigError, match=r"data = .*data_batch_3: valid is a file with md5"):
        load(data=str(tmp_path), seed=1)


def test_the_official_numbers_give_45k_and_5k() -> None:
    labels = np.repeat(np.arange(100), 500)
    train, val = stratified_split(labels, [0.1], seed=0)
    assert len(train) == 45_000 and len(val) == 5_000
    assert np.bincount(labels[val]).tolist() == [50] * 100


def _in_process(found: Any) -> None:
    """What each of the eight processes does."""
    d = load()
    found.put((d.digest, len(d.train)))


def test_eight_processes_download_once(mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours(monkeypatch, make_archive(mirror.folder, url=mirror.url))
    context = multiprocessing.get_context("fork")  # the processes take over our checksums
    found = context.Queue()
    processes = [context.Process(target=_in_process, args=(found,)) for _ in range(8)]
    for process in processes:
        process.start()
    results = [found.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(set(results)) == 1 and results[0][1] == 180
    assert mirror.asked == ["/cifar-10-python.tar.gz"]
    assert len(list((cache / "prepared").glob("*/manifest.json"))) == 1


def test_a_truncated_archive_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = make_archive(tmp_path)
    ours(monkeypatch, kind)
    archive = tmp_path / kind.filename
    archive.write_bytes(archive.read_bytes()[:-1000])
    with pytest.raises(
        ConfigError, match=r"data = .*cifar-10-python\.tar\.gz: valid is an archive with md5"
    ) as refused:
        load(data=str(tmp_path))
    assert "\n" not in str(refused.value) and archive.exists()


def test_a_truncated_download_is_refused_and_leaves_nothing(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours(monkeypatch, make_archive(mirror.folder, url=mirror.url))
    mirror.cut = 1000
    with pytest.raises(ConfigError, match=r"dataset = cifar10: .*the download from .* is damaged"):
        load()
    assert [p.name for p in (cache / "datasets").iterdir()] == [".cifar-10-python.tar.gz.lock"]
    mirror.cut = 0
    assert load().num_classes == 10


def test_offline_the_line_says_which_file_goes_where(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours(monkeypatch, make_archive(tmp_path, url="http://127.0.0.1:9"))
    with pytest.raises(ConfigError) as refused:
        load()
    line = str(refused.value)
    assert line.startswith("dataset = cifar10: ") and "\n" not in line
    for part in ("Connection refused", "put cifar-10-python.tar.gz (md5 ", str(cache / "datasets"), "data=FOLDER"):
        assert part in line


def test_a_server_that_never_answers_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    monkeypatch.setattr(cifar, "TIMEOUT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ours(monkeypatch, make_archive(tmp_path, url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        began = time.monotonic()
        with pytest.raises(ConfigError, match="timed out"):
            load()
        assert time.monotonic() - began < 3


def test_other_sizes_are_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours(monkeypatch, make_archive(tmp_path))
    assert load(data=str(tmp_path), img_size=16).val.images.shape[2:] == (16, 16)
