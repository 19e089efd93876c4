"""State on disk: atomic, hashed, addressed by the trial's fingerprint and by round and epoch.

In: a `TrialState`.
Out: the newest complete one.
A checkpoint is a folder `r003-e012-n00055` (12 epochs of round 3, 55 events) of `tensors.safetensors`, `state.json` and
`manifest.json`, which holds their sha256 and is written last. It is written under a temporary name, flushed and
renamed; the last two complete ones are kept. Nothing is a pickle.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from trainables.rsst.state import TrialState
from trainables.storage.files import (
    read_json,
    remove_folder,
    remove_leftovers,
    replaced_folder,
    sha256_of,
    write_json,
)
from trainables.storage.locks import LockHeld, take

_NAME = re.compile(r"r(\d+)-e(\d+)-n(\d+)")
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)  # other errors (no file handles, no rights) say nothing
KEEP = 2


class StoreBusy(RuntimeError):
    """Another process has this trial's store open."""


class Damaged(ValueError):
    """A checkpoint that is not what was written; says what is wrong with it."""


class CheckpointStore:
    """The checkpoints of one trial in `root`/`fingerprint`; `say` gets a line for each damaged one."""

    def __init__(self, root: Path, fingerprint: str, say: Callable[[str], None]) -> None:
        self.folder = root / fingerprint
        self._fingerprint, self._say = fingerprint, say
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self, wait_s: float | None = 0.0) -> Iterator[None]:
        """Hold the trial's lock; it goes with the process, however that ends.

        Raises:
            StoreBusy: another process still holds it after `wait_s` seconds (None: never, it waits).
        """
        try:
            fd = take(self.folder / "lock", wait_s)
        except LockHeld:
            raise StoreBusy(f"{self.folder} is in use by another process") from None
        try:
            remove_leftovers(self.folder)
            yield
        finally:
            os.close(fd)

    def save(self, state: TrialState) -> Path:
        """Write `state`; after the return it is on disk. Older checkpoints beyond the last two are removed.

        Raises:
            OSError: the disk is full or cannot be written; earlier checkpoints are as they were.
        """
        events = len(state.meta["history"])
        final = self.folder / f"r{state.round:03d}-e{state.epoch:03d}-n{events:05d}"
        with replaced_folder(final) as new:
            save_file(dict(state.tensors), new / "tensors.safetensors")
            write_json(new / "state.json", dict(state.meta))
            names = ("tensors.safetensors", "state.json")
            write_json(new / "manifest.json", {name: sha256_of(new / name) for name in names})
        for old in self._names()[KEEP:]:
            remove_folder(self.folder / old)
        return final

    def newest(self) -> TrialState | None:
        """The newest complete checkpoint, or None. Damaged ones are renamed: they no longer count as kept.

        Raises:
            OSError: one cannot be read now, for a reason that does not mean that it is damaged.
        """
        for name in self._names():
            try:
                return self._load(self.folder / name)
            except Damaged as reason:
                self._say(f"checkpoint {name} is damaged ({reason}); falling back to the one before it")
                (self.folder / name).rename(self.folder / f"damaged-{name}-{time.time_ns()}")
        return None

    def _load(self, folder: Path) -> TrialState:
        try:
            for name, expected in read_json(folder / "manifest.json").items():
                if sha256_of(folder / name) != expected:
                    raise Damaged(f"{name} has another sha256 than its manifest says")
            meta = read_json(folder / "state.json")
            tensors: dict[str, torch.Tensor] = load_file(folder / "tensors.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            if isinstance(error, Damaged) or (isinstance(error, OSError) and error.errno not in _LOST):
                raise
            raise Damaged(str(error).splitlines()[0]) from error
        if meta["fingerprint"] != self._fingerprint:
            raise Damaged(f"it belongs to the trial {meta['fingerprint']}")
        return TrialState(meta, tensors)

    def _names(self) -> list[str]:
        """Names of the checkpoints, newest first."""
        return checkpoint_names(entry.name for entry in self.folder.iterdir())


def checkpoint_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that are names of checkpoints, newest first."""
    found = [match for name in names if (match := _NAME.fullmatch(name))]
    return [m.group() for m in sorted(found, key=lambda m: [int(part) for part in m.groups()], reverse=True)]
