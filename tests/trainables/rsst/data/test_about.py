"""What was read is said: JSON both ways, lines for people, and in every record of a trial."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainables import toy as toys
from trainables.rsst.config import RSSTConfig
from trainables.rsst.data import sources
from trainables.rsst.data.about import AboutImages, Source
from trainables.rsst.data.load import ImageData, image_data, load
from trainables.rsst.data.split import Split
from trainables.rsst.experiment import run
from trainables.rsst.reports import report_of


def uneven() -> ImageData:
    """Three classes; val has no image of the last."""
    images = torch.arange(6 * 3 * 4 * 4).reshape(6, 3, 4, 4).to(torch.uint8)
    train, val = Split(images, torch.tensor([0, 0, 0, 1, 1, 2])), Split(images[:2], torch.tensor([0, 1]))
    source = Source(name="mine", classes=("cat", "dog", "elk"), smallest=(4, 9), largest=(40, 30), resize="cover")
    return image_data(replace(source, notes=("3 files are no images",)), {"train": train, "val": val, "test": val})


def test_what_was_read_survives_json() -> None:
    about = uneven().about
    assert AboutImages.from_json(json.loads(json.dumps(about.to_json()))) == about


def test_the_lines_say_counts_classes_sizes_and_notes() -> None:
    first, second, third = uneven().about.lines()
    assert first == (
        "images: mine, colour, 3 classes (cat, dog, elk): train 6 (1 to 3 a class), "
        "val 2 (1 a class, 2 of 3 classes), test 2 (1 a class, 2 of 3 classes)"
    )
    assert second.startswith("images: 4 × 9 to 40 × 30 pixels, turned upright, shorter side resized to 4 (bilinear")
    assert second.endswith(uneven().digest) and third == "images: 3 files are no images"


def test_many_classes_are_shortened_in_the_line_only() -> None:
    many = replace(uneven().about, classes=tuple(map(str, range(100))))
    assert "100 classes (0, 1, 2" in many.lines()[0] and ", 18, …)" in many.lines()[0]
    assert len(many.to_json()["classes"]) == 100


@pytest.mark.parametrize(("img_size", "resize"), [(8, "none"), (12, "stretch")])
def test_the_digits_say_how_they_were_prepared(img_size: int, resize: str) -> None:
    about = load(RSSTConfig.from_knobs({"dataset": "digits", "img_size": img_size, "seed": 3})).about
    assert (about.resize, about.img_size, about.in_chans) == (resize, img_size, 1)
    assert about.classes == tuple("0123456789") and about.smallest == about.largest == (8, 8)
    assert about.parts["train"].images == 1259 and "val: 15% of each class of the images, by seed 3" in about.notes


def test_it_comes_back_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "SYNTHETIC_BYTES", 2**20)
    config = RSSTConfig.from_knobs({"dataset": "synthetic", "img_size": 64})
    first, again = load(config).about, load(config).about
    assert first == again and first.digest and first.parts["val"].images > 0


def test_a_trial_begins_with_it_and_its_report_and_state_hold_it(toy: None, tiny: ImageData) -> None:
    start = next(run(toys.config(), tiny))
    assert AboutImages.from_json(start.metrics["images"]) == tiny.about
    assert start.metrics["images"]["digest"] == start.metrics["data_digest"]
    assert report_of(toys.config(), [start])["start"]["images"] == tiny.about.to_json()
    assert start.snapshot().meta["history"][0]["images"] == tiny.about.to_json()
