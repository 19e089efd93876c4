"""One image file: what it stores, and its 8-bit pixels.

In: a path, the side that the image shall have, what was decided for the whole set.
Out: uint8 pixels and remarks; or one line that names the file, for what can't be taken exactly.

| stored | becomes |
|---|---|
| 1 to 8 bits a channel, palettes | the value itself (two levels: 0 and 255) |
| alpha, transparent colours | laid on white |
| CMYK, YCbCr, HSV | RGB by the usual formulas; no colour profile is applied |
| integers, in one channel | round(v · 255 / white): the least of WHITES that holds all of the set |
| floats, 0 … 1 in all of the set | round(255 · v) |
| floats with larger values | as integers |
| 16 bits a channel in colour | the upper 8 bits, which is all that PIL reads |

Refused: negative values, NaN, more than 65535, Lab, signed or min-is-white TIFFs that PIL would misread,
transparency in more than 8 bits. Of several frames or pages the first is taken.
"""

from __future__ import annotations

import functools
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin, features

from trainables.rsst.config import ConfigError
from trainables.storage.files import open_regular
from trainables.text import shown

EIGHT_BIT_MODES = ("1", "L", "P", "RGB", "RGBX", "LA", "La", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")
GREY_MODES = ("1", "L", "LA", "La", "I", "F")
WHITES = (255, 1023, 4095, 16383, 65535)
DARKEST_16_BIT = 64  # upper bytes below it: the 16 bits hold 14 or fewer, and too little is left of them
# Those that another program would have to draw, and those that PIL knows by name only.
NOT_READ = ("EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC")
NOT_KNOWN = """.heic .heif .hif .jxl .jxr .wdp .raw .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .pef
.srw .x3f .3fr .exr .hdr .svg .svgz .xcf .bpg .flif .pict .pct .ai .cdr"""
_here = threading.local()


@dataclass(frozen=True)
class Stored:
    """What a file's values are: `kind` is bytes, integers or floats; for the last two the range that they have."""

    kind: str
    lowest: float = 0.0
    highest: float = 255.0


@dataclass(frozen=True)
class Pixels:
    """uint8 (C, side, side), width and height of the upright original, and what there is to remark."""

    values: npt.NDArray[np.uint8]
    size: tuple[int, int]
    remarks: tuple[str, ...]
    upper_byte: int | None = None
    """The largest, where a colour image has 16 bits a channel."""


@functools.cache
def _formats() -> tuple[str, ...]:
    """What PIL decodes itself."""
    Image.init()
    return tuple(name for name in Image.OPEN if name not in NOT_READ)


@functools.cache
def suffixes() -> frozenset[str]:
    """Endings of files that are taken for images and read."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in _formats())


@functools.cache
def unreadable_suffixes() -> frozenset[str]:
    """Endings of files that are images to their owner but can't be read here."""
    drawn = (suffix for suffix, name in Image.registered_extensions().items() if name in ("EPS", "WMF"))
    return frozenset((*drawn, *NOT_KNOWN.split())) - suffixes()


def decoders() -> dict[str, str]:
    """Versions of what the pixels depend on."""
    names = ("pil", "jpg", "jpg_2000", "libtiff", "webp", "avif")
    return {name: str(features.version(name)) for name in names}


@contextmanager
def warnings_remarked() -> Iterator[None]:
    """PIL's warnings become remarks of the image that the same thread decodes, and are not printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: _said().append(str(message))
        yield


def is_grey(path: Path) -> bool:
    """Whether the image has one channel of brightness; reads its head only."""
    with warnings_remarked(), _opened(path) as image:
        return _is_grey(image)


def stored(path: Path) -> Stored:
    """What the file stores; decodes it only where that is more than 8 bits in one channel."""
    with _opened(path) as image:
        _refuse_what_is_misread(path, image)
        if image.mode in EIGHT_BIT_MODES:
            return Stored("bytes")
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise ConfigError("data", shown(path), "an image of numbers", "it holds NaN or infinite values")
        return Stored("floats" if image.mode == "F" else "integers", float(values.min()), float(values.max()))


def whites(found: Iterable[tuple[Path, Stored]]) -> dict[str, float]:
    """The stored value that becomes 255, for each kind beyond 8 bits; one for the whole set."""
    decided: dict[str, float] = {}
    for path, one in found:
        if one.kind == "bytes":
            continue
        if one.lowest < 0 or one.highest > WHITES[-1]:
            valid = f"an image with values of 0 … {WHITES[-1]}"
            hint = f"its {one.kind} are {one.lowest:g} … {one.highest:g}: scale all of the set alike, save 8 or 16 bits"
            raise ConfigError("data", shown(path), valid, hint)
        least = 1.0 if one.kind == "floats" and one.highest <= 1 else next(w for w in WHITES if w >= one.highest)
        decided[one.kind] = max(decided.get(one.kind, 0.0), float(least))
    return decided


def pixels(path: Path, side: int, in_chans: int, white: Mapping[str, float]) -> Pixels:
    """The image as the trial sees it: upright, shorter side resized (bilinear, antialiased), centre cropped."""
    with _opened(path) as image:
        if in_chans == 1 and not _is_grey(image):
            hint = "the first image of every class is grey: make all of them grey, or those in colour"
            raise ConfigError("data", shown(path), f"a grey image (this one is {image.mode})", hint)
        remarks = ["grey, repeated in three channels"] if in_chans == 3 and _is_grey(image) else []
        upper_half_only = _has_16_bits_in_colour(image)  # before it is decoded
        upright = ImageOps.exif_transpose(image)
        eight, transparent = _eight_bit(upright, white)
        if transparent:
            remarks.append("transparent in places, laid on white")
        if image.mode == "CMYK":
            remarks.append("CMYK, turned into RGB without a colour profile")
        if getattr(image, "is_animated", False):
            remarks.append("with several frames or pages, of which the first is taken")
        upper_byte = int(np.asarray(upright).max()) if upper_half_only else None
        if upper_half_only:
            remarks.append("16 bits a channel in colour, of which the upper 8 are taken")
        fitted = ImageOps.fit(eight.convert("L" if in_chans == 1 else "RGB"), (side, side), Image.Resampling.BILINEAR)
        values = np.asarray(fitted, dtype=np.uint8)
        values = values[None] if in_chans == 1 else values.transpose(2, 0, 1)
        warned = (f"read with a warning of PIL ({re.sub('[0-9]+', 'N', line)})" for line in _said())
        return Pixels(values, upright.size, (*remarks, *dict.fromkeys(warned)), upper_byte)


def _said() -> list[str]:
    """The warnings that this thread got for its present image."""
    if not hasattr(_here, "said"):
        _here.said = []
    said: list[str] = _here.said
    return said


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file; whatever PIL raises, also later, becomes one line that names the file."""
    _said().clear()
    try:
        with open_regular(path) as file, Image.open(file, formats=_formats()) as image:
            yield image
    except (ConfigError, MemoryError):
        raise
    except Exception as error:  # a damaged file gets any error of the language out of its decoder
        said = re.sub(r"<_io[^>]*>", lambda _: shown(path.name), shown(error))  # PIL names the open file
        hint = f"{said}; mend or remove this file"
        raise ConfigError("data", shown(path), "an image that PIL reads", hint) from error


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA") and image.palette is not None:
        colours = np.array(image.getpalette("RGB") or [0, 0, 1]).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in GREY_MODES or image.mode.startswith("I;16")


def _has_16_bits_in_colour(image: Image.Image) -> bool:
    return image.mode in EIGHT_BIT_MODES and _raw_is_16_bit(image)


def _raw_is_16_bit(image: Image.Image) -> bool:
    return any(";16" in str(tile[3]) or tile[0] == "SGI16" for tile in getattr(image, "tile", ()))


def _refuse_what_is_misread(path: Path, image: Image.Image) -> None:
    """Values that PIL would hand out as if they were others."""
    wide = image.mode not in EIGHT_BIT_MODES
    found = ""
    if wide and not (image.mode in ("I", "F") or image.mode.startswith("I;16")):
        found = f"mode {image.mode}"
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags: Mapping[int, Any] = image.tag_v2
        if wide and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
            found = "a TIFF of more than 8 bits where 0 means white"
        if 2 in np.atleast_1d(tags.get(TiffImagePlugin.SAMPLEFORMAT, 1)) and image.mode != "I":
            found = "a TIFF of signed values"
    if "transparency" in image.info and (wide or _raw_is_16_bit(image)):
        found = "a transparent colour in more than 8 bits"
    if found:
        hint = f"this is {found}: save it as 8-bit RGB or grey"
        raise ConfigError("data", shown(path), "an image whose values have one meaning", hint)


def _eight_bit(image: Image.Image, white: Mapping[str, float]) -> tuple[Image.Image, bool]:
    """`image` with 8 bits a channel and no alpha, and whether there was any transparency."""
    if image.mode not in EIGHT_BIT_MODES:
        top = white["floats" if image.mode == "F" else "integers"]
        scaled = np.rint(np.asarray(image).astype(np.float64) * (255.0 / top))
        return Image.fromarray(scaled.astype(np.uint8)), False
    if not image.has_transparency_data and image.mode not in ("La", "RGBa"):
        return image, False
    if image.mode in ("La", "PA"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    full = image.convert("RGBA")
    lowest = full.getchannel("A").getextrema()[0]
    return Image.alpha_composite(Image.new("RGBA", full.size, "white"), full).convert("RGB"), lowest != 255
