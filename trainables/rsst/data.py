"""Which images a trial sees: named data sets as uint8 tensors, split into train, validation and test by seed.

Comes in: dataset, data (a folder), img_size and seed of an `RSSTConfig`. Goes out: one `ImageData`.
Shape legend: B images, C channels, H height, W width; images are uint8 (B, C, H, W), labels int64 (B,).

| dataset | train / validation / test | where it comes from |
|---|---|---|
| digits | 70 / 15 / 15 % by seed, stratified | shipped: 1,797 grey 8 × 8 images; values 0 … 16 become round(v · 255 / 16) |
| cifar10, cifar100 | 45k / 5k by seed, stratified / the official test set | `cifar.py`: an existing folder, else downloaded once per node |
| folder | train/ val/ test/ as given; what is missing is split by seed, stratified | `folder.py` |
| synthetic | 45,000 / 5,000 / 1,000 random images, 10 classes | drawn by seed; for speed tests only, nothing can be learned |

A data set with its own test part keeps it; test images are never used for training, selection or early stopping.
Large sets are prepared once per node and mapped into memory by every trial (`datastore.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from trainables.rsst.config import RSSTConfig

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetSpec:
    """What the model has to know of a data set before any image is read."""

    name: str
    img_size: int  # native side in pixels; a config's img_size may ask for another one
    in_chans: int  # 1 grey, 3 colour
    num_classes: int
    sweepable: bool = True  # False: speed tests only, a sweep refuses it


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


def describe(dataset: str, data_dir: str | None = None) -> DatasetSpec:
    """The data set's image side, channels and classes; reads no pixels and downloads nothing.

    Raises:
        ConfigError: unknown data set (key dataset), or a folder without classes (key data).
    """
    from trainables.rsst.config import ConfigError

    if dataset == "digits":
        return DatasetSpec("digits", 8, 1, 10)
    raise ConfigError("dataset", dataset, "digits")


def load(config: RSSTConfig) -> ImageData:
    """The images of `config.dataset`, split by `config.seed`, `config.img_size` pixels a side.

    Raises:
        ConfigError: the data can't be had or read, or an image size that the data set can't have (keys dataset, data,
            img_size).
    """
    spec = describe(config.dataset, config.data)
    images, labels = _digits()
    train, val, test = stratified_split(labels, (0.15, 0.15), config.seed)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for part, index in zip(PARTS, (train, val, test), strict=True):
        arrays |= {f"{part}_images": resized(images[index], config.img_size), f"{part}_labels": labels[index]}
    return image_data(spec.name, arrays, spec.num_classes)


def image_data(
    name: str, arrays: Mapping[str, npt.NDArray[np.generic]], num_classes: int, digest: str | None = None
) -> ImageData:
    """An `ImageData` over `arrays`: {train,val,test}_images uint8 (B, C, H, W) and …_labels int64 (B,); no copies."""
    train = arrays["train_images"]
    mean, std = mean_and_std(train)  # type: ignore[arg-type]
    tensors = {key: torch.from_numpy(arrays[key]) for part in PARTS for key in (f"{part}_images", f"{part}_labels")}
    return ImageData(
        name=name, num_classes=num_classes, mean=mean, std=std, digest=digest or digest_of(arrays), **tensors
    )


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
    """Per-channel mean and standard deviation of uint8 (B, C, H, W) scaled to 0 … 1, from exact integer sums."""
    counts = np.stack([np.bincount(images[:, c].ravel(), minlength=256) for c in range(images.shape[1])])
    values = np.arange(256, dtype=np.float64) / 255.0
    mean = counts @ values / counts.sum(axis=1)
    variance = counts @ values**2 / counts.sum(axis=1) - mean**2
    std = np.sqrt(np.maximum(variance, 1e-12))
    return tuple(mean.tolist()), tuple(std.tolist())


def digest_of(arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """16 hex digits of sha256 over names, dtypes, shapes and bytes, sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.data.cast("B"))
    return sha.hexdigest()[:16]


def resized(images: Bytes, side: int) -> Bytes:
    """`images` (B, C, H, W) at `side` × `side` pixels (bilinear, antialiased); the same array when they have it."""
    if images.shape[2:] == (side, side):
        return images
    floats = torch.from_numpy(images).float()
    out = torch.nn.functional.interpolate(floats, size=(side, side), mode="bilinear", antialias=True)
    result: Bytes = out.round().clamp(0, 255).to(torch.uint8).numpy()
    return result


def _digits() -> tuple[Bytes, Labels]:
    """The 1,797 shipped digits: images uint8 (1797, 1, 8, 8) in 0 … 255, labels."""
    with resources.files("trainables.rsst").joinpath("digits.npz").open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        sixteenths, labels = archive["images"], archive["labels"]
    images = np.rint(sixteenths * (255.0 / 16.0)).astype(np.uint8)
    return images[:, None], labels.astype(np.int64)
