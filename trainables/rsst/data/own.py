"""A data set of the user's: images and classes from a function `f(data)`, checked and not yet split.

In: a plug-in's value, the knob `data`. Out: splits and what is known of them, as any other source gives them.

The function gives {"train": (images, labels), "val": …, "test": …}; a part that is missing is split off. Or one pair
(images, labels), or {"all": …}: then all parts are. "classes" may hold their names. What images and labels may be:
`arrays.py`. It is called in each process.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from trainables.plugins import Address, calling, load, said
from trainables.rsst.data.about import Source
from trainables.rsst.data.arrays import classes_of, split_of
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
        parts = {str(part): _split(str(part), pair) for part, pair in given.items()}
        if parts.keys() - set(PARTS) or ("all" in parts) == ("train" in parts) or (len(parts) > 1 and "all" in parts):
            raise ValueError(
                f"its parts are {', '.join(parts) or 'none'}, not all, or train with val and test or without"
            )
        classes = classes_of(parts, names)
    _, height, width = next(iter(parts.values())).images.shape[1:]
    size = (width, height)
    note = f"they come from {said(dataset)}, code with the digest {address.digest}"
    return parts, Source(name=address.name, classes=classes, smallest=size, largest=size, notes=(note,))


def _split(part: str, pair: Any) -> Split:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{part} is no pair (images, labels)")
    return split_of(part, *pair)
