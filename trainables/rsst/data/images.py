"""The images of a trial, ready for training: from a named source (`load.py`), from arrays, from a torch `Dataset`.

In: splits, or what somebody has in memory. Out: an `ImageData`.
Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.plugins import ARRAYS
from trainables.rsst.config import ConfigError, checked
from trainables.rsst.data.about import AboutImages, Source
from trainables.rsst.data.arrays import Unfit, arrays_in, classes_of, split_of
from trainables.rsst.data.node_cache import digest_of
from trainables.rsst.data.split import HELD_OUT, PARTS, Split, Splits, in_common, parts_split_off, resized, split_off

NOTE = "they were given as arrays in Python"


@dataclass(frozen=True)
class ImageData:
    """A data set in memory, ready for training, and what is known of it.

    Tensors may be mapped from a shared file: never write into them. `knobs`: of images that were given in Python, the
    knobs that say which ones they are (dataset, img_size, and split_seed where a part was split off).
    """

    train: Split
    val: Split
    test: Split
    about: AboutImages
    knobs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hex digits over all images and labels: equal digests mean equal data and equal splits."""
        return self.about.digest

    @property
    def num_classes(self) -> int:
        """Classes that the model tells apart."""
        return len(self.about.classes)

    @classmethod
    def from_arrays(
        cls,
        train_images: Any,
        train_labels: Any,
        test_images: Any = None,
        test_labels: Any = None,
        val_images: Any = None,
        val_labels: Any = None,
        *,
        classes: Sequence[str] | None = None,
        img_size: int | None = None,
        split_seed: int = 0,
    ) -> ImageData:
        """Images of one's own, as NumPy arrays or tensors; they are copied, so changing them later changes nothing.

        Images: uint8 (B, C, H, W) with C = 1 or 3, or (B, H, W), in 0 … 255; or floats in 0 … 1 that are whole 255ths,
        as ToTensor gives them. They are not normalised: the trial does that, by the mean and deviation of train.
        Labels: whole numbers (B,), from 0 without a gap, or below the number of `classes` (their names, in order).
        A part that is not given gets 15 % of each class of train, by `split_seed`. `img_size`: the side in pixels that
        images are resized to (stretched); their own side where it is None.

        Images that two parts have in common are said in the notes of `about`, and when the trial begins.

        What is no data set is refused in one line (`ConfigError`, a ValueError) with the name of the argument.
        """
        given = {
            "train": (train_images, train_labels),
            "val": (val_images, val_labels),
            "test": (test_images, test_labels),
        }
        try:
            parts = {
                p: split_of(p, *pair)
                for p, pair in given.items()
                if p == "train" or any(one is not None for one in pair)
            }
            names = classes_of(parts, classes)
        except Unfit as unfit:
            raise ConfigError(unfit.key, unfit.found, unfit.valid, unfit.hint) from None
        return cls._of(parts, names, img_size, split_seed)

    @classmethod
    def from_dataset(
        cls,
        train: Any,
        test: Any = None,
        val: Any = None,
        *,
        classes: Sequence[str] | None = None,
        img_size: int | None = None,
        split_seed: int = 0,
    ) -> ImageData:
        """The images of torch data sets (`torch.utils.data.Dataset`), each read once, in order.

        An item is (image, label): a PIL image in grey or RGB, or an array or a tensor (C, H, W) or (H, W) as
        `from_arrays` takes them; all of one size. A random transform is refused: the knob `augment` augments, anew in
        each epoch. `classes`: also taken from the attribute `classes` of train, as torchvision's data sets have it.
        The rest is as for `from_arrays`.
        """
        given = {"train": train, "val": val, "test": test}
        arrays: dict[str, Any] = {}
        try:
            for part, dataset in given.items():
                if part == "train" or dataset is not None:
                    arrays[f"{part}_images"], arrays[f"{part}_labels"] = arrays_in(part, dataset)
        except Unfit as unfit:
            raise ConfigError(unfit.key, unfit.found, unfit.valid, unfit.hint) from None
        names = getattr(train, "classes", None) if classes is None else classes
        return cls.from_arrays(**arrays, classes=names, img_size=img_size, split_seed=split_seed)

    @classmethod
    def _of(cls, parts: dict[str, Split], classes: tuple[str, ...], img_size: int | None, seed: int) -> ImageData:
        _, height, width = parts["train"].images.shape[1:]
        if img_size is None and height != width:
            raise ConfigError("img_size", "none", "a side in pixels", f"the images are {width} × {height}")
        side = height if img_size is None else checked("img_size", img_size)
        seed = checked("split_seed", seed)
        sizes: dict[str, Any] = {"smallest": (width, height), "largest": (width, height)}
        how = "none" if (width, height) == (side, side) else "stretch"
        small = {part: resized(split, side) for part, split in parts.items()}
        splits = split_off(small, seed, data=ARRAYS)
        notes = (NOTE, *in_common(splits), *parts_split_off(parts, HELD_OUT, seed))
        source = Source(name=ARRAYS, classes=classes, resize=how, notes=notes, **sizes)
        theirs = {part: split for part, split in splits.items() if split is parts.get(part)}
        copies = {part: _copy(split) for part, split in theirs.items()}
        made = image_data(source, {**splits, **copies})
        knobs: dict[str, Any] = {"dataset": f"{ARRAYS}@{made.digest}", "img_size": side}
        knobs |= {"split_seed": seed} if len(parts) < len(PARTS) else {}
        return cls(made.train, made.val, made.test, made.about, knobs)


def image_data(source: Source, splits: Splits) -> ImageData:
    """An `ImageData` of the splits train, val and test, which are not copied."""
    parts = {part: splits[part] for part in PARTS}
    return ImageData(parts["train"], parts["val"], parts["test"], AboutImages.of(source, parts, digest_of(parts)))


def _copy(split: Split) -> Split:
    return Split.from_numpy(split.images.numpy().copy(), split.labels.numpy().copy())
