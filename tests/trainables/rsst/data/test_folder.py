"""Image folders: PNGs made of the digits, given parts or a split, grey or colour, and every refusal by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import load as data
from trainables.rsst.data import sources


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_pngs(
    root: Path, count: int = 500, classes: int = 5, *, first: int = 0, mode: str = "L", side: int = 8
) -> Path:
    """`count` of the digits 0 … classes − 1 from the `first` on as PNG files below root/<digit>/."""
    whole = sources.digits()[0]["all"]
    chosen = [i for i in range(len(whole)) if whole.labels[i] < classes][first : first + count]
    for i in chosen:
        folder = root / f"digit{whole.labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(whole.images[i, 0].numpy()).convert(mode).resize((side, side)).save(folder / f"{i:04d}.png")
    return root


def load(folder: Path, **knobs: Any) -> data.ImageData:
    return data.load(RSSTConfig.from_knobs({"dataset": "folder", "data": str(folder), "img_size": 8, **knobs}))


def test_one_folder_split_by_seed(tmp_path: Path) -> None:
    d = load(write_pngs(tmp_path))
    assert sources.describe("folder", str(tmp_path)) == sources.DatasetSpec("folder", 32, 1, 5)
    assert d.num_classes == 5 and d.train.images.shape[1:] == (1, 8, 8)
    sizes = [len(x) for x in (d.train, d.val, d.test)]
    assert sum(sizes) == 500 and sizes[1] == sizes[2] == pytest.approx(75, abs=3)
    whole = sources.digits()[0]["all"]
    known = {image.numpy().tobytes(): int(label) for image, label in zip(whole.images, whole.labels, strict=True)}
    for part in (d.train, d.test):
        assert [known[x.numpy().tobytes()] for x in part.images] == part.labels.tolist()
    assert load(tmp_path).digest == d.digest != load(tmp_path, seed=1).digest


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    before = load(write_pngs(tmp_path, 60)).digest
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(next((tmp_path / "digit0").iterdir()))
    assert load(tmp_path).digest != before


def test_given_parts_are_kept_and_a_missing_one_is_split_off_train(tmp_path: Path) -> None:
    write_pngs(tmp_path / "train", 300)
    write_pngs(tmp_path / "test", 100, first=300)
    d = load(tmp_path)
    assert len(d.test) == 100 and len(d.train) + len(d.val) == 300
    write_pngs(tmp_path / "val", 50, first=400)
    d = load(tmp_path)
    assert [len(x) for x in (d.train, d.val, d.test)] == [300, 50, 100]


def test_colour_other_sizes_and_other_modes(tmp_path: Path) -> None:
    write_pngs(tmp_path, 40, mode="RGB", side=20)
    files = sorted(tmp_path.rglob("*.png"))
    Image.open(files[1]).convert("P").resize((11, 30)).save(files[1])
    Image.open(files[2]).convert("RGBA").save(files[2])
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(files[3])
    d = load(tmp_path, img_size=12)
    assert d.train.images.shape[1:] == (3, 12, 12)
    everything = np.concatenate([d.train.images, d.val.images, d.test.images])
    assert any((image == 156).all() for image in everything)


def test_a_colour_image_in_a_grey_folder_is_named(tmp_path: Path) -> None:
    write_pngs(tmp_path, 40)
    last = sorted((tmp_path / "digit1").iterdir())[-1]
    Image.open(last).convert("RGB").save(last)
    with pytest.raises(ConfigError, match=rf"data = .*{last.name}: valid is a grey image"):
        load(tmp_path)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    write_pngs(tmp_path, 40)
    first, *_, last = sorted((tmp_path / "digit2").iterdir())
    whole = last.read_bytes()
    for broken, content in ((last, whole[:60]), (last, b"not an image"), (first, b"")):
        kept = broken.read_bytes()
        broken.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"data = .*{broken.name}: valid is an image that PIL reads") as refused:
            load(tmp_path)
        assert "\n" not in str(refused.value)
        broken.write_bytes(kept)


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no class folder"):
        load(tmp_path)
    write_pngs(tmp_path, 20, classes=1)
    with pytest.raises(ConfigError, match="class digit0 alone"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"data = .*empty: valid is a class folder with images"):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"data = .*nowhere: valid is an existing folder"):
        load(tmp_path / "nowhere")


def test_too_few_images_and_unknown_classes(tmp_path: Path) -> None:
    write_pngs(tmp_path / "few", 4, classes=2)
    with pytest.raises(ConfigError, match="at least one image in val"):
        load(tmp_path / "few")
    write_pngs(tmp_path / "odd" / "train", 60, classes=2)
    write_pngs(tmp_path / "odd" / "val", 60, classes=3)
    with pytest.raises(ConfigError, match=r"data = .*digit2: valid is a class of train"):
        load(tmp_path / "odd")
