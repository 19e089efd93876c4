"""JSON state that is written by us and read back: one place that writes it, one that reads it.

In: a path, a value or a form (forms.py). Out: the file, or the value as it was written.

A file ends with `crc`, the CRC-32 of its value, as a ledger's line does: a flipped bit in a number still parses. It is
over the value and not over the bytes, so a file may be laid out anew. What comes back is exactly what was written;
everything else is a `WrongForm` in one line: other bytes, JSON of another form, a file that is too large. What is no
regular file (a pipe, a device, a folder, a link that leads round) is an OSError, and is never waited for.
"""

from __future__ import annotations

import errno
import json
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trainables.storage.files import regular_bytes, replaced, write_json
from trainables.storage.forms import Form, WrongForm, parsed

MOST_BYTES = 1 << 28
CRC = "crc"
Seal = Literal["must", "may", "none"]

LOST = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV),
    *(errno.ENAMETOOLONG, errno.EFBIG, errno.EOVERFLOW),
)
"""Errors of a path that mean that no state is there, or a wrong one. Others (no handles, no rights) say nothing."""


def read_state(path: Path, form: Form, *, seal: Seal = "must", most: int = MOST_BYTES) -> Any:
    """The value in a file that `replace_state` wrote, without its checksum.

    Args:
        path: the file.
        form: what the value must look like.
        seal: must: a checksum is there; may: versions before had none; none: something else guards the content.
        most: bytes that such a file may have.

    Raises:
        OSError: there is no regular file, or it can't be read.
        WrongForm: it holds something else.
    """
    value = parsed(regular_bytes(path, most))
    if seal != "none":
        value = unsealed(value, needed=seal == "must")
    form(value, "")
    return value


def state_of(content: bytes, form: Form) -> Any:
    """The value in `content`, an object of a bucket for example, which nothing seals.

    Raises:
        WrongForm: it holds something else.
    """
    value = parsed(content)
    form(value, "")
    return value


def replace_state(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` with its checksum in place of the file `path`; a crash leaves the old file or the new one.

    A folder that has the file's place holds no state, and is put aside: NAME.damaged-NUMBER.
    """
    with replaced(path) as new:
        write_state(new, value)
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))


def write_state(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` with its checksum into a new file."""
    write_json(path, {**value, CRC: _checksum(value)})


def unsealed(value: Any, *, needed: bool) -> Any:
    """`value` without its checksum, which must be right; it may be missing only where it is not `needed`.

    Raises:
        WrongForm: it is not what was written.
    """
    if not isinstance(value, dict) or CRC not in value:
        if needed or not isinstance(value, dict):
            raise WrongForm("it has no checksum")
        return value
    bare = {name: one for name, one in value.items() if name != CRC}
    if value[CRC] != _checksum(bare):
        raise WrongForm("it has another checksum than was written")
    return bare


def _checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
