"""The images of one part of a data set and their classes: what every source gives and every batch is taken from.

In: tensors, or NumPy arrays without copying them. Out: a `Split`, indexed like its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


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
