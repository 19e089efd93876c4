"""Images and labels as somebody's arrays: which ones make a data set, and what is wrong with the others.

In: anything that NumPy reads as an array; torch data sets. Out: a `Split` of each part, the names of the classes; or
one line (`Unfit`): what it is, what is valid, what to do. For functions (`own.py`) and for Python (`images.py`).
Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from trainables.rsst.data.split import CHUNK, Split
from trainables.text import shown

Array = npt.NDArray[Any]
Rule = tuple[Callable[[Array], bool], str | Callable[[Array], str]]
"""Whether an array breaks it, and what to do then."""

IMAGES = "uint8 (B, C, H, W) or (B, H, W) with C = 1 or 3, or whole 255ths from 0 to 1 as floats"
NAMES_SHOWN = 5


class Unfit(ValueError):
    """What was given is no data set: `key` (such as train_images), what it is, what is valid, what to do."""

    def __init__(self, key: str, found: str, valid: str, hint: str = "") -> None:
        self.key, self.found, self.valid, self.hint = key, found, valid, hint
        super().__init__(f"{key} = {found}: valid is {valid}" + (f"; {hint}" if hint else ""))


def split_of(part: str, images: Any, labels: Any) -> Split:
    """The images and class numbers of one part, checked; memory is shared where nothing had to change."""
    key = f"{part}_images"
    pixels = _array(key, images, IMAGES)
    _check(key, pixels, IMAGES, _IMAGE_RULES)
    if pixels.dtype != np.uint8:
        pixels = _from_floats(key, pixels)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    key, valid = f"{part}_labels", f"{len(pixels)} whole numbers from 0, one for each image"
    numbers = _array(key, labels, valid)
    _check(key, numbers, valid, _LABEL_RULES)
    if len(numbers) != len(pixels):
        raise Unfit(key, _said(numbers), valid, f"there are {len(pixels)} images")
    return Split.from_numpy(np.require(pixels, requirements=("C", "W")), numbers.astype(np.int64))


def classes_of(parts: Mapping[str, Split], names: Sequence[Any] | None) -> tuple[str, ...]:
    """The names of the classes, which are their numbers where none are given; parts that don't fit are refused."""
    shapes = {part: tuple(split.images.shape[1:]) for part, split in parts.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
        raise Unfit("images", found, "images of one shape (C, H, W) in all parts", "there are images of other shapes")
    whole = "all" if "all" in parts else "train"
    there = np.unique(parts[whole].labels.numpy())
    count = 1 + max(int(split.labels.max()) for split in parts.values())
    if len(there) < 2:
        found = f"all of the class {there[0]}"
        raise Unfit(f"{whole}_labels", found, "labels of at least two classes", "with one there is nothing to learn")
    if names is not None:
        return _named(names, count)
    if len(there) < count:
        gap = next(number for number in range(count) if number >= len(there) or there[number] != number)
        hint = f"no image of {whole} has the class {gap}; number them again, or give classes (their names)"
        raise Unfit("labels", f"up to {count - 1}", "classes numbered from 0 without a gap", hint)
    return tuple(map(str, range(count)))


def _named(names: Any, count: int) -> tuple[str, ...]:
    valid = "a list of names that differ, one for each class"
    if isinstance(names, str | bytes | Mapping) or not hasattr(names, "__iter__"):
        raise Unfit("classes", shown(names), valid, f"labels go up to {count - 1}")
    classes = tuple(map(str, names))
    if len(classes) < count:
        hint = f"labels go up to {count - 1}, and there are {len(classes)} classes"
        raise Unfit("classes", shown(", ".join(classes)), valid, hint)
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise Unfit("classes", shown(", ".join(twice[:NAMES_SHOWN])), valid, "the same name stands there twice")
    return classes


def _array(key: str, values: Any, valid: str) -> Array:
    """`values` as an array; what can't be one is refused."""
    if values is None or isinstance(values, str | bytes | Mapping):
        raise Unfit(key, shown(values), valid, "give an array or a tensor")
    if isinstance(values, np.ma.MaskedArray) and values.mask.any():
        raise Unfit(key, f"{int(values.mask.sum())} masked values", valid, "fill them, or leave those images out")
    try:
        return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        hint = f"{shown(error)}; images of several sizes are to be resized first"
        raise Unfit(key, type(values).__name__, valid, hint) from None


def _check(key: str, array: Array, valid: str, rules: Sequence[Rule]) -> None:
    for broken, hint in rules:
        if broken(array):
            raise Unfit(key, _said(array), valid, hint if isinstance(hint, str) else hint(array))


def _said(array: Array) -> str:
    return f"{array.dtype} {array.shape}"


def _channels_last(array: Array) -> bool:
    return array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3)


