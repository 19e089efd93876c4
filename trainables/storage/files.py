"""Files and folders that survive a crash: written under a temporary name, flushed, renamed. JSON, and digests of files.

In: a path. Out: a place to write. When that went well the path holds what was written, else what it held before.

A temporary name is `.NAME.PID-UNIQUE.tmp` in the same folder, so two writers of one path never meet; the last one wins.
What a killed process leaves under such a name is removed by the next writer of the same path that finds it old, and by
`remove_leftovers`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError
from trainables.storage.modes import settle

OLD_S = 3600.0  # nobody writes a file, or adds none to a new folder, for so long
# Ours; ours with what others append (sqlite; boto3, in earlier versions); the name under which safetensors writes.
_TEMPORARY = re.compile(r"\..+\.tmp([.-]\w+)?|\.tmp\w{6}")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Where to write a file that then replaces `path`: a reader sees the old file or the new one.

    The old one stays, and nothing else is left, where the body raises or the new one cannot be flushed.
    """
    new = _temporary(path)
    try:
        yield new
        publish(new, path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A new folder that then replaces `path`, with the same guarantees; parents of `path` are made where missing.

    Where there was a folder before, a reader may for an instant, between two renames, see none; never half of one.
    """
    with temporary_folder(path) as new:
        yield new
        publish(new, path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder next to `path`, whose missing parents are made. It is removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = _temporary(path)
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def publish(new: Path, path: Path) -> None:
    """Flush the file or folder `new`, then rename it to `path`, on the same disk, in place of what is there."""
    for written in (*new.rglob("*"), new):
        settle(written)
        _flush(written)
    asides: list[Path] = []
    while True:
        try:
            new.replace(path)
            break
        except OSError as error:  # a folder can only be renamed onto an empty one
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        asides.append(_temporary(path))
        with suppress(FileNotFoundError):  # another process has moved it
            path.rename(asides[-1])
    _flush(path.parent)
    for aside in asides:
        shutil.rmtree(aside, ignore_errors=True)


def expanded(path: str | Path) -> Path:
    """`path` from the root on; ~ is the home folder, and stays where there is none of that name."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def path_or_address(name: str) -> str:
    """`expanded`, of a path; an address (models:/…, s3://…, hf_hub:…) stays as it is."""
    return name if re.match(r"[a-z][a-z0-9+.-]+:/|hf[-_]hub:", name) else str(expanded(name))


def one_name(name: str) -> str:
    """`name` where it is that of one file; a ConfigError for one that would lead to another folder."""
    if not re.fullmatch(r"\w[\w.-]{0,199}", name):
        raise ConfigError("ledger", name, "a name of letters, digits, '.', '_' and '-'")
    return name


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; there is none at a path that is too long, or no path at all."""
    return os.path.isdir(expanded(path))


def regular_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes; a pipe or a device is never waited for.

    Raises:
        OSError: it can't be read, is something else, or is larger.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 10:,} KiB", str(path))
    return content


def open_regular(path: Path) -> BufferedReader:
    """`path` opened for reading, where it is a regular file; opening a pipe or a device neither waits nor does more.

    Raises:
        OSError: it can't be opened, or is something else. A path that no file can have is an OSError too.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:  # a zero byte
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    file = os.fdopen(opened, "rb")
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def keep_as(path: Path, aside: Path) -> None:
    """Give what is at `path`, and is to be replaced, the name `aside`. A file stays at `path` too until it is replaced.

    Raises:
        OSError: it can't have the name.
    """
    if path.is_file() and not path.is_symlink():
        try:
            os.link(path, aside)
        except OSError:  # a file system without second names
            shutil.copy2(path, aside)
    else:
        path.rename(aside)


def remove_folder(path: Path) -> None:
    """Remove a folder. It is renamed first, so that a kill half-way leaves a leftover and not half a folder.

    Raises:
        OSError: it cannot be renamed.
    """
    aside = _temporary(path)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path, of: str = "", older_s: float = 0.0, by: int | None = None) -> None:
    """Remove what killed processes left in `folder` under temporary names, those of earlier versions included.

    Args:
        folder: no other process may be writing in it, unless `older_s` or `by` tells the two apart.
        of: only what was to become the file or folder of this name.
        older_s: only what was not written to for so long.
        by: only what the process of this machine with this id, which has ended, was writing.
    """
    for entry in folder.iterdir():
        own = (not of or entry.name.startswith(f".{of}.")) and (by is None or f".{by}-" in entry.name)
        if own and is_temporary(entry):
            with suppress(OSError):
                if time.time() - entry.stat().st_ctime >= older_s:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def is_temporary(path: Path) -> bool:
    """Whether `path` is a file or folder that is being written, or was when its writer was killed."""
    return _TEMPORARY.fullmatch(path.name) is not None


def write_json(path: Path, value: Any) -> None:
    """Write JSON; no NaN or infinity."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, allow_nan=False, indent=1)
        file.write("\n")


def replace_json(path: Path, value: Any) -> None:
    """Write JSON in place of the file `path`, as `replaced` does."""
    with replaced(path) as new:
        write_json(new, value)


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError, ValueError: it cannot be read, or is no JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """sha256 of a regular file's bytes, in hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    """A new temporary name for `path`; old leftovers of it go."""
    remove_leftovers(path.parent, path.name, OLD_S)
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
