"""A line of a ledger: what the driver encodes, what is read back, and how a line is bound to those before it.

In: an event and the place that it goes to; bytes that claim to be a line. Out: the line; the event and its place.

    {"event":"ended","time":1.0,…,"line":7,"before":"6fa0c2d5e1b43890","crc":"8d0a41f2"}

`line`: its number in the file, from 1. `before`: the first 16 hex digits of the sha256 of the line before. `crc`: the
CRC-32 of the text without it. Lines of earlier versions have the checksum alone. The first numbered line after such
lines has in `before` the digest of all of them together, so from then on none of them can go or change unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from io import BufferedReader, BytesIO
from typing import Any, NamedTuple, cast

LONGEST = 1 << 26
"""Bytes of a line, at most: the first one may hold some ten thousand trials of earlier sweeps."""
BEGINNING = b'{"event":"'
_SEAL = re.compile(rb',"line":(\d{1,12}),"before":"([0-9a-f]{16})"\Z')
_SEAL_BYTES = 60  # of the longest seal


class LedgerError(RuntimeError):
    """The ledger is damaged, and not by a crash. One line."""


class Line(NamedTuple):
    """What a line says. `number` and `before` are 0 and "" in lines of earlier versions."""

    event: dict[str, Any]
    number: int
    before: str


class Place:
    """How far a ledger goes: `lines` of them in `size` bytes. The next one has the number `lines` + 1."""

    __slots__ = ("_digest", "lines", "sealed", "size")

    def __init__(self) -> None:
        """The beginning of a file."""
        self.lines, self.size, self.sealed = 0, 0, False
        self._digest = hashlib.sha256()

    @property
    def before(self) -> str:
        """What the next line carries of what is before it."""
        return self._digest.hexdigest()[:16]

    def move_on(self, line: bytes, numbered: bool) -> None:
        """Behind `line`, which ends in its line break."""
        self.lines += 1
        self.size += len(line)
        if numbered:
            self.sealed, self._digest = True, hashlib.sha256(line)
        else:
            self._digest.update(line)

    def copy(self) -> Place:
        """A place of its own that is there too."""
        other = Place()
        other.lines, other.size, other.sealed, other._digest = self.lines, self.size, self.sealed, self._digest.copy()
        return other


def encode(event: Mapping[str, Any], place: Place) -> bytes:
    """The line that says `event`, to be written at `place`."""
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    body = f'{text[:-1]},"line":{place.lines + 1},"before":"{place.before}"'.encode()
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body + b"}"))


def decode(line: bytes) -> Line | None:
    """What a line says, or None where it is none that was written."""
    body, mark, tail = line.rpartition(b',"crc":"')
    if not mark or tail != b'%08x"}\n' % zlib.crc32(body + b"}"):
        return None
    number, before = 0, ""
    if seal := _SEAL.search(body, max(0, len(body) - _SEAL_BYTES)):
        number, before = int(seal[1]), seal[2].decode()
        body = body[: seal.start()]
    try:
        event = _JSON.decode(body.decode() + "}")
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(event, dict)
        or type(event.get("event")) is not str
        or type(event.get("time")) not in (float, int)
    ):
        return None
    return Line(event, number, before)


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


_JSON = json.JSONDecoder(parse_constant=_no_number)


def read_next(file: BufferedReader, place: Place) -> dict[str, Any] | None:
    """The event of the line at `place` in `file`, which stands there; moves both on. None: no whole line is there yet.

    What is there and was not written there is a LedgerError without the file's name, for whoever knows it.
    """
    line = file.readline(LONGEST)
    found = decode(line) if line.endswith(b"\n") else None
    if found is None:
        if _is_torn(line) and not (line.endswith(b"\n") and file.peek(1)):
            return None
        raise LedgerError(f"line {place.lines + 1} is damaged")
    if found.number or place.sealed:
        _refuse_other_place(found, place)
    place.move_on(line, found.number > 0)
    return found.event


def events_in(content: bytes) -> list[dict[str, Any]]:
    """The events of a whole ledger that lies in memory; a torn line at its end is a LedgerError too."""
    place, found = Place(), []
    with BufferedReader(cast("Any", BytesIO(content))) as file:
        while (event := read_next(file, place)) is not None:
            found.append(event)
    if place.size < len(content):
        raise LedgerError(f"line {place.lines + 1} is cut off")
    return found


def _is_torn(line: bytes) -> bool:
    """Whether a line at the end of a file may be one that a crash has cut: its rest is missing, or zeros."""
    written = line.rstrip(b"\0")
    return len(line) < LONGEST and (written.startswith(BEGINNING) or BEGINNING.startswith(written))


def _refuse_other_place(found: Line, place: Place) -> None:
    expected = place.lines + 1
    if found.number > expected:
        missing = (
            f"lines {expected} to {found.number - 1} are" if found.number > expected + 1 else f"line {expected} is"
        )
        raise LedgerError(f"{missing} missing")
    if not found.number:
        raise LedgerError(f"line {expected} has no number, though lines before it have one")
    if found.number < expected:
        raise LedgerError(f"where line {expected} is to be, line {found.number} is there again")
    if found.before != place.before:
        raise LedgerError(f"line {expected} does not follow what is before it: one of the two is of another ledger")