def _as_class_numbers(array: Array) -> str:
    if array.dtype.kind == "f":
        whole = bool(np.isfinite(array).all() and (array == np.rint(array)).all())
        return "labels.astype('int64') makes them so" if whole else "they are not whole, or NaN"
    if array.dtype.kind in "OUS":
        return "np.unique(names, return_inverse=True) numbers names"
    return "give them as integers"


_IMAGE_RULES: tuple[Rule, ...] = (
    (lambda a: a.dtype == object, "images of several sizes are to be resized first"),
    (lambda a: a.dtype.kind in "iub" and a.dtype != np.uint8, "give them from 0 to 255, then .astype('uint8')"),
    (lambda a: a.dtype.kind not in "uf", "pixels are numbers"),
    (lambda a: a.ndim not in (3, 4), "one array for all images of a part"),
    (lambda a: not a.size, "there is none"),
    (_channels_last, "channels come first: images.transpose(0, 3, 1, 2)"),
    (lambda a: a.ndim == 4 and a.shape[1] not in (1, 3), "grey images have one channel, colour images three"),
)
_LABEL_RULES: tuple[Rule, ...] = (
    (lambda a: a.dtype.kind not in "iu", _as_class_numbers),
    (lambda a: a.ndim == 2 and a.shape[1] == 1, "labels.reshape(-1) makes them so"),
    (lambda a: a.ndim == 2, "one number for each image; labels.argmax(1) of one-hot rows"),
    (lambda a: a.ndim != 1, "one number for each image"),
    (lambda a: not a.size, "there is none"),
    (lambda a: bool(a.min() < 0), "some are below 0"),
    (lambda a: bool(a.max() > np.iinfo(np.int32).max), "some are no class numbers"),
)


def _from_floats(key: str, images: Array) -> npt.NDArray[np.uint8]:
    """Floats as ToTensor gives them, as the bytes that they were; any other are refused."""
    found = np.empty(images.shape, np.uint8)
    near = 0.1 if images.dtype.itemsize == 2 else 0.01  # half precision holds a 255th that exactly
    for at in range(0, len(images), CHUNK):
        chunk = images[at : at + CHUNK].astype(np.float64)
        if not np.isfinite(chunk).all():
            many = int((~np.isfinite(chunk)).sum())
            raise Unfit(key, f"{_said(images)} with NaN or infinity", IMAGES, f"{many} values from image {at} on")
        least, most = float(chunk.min()), float(chunk.max())
        if least < 0 or most > 1:
            hint = "scale them from 0 to 255, then .astype('uint8'); the trial normalises them itself"
            raise Unfit(key, f"{_said(images)} from {least:g} to {most:g}", IMAGES, hint)
        chunk *= 255.0
        whole = np.rint(chunk)
        if np.abs(chunk - whole).max() > near:
            hint = "give them as they are stored: not normalised, not resized after ToTensor"
            raise Unfit(key, f"{_said(images)} between the 255ths", IMAGES, hint)
        found[at : at + CHUNK] = whole
    return found


def arrays_in(part: str, dataset: Any) -> tuple[Array, Array]:
    """All images and labels of a torch `Dataset`, each item read once, and the first again: it must be the same."""
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise Unfit(part, shown(dataset), "a torch Dataset of pairs (image, label)", "give the data set itself")
    images: list[Array] = []
    labels: list[Any] = []
    for number, item in enumerate(_items(dataset)):
        image, label = _pair(part, number, item)
        if images and (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            hint = f"item 0 is {_said(images[0])}: resize them in the data set's transform"
            raise Unfit(part, f"item {number} is {_said(image)}", "images of one size and type", hint)
        images.append(image)
        labels.append(label)
    if not images:
        raise Unfit(part, "no items", "a data set with images")
    again = _pair(part, 0, next(iter(_items(dataset))))
    if not np.array_equal(images[0], again[0]) or not np.array_equal(labels[0], again[1]):
        hint = "leave random transforms and shuffling out; the knob augment augments"
        raise Unfit(part, "item 0 is another when it is read again", "items that are always the same", hint)
    return np.stack(images), _array(f"{part}_labels", labels, "one whole number for each image")


def _items(dataset: Any) -> Iterator[Any]:
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return (dataset[number] for number in range(len(dataset)))  # torch's Dataset has no end by itself
    return iter(dataset)


def _pair(part: str, number: int, item: Any) -> tuple[Array, Any]:
    """An item as an image (C, H, W) or (H, W) and a label."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        found = f"item {number} is of the type {type(item).__name__}"
        raise Unfit(part, found, "items that are pairs (image, label)", "wrap the data set in one that gives pairs")
    image, label = item
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB"):
            hint = "image.convert('RGB') or .convert('L') in the transform"
            raise Unfit(part, f"item {number} is a PIL image of the mode {image.mode}", "the modes L and RGB", hint)
        pixels = np.asarray(image)
        image = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    label = _array(f"{part}_labels", label, "whole numbers")
    return _array(f"{part}_images", image, IMAGES), label
