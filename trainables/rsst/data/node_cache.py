"""One copy of a prepared data set per node: written once under a lock, mapped into memory by every process.

Comes in: what identifies the set (a JSON-able key) and a function that prepares it. Goes out: its arrays, mapped
copy-on-write from files in the node's cache folder, so that trials share the pages; and its digest and facts.

cache folder:  TUNE_RSST_CACHE, else TUNE_RSST_HOME/cache, else XDG_CACHE_HOME/tune-rsst or ~/.cache/tune-rsst
├── datasets/              downloaded archives (cifar.py)
└── prepared/<key>/        one .npy per array, manifest.json with the digest over all of them
    prepared/<key>.lock    held while <key> is being prepared; the kernel releases it when its holder dies

A set appears under its name complete or not at all. A set whose bytes are not those of its digest is prepared anew.
The folder may be deleted at any time: running trials keep what they mapped, later ones prepare it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.storage.files import remove_leftovers, replaced_folder
from trainables.storage.locks import held

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Prepared:
    """A data set's arrays by name, JSON-able `facts` about it, and the digest over the arrays."""

    arrays: Arrays
    facts: dict[str, Any]
    digest: str


def cache_folder() -> Path:
    """Where this node keeps downloads and prepared sets (not yet made)."""
    if named := os.environ.get("TUNE_RSST_CACHE"):
        return Path(named)
    if home := os.environ.get("TUNE_RSST_HOME"):
        return Path(home) / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tune-rsst"


def digest_of(arrays: Arrays) -> str:
    """16 hex digits of sha256 over names, dtypes, shapes and bytes, sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.reshape(-1).view(np.uint8).data)
    return sha.hexdigest()[:16]


def shared(key: Mapping[str, Any], prepare: Callable[[], tuple[Arrays, dict[str, Any]]]) -> Prepared:
    """The set of `key`, from this node's cache; the first process to ask calls `prepare`, the others wait for it.

    `prepare` gives the arrays and facts; what it raises goes through, and the next process tries anew. Raises:
        OSError: the cache folder can't be written.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / "prepared" / name
    found = _mapped(folder)
    if found is None:
        with held(folder.with_suffix(".lock")):
            found = _mapped(folder)
            if found is None:
                _write(folder, *prepare())
                found = _mapped(folder)
    if found is None:
        raise OSError(f"{folder} does not read back as it was written")
    return found


def _mapped(folder: Path) -> Prepared | None:
    """The whole and undamaged set in `folder`, or None."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in manifest["arrays"]}
        if digest_of(arrays) == manifest["digest"]:
            return Prepared(arrays, manifest["facts"], manifest["digest"])
    except (OSError, ValueError, KeyError, EOFError):  # missing, or damaged: to be prepared
        return None
    return None


def _write(folder: Path, arrays: Arrays, facts: dict[str, Any]) -> None:
    remove_leftovers(folder.parent, folder.name)  # we hold the lock of this set
    with replaced_folder(folder) as new:
        for name, array in arrays.items():
            np.save(new / f"{name}.npy", np.ascontiguousarray(array))
        manifest = {"arrays": sorted(arrays), "facts": facts, "digest": digest_of(arrays)}
        (new / "manifest.json").write_text(json.dumps(manifest))
