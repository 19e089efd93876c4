"""Which images a trial sees: named data sets as uint8 tensors, split into train, validation and test by seed.

In: dataset, data (a folder), img_size, seed and split_seed of an `RSSTConfig`. Out: one `ImageData`.
Shapes: B images, C channels, H height, W width.

| dataset | train / validation / test | where it comes from |
|---|---|---|
| digits | 70 / 15 / 15 % of each class, by seed | shipped: 1,797 grey 8 × 8 images; 0 … 16 become round(v · 255 / 16) |
| cifar10, cifar100 | 45k / 5k by seed, stratified / the official test set | `cifar.py`: a folder, or downloaded once |
| folder | train/ val/ test/ as given; a missing one is split off, 15 % of each class, by seed | `folder/` |
| file.py:function | as given; a missing one is split off, 15 % of each class, by seed | `own.py` |
| synthetic | 45k / 5k / 1k random colour images, 10 classes | drawn by seed: for speed tests, nothing can be learned |

Test images that a set comes with stay its test images; they are never used for training, selection or stopping.
All but the digits and what a function gives are prepared once per node and mapped by every trial (`node_cache.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainables.plugins import is_plugin
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import cifar, own
from trainables.rsst.data.about import CHUNK, AboutImages, Source
from trainables.rsst.data.folder.digests import digests
from trainables.rsst.data.folder.layout import Listing, listing
from trainables.rsst.data.folder.pixels import decoders
from trainables.rsst.data.folder.reading import read
from trainables.rsst.data.folder.repeats import without_repeats
from trainables.rsst.data.node_cache import cache_folder, digest_of, shared
from trainables.rsst.data.sources import CIFAR_HELD_OUT, HELD_OUT, describe, digits, drawn, synthetic
from trainables.rsst.data.split import Split, Splits

PARTS = ("train", "val", "test")
PREPARATION = 3  # to be raised when the same source is prepared into other arrays


@dataclass(frozen=True)
class ImageData:
    """A data set in memory, ready for training, and what is known of it.

    Tensors may be mapped from a shared file: never write into them.
    """

    train: Split
    val: Split
    test: Split
    about: AboutImages

    @property
    def digest(self) -> str:
        """16 hex digits over all images and labels: equal digests mean equal data and equal splits."""
        return self.about.digest

    @property
    def num_classes(self) -> int:
        """Classes that the model tells apart."""
        return len(self.about.classes)


def split_seed(config: RSSTConfig) -> int:
    """The seed that says which images go where: `split_seed` of the config, or its `seed`."""
    return config.seed if config.split_seed is None else config.split_seed


def load(config: RSSTConfig) -> ImageData:
    """The images of `config.dataset`, split by `split_seed`, `config.img_size` pixels a side."""
    if config.dataset == "digits" or is_plugin(config.dataset):  # what a function gives is not known by a key
        splits, source = _prepared(config, None)
        return image_data(source, splits)
    key: dict[str, Any] = {"preparation": PREPARATION, "seed": split_seed(config), "img_size": config.img_size}
    found: Listing | None = None

    def prepare() -> tuple[Splits, dict[str, Any]]:
        splits, source = _prepared(config, found)
        return splits, AboutImages.of(source, splits, digest="").to_json()

    try:
        if config.dataset == "folder":
            found, key["files"] = _files(config)
            key["decoders"] = decoders()
        elif config.dataset == "synthetic":
            key["dataset"] = "synthetic"
        else:
            key |= cifar.identity(config.dataset)
        prepared = shared(key, prepare)
    except OSError as error:
        if Path(str(error.filename or cache_folder())).is_relative_to(cache_folder()):  # not the images' fault
            valid = "a folder for prepared images that can be made and written to"
            raise ConfigError("TUNE_RSST_CACHE", cache_folder(), valid, error.strerror or str(error)) from error
        raise ConfigError("dataset", config.dataset, "a data set that can be read", str(error)) from error
    try:
        about = replace(AboutImages.from_json(prepared.facts), digest=prepared.digest)
        splits = {part: prepared.splits[part] for part in PARTS}
    except (KeyError, TypeError) as error:  # whoever wrote it was another program
        valid = "a folder for prepared images that this version wrote"
        raise ConfigError("TUNE_RSST_CACHE", cache_folder(), valid, f"{error!r}; delete it") from None
    if found is not None:  # what lies beside the images may change, and their folder move
        about = replace(about, name=found.name, notes=(*found.notes, *about.notes))
    return ImageData(**splits, about=about)


def image_data(source: Source, splits: Splits) -> ImageData:
    """An `ImageData` of the splits train, val and test, which are not copied."""
    parts = {part: splits[part] for part in PARTS}
    return ImageData(**parts, about=AboutImages.of(source, parts, digest_of(parts)))


def _files(config: RSSTConfig) -> tuple[Listing, list[Any]]:
    """The files of an image folder, each image once, and all that their pixels depend on."""
    found = listing(config.data)
    paths = [path for files in found.files.values() for path, _ in files]
    digest_of = dict(zip(paths, digests(found.root, paths), strict=True))
    found = without_repeats(found, digest_of, allow=config.allow_duplicates)
    files = [
        (part, str(path.relative_to(found.root)), digest_of[path], label)
        for part, listed in found.files.items()
        for path, label in listed
    ]
    return found, [files, found.classes, found.in_chans]


def _prepared(config: RSSTConfig, found: Listing | None) -> tuple[Splits, Source]:
    """The splits of a named data set, or of the image folder `found`, and what is known of it."""
    side = config.img_size
    if config.dataset == "synthetic":
        spec = describe(config.dataset)
        return synthetic(spec, side, split_seed(config)), drawn(spec, side)
    share = HELD_OUT
    if found is not None:
        given, source = read(found, side)
    else:
        if is_plugin(config.dataset):
            given, source = own.images_of(config.dataset, config.data)
        elif config.dataset == "digits":
            given, source = digits()
        else:
            (given, source), share = cifar.read(config.dataset, config.data), CIFAR_HELD_OUT
        resize = "none" if source.largest == (side, side) else "stretch"
        given, source = {part: resized(one, side) for part, one in given.items()}, replace(source, resize=resize)
    notes = (*source.notes, *_parts_split_off(given, share, split_seed(config)))
    return split(given, config, share), replace(source, notes=notes)


def _parts_split_off(given: Splits, share: float, seed: int) -> list[str]:
    """A line that says which parts are not given and what they are made of."""
    missing = [part for part in ("val", "test") if part not in given]
    whole = "the images" if "all" in given else "train"
    return [f"{part}: {share:.0%} of each class of {whole}, by seed {seed}" for part in missing]


def split(given: Splits, config: RSSTConfig, share: float) -> dict[str, Split]:
    """Train, val and test, from `given` train or all; a part that is not given gets `share` of each class."""
    whole = given["all"] if "all" in given else given["train"]
    missing = [part for part in ("val", "test") if part not in given]
    indices = stratified_split(whole.labels.numpy(), [share] * len(missing), split_seed(config))
    # indexed by NumPy: torch gives a single channel another stride, and bfloat16 convolutions then give other bits
    images, labels = whole.images.numpy(), whole.labels.numpy()
    new = {
        part: Split.from_numpy(images[index], labels[index])
        for part, index in zip(["train", *missing], indices, strict=True)
    }
    splits = {part: new[part] if part in new else given[part] for part in PARTS}
    for part, parted in splits.items():
        if not len(parted):
            hint = f"there are {len(whole)} images to split; give more, or a {part}/ folder"
            raise ConfigError("data", config.data, f"a data set with at least one image in {part}", hint)
    return splits


def stratified_split(labels: npt.NDArray[np.int64], shares: Sequence[float], seed: int) -> list[npt.NDArray[np.int64]]:
    """Indices of [rest, part 1, part 2, …]; part i gets round(n · shares[i]) of each class's n images.

    Which ones: every image draws a 64-bit number from PCG64(seed) (a stream that NumPy keeps for ever, on every
    platform); in each class the smallest go to part 1, the next to part 2, …. Indices come in ascending order.
    """
    rank = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    chosen: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        members = rank[labels[rank] == label]
        start = 0
        for part, share in enumerate(shares, start=1):
            count = int(len(members) * share + 0.5)
            chosen[part].append(members[start : start + count])
            start += count
        chosen[0].append(members[start:])
    return [np.sort(np.concatenate(part)) for part in chosen]


def resized(split: Split, side: int) -> Split:
    """`split` at `side` × `side` pixels (bilinear, antialiased); itself when its images have that size."""
    images = split.images
    if images.shape[2:] == (side, side):
        return split
    out = torch.empty((*images.shape[:2], side, side), dtype=torch.uint8)
    for source, target in zip(images.split(CHUNK), out.split(CHUNK), strict=True):
        scaled = torch.nn.functional.interpolate(source.float(), size=(side, side), mode="bilinear", antialias=True)
        target.copy_(scaled.round().clamp(0, 255))
    return Split(out, split.labels)
