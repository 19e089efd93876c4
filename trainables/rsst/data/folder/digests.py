"""What is in each file: a digest of its bytes, read again only where the file may have changed.

In: the files of an image folder. Out: their digests.

The node's cache keeps `digests/<folder>.json`: digest by device, inode, size and times of a file. As in git, a file
that was written less than 2 s before it was read is not remembered: clocks of file systems are coarse.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainables.progress import tracked
from trainables.rsst.config import ConfigError
from trainables.rsst.data.node_cache import cache_folder
from trainables.storage.files import open_regular
from trainables.storage.forms import WrongForm, mapping, text
from trainables.storage.state_files import read_state, replace_state
from trainables.text import shown

SETTLED_S = 2.0
REMEMBERED = mapping(text(r"[0-9a-f]{32}"), keys=r"[0-9 -]+")


def digests(root: Path, paths: Sequence[Path]) -> list[str]:
    """32 hex digits over the bytes of each of `paths`, which are below `root`; an empty file is refused.

    Raises:
        OSError: the cache folder can't be written.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    index = cache_folder() / "digests" / f"{name}.json"
    known = _read(index)
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        read = pool.map(lambda path: _digest(path, known), paths)
        found = list(tracked("looking at the files", read, len(paths), size=lambda _: 1))
    settled = {mark: digest for mark, digest, is_settled in found if is_settled}
    if settled.keys() != known.keys():
        index.parent.mkdir(parents=True, exist_ok=True)
        replace_state(index, settled)
    return [digest for _, digest, _ in found]


def _digest(path: Path, known: dict[str, str]) -> tuple[str, str, bool]:
    """The file's mark, its digest, and whether that may be remembered."""
    try:
        found = path.stat()
        if not found.st_size or not stat.S_ISREG(found.st_mode):
            raise OSError("it is empty, or no regular file")
        mark = f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        if mark in known:
            return mark, known[mark], True
        now = time.time()
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        hint = f"{error.strerror or error}; mend or remove this file"
        raise ConfigError("data", shown(path), "an image that PIL reads", hint) from error
    return mark, digest, now - max(found.st_mtime, found.st_ctime) > SETTLED_S


def _read(index: Path) -> dict[str, str]:
    """What is remembered; nothing where that can't be read, or is not what was written."""
    try:
        known: dict[str, str] = read_state(index, REMEMBERED)
    except (OSError, WrongForm):
        return {}
    return known
