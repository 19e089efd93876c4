"""Which images a trial sees: named data sets as uint8 tensors, split into train, validation and test by seed.

In: dataset, data (a folder), img_size, seed and split_seed of an `RSSTConfig`. Out: one `ImageData`.
Shapes: B images, C channels, H height, W width.

| dataset | train / validation / test | where it comes from |
|---|---|---|
| digits | 70 / 15 / 15 % of each class, by seed | shipped: 1,797 grey 8 × 8 images; 0 … 16 become round(v · 255 / 16) |
| cifar10, cifar100 | 45k / 5k by seed, stratified / the official test set | `cifar.py`: a folder, or downloaded once |
| folder | train/ val/ test/ as given; a missing one is split off, 15 % of each class, by seed | `folder/` |
| file.py:function | as given; a missing one is split off, 15 % of each class, by seed | `own.py` |
| arrays | as given, or split off | from Python alone: `images.py` |
| synthetic | 45k / 5k / 1k random colour images, 10 classes | drawn by seed: for speed tests, nothing can be learned |

Test images that a set comes with stay its test images; they are never used for training, selection or stopping.
All but the digits and what a function gives are prepared once per node and mapped by every trial (`node_cache.py`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables.plugins import is_plugin
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import cifar, own
from trainables.rsst.data.about import AboutImages, Source
from trainables.rsst.data.folder.digests import digests
from trainables.rsst.data.folder.layout import Listing, listing
from trainables.rsst.data.folder.pixels import decoders
from trainables.rsst.data.folder.reading import read
from trainables.rsst.data.folder.repeats import without_repeats
from trainables.rsst.data.images import ImageData as ImageData
from trainables.rsst.data.images import image_data as image_data
from trainables.rsst.data.node_cache import cache_folder, shared
from trainables.rsst.data.sources import CIFAR_HELD_OUT, describe, digits, drawn, synthetic
from trainables.rsst.data.split import HELD_OUT, Splits, in_common, parts_split_off, resized, split_off
from trainables.rsst.data.split import PARTS as PARTS

PREPARATION = 3  # to be raised when the same source is prepared into other arrays


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
    return ImageData(splits["train"], splits["val"], splits["test"], about)


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
    splits = split_off(given, split_seed(config), share, config.data)
    common = in_common(splits) if is_plugin(config.dataset) else []  # of a folder by its files
    notes = (*source.notes, *common, *parts_split_off(given, share, split_seed(config)))
    return splits, replace(source, notes=notes)
