"""Objects below one address in an object storage (clouds.py); what goes wrong is one line.

In: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Endpoint, region and credentials are found in
    the environment as the tools of that cloud find them, so none of them is ever in a setting.
Out: bytes, files.
An object is complete or absent; a rename does not exist, so a set of objects is committed by a last one, and who may
write is decided by conditional writes.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainables.storage.clouds import NO_PLACE, in_one_line, interruptibly, opened, place_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

FILES = "files"  # of a sweep, below its address: what is neither its ledger nor a trial
AT_ONCE = 1000  # keys in one removal, at most
PIECE = 8 << 20  # bytes of a file that are in memory while it is fetched
T = TypeVar("T")


FORKED = "this process is a fork of one that has used a bucket; start a new one (multiprocessing: spawn)"
_asking: dict[str, int] = {}
"""The process in which obstore's threads are: they don't come along to a fork, where each question waits for ever"""


class StorageError(RuntimeError):
    """The storage can't be reached, or refuses. One line."""


class Taken(StorageError):
    """A conditional write came too late: somebody else has written there."""


class Missing(StorageError):
    """There is no such object."""


@dataclass(frozen=True)
class Found:
    """An object: its bytes, its version, and when it was written by the storage's own clock."""

    data: bytes
    version: str
    written: datetime


class Bucket:
    """Objects of one bucket below one prefix; keys are relative to it. Holds no connection until it is used."""

    def __init__(self, address: str) -> None:
        """"""
        self.place = place_of(address)
        self.address = address.rstrip("/")

    def below(self, name: str) -> Bucket:
        """The part whose keys begin with `name`/."""
        return Bucket(f"{self.address}/{name}")

    @cached_property
    def _store(self) -> ObjectStore:
        return opened(self.address)

    @property
    def _mark(self) -> str:
        """What tells versions of an object apart where a write is conditional: Google numbers them."""
        return "version" if self.place.kind == "gs" else "e_tag"

    def _ask(self, what: Callable[[Any, ObjectStore], T]) -> T:
        """`what(obstore, store)`; errors in the project's own words.

        Raises:
            Taken: a condition was not met. Missing: there is no such object. StorageError: anything else.
        """
        if _asking.setdefault("process", os.getpid()) != os.getpid():
            raise StorageError(f"storage = {self.address}: {FORKED}")
        store = self._store
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            return interruptibly(lambda: what(obstore, store))
        except (AlreadyExistsError, PreconditionError):
            raise Taken(f"storage = {self.address}: another process has written there") from None
        except FileNotFoundError as error:
            kind = StorageError if NO_PLACE.search(str(error)) else Missing
            raise kind(f"storage = {self.address}: {in_one_line(error)[:200]}") from None
        except BaseError as error:
            raise StorageError(f"storage = {self.address}: {self._reason(error)[:200]}") from None
        except ValueError as error:  # a key that no object should have
            raise StorageError(f"storage = {self.address}: refused: {str(error)[:200]}") from None

    def _reason(self, error: Exception) -> str:
        """A key that leads out of the address, or has an empty name in it, spoils the whole listing: it is named."""
        from obstore.exceptions import InvalidPathError

        if not isinstance(error, InvalidPathError):
            return in_one_line(error)
        key = str(error).partition('path: "')[2].partition('"')[0]
        return f"refused: {key.removeprefix(f'{self.place.prefix}/')}"

    def find(self, key: str, most: int | None = None) -> Found | None:
        """The object, or None. One of more than `most` bytes is refused."""

        def get(obstore: Any, store: ObjectStore) -> Found:
            answer = obstore.get(store, key)
            if most is not None and answer.meta["size"] > most:
                raise StorageError(f"storage = {self.address}: {key} has {answer.meta['size']:,} bytes")
            return Found(bytes(answer.bytes()), str(answer.meta[self._mark]), answer.meta["last_modified"])

        try:
            return self._ask(get)
        except Missing:
            return None

    def read(self, key: str, most: int | None = None) -> bytes | None:
        """The object's bytes, or None; `most` as in `find`."""
        found = self.find(key, most)
        return found.data if found else None

    def age_s(self, found: Found) -> float:
        """Seconds since the object was written, at least, by the storage's own clock."""
        then, there = self._clock
        return max(0.0, there + time.monotonic() - then - found.written.timestamp())

    @cached_property
    def _clock(self) -> tuple[float, float]:
        """The monotonic time of an instant, and what the storage's clock said then: an object is written and removed.

        Where we may only read it is this machine's clock: who drives writes.
        """
        key = f".clock-{uuid.uuid4().hex}"
        try:
            self.write(key, b"")
        except StorageError:
            if self.find(key) is None:  # it answers
                return time.monotonic(), time.time()
            raise
        then, found = time.monotonic(), self.find(key)  # not before it was written: nothing is to seem too old
        self.delete([key])
        return then, found.written.timestamp() if found else time.time()

    def write(self, key: str, data: bytes, *, new: bool = False, version: str | None = None) -> str:
        """Write an object; returns its version. `new`: only where there is none; `version`: only where that one is.

        Raises:
            Taken: the condition is not met.
        """
        mode: Any = "create" if new else {self._mark: version} if version else "overwrite"
        return str(self._ask(lambda obstore, store: obstore.put(store, key, data, mode=mode))[self._mark])

    def upload(self, path: Path, key: str) -> None:
        """A file, in parts where it is large.

        Raises:
            FileNotFoundError: it is not there.
        """
        with path.open("rb") as file:
            self._ask(lambda obstore, store: obstore.put(store, key, file))

    def download(self, key: str, path: Path) -> None:
        """An object into a file.

        Raises:
            Missing: there is no such object.
        """

        def get(obstore: Any, store: ObjectStore) -> None:
            with path.open("wb") as file:
                for piece in obstore.get(store, key).stream(min_chunk_size=PIECE):
                    file.write(piece)

        self._ask(get)

    def keys(self, below: str = "") -> list[str]:
        """All keys that begin with `below`, which ends in / where it is not empty, in order."""
        listed = self._ask(lambda obstore, store: obstore.list(store, below or None, chunk_size=AT_ONCE).collect())
        names = {item["path"] for item in listed}
        folders = {path for name in names for path in _folders_of(name)}  # some tools make objects for folders
        return sorted(names - folders)

    def folders(self) -> list[str]:
        """Names right below the address that have something below them."""
        listed = self._ask(lambda obstore, store: obstore.list_with_delimiter(store))
        return sorted(listed["common_prefixes"])

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        doomed = list(keys)
        for i in range(0, len(doomed), AT_ONCE):
            some = doomed[i : i + AT_ONCE]
            try:
                self._delete(some)
            except Missing:  # Azure and Google say so, of the first one that is gone
                for key in some:
                    with suppress(Missing):
                        self._delete([key])

    def _delete(self, keys: list[str]) -> None:
        self._ask(lambda obstore, store: obstore.delete(store, keys))

    def check(self) -> None:
        """Write, read and remove a small object.

        Raises:
            StorageError: one of them can't be done.
        """
        key = f".writable-{uuid.uuid4().hex}"
        self.write(key, b"tune-rsst")
        if self.read(key) != b"tune-rsst":
            raise StorageError(f"storage = {self.address}: what was written can't be read back")
        self.delete([key])


def _folders_of(key: str) -> Iterable[str]:
    parts = key.split("/")
    return ("/".join(parts[:i]) for i in range(1, len(parts)))
