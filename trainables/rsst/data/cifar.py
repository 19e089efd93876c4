"""CIFAR-10 and CIFAR-100, read by torchvision's classes and checked by the checksums that these know.

In: which of the two, and a folder. Out: the splits train and test, of 3 × 32 × 32 images.
The folder may hold the unpacked batches or the archive; else the archive is downloaded into it, by one process of the
node while the others wait, to a temporary name that becomes the archive's only when its checksum is right.
"""

from __future__ import annotations

import hashlib
import tarfile
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from trainables.progress import after_waiting, tracked
from trainables.rsst.config import ConfigError
from trainables.rsst.data.about import Source
from trainables.rsst.data.node_cache import cache_folder
from trainables.rsst.data.split import Split
from trainables.storage.files import replaced, temporary_folder
from trainables.storage.locks import held

TIMEOUT_S = 20.0  # without one byte from the server
DOWNLOADED = "waiting for a download of another process"
CLASSES: dict[str, Any] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def identity(dataset: str) -> dict[str, str]:
    """What the images are, for the cache's key: the archive's checksum."""
    return {"dataset": dataset, "md5": CLASSES[dataset].tgz_md5}


def read(dataset: str, data: str | None) -> tuple[dict[str, Split], Source]:
    """train and test of the official sets, and what is known of them."""
    kind = CLASSES[dataset]
    folder = Path(data) if data else cache_folder() / "datasets"
    if (folder / kind.base_folder).is_dir():
        return _unpacked(dataset, folder)
    archive = folder / kind.filename
    if not archive.is_file():
        _download_once(dataset, kind, archive)
    _check_archive(kind, archive)
    with temporary_folder(cache_folder() / kind.base_folder) as unpacked:
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        return _unpacked(dataset, unpacked)


def _unpacked(dataset: str, root: Path) -> tuple[dict[str, Split], Source]:
    """Read the batches below `root`, each checked first (they are pickles: only known bytes may be loaded)."""
    kind = CLASSES[dataset]
    for name, md5 in (*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])):
        path = root / kind.base_folder / name
        if not check_integrity(path, md5):
            found = f"its md5 is {_md5(path)}" if path.is_file() else "it is missing"
            hint = f"{found}; unpack {kind.filename} again, or fetch it from {kind.url}"
            raise ConfigError("data", path, f"a file with md5 {md5}", hint)
    splits = {}
    for part in ("train", "test"):
        official = kind(root, train=part == "train", download=False)
        images = np.ascontiguousarray(official.data.transpose(0, 3, 1, 2))
        splits[part] = Split.from_numpy(images, np.asarray(official.targets, dtype=np.int64))
    return splits, Source(name=dataset, classes=tuple(official.classes), smallest=(32, 32), largest=(32, 32))


def _check_archive(kind: Any, archive: Path) -> None:
    found = _md5(archive)
    if found != kind.tgz_md5:
        hint = f"it has {archive.stat().st_size} bytes and md5 {found}; delete it, or put the one from {kind.url} there"
        raise ConfigError("data", archive, f"an archive with md5 {kind.tgz_md5}", hint)


def _download_once(dataset: str, kind: Any, archive: Path) -> None:
    where = f"put {kind.filename} (md5 {kind.tgz_md5}, from {kind.url}) into {archive.parent}, or give data=FOLDER"
    try:
        with after_waiting(DOWNLOADED, held(archive.with_name(f".{archive.name}.lock"))):
            if not archive.is_file():
                _download(kind, archive)
    except (OSError, HTTPException, ValueError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError("dataset", dataset, "a data set that can be had", f"{first}; {where}") from error


def _download(kind: Any, archive: Path) -> None:
    """One attempt; raises OSError or HTTPException (the network), ValueError (what came is not the archive)."""
    md5 = hashlib.md5(usedforsecurity=False)
    with replaced(archive) as new:
        with urllib.request.urlopen(kind.url, timeout=TIMEOUT_S) as answer, new.open("wb") as file:
            blocks = iter(lambda: answer.read(1 << 20), b"")
            total = int(answer.headers.get("Content-Length") or 0)
            for block in tracked(f"downloading {archive.name}", blocks, total, unit="bytes"):
                md5.update(block)
                file.write(block)
        if md5.hexdigest() != kind.tgz_md5:
            size = new.stat().st_size
            raise ValueError(f"the download from {kind.url} is damaged ({size} bytes, md5 {md5.hexdigest()})")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
