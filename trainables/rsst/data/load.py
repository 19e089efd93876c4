"""Which images a trial sees: named data sets as uint8 tensors, split into train, validation and test by seed.

Comes in: dataset, data (a folder), img_size and seed of an `RSSTConfig`. Goes out: one `ImageData`.
Shape legend: B images, C channels, H height, W width; images are uint8 (B, C, H, W), labels int64 (B,).

| dataset | train / validation / test | where it comes from |
|---|---|---|
| digits | 70 / 15 / 15 % of each class, by seed | shipped: 1,797 grey 8 × 8 images; 0 … 16 become round(v · 255 / 16) |
| cifar10, cifar100 | 45k / 5k by seed, stratified / the official test set | `cifar.py`: a folder, or downloaded once |
| folder | train/ val/ test/ as given; a missing one is split off, 15 % of each class, by seed | `folder.py` |
| synthetic | 45k / 5k / 1k random colour images, 10 classes | drawn by seed: for speed tests, nothing can be learned |

Test images that a set comes with stay its test images; they are never used for training, selection or stopping.
All but the digits are prepared once per node and mapped into memory by every trial (`node_cache.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import cifar, folder
from trainables.rsst.data.node_cache import Arrays, digest_of, shared
from trainables.rsst.data.sources import Bytes, Labels, _digits, _synthetic, describe

PARTS = ("train", "val", "test")
PREPARATION = 1  # to be raised when the same source is prepared into other arrays


@dataclass(frozen=True)
class ImageData:
    """A data set in memory, ready for training.

    `mean` and `std` (per channel) are those of the train part scaled to 0 … 1; `digest` is 16 hex digits over all
    images and labels, so equal digests mean equal data and equal splits. Tensors may be mapped from a shared file:
    never write into them.
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    val_images: torch.Tensor
    val_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str


def load(config: RSSTConfig) -> ImageData:
    """The images of `config.dataset`, split by `config.seed`, `config.img_size` pixels a side."""
    spec = describe(config.dataset, config.data)
    if config.dataset == "digits":
        images, labels = _digits()
        whole = {"all_images": resized(images, config.img_size), "all_labels": labels}
        return image_data(spec.name, split(whole, config, 0.15), spec.num_classes)
    key: dict[str, Any] = {"preparation": PREPARATION, "seed": config.seed, "img_size": config.img_size}
    if config.dataset == "folder":
        found = folder.listing(config.data)
        key |= {"dataset": "folder", "files": found.identity(), "in_chans": found.in_chans}
    elif config.dataset == "synthetic":
        key |= {"dataset": "synthetic"}
    else:
        key |= cifar.identity(config.dataset)

    def prepare() -> tuple[Arrays, dict[str, Any]]:
        if config.dataset == "folder":
            arrays = split(folder.read(found, config.img_size), config, 0.15)
        elif config.dataset == "synthetic":
            arrays = _synthetic(spec, config.img_size, config.seed)
        else:
            official = cifar.read(config.dataset, config.data)
            at_size = {k: resized(v, config.img_size) if k.endswith("images") else v for k, v in official.items()}
            arrays = split(at_size, config, 0.1)
        mean, std = mean_and_std(arrays["train_images"])
        return arrays, {"mean": mean, "std": std}

    try:
        prepared = shared(key, prepare)
    except OSError as error:
        hint = "set TUNE_RSST_CACHE to a folder that can be written"
        raise ConfigError("dataset", config.dataset, "a data set that can be prepared", f"{error}; {hint}") from error
    mean, std = (tuple(prepared.facts[name]) for name in ("mean", "std"))
    return _as_tensors(spec.name, prepared.arrays, spec.num_classes, mean, std, prepared.digest)


def image_data(name: str, arrays: Arrays, num_classes: int) -> ImageData:
    """An `ImageData` over `arrays`: {train,val,test}_images uint8 (B, C, H, W) and …_labels int64 (B,); no copies."""
    mean, std = mean_and_std(arrays["train_images"])
    return _as_tensors(name, arrays, num_classes, mean, std, digest_of(arrays))


def split(arrays: Mapping[str, Any], config: RSSTConfig, share: float) -> dict[str, Any]:
    """Train, val and test of arrays that may hold them, or a part `all`; a missing part is `share` of each class."""
    source = "all" if "all_images" in arrays else "train"
    given = {key: value for key, value in arrays.items() if not key.startswith(source)}
    missing = [part for part in ("val", "test") if f"{part}_images" not in arrays]
    labels = arrays[f"{source}_labels"]
    indices = stratified_split(labels, [share] * len(missing), config.seed)
    for part, index in zip(["train", *missing], indices, strict=True):
        given |= {f"{part}_images": arrays[f"{source}_images"][index], f"{part}_labels": labels[index]}
    for part in PARTS:
        if not len(given[f"{part}_labels"]):
            hint = f"there are {len(labels)} images to split; give more, or a {part}/ folder"
            raise ConfigError("data", config.data, f"a data set with at least one image in {part}", hint)
    return given


def _as_tensors(
    name: str,
    arrays: Arrays,
    num_classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    digest: str,
) -> ImageData:
    tensors = {key: torch.from_numpy(arrays[key]) for part in PARTS for key in (f"{part}_images", f"{part}_labels")}
    return ImageData(name=name, num_classes=num_classes, mean=mean, std=std, digest=digest, **tensors)


def stratified_split(labels: Labels, shares: Sequence[float], seed: int) -> list[npt.NDArray[np.int64]]:
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


def mean_and_std(images: Bytes) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation of uint8 (B, C, H, W) scaled to 0 … 1, from exact integer counts."""
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for chunk in _chunks(images):
        for channel, count in enumerate(counts):
            count += np.bincount(chunk[:, channel].ravel(), minlength=256)
    values = np.arange(256, dtype=np.float64) / 255.0
    mean = counts @ values / counts.sum(axis=1)
    std = np.sqrt(np.maximum(counts @ values**2 / counts.sum(axis=1) - mean**2, 1e-12))
    return tuple(mean.tolist()), tuple(std.tolist())


def resized(images: Bytes, side: int) -> Bytes:
    """`images` (B, C, H, W) at `side` × `side` pixels (bilinear, antialiased); the same array when they have it."""
    if images.shape[2:] == (side, side):
        return images
    out = np.empty((*images.shape[:2], side, side), dtype=np.uint8)
    done = 0
    for chunk in _chunks(images):
        floats = torch.from_numpy(chunk).float()
        scaled = torch.nn.functional.interpolate(floats, size=(side, side), mode="bilinear", antialias=True)
        out[done : done + len(chunk)] = scaled.round().clamp(0, 255).to(torch.uint8).numpy()
        done += len(chunk)
    return out


def _chunks(images: Bytes) -> list[Bytes]:
    """`images` in slices of 1,024: wider types then need little memory."""
    return [images[at : at + 1024] for at in range(0, len(images), 1024)]
