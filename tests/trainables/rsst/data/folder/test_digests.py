"""What is prepared is found again by the bytes of the files: never by their names, sizes and times alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data import load as loading
from trainables.rsst.data.folder import digests as module
from trainables.rsst.data.folder.digests import digests
from trainables.rsst.data.load import ImageData, load


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(root: Path, seed: int) -> Path:
    """Two classes of 8 images that have equal names, sizes and times whatever the seed."""
    for number in range(16):
        path = root / ("cat" if number % 2 else "dog") / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng([seed, number]).integers(0, 256, (8, 8), np.uint8)).save(path)
        os.utime(path, ns=(10**18, 10**18))
    return root


def read(root: Path) -> ImageData:
    return load(RSSTConfig.from_knobs({"dataset": "folder", "data": str(root), "img_size": 8}))


def files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.bmp"))


def prepared(cache: Path) -> int:
    return len([path for path in (cache / "prepared").iterdir() if path.is_dir()])


def test_two_folders_with_equal_names_sizes_and_times_are_two(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a", 1)).digest != read(write(tmp_path / "b", 2)).digest


@pytest.mark.parametrize("how", ["in place", "another folder under the name"])
def test_other_bytes_are_noticed(how: str, tmp_path: Path) -> None:
    before = read(write(tmp_path / "a", 1)).digest
    if how != "in place":
        shutil.rmtree(tmp_path / "a")
    assert read(write(tmp_path / "a", 2)).digest != before


def test_a_copy_shares_what_is_prepared_and_keeps_its_own_name(tmp_path: Path, cache: Path) -> None:
    first = read(write(tmp_path / "a", 1))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = read(tmp_path / "b")
    assert first.digest == second.digest and prepared(cache) == 1
    assert (first.about.name, second.about.name) == ("a", "b")


def test_another_decoder_prepares_anew(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(write(tmp_path / "a", 1))
    monkeypatch.setattr(loading, "decoders", lambda: {"pil": "another"})
    read(tmp_path / "a")
    assert prepared(cache) == 2


def test_settled_files_are_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, count = write(tmp_path / "a", 1), []
    hashed = module.hashlib.file_digest
    monkeypatch.setattr(module.hashlib, "file_digest", lambda *how: count.append(how) or hashed(*how))
    first = digests(root, files(root))
    assert digests(root, files(root)) == first and len(count) == 32, "written just now: not remembered"
    monkeypatch.setattr(module, "SETTLED_S", -1.0)
    assert digests(root, files(root)) == digests(root, files(root)) == first and len(count) == 48
    write(root, 2)
    assert set(digests(root, files(root))).isdisjoint(first) and len(count) == 64
    (index,) = (cache / "digests").iterdir()
    for damage in ("{", "[]"):
        index.write_text(damage)
        assert len(set(digests(root, files(root)))) == 16
