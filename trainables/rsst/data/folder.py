"""A folder of images, one subfolder per class.

In: its path and the side that images shall have. Out: splits (train, val, test; or all); class numbers are those of
the sorted class names.

PATH/<class>/**/*.png             one folder: split later, by seed
PATH/train/<class>/**/*.png       given parts: train/, and val/ or test/ where there are such; what is missing is split
                                  off train later, by seed

Images of any size and format that PIL reads: turned upright, shorter side resized (bilinear, antialiased), centre
cropped. The set is grey (C = 1) when the first image of every class is, else colour (C = 3).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS

from trainables.progress import tracked
from trainables.rsst.config import ConfigError
from trainables.rsst.data.about import Source
from trainables.rsst.data.split import Split

GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")
GIVEN_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Listing:
    """The files of an image folder: per part, (path, class number) in a fixed order. One part `all`: not yet split."""

    root: Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[Path, int]]]
    in_chans: int

    def identity(self) -> list[tuple[str, int, int, int]]:
        """Name, size, time of change and class of every file, for the cache's key."""
        everything = [entry for part in sorted(self.files) for entry in self.files[part]]
        stats = [(path, path.stat(), label) for path, label in everything]
        return [(str(p.relative_to(self.root)), s.st_size, s.st_mtime_ns, label) for p, s, label in stats]


def listing(data: str | None) -> Listing:
    """What lies in the folder; opens one image per class."""
    root = Path(data or "")
    if not data or not root.is_dir():
        raise ConfigError("data", data, "an existing folder with one subfolder per class", "give data=PATH")
    parts = [part for part in GIVEN_PARTS if (root / part).is_dir()] if (root / "train").is_dir() else []
    folders = {part: root / part for part in parts} or {"all": root}
    classes = tuple(sorted(p.name for p in next(iter(folders.values())).iterdir() if _is_class(p)))
    if len(classes) < 2:
        found = f"class {classes[0]} alone" if classes else "no class folder"
        valid = "a folder with at least two class folders (PATH/CLASS/*.png or PATH/train/CLASS/*.png)"
        raise ConfigError("data", next(iter(folders.values())), valid, f"there is {found}")
    files = {part: _files(folder, classes) for part, folder in folders.items()}
    firsts = {label: path for path, label in reversed(files[next(iter(folders))])}
    for label, name in enumerate(classes):
        if label not in firsts:
            hint = f"there is none of {', '.join(IMG_EXTENSIONS)}"
            raise ConfigError("data", next(iter(folders.values())) / name, "a class folder with images", hint)
    grey = all(_mode(path) in GREY_MODES for path in firsts.values())
    return Listing(root, classes, files, 1 if grey else 3)


def read(found: Listing, side: int) -> tuple[dict[str, Split], Source]:
    """Every part of `found`, `side` × `side` pixels, and what is known of them."""
    splits, sizes = {}, set()
    with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter's lock
        for part, files in found.files.items():
            images = np.empty((len(files), found.in_chans, side, side), dtype=np.uint8)
            pixels = pool.map(lambda entry: _pixels(entry[0], side, found.in_chans), files)
            what = f"preparing the images ({part})"
            for index, (one, size) in enumerate(tracked(what, pixels, len(files), size=lambda _: 1)):
                images[index] = one
                sizes.add(size)
            splits[part] = Split.from_numpy(images, np.array([label for _, label in files], dtype=np.int64))
    smallest, *_, largest = sorted([*sizes, *sizes], key=lambda size: size[0] * size[1])
    return splits, Source(name="folder", classes=found.classes, smallest=smallest, largest=largest, resize="cover")


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__"))


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    for name in sorted(p.name for p in folder.iterdir() if _is_class(p)):
        if name not in classes:
            raise ConfigError("data", folder / name, f"a class of train/ ({', '.join(classes[:5])} …)")
    return [(path, label) for label, name in enumerate(classes) for path in _images_below(folder / name)]


def _images_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith("."):
                yield Path(place) / name


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def _mode(path: Path) -> str:
    with _open(path) as image:
        return image.mode


def _pixels(path: Path, side: int, in_chans: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """uint8 (C, side, side), and the upright image's width and height."""
    with _open(path) as image:
        if in_chans == 1 and image.mode not in GREY_MODES:
            hint = "the first image of every class is grey: make all of them grey, or those in colour"
            raise ConfigError("data", path, f"a grey image (this one is {image.mode})", hint)
        try:
            upright = ImageOps.exif_transpose(image)
            fitted = ImageOps.fit(_eight_bit(upright, in_chans), (side, side), Image.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise _unreadable(path, error) from error
    pixels = np.asarray(fitted, dtype=np.uint8)
    return pixels[None] if in_chans == 1 else pixels.transpose(2, 0, 1), upright.size


def _eight_bit(image: Image.Image, in_chans: int) -> Image.Image:
    """Grey or colour with 8 bits a channel; 16-bit images lose their lower byte."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
    return image.convert("L" if in_chans == 1 else "RGB")


def _unreadable(path: Path, error: Exception) -> ConfigError:
    first = (str(error) or type(error).__name__).splitlines()[0]
    return ConfigError("data", path, "an image that PIL reads", f"{first}; mend or remove this file")
