"""Image folders as users have them: each gives the right images under the right classes, or one line; both are said."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.about import AboutImages
from trainables.rsst.data.load import load

Tree = dict[str, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path_factory.mktemp("cache")))


def build(root: Path, tree: Tree) -> Path:
    """Files by path: a number is an image of that noise, an array is its pixels, bytes are the content, a text is what
    a link leads to, None is a folder."""
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            noise = (
                np.random.default_rng(content).integers(0, 256, (8, 8), np.uint8) if np.ndim(content) == 0 else content
            )
            Image.fromarray(noise).save(path)
    return root


def noise(seed: int, shape: tuple[int, ...] = (8, 8), most: int = 256, dtype: Any = np.uint8) -> Any:
    return np.random.default_rng(seed).integers(0, most, shape, dtype)


def images(folder: str, count: int, first: int = 0, name: str = "{}.png") -> Tree:
    """`count` images of different noise."""
    return {f"{folder}/{name.format(i)}": hash((folder, i)) % 2**31 for i in range(first, first + count)}


def two(at: str = "", count: int = 8) -> Tree:
    """Two classes, cat and dog, below `at`."""
    return images(f"{at}cat", count) | images(f"{at}dog", count)


def parts(train: str = "train", val: str = "val", test: str = "test") -> Tree:
    return two(f"{train}/", 6) | two(f"{val}/", 3) | two(f"{test}/", 2)


def about(root: Path, **knobs: Any) -> AboutImages:
    return load(RSSTConfig.from_knobs({"dataset": "folder", "data": str(root), "img_size": 8, **knobs})).about


@dataclass
class Right:
    """What is read: the number of images (all parts together, or by part), classes, and what the notes hold."""

    images: int | dict[str, int]
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ("cat", "dog")
    knobs: dict[str, Any] = field(default_factory=dict)
    silent: bool = False


GIVEN = {"train": 12, "val": 6, "test": 4}
FLAT = np.full((8, 8), 90, np.uint8)
ONE_TONE = "is one flat tone"
COPY = {f"val/{c}/{i}.png": f"../../train/{c}/{i}.png" for c in ("cat", "dog") for i in range(3)}

FOLDERS: dict[str, tuple[Tree, Right | str]] = {
    # one folder, and how deep
    "classes": (two(), Right(16, ("val: 15%",))),
    "classes in folders of folders": (two() | images("cat/tabby/old", 2), Right(18, ("folders below a class folder",))),
    "the class folder's own folder is hidden": (two() | images("cat/.trash", 2), Right(16)),
    "a folder of macOS": (two() | images("__MACOSX/cat", 2), Right(16)),
    "loose files": (two() | {"labels.csv": b"x", "a.png": 5}, Right(16, ("in no class folder, left out: 2",))),
    "one class": (images("cat", 3), "there is class cat alone"),
    "one folder too far up": (two("data/"), r"did you mean data=.*/data\?"),
    "nothing": ({"x.txt": b""}, "there is no class folder"),
    "no such folder": ({}, "existing folder"),
    "an empty class": (two() | {"elk": None}, r"elk: valid is a class folder with images"),
    "a class without images": (two() | {"elk/a.txt": b"x"}, r"elk: valid is a class folder with images"),
    "a class called train": (two() | images("train", 8), Right(24, ("in spite of its name",), ("cat", "dog", "train"))),
    "parts below the classes": (
        images("cat/train", 3) | images("cat/test", 3) | images("dog/train", 3), "parts stand above the classes"),
    "a class name in two lines": (two() | images("a\nb", 3), r"a\\nb: valid is a class folder with a name"),
    "a class name of other bytes": (two() | images("\udcff\udcfe", 3), "a class folder with a name in UTF-8"),
    "class names of other alphabets": (images("猫", 8) | images("собака", 8), Right(16, (), ("собака", "猫"))),
    # parts
    "train, val, test": (parts(), Right(GIVEN, silent=True)),
    "Train, Val, Test": (parts("Train", "Val", "Test"), Right(GIVEN, silent=True)),
    "TRAINING, VALID, TESTING": (parts("TRAINING", "VALID", "TESTING"), Right(GIVEN, silent=True)),
    "training, validation, tst": (parts("training", "validation", "tst"), Right(GIVEN, silent=True)),
    "trn, dev, test_set": (parts("trn", "dev", "test_set"), Right(GIVEN, silent=True)),
    "train2017, val2017, test2017": (parts("train2017", "val2017", "test2017"), Right(GIVEN, silent=True)),
    "01_train, 02-valid-imgs, testdata": (parts("01_train", "02-valid-imgs", "testdata"), Right(GIVEN, silent=True)),
    "train and eval": (two("train/", 10) | two("eval/", 3), Right({"val": 6}, ("test: 15% of each class of train",))),
    "train and test": (two("train/", 10) | two("test/", 3), Right({"test": 6}, ("val: 15% of each class of train",))),
    "train alone": (two("train/", 10), Right(20, ("val: 15%", "test: 15%"))),
    "val and test alone": (two("val/") | two("test/"), "a folder whose train/ has one folder per class"),
    "train and test without classes": (images("train", 4) | images("test", 4), "train/ has one folder per class"),
    "val twice": (parts() | two("valid/"), "a folder with one val part; val/ and valid/ mean the same"),
    "train twice": (parts() | two("Train/"), "a folder with one train part; Train/ and train/"),
    "a folder without a role": (
        parts() | two("extra/") | two("old/"), Right(GIVEN, ("no part, left out: 2, the first is extra",))),
    "loose files beside the parts": (parts() | {"README": b"x"}, Right(GIVEN, ("left out: README",))),
    "loose files in a part": (parts() | {"val/x.png": 3}, Right(GIVEN, ("in no class folder, left out: val/x.png",))),
    "test without classes": (two("train/") | images("test", 3), "a test part with class folders; it has none"),
    "a class missing in val": (
        parts() | images("train/elk", 3) | images("test/elk", 3),
        Right({"train": 15, "val": 6}, ("classes missing in val/: elk",), ("cat", "dog", "elk"))),
    "a class folder empty in test": (
        parts() | images("train/elk", 3) | images("val/elk", 3) | {"test/elk": None},
        Right({"train": 15, "test": 4}, ("classes missing in test/: elk",), ("cat", "dog", "elk"))),
    "a class that train lacks": (parts() | images("val/elk", 3), r"val/elk: valid is a class of train/"),
    "a class in another case": (parts() | images("val/Cat", 3), r"did you mean cat\?"),
    # links and copies
    "a link to the folder itself": (two() | {"cat/up": ".."}, Right(16, ("would be there twice: cat/up",))),
    "a link to a part above": (
        parts() | {"train/cat/all": "../../train"}, Right(GIVEN, ("not twice: 6, the first is train/cat/all/dog",))),
    "a circle of links": (two() | {"cat/a/b": "../a", "cat/a/c": "../../cat"}, Right(16, ("once and not twice",))),
    "a link to another class": (two() | {"elk": "cat"}, r"elk: valid is a class folder with images"),
    "a link to the root of all": (two() | {"cat/x": "/"}, Right(16, ("folder above, not followed",))),
    "a link to /proc": (two() | {"cat/x": "/proc/self/root"}, Right(16, ("folder above, not followed",))),
    "classes linked from elsewhere": ({"pool/x/" + k: v for k, v in two().items()} | {
        "train/cat": "../pool/x/cat", "train/dog": "../pool/x/dog"}, Right(16, ("no part, left out: pool",))),
    "images linked from a pool": (
        {"pool/" + k: v for k, v in two().items()}
        | {f"train/{c}/{i}.png": f"../../pool/{c}/{i}.png" for c in ("cat", "dog") for i in range(8)},
        Right(16, ("no part, left out: pool",))),
    "a file linked in its class": (two() | {"cat/x.png": "0.png"}, Right(16, ("not twice: cat/x.png",))),
    "a file linked into another class": (two() | {"dog/x.png": "../cat/0.png"}, Right(16, ("not twice: dog/x.png",))),
    "links that lead nowhere": (
        two() | {"cat/x.png": "gone.png", "dog/y": "gone"}, Right(16, ("is missing: 2, the first is cat/x.png",))),
    "a link to itself": (two() | {"cat/x.png": "x.png"}, Right(16, ("missing: cat/x.png",))),
    "val is a link to train": (two("train/", 10) | {"val": "train"}, "images are there twice, the first is val/cat"),
    "val links to train": (two("train/", 10) | COPY, "6 images are there twice"),
    "val is a copy of train": (two("train/", 3) | {k.replace("train", "val"): v for k, v in two("train/", 3).items()},
                               "6 images are there twice, the first is val/cat/0.png, the same as train/cat/0.png"),
    "test holds one of train": (parts() | {"test/cat/x.png": 77, "train/cat/y.png": 77}, "1 images are there twice"),
    "the same, allowed": (
        parts() | {"test/cat/x.png": 77, "train/cat/y.png": 77},
        Right({"train": 13, "test": 5}, ("twice in two parts, kept in both",), knobs={"allow_duplicates": True})),
    "an image twice in a class": (two() | {"cat/x.png": 77, "cat/y.png": 77}, Right(17, ("taken once: cat/y.png",))),
    "the same, both allowed": (
        two() | {"cat/x.png": 77, "cat/y.png": 77}, Right(18, ("kept: cat/y.png",), knobs={"allow_duplicates": True})),
    "an image in two classes": (two() | {"cat/x.png": 77, "dog/y.png": 77}, Right(18, ("twice in two classes",))),
    # files
    "files that are no images": (two() | {"cat/a.db": b"x", "cat/n.txt": b"x"}, Right(16, ("names, left out: 2",))),
    "every ending": (
        images("cat", 3, name="{}.gif") | images("cat", 3, 3, "{}.jp2") | images("cat", 3, 6, "{}.jfif")
        | images("dog", 3, name="{}.avif") | images("dog", 3, 3, "{}.TIFF") | images("dog", 3, 6, "{}.JPG"), Right(18)),
    "photographs of telephones": (two() | {"dog/x.HEIC": b"x"}, r"x.HEIC: valid is an image that is read here \(.heic"),
    "raw photographs": (two() | {"dog/x.nef": b"x"}, r"x.nef: valid is an image that is read here"),
    "drawings": (two() | {"dog/x.svg": b"<svg/>"}, r"x.svg: valid is an image that is read here"),
    "an empty file": (two() | {"dog/x.png": b""}, r"dog/x.png: .*it is empty"),
    "a damaged file": (two() | {"dog/x.png": b"\x89PNG\r\n"}, r"dog/x.png: valid is an image that PIL reads"),
    "a link to memory": (two() | {"dog/x.png": "/proc/self/mem"}, r"dog/x.png: .*empty"),
    # what is in them
    "one flat class": (
        two() | {f"elk/{i}.png": np.full((8, 8), i, np.uint8) for i in range(4)}, f"class elk {ONE_TONE}"),
    "one flat part": (two("train/") | {"val/cat/a.png": FLAT, "val/dog/b.png": FLAT + 9}, f"every image {ONE_TONE}"),
    "one flat image": (two() | {"cat/x.png": FLAT}, Right(17)),
    "floats just beyond 1": (
        {f"{c}/{i}.tif": np.random.default_rng(i + n).uniform(0, 1.001, (8, 8)).astype(np.float32) for n, c in
         ((0, "cat"), (50, "dog")) for i in range(4)} | {"cat/x.tif": np.full((8, 8), 1.001, np.float32)},
        r"one flat tone .*floats were taken as 0 … 255"),
    "grey and colour": (two() | {"cat/x.png": noise(3, (8, 8, 3))}, "valid is a grey image"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_each_folder_is_read_right_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    tree, expected = FOLDERS[name]
    root = build(tmp_path / "set", tree)
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected) as refused:
            about(root)
        assert "\n" not in str(refused.value) and str(refused.value).startswith("data = ")
        return
    found = about(root, **expected.knobs)
    counts = {part: one.images for part, one in found.parts.items()}
    if isinstance(expected.images, int):
        assert sum(counts.values()) == expected.images
    else:
        assert counts.items() >= expected.images.items()
    assert found.classes == expected.classes and found.name == "set"
    said = "\n".join(found.notes)
    assert [note for note in expected.notes if note not in said] == [], said
    assert not (expected.silent and found.notes)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    root = build(tmp_path / "set", two())
    os.mkfifo(root / "cat" / "x.png")
    assert "no files (pipes, sockets, devices), left out: cat/x.png" in "\n".join(about(root).notes)


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, whom chmod does not stop."""
    root, real = build(tmp_path / "set", two()), os.scandir

    def refused(path: str | Path) -> Any:
        if Path(path) == root / "cat":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ConfigError, match="set/cat: valid is a folder that can be read; Permission denied"):
        about(root)


def test_dark_16_bit_colour_is_refused(tmp_path: Path) -> None:
    """PIL hands out the upper byte: of 12 bits it would leave 4."""
    from tests.trainables.rsst.data.image_files import png

    root = build(tmp_path / "set", two())
    dark = noise(0, (8, 8, 3), 4096, np.uint16)
    for name in ("cat", "dog"):
        for file in (root / name).iterdir():
            png(file, 16, 2, dark + hash(file) % 50)
    with pytest.raises(ConfigError, match="16-bit colour that fills its range"):
        about(root)


def test_sizes_colours_and_values_are_said(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number, (width, height) in enumerate([(10, 30), (40, 20), (8, 8), (9, 9)]):
        seeds = {f"{name}/{number}.png": number + 9 * label for label, name in enumerate(("cat", "dog"))}
        build(root, {path: noise(seed, (height, width), 4000, np.uint16) for path, seed in seeds.items()})
    found = about(root)
    assert (found.smallest, found.largest, found.in_chans) == ((8, 8), (40, 20), 1)
    assert found.values == "integers of 0 … 4095 scaled to 0 … 255 by one rule for the set"
    assert found.white == {"integers": 4095} and found.resize == "cover"
