"""What was read: the facts of a data set that go into a trial's records and with its model wherever that goes.

In: what a source knows of its images (`Source`), the splits made of them, their digest.
Out: an `AboutImages`: JSON both ways, and lines for people. Whoever uses a trained model takes the preparation of an
image from here; the images themselves may have changed or gone since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch

from trainables.rsst.data.split import CHUNK, Split, Splits

RESIZE = {
    "none": "not resized",
    "stretch": "resized to {0} × {0} (bilinear, antialiased)",
    "cover": "turned upright, shorter side resized to {0} (bilinear, antialiased), centre cropped to {0} × {0}",
}
EIGHT_BIT = "8 bits a channel, as stored"
NAMES_SHOWN = 20  # class names in a line; the records hold all


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of the images as they were stored.

    `classes` in the order of their numbers; sizes are (width, height) in pixels, the smallest and largest by area;
    `resize` is a key of RESIZE; `values` says how stored values became 0 … 255, `white` which integer or float became
    255, where there are such; `notes` are lines that say what was decided without being asked.
    """

    name: str
    classes: tuple[str, ...]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    resize: str = "none"
    values: str = EIGHT_BIT
    white: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartCounts:
    """Images and classes of one part; the numbers of images of its smallest and its largest class."""

    images: int
    classes: int
    fewest: int
    most: int

    @classmethod
    def of(cls, split: Split) -> PartCounts:
        """The counts of `split`; a class without an image counts for none."""
        each = np.unique(split.labels.numpy(), return_counts=True)[1]
        return cls(len(split), len(each), int(each.min()), int(each.max()))

    def text(self, classes: int) -> str:
        """ "120 (40 a class)", "30 (8 to 12 a class, 2 of 3 classes)"."""
        each = f"{self.fewest:,}" if self.fewest == self.most else f"{self.fewest:,} to {self.most:,}"
        some = f", {self.classes} of {classes} classes" if self.classes < classes else ""
        return f"{self.images:,} ({each} a class{some})"


@dataclass(frozen=True, kw_only=True)
class AboutImages(Source):
    """All that is known of the images that a trial sees.

    `mean` and `std` (per channel) are those of the train part scaled to 0 … 1; `digest` is 16 hex digits over all
    images and labels, so equal digests mean equal data and equal splits.
    """

    parts: Mapping[str, PartCounts]
    in_chans: int
    img_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str

    @classmethod
    def of(cls, source: Source, splits: Splits, digest: str) -> AboutImages:
        """What `source` says and what the prepared `splits` show."""
        train = splits["train"].images
        mean, std = mean_and_std(train)
        parts = {part: PartCounts.of(split) for part, split in splits.items()}
        _, channels, _, side = train.shape
        measured: dict[str, Any] = {"in_chans": channels, "img_size": side, "mean": mean, "std": std}
        return cls(**vars(source), parts=parts, **measured, digest=digest)

    @property
    def how_resized(self) -> str:
        """The rule for the size in words."""
        return RESIZE[self.resize].format(self.img_size)

    def to_json(self) -> dict[str, Any]:
        """Equal to what is read back from JSON; `how_resized` is in it for whoever reads it."""
        found: dict[str, Any] = json.loads(json.dumps({**asdict(self), "how_resized": self.how_resized}))
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> AboutImages:
        """What `to_json` made, or the JSON of it."""
        known = {one.name: found[one.name] for one in fields(cls)}
        tuples = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        parts = {part: PartCounts(**counts) for part, counts in found["parts"].items()}
        return cls(**{**known, **tuples, "parts": parts})

    def lines(self) -> list[str]:
        """What to tell before the first epoch, the most important first."""
        shown = self.classes if len(self.classes) <= NAMES_SHOWN else (*self.classes[: NAMES_SHOWN - 1], "…")
        colour = "grey" if self.in_chans == 1 else "colour"
        counts = ", ".join(f"{part} {counts.text(len(self.classes))}" for part, counts in self.parts.items())
        smallest, largest = (f"{width} × {height}" for width, height in (self.smallest, self.largest))
        sizes = smallest if smallest == largest else f"{smallest} to {largest}"
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (self.mean, self.std))
        return [
            f"images: {self.name}, {colour}, {len(self.classes)} classes ({', '.join(shown)}): {counts}",
            f"images: {sizes} pixels, {self.how_resized}; {self.values}; mean {mean}, std {std}; digest {self.digest}",
            *(f"images: {note}" for note in self.notes),
        ]


def mean_and_std(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation of uint8 (B, C, H, W) scaled to 0 … 1, from exact integer counts."""
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for piece in images.split(CHUNK):
        chunk = piece.numpy()
        for channel, count in enumerate(counts):
            count += np.bincount(chunk[:, channel].ravel(), minlength=256)
    values = np.arange(256, dtype=np.float64) / 255.0
    mean = counts @ values / counts.sum(axis=1)
    std = np.sqrt(np.maximum(counts @ values**2 / counts.sum(axis=1) - mean**2, 1e-12))
    return tuple(mean.tolist()), tuple(std.tolist())
