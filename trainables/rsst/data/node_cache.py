"""One copy of a prepared data set per node: written once under a lock, mapped into memory by every process.

In: what identifies the set (a JSON-able key) and a function that prepares it. Out: its splits, mapped copy-on-write
from files in the node's cache folder, so that trials share the pages; and its digest and facts.

cache folder:  TUNE_RSST_CACHE, else TUNE_RSST_HOME/cache, else XDG_CACHE_HOME/tune-rsst or ~/.cache/tune-rsst
├── datasets/              downloaded archives (cifar.py)
└── prepared/<key>/        PART_images.npy and PART_labels.npy, manifest.json with the digest over all of them
    prepared/<key>.lock    held while <key> is being prepared; the kernel releases it when its holder dies

A set appears under its name complete or not at all. A set that does not match its digest, or is another's, is prepared
again.
The folder may be deleted at any time: running trials keep what they mapped, later ones prepare it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.progress import after_waiting, lasting, tracked
from trainables.rsst.data.split import Split, Splits
from trainables.storage.files import expanded, open_regular, remove_leftovers, replaced_folder
from trainables.storage.forms import HEX, listed, mapping, record, text
from trainables.storage.locks import held
from trainables.storage.state_files import read_state, write_state

MANIFEST = record(
    {"key": text(HEX), "arrays": listed(text(r"[a-z]{1,20}_(images|labels)")), "facts": mapping(), "digest": text(HEX)}
)
SMALL = 1 << 26  # bytes of a manifest, at most: names of classes, notes
PREPARED_ELSEWHERE = "waiting for images that another process prepares"
AT_ONCE = 2**26  # bytes that are hashed between two looks at the clock


@dataclass(frozen=True)
class Prepared:
    """A data set's splits by part, JSON-able `facts` about it, and the digest over the splits."""

    splits: Splits
    facts: dict[str, Any]
    digest: str


def cache_folder() -> Path:
    """Where this node keeps downloads and prepared sets (not yet made)."""
    if named := os.environ.get("TUNE_RSST_CACHE"):
        return expanded(named)
    if home := os.environ.get("TUNE_RSST_HOME"):
        return expanded(home) / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tune-rsst"


def digest_of(splits: Splits) -> str:
    """16 hex digits of sha256 over the names, dtypes, shapes and bytes of all arrays, sorted by name."""
    sha, arrays = hashlib.sha256(), sorted(_arrays(splits).items())

    def pieces() -> Iterator[memoryview]:
        for name, array in arrays:
            sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            flat = array.reshape(-1).view(np.uint8).data
            yield from (flat[at : at + AT_ONCE] for at in range(0, len(flat), AT_ONCE))

    for piece in tracked("checking the images", pieces(), sum(a.nbytes for _, a in arrays), unit="bytes"):
        sha.update(piece)
    return sha.hexdigest()[:16]


def shared(key: Mapping[str, Any], prepare: Callable[[], tuple[Splits, dict[str, Any]]]) -> Prepared:
    """The set of `key`, from this node's cache; the first process to ask calls `prepare`, the others wait for it.

    `prepare` gives the splits and facts; what it raises goes through, and the next process tries again.

    Raises:
        OSError: the cache folder can't be written.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / "prepared" / name
    found = _mapped(folder)
    if found is None:
        with after_waiting(PREPARED_ELSEWHERE, held(folder.with_suffix(".lock"))):
            found = _mapped(folder)
            if found is None:
                splits, facts = prepare()
                with lasting("writing the images"):
                    _write(folder, splits, facts)
                found = _mapped(folder)
    if found is None:
        raise OSError(f"{folder} does not read back as it was written")
    return found


def _mapped(folder: Path) -> Prepared | None:
    """The whole and undamaged set in `folder`, or None."""
    try:
        manifest = read_state(folder / "manifest.json", MANIFEST, most=SMALL)
        if manifest["key"] != folder.name:
            return None
        arrays = {name: _array(folder / f"{name}.npy") for name in manifest["arrays"]}
        parts = dict.fromkeys(name.rsplit("_", 1)[0] for name in arrays)
        splits = {part: Split.from_numpy(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in parts}
        if digest_of(splits) == manifest["digest"]:
            return Prepared(splits, manifest["facts"], manifest["digest"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, SyntaxError, RuntimeError, MemoryError):
        return None  # missing, or damaged (NumPy reads an array's head as Python): to be prepared
    return None


def _array(path: Path) -> npt.NDArray[Any]:
    open_regular(path).close()
    found: npt.NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return found


def _arrays(splits: Splits) -> dict[str, npt.NDArray[Any]]:
    """The arrays of all parts by the names of their files."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for part, split in splits.items():
        arrays[f"{part}_images"] = np.ascontiguousarray(split.images.numpy())
        arrays[f"{part}_labels"] = np.ascontiguousarray(split.labels.numpy())
    return arrays


def _write(folder: Path, splits: Splits, facts: dict[str, Any]) -> None:
    remove_leftovers(folder.parent, folder.name)  # we hold the lock of this set
    with replaced_folder(folder) as new:
        arrays = _arrays(splits)
        for name, array in arrays.items():
            np.save(new / f"{name}.npy", array)
        manifest = {"key": folder.name, "arrays": sorted(arrays), "facts": facts, "digest": digest_of(splits)}
        write_state(new / "manifest.json", manifest)
