"""The images of a folder as arrays: every file decoded, at one size, and looked at as a whole.

In: a listing and the side that the images shall have. Out: splits (train, val, test; or all), and what is known of
them. What was lost on the way to 8 bits shows in the whole: a class of train, or a part, of which every image is one
flat tone is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from trainables.progress import tracked
from trainables.rsst.config import ConfigError
from trainables.rsst.data.about import EIGHT_BIT, Source
from trainables.rsst.data.folder.layout import Listing
from trainables.rsst.data.folder.pixels import DARKEST_16_BIT, pixels, stored, warnings_remarked, whites
from trainables.rsst.data.folder.remarks import Remarks
from trainables.rsst.data.split import CHUNK, Split
from trainables.text import shown

FLATTEST = 1.0  # standard deviation of an image in steps of 8 bits; below it the image is one tone
Result = TypeVar("Result")


def read(found: Listing, side: int) -> tuple[dict[str, Split], Source]:
    """Every part of `found`, `side` × `side` pixels, and what is known of them."""
    splits: dict[str, Split] = {}
    remarks, sizes = Remarks(found.root), set[tuple[int, int]]()
    with warnings_remarked():
        kinds, white = _stored(found)
        brightest: dict[Path, int] = {}
        for part, files in found.files.items():
            images = np.empty((len(files), found.in_chans, side, side), dtype=np.uint8)
            paths = [path for path, _ in files]
            decoded = _each(f"preparing the images ({part})", lambda p: pixels(p, side, found.in_chans, white), paths)
            for index, one in enumerate(decoded):
                images[index] = one.values
                sizes.add(one.size)
                for remark in one.remarks:
                    remarks.add(remark, paths[index])
                if one.upper_byte is not None:
                    brightest[paths[index]] = one.upper_byte
            labels = np.array([label for _, label in files], dtype=np.int64)
            _refuse_flat(found, part, images, labels, white)
            splits[part] = Split.from_numpy(images, labels)
    _refuse_dark(brightest)
    smallest, *_, largest = sorted([*sizes, *sizes], key=lambda size: (size[0] * size[1], size))
    source = Source(
        name=found.name,
        classes=found.classes,
        smallest=smallest,
        largest=largest,
        resize="cover",
        values=_in_words(kinds, white),
        white=white,
        notes=remarks.lines(),
    )
    return splits, source


def _stored(found: Listing) -> tuple[Counter[str], dict[str, float]]:
    """How many files store which kind of values, and what becomes white."""
    paths = [path for files in found.files.values() for path, _ in files]
    ranges = list(zip(paths, _each("looking at the images", stored, paths), strict=True))
    return Counter(one.kind for _, one in ranges), whites(ranges)


def _each(what: str, look: Callable[[Path], Result], paths: list[Path]) -> Iterator[Result]:
    """`look(path)` of each path, in order; PIL decodes outside the interpreter's lock."""
    with ThreadPoolExecutor() as pool:
        try:
            yield from tracked(what, pool.map(look, paths), len(paths), size=lambda _: 1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _in_words(kinds: Counter[str], white: Mapping[str, float]) -> str:
    """How stored values became 8 bits."""
    words = {"bytes": EIGHT_BIT} | {
        kind: f"{kind} of 0 … {top:g} scaled to 0 … 255 by one rule for the set" for kind, top in white.items()
    }
    if len(kinds) == 1:
        return words[next(iter(kinds))]
    return ", ".join(f"{count:,} with {words[kind]}" for kind, count in sorted(kinds.items()))


def _refuse_dark(brightest: Mapping[Path, int]) -> None:
    """Of 16 bits a channel PIL hands out the upper 8: where those are nearly empty, the image is lost."""
    if brightest and (most := max(brightest.values())) < DARKEST_16_BIT:
        hint = f"the largest upper byte of all such files is {most}: scale the set to the full 16 bits, or save 8 bits"
        raise ConfigError("data", shown(next(iter(brightest))), "16-bit colour that fills its range", hint)


def _refuse_flat(
    found: Listing, part: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], white: Mapping[str, float]
) -> None:
    chunks = [images[at : at + CHUNK].astype(np.float32) for at in range(0, len(images), CHUNK)]
    flat = np.concatenate([chunk.std(axis=(2, 3)).max(axis=1) < FLATTEST for chunk in chunks] or [np.zeros(0, bool)])
    lost = [f"class {shown(name)}" for label, name in enumerate(found.classes) if flat[labels == label].all()]
    if len(flat) and (flat.all() or (lost and part in ("all", "train"))):
        what = "every image" if flat.all() else f"every image of {lost[0]}"
        stored_as = "".join(f"; {kind} were taken as 0 … {top:g}" for kind, top in white.items())
        hint = f"{what} is one flat tone at this size{stored_as}: look at how they were written"
        place = found.root if part == "all" else found.root / part
        raise ConfigError("data", shown(place), "images that show something", hint)
