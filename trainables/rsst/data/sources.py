"""Which data sets there are, and the two that need no file of the user: digits and synthetic.

In: the name of a data set. Out: its `DatasetSpec`, its images as splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from trainables.plugins import is_plugin
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.config.presets import DATASETS
from trainables.rsst.data import cifar, own
from trainables.rsst.data.about import Source
from trainables.rsst.data.folder.layout import listing
from trainables.rsst.data.split import HELD_OUT, Split

CIFAR_HELD_OUT = 0.1
SYNTHETIC_BYTES = 2**28  # larger images come in smaller numbers
SIXTEENTHS = "stored 0 … 16 became round(v · 255 / 16)"
RANDOM = "random pixels, drawn by seed: for speed tests, nothing can be learned"


@dataclass(frozen=True)
class DatasetSpec:
    """What the model has to know of a data set before any image is read."""

    name: str
    img_size: int  # native side in pixels; a config's img_size may ask for another one
    in_chans: int  # 1 grey, 3 colour
    num_classes: int
    sweepable: bool = True  # False: speed tests only, a sweep refuses it


def describe(dataset: str, data_dir: str | None = None) -> DatasetSpec:
    """The data set's image side, channels and classes; reads no pixels and downloads nothing."""
    if dataset == "digits":
        return DatasetSpec(dataset, 8, 1, 10)
    if is_plugin(dataset):
        splits, source = own.images_of(dataset, data_dir)
        first = next(iter(splits.values())).images
        return DatasetSpec(source.name, max(source.largest), first.shape[1], len(source.classes))
    if dataset in cifar.CLASSES:
        return DatasetSpec(dataset, 32, 3, 100 if dataset == "cifar100" else 10)
    if dataset == "synthetic":
        return DatasetSpec(dataset, 32, 3, 10, sweepable=False)
    if dataset == "folder":
        found = listing(data_dir)
        return DatasetSpec(dataset, 32, found.in_chans, len(found.classes))
    raise ConfigError("dataset", dataset, " or ".join(DATASETS))


def digits() -> tuple[dict[str, Split], Source]:
    """The 1,797 shipped digits, 1 × 8 × 8 pixels, not yet split."""
    with resources.files("trainables.rsst.data").joinpath("digits.npz").open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        sixteenths, labels = archive["images"], archive["labels"]
    images = np.rint(sixteenths * (255.0 / 16.0)).astype(np.uint8)
    source = Source(name="digits", classes=tuple("0123456789"), smallest=(8, 8), largest=(8, 8), values=SIXTEENTHS)
    return {"all": Split.from_numpy(images[:, None], labels.astype(np.int64))}, source


def synthetic(spec: DatasetSpec, side: int, seed: int) -> dict[str, Split]:
    """Random pixels in CIFAR's shape and numbers; fewer where 51,000 images would take more than SYNTHETIC_BYTES."""
    each = spec.in_chans * side * side
    share = min(1.0, SYNTHETIC_BYTES / (51_000 * each))
    stream = np.random.PCG64(seed)
    splits = {}
    for part, count in (("train", 45_000), ("val", 5_000), ("test", 1_000)):
        count = max(int(count * share), 10)
        pixels = stream.random_raw(-(-count * each // 8)).view(np.uint8)[: count * each]
        images = pixels.reshape(count, spec.in_chans, side, side)
        splits[part] = Split.from_numpy(images, np.arange(count, dtype=np.int64) % spec.num_classes)
    return splits


def drawn(spec: DatasetSpec, side: int) -> Source:
    """What there is to say of synthetic images."""
    classes = tuple(map(str, range(spec.num_classes)))
    return Source(name=spec.name, classes=classes, smallest=(side, side), largest=(side, side), notes=(RANDOM,))


def train_images(config: RSSTConfig) -> tuple[int, int]:
    """(training, validation) images of the data set; of a folder from its files' names, without their pixels."""
    if config.dataset == "folder":
        files = listing(config.data).files
        total = len(files["train"] if "train" in files else files["all"])
        given = {part: len(files[part]) for part in ("val", "test") if part in files}
        return _shared_out(total, given)
    if is_plugin(config.dataset):
        lengths = {part: len(split) for part, split in own.images_of(config.dataset, config.data)[0].items()}
        return _shared_out(sum(lengths.get(part, 0) for part in ("all", "train")), lengths)
    if config.dataset == "digits":
        return 1259, 269
    return 45_000, 5_000


def _shared_out(total: int, given: Mapping[Any, int]) -> tuple[int, int]:
    """(training, validation) images of `total`, of which parts that are not `given` are split off."""
    missing = [part for part in ("val", "test") if part not in given]
    return round(total * (1 - HELD_OUT * len(missing))), given.get("val", round(total * HELD_OUT))
