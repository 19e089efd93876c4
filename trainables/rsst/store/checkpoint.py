"""State on disk: atomic, hashed, addressed by the trial's fingerprint and by round and epoch.

In: a `TrialState`.
Out: the newest complete one.
A checkpoint is a folder `r003-e012-n00055` (12 epochs of round 3, 55 events) of `tensors.safetensors`, `state.json` and
`manifest.json`, which holds their sha256 and is written last. It is written under a temporary name, flushed and
renamed; the last two complete ones are kept. Nothing is a pickle. What is read back is checked first: regular files,
of the form that is written, with the sha256 that the manifest says, in the folder of their round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from trainables.rsst.state import TrialState
from trainables.rsst.store.reading import (
    ANY_STATE,
    MANIFEST,
    STATE,
    TENSORS,
    Damaged,
    checkpoint_names,
    damage_is_said,
    name_of,
    read_meta,
)
from trainables.storage.files import (
    open_regular,
    remove_folder,
    remove_leftovers,
    replaced_folder,
    sha256_of,
    write_json,
)
from trainables.storage.forms import Form
from trainables.storage.locks import LockHeld, take

KEEP = 2


class StoreBusy(RuntimeError):
    """Another process has this trial's store open."""


class CheckpointStore:
    """The checkpoints of one trial in `root`/`fingerprint`; `say` gets a line for each damaged one.

    `form`: what `TrialState.meta` must look like when it is read back; `check` raises a ValueError where a state is
    nothing that can be gone on with.
    """

    def __init__(
        self,
        root: Path,
        fingerprint: str,
        say: Callable[[str], None],
        form: Form = ANY_STATE,
        check: Callable[[TrialState], None] = lambda state: None,
    ) -> None:
        self.folder = root / fingerprint
        self._fingerprint, self._say, self._form, self._check = fingerprint, say, form, check

    @contextmanager
    def locked(self, wait_s: float | None = 0.0) -> Iterator[None]:
        """Hold the trial's lock; it goes with the process, however that ends.

        Raises:
            StoreBusy: another process still holds it after `wait_s` seconds (None: never, it waits).
        """
        self.folder.mkdir(parents=True, exist_ok=True)
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
        final = self.folder / name_of(state.meta)
        with replaced_folder(final) as new:
            save_file(dict(state.tensors), new / TENSORS)
            write_json(new / STATE, dict(state.meta))
            write_json(new / MANIFEST, {name: sha256_of(new / name) for name in (TENSORS, STATE)})
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
        with damage_is_said():
            try:
                _refuse_other_length(folder / TENSORS)
                meta = read_meta(folder, self._form)
                if meta["fingerprint"] != self._fingerprint:
                    raise Damaged(f"it belongs to the trial {meta['fingerprint']}")
                if folder.name != name_of(meta):
                    raise Damaged(f"what it holds is checkpoint {name_of(meta)}")
                state = TrialState(meta, load_file(folder / TENSORS))
            except SafetensorError as error:
                raise Damaged(str(error).splitlines()[0]) from error
            self._check(state)
        return state

    def _names(self) -> list[str]:
        """Names of the checkpoints, newest first."""
        return checkpoint_names([entry.name for entry in self.folder.iterdir()] if self.folder.is_dir() else [])


def _refuse_other_length(tensors: Path) -> None:
    """A file that is not as long as its first bytes say is not hashed: it may have no end."""
    open_regular(tensors).close()
    with safe_open(tensors, "pt"):
        pass
