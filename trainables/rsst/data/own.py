"""A data set of the user's: images and classes from a function `f(data)`, checked and not yet split.

In: a plug-in's value, the knob `data`. Out: splits and what is known of them, as any other source gives them.

The function gives {"train": (images, labels), "val": …, "test": …}; a part that is missing is split off. Or one pair
(images, labels), or {"all": …}: then all parts are. "classes" may hold their names. images: uint8 (B, C, H, W) or
(B, H, W), C = 1 or 3; labels: whole numbers from 0 (B,). Arrays of NumPy or tensors. It is called in each process.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainables.plugins import Address, calling, load, said
from trainables.rsst.data.about import Source
from trainables.rsst.data.split import Split

KEY = "dataset"
PARTS = ("train", "val", "test", "all")


@lru_cache(maxsize=2)
def images_of(dataset: str, data: str | None) -> tuple[dict[str, Split], Source]:
    """The splits that the plug-in `dataset` gives for `data`, and what is known of them.

    Raises:
        PluginError: it raised, or gave something else.
    """
    address = Address.of(dataset)
    assert address is not None, "the value of a plug-in"
    function = load(KEY, dataset, 1)
    with calling(KEY, dataset):
        given = function(data)
        given = dict(given) if isinstance(given, Mapping) else {"all": given}
        names = given.pop("classes", None)
        parts = {str(part): _split(part, pair) for part, pair in given.items()}
        if parts.keys() - set(PARTS) or ("all" in parts) == ("train" in parts) or (len(parts) > 1 and "all" in parts):
            raise _Wrong(f"its parts are {', '.join(parts) or 'none'}, not all, or train with val and test or without")
        shapes = {part: tuple(split.images.shape[1:]) for part, split in parts.items()}
        if len(set(shapes.values())) > 1:
            raise _Wrong(f"its parts have images of other shapes: {shapes}")
        classes = _classes(parts, names)
    _, height, width = next(iter(shapes.values()))
    size = (width, height)
    note = f"they come from {said(dataset)}, code with the digest {address.digest}"
    return parts, Source(name=address.name, classes=classes, smallest=size, largest=size, notes=(note,))


class _Wrong(ValueError):
    """What was given is not what a data set gives."""


def _split(part: Any, pair: Any) -> Split:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise _Wrong(f"{part} is no pair (images, labels)")
    images, labels = map(_array, pair)
    if images.ndim == 3:
        images = images[:, None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        found = f"{images.dtype} {images.shape}"
        raise _Wrong(f"the images of {part} are {found}, not uint8 (B, C, H, W) or (B, H, W) with C = 1 or 3")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1] or labels.min() < 0:
        valid = f"{len(images)} whole numbers from 0"
        raise _Wrong(f"the labels of {part} are {labels.dtype} {labels.shape}, not {valid}")
    return Split.from_numpy(np.ascontiguousarray(images), labels.astype(np.int64))


def _array(values: Any) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _classes(parts: Mapping[str, Split], names: Any) -> tuple[str, ...]:
    """The names of the classes, which are their numbers where none are given."""
    count = 1 + max(int(split.labels.max()) for split in parts.values())
    classes = tuple(map(str, range(count) if names is None else names))
    if len(classes) < max(count, 2):
        raise _Wrong(f"labels go up to {count - 1}, and there are {len(classes)} classes")
    return classes
