"""Nothing but a regular file is opened, and every walk ends: pipes, devices, the system's folders, circles."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.chaos.fuzz import limited
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.folder import layout
from trainables.rsst.data.folder.digests import digests
from trainables.rsst.data.load import load

BAD_EXIF = b"Exif\0\0MM\x00*\xff\xff\xff\xff" + b"\xff" * 40


def images(root: Path, count: int = 8) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng([number, len(list(root.iterdir()))]).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(noise).save(root / name / f"{number}.png")
    return root


def circle(cat: Path) -> None:
    (cat / "one").symlink_to("two")
    (cat / "two").symlink_to("one")
    (cat / "inner").mkdir()
    (cat / "inner" / "up").symlink_to("..")


# what is made in a class folder, and the remark on it
REMARKED: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (lambda cat: os.mkfifo(cat / "z.png"), "pipes, sockets, devices"),
    "device": (lambda cat: (cat / "z.png").symlink_to("/dev/zero"), "pipes, sockets, devices"),
    "system": (lambda cat: (cat / "z").symlink_to("/proc/self"), "folders of the operating system, not followed"),
    "the whole disk": (lambda cat: (cat / "z").symlink_to("/"), "links to a folder above, not followed"),
    "circles": (circle, "lead nowhere"),
    "nowhere": (lambda cat: (cat / "z.png").symlink_to("nowhere"), "lead nowhere"),
    "too long a link": (lambda cat: (cat / "z.png").symlink_to("x" * 3000), "lead nowhere"),
}


@pytest.mark.parametrize("name", REMARKED)
def test_it_is_left_out_and_said(name: str, tmp_path: Path) -> None:
    make, remark = REMARKED[name]
    make(images(tmp_path / "data") / "cat")
    with limited():
        found = layout.listing(str(tmp_path / "data"))
    assert remark in " ".join(found.notes) and len(found.files["all"]) == 16


@pytest.mark.parametrize("data", ["/proc", "/proc/self/fd", "/sys/class", "/dev", "x" * 300, "/x" * 4000, "/dev/zero"])
def test_no_folder_of_files_is_refused_in_one_line(data: str) -> None:
    with limited(), pytest.raises(ConfigError, match=r"^data = .* valid is (a folder of files|an existing folder)"):
        layout.listing(data)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_an_exif_block_that_can_not_be_read_is_one_line_or_no_matter(ending: str, tmp_path: Path) -> None:
    data = images(tmp_path / "data")
    for damage in (BAD_EXIF, BAD_EXIF[:9], b"Exif\0\0", b"\0" * 20):
        noise = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(noise).save(data / "cat" / f"z.{ending}", exif=damage)
        line, count = "", 17
        try:
            found = load(RSSTConfig.from_knobs({"dataset": "folder", "data": str(data), "arch": "vit_digits"}))
            count = sum(len(part.labels) for part in (found.train, found.val, found.test))
        except ConfigError as error:
            line = str(error)
        assert count == 17 and line.isprintable() and (not line or f"z.{ending}" in line)


def test_folders_of_all_classes_count_against_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(tmp_path / "data")
    for number in range(6):
        (data / ("cat", "dog")[number % 2] / f"d{number}").mkdir()
    monkeypatch.setattr(layout, "MOST_FOLDERS", 6)
    with pytest.raises(ConfigError, match="6 in all"):
        layout.listing(str(data))


def test_a_file_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with limited(), pytest.raises(ConfigError, match="no regular file"):
        digests(tmp_path, [tmp_path / "a.png"])
