"""One prepared copy per node: shared, checked, prepared anew when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data import load, node_cache, sources
from trainables.rsst.data.split import Split, Splits


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path))
    return tmp_path


class Preparation:
    """A preparation that counts how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> tuple[Splits, dict[str, Any]]:
        self.runs += 1
        images = torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2)
        return {"train": Split(images, torch.ones(3, dtype=torch.int64))}, {"n": 3}


def test_prepared_once_and_mapped(cache: Path) -> None:
    prepare = Preparation()
    first, second = (node_cache.shared({"k": 1}, prepare) for _ in range(2))
    assert prepare.runs == 1 and first.facts == {"n": 3} and first.digest == second.digest
    images = second.splits["train"].images
    assert "/train_images.npy" in Path("/proc/self/maps").read_text()
    assert images.tolist() == prepare()[0]["train"].images.tolist()
    images[0] = 99  # stays in this mapping
    assert node_cache.shared({"k": 1}, prepare).splits["train"].images[0, 0, 0, 0] == 0
    assert node_cache.shared({"k": 2}, prepare).digest == first.digest and prepare.runs == 3
    assert not list((cache / "prepared").glob(".*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "missing"])
def test_a_damaged_set_is_prepared_again(cache: Path, damage: str) -> None:
    prepare = Preparation()
    node_cache.shared({}, prepare)
    array = next((cache / "prepared").glob("*/train_images.npy"))
    raw = bytearray(array.read_bytes())
    raw[-1] ^= 1
    if damage == "flip":
        array.write_bytes(raw)
    elif damage == "cut":
        array.write_bytes(raw[:-2])
    elif damage == "manifest":
        array.with_name("manifest.json").write_text("{")
    else:
        array.unlink()
    assert int(node_cache.shared({}, prepare).splits["train"].images[2, 0, 1, 1]) == 11
    assert prepare.runs == 2


def test_a_preparation_that_fails_leaves_nothing_and_frees_the_lock(cache: Path) -> None:
    def fails() -> tuple[Splits, dict[str, Any]]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        node_cache.shared({}, fails)
    assert node_cache.shared({}, Preparation()).facts == {"n": 3}


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNE_RSST_CACHE", "TUNE_RSST_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert node_cache.cache_folder() == Path.home() / ".cache" / "tune-rsst"
    monkeypatch.setenv("XDG_CACHE_HOME", "x")
    assert node_cache.cache_folder() == Path("x/tune-rsst")
    monkeypatch.setenv("TUNE_RSST_HOME", "h")
    assert node_cache.cache_folder() == Path("h/cache").absolute()
    monkeypatch.setenv("TUNE_RSST_CACHE", "c")
    assert node_cache.cache_folder() == Path("c").absolute()


def test_synthetic_images_are_drawn_by_seed_and_kept_out_of_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SYNTHETIC_BYTES", 2**20)
    first, again, other = (load.load(RSSTConfig.from_knobs({"dataset": "synthetic", "seed": s})) for s in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    assert first.train.images.shape == (301, 3, 32, 32) and first.num_classes == 10
    assert not sources.describe("synthetic").sweepable
    assert all(sources.describe(name).sweepable for name in ("digits", "cifar10", "cifar100"))
