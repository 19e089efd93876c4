"""One prepared copy per node: shared, checked, prepared anew when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data import load, node_cache, sources


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path))
    return tmp_path


class Preparation:
    """A preparation that counts how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> tuple[node_cache.Arrays, dict[str, Any]]:
        self.runs += 1
        return {"a": np.arange(12, dtype=np.uint8).reshape(3, 4), "b": np.ones(3, dtype=np.int64)}, {"n": 3}


def test_prepared_once_and_mapped(cache: Path) -> None:
    prepare = Preparation()
    first, second = (node_cache.shared({"k": 1}, prepare) for _ in range(2))
    assert prepare.runs == 1 and first.facts == {"n": 3} and first.digest == second.digest
    assert isinstance(second.arrays["a"], np.memmap) and second.arrays["a"].tolist() == prepare()[0]["a"].tolist()
    second.arrays["a"][0, 0] = 99  # stays in this mapping
    assert node_cache.shared({"k": 1}, prepare).arrays["a"][0, 0] == 0
    assert node_cache.shared({"k": 2}, prepare).digest == first.digest and prepare.runs == 3
    assert not list((cache / "prepared").glob(".*"))


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "missing"])
def test_a_damaged_set_is_prepared_anew(cache: Path, damage: str) -> None:
    prepare = Preparation()
    node_cache.shared({}, prepare)
    array = next((cache / "prepared").glob("*/a.npy"))
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
    assert node_cache.shared({}, prepare).arrays["a"][2, 3] == 11
    assert prepare.runs == 2


def test_a_preparation_that_fails_leaves_nothing_and_frees_the_lock(cache: Path) -> None:
    def fails() -> tuple[node_cache.Arrays, dict[str, Any]]:
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
    assert node_cache.cache_folder() == Path("h/cache")
    monkeypatch.setenv("TUNE_RSST_CACHE", "c")
    assert node_cache.cache_folder() == Path("c")


def test_synthetic_images_are_drawn_by_seed_and_kept_out_of_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SYNTHETIC_BYTES", 2**20)
    first, again, other = (load.load(RSSTConfig.from_knobs({"dataset": "synthetic", "seed": s})) for s in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    assert first.train_images.shape == (301, 3, 32, 32) and first.num_classes == 10
    assert not sources.describe("synthetic").sweepable
    assert all(sources.describe(name).sweepable for name in ("digits", "cifar10", "cifar100"))
