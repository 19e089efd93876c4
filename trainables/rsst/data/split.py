"""The images of one part of a data set and their classes, and how a part that is missing is split off.

In: tensors, or NumPy arrays without copying them. Out: a `Split`, indexed like its tensors; train, val and test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.errors import ConfigError
from trainables.progress import tracked
from trainables.text import counted

PARTS = ("train", "val", "test")
HELD_OUT = 0.15  # share of each class that a missing validation or test part gets
CHUNK = 1024  # images at a time where they need a wider type


@dataclass(frozen=True)
class Split:
    """`images` uint8 (B, C, H, W) in 0 … 255 and `labels` int64 (B,), the class numbers; both on one device."""

    images: Tensor
    labels: Tensor

    @classmethod
    def from_numpy(cls, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Split:
        """A split over the memory of these arrays."""
        return cls(torch.from_numpy(images), torch.from_numpy(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> Split:
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> Split:
        """The split on `device`; itself if it is there already."""
        return Split(self.images.to(device), self.labels.to(device))


Splits = Mapping[str, Split]
"""By part: train, val and test; or some of them; or a part `all` that is not split yet."""


def parts_split_off(given: Splits, share: float, seed: int) -> list[str]:
    """A line for each part that is not given: what it is made of."""
    missing = [part for part in ("val", "test") if part not in given]
    whole = "the images" if "all" in given else "train"
    return [f"{part}: {share:.0%} of each class of {whole}, by seed {seed}" for part in missing]


def in_common(splits: Splits) -> list[str]:
    """A line for each two parts that hold the same images: what is measured on the later one says too much."""
    each: dict[str, set[bytes]] = {part: set() for part in splits}
    images = [(part, image) for part, split in splits.items() for image in split.images.numpy()]
    for part, image in tracked("comparing the parts", images, len(images), size=lambda _: 1):
        each[part].add(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
    found = [(len(each[a] & each[b]), b, a) for a, b in combinations(PARTS, 2)]
    return [f"{counted(n, 'image')} of {b} {'is' if n == 1 else 'are'} in {a} too" for n, b, a in found if n]


def split_off(given: Splits, seed: int, share: float = HELD_OUT, data: str | None = None) -> dict[str, Split]:
    """Train, val and test, from `given` train or all; a part that is not given gets `share` of each class.

    `data` is where the images are from, for the line that refuses those that leave a part without any.
    """
    whole = given["all"] if "all" in given else given["train"]
    missing = [part for part in ("val", "test") if part not in given]
    indices = stratified_split(whole.labels.numpy(), [share] * len(missing), seed)
    # indexed by NumPy: torch gives a single channel another stride, and bfloat16 convolutions then give other bits
    images, labels = whole.images.numpy(), whole.labels.numpy()
    new = {
        part: Split.from_numpy(images[index], labels[index])
        for part, index in zip(["train", *missing], indices, strict=True)
    }
    splits = {part: new[part] if part in new else given[part] for part in PARTS}
    for part, parted in splits.items():
        if not len(parted):
            hint = f"there are {len(whole)} images to split; give more, or the part {part} itself"
            raise ConfigError("data", data, f"a data set with at least one image in {part}", hint)
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
