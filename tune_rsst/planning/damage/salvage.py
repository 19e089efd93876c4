"""What of a damaged ledger is still what was written, in the order in which it was written.

In: the bytes of a ledger, and of copies of it. Out: its lines by number, gaps where lines are gone, and what was done.
A line with one flipped bit is put right where its own checksum says so. Lines of earlier versions have no number: they
keep their order, and what is gone between them is not known.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tune_rsst.ledger.lines import BEGINNING, LONGEST, Line, Place, decode

MENDED = 1 << 14
"""Bytes of a line, at most, in which a flipped bit is looked for."""
MOST_MENDED = 200
_STEP = tuple(zlib.crc32(bytes((value,))) ^ zlib.crc32(b"\0") for value in range(256))
"""What a byte changes in a checksum that ends with it."""
_END = re.compile(rb',"crc":"[0-9a-f]{8}"\}')
_TRIAL = re.compile(rb'"trial":"(t\d{4,12})"')
_KIND = re.compile(rb'\{"event":"(\w{1,40})"')


class Whole(NamedTuple):
    """A line that is what was written, with its line break."""

    raw: bytes
    line: Line


@dataclass
class Gap:
    """Where lines are gone: `lines` of them, 0 where nobody knows; what can still be read of them."""

    lines: int = 0
    hints: list[str] = field(default_factory=list)


@dataclass
class Salvaged:
    """`items`: lines and gaps in order. `done`: what was put right. `exact`: nothing is missing."""

    items: list[Whole | Gap]
    done: list[str]

    @property
    def exact(self) -> bool:
        """Whether every line is there, as it was written."""
        return not any(isinstance(item, Gap) for item in self.items)


def salvage(*copies: bytes) -> Salvaged:
    """The ledger that these bytes are; the first is the ledger itself, the others copies of it or parts of it."""
    done: list[str] = []
    read = [_read(_in_utf8(data, done), done) for data in copies]
    numbered = [one for found in read for one in found if isinstance(one, Whole) and one.line.number]
    old = [one for found in read for one in found if not isinstance(one, Whole) or not one.line.number]
    chosen = _one_of_each(numbered, done)
    damaged = [one for one in old if isinstance(one, bytes)]
    items = _joined(_each_once(old, done), chosen, done)
    gaps = [item for item in items if isinstance(item, Gap)]
    if numbered and damaged and read[0] and read[0][-1] is damaged[-1] and len(damaged) > len(gaps):
        done.append("a torn line at the end was cut")
        gaps.append(Gap(1))
        items.append(gaps[-1])
    for at, piece in enumerate(damaged):
        if numbered and gaps:
            gaps[min(at, len(gaps) - 1)].hints.append(_hint(piece))
        elif numbered:
            done.append(f"{len(piece):,} bytes that are no line were left out")
    return Salvaged(items, done)


def _in_utf8(data: bytes, done: list[str]) -> bytes:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            text = data.decode("utf-16").encode()
        except ValueError:
            return data
        done.append("the file was in UTF-16")
        return text
    return data


def _read(data: bytes, done: list[str]) -> list[Whole | bytes]:
    """Lines in the order of the file, and the pieces of it that are none."""
    found: list[Whole | bytes] = []
    tries = 0
    for piece in data.split(b"\n"):
        line = decode(piece + b"\n") if len(piece) < LONGEST else None
        if line is not None:
            found.append(Whole(piece + b"\n", line))
        elif inside := _inside(piece):
            found += inside
            done.append("a line break, or what stood around a line, was put right")
        elif tries < MOST_MENDED and (mended := _mended(piece)):
            found.append(mended)
            done.append(f"a flipped bit in line {mended.line.number or len(found)} was put right")
        elif piece:
            found.append(piece)
            tries += 1
    return found


def _inside(piece: bytes) -> list[Whole]:
    """Whole lines within a piece: a line break was lost, or something was put before or behind."""
    found: list[Whole] = []
    at = piece.find(BEGINNING)
    while at >= 0:
        for end in _END.finditer(piece, at, at + LONGEST):
            raw = piece[at : end.end()] + b"\n"
            if line := decode(raw):
                found.append(Whole(raw, line))
                at = end.end() - 1
                break
            if end.end() - at > MENDED:
                break
        at = piece.find(BEGINNING, at + 1)
    return found


def _mended(piece: bytes) -> Whole | None:
    """The line that `piece` is but for one bit; its checksum finds the bit."""
    if not 40 < len(piece) <= MENDED:
        return None
    content, tail = bytearray(piece[:-18] + b"}"), piece[-18:]
    if _END.fullmatch(tail):
        difference = zlib.crc32(content) ^ int(tail[8:16], 16)
        flipped = [_STEP[1 << bit] for bit in range(8)]  # what a bit of the last byte changes
        for at in range(len(content) - 1, -1, -1):
            if difference in flipped:
                content[at] ^= 1 << flipped.index(difference)
                raw = bytes(content[:-1]) + tail + b"\n"
                line = decode(raw)
                return Whole(raw, line) if line else None
            flipped = [_STEP[one & 255] ^ one >> 8 for one in flipped]  # what one of the byte before it changes
    for at in range(len(piece) - 18, len(piece)):  # the bit is in the checksum itself
        for bit in range(8):
            raw = piece[:at] + bytes((piece[at] ^ 1 << bit,)) + piece[at + 1 :] + b"\n"
            if line := decode(raw):
                return Whole(raw, line)
    return None


def _each_once(lines: list[Whole | bytes], done: list[str]) -> list[Whole | Gap]:
    """Lines without a number, each once, in their order; a gap where one is damaged."""
    found: dict[bytes, Whole | Gap] = {}
    for one in lines:
        if isinstance(one, Whole) and one.raw in found:
            done.append("a doubled line was dropped")
        elif isinstance(one, Whole):
            found[one.raw] = one
        else:
            found[one] = Gap(1, [_hint(one)])
    return list(found.values())


def _digest(raw: bytes) -> str:
    place = Place()
    place.move_on(raw, True)
    return place.before


def _one_of_each(lines: list[Whole], done: list[str]) -> dict[int, Whole]:
    """Number → its line. Of several, and of runs of lines that do not follow each other, the longer run stays."""
    by_number: dict[int, dict[bytes, Whole]] = {}
    for one in lines:
        by_number.setdefault(one.line.number, {})[one.raw] = one
    order = [one.line.number for one in lines]
    if order != sorted(set(order)):
        doubled = len(order) - sum(map(len, by_number.values()))
        done += [f"{doubled} doubled lines were dropped"] if doubled else []
        done += ["the order of the lines was restored"] if order != sorted(order) else []
    chosen: dict[int, Whole] = {}
    for number in sorted(by_number):
        options = list(by_number[number].values())
        before = _digest(chosen[number - 1].raw) if number - 1 in chosen else None
        after = {one.line.before for one in by_number.get(number + 1, {}).values()}
        best = [one for one in options if one.line.before == before] or [o for o in options if _digest(o.raw) in after]
        chosen[number] = (best or options)[0]
        if len(options) > 1:
            done.append(f"of {len(options)} lines {number} one was taken")
    return _without_strangers(chosen, done)


def _without_strangers(chosen: dict[int, Whole], done: list[str]) -> dict[int, Whole]:
    while True:
        runs: list[list[int]] = []
        for number in sorted(chosen):
            follows = runs and runs[-1][-1] == number - 1
            if follows and chosen[number].line.before == _digest(chosen[number - 1].raw):
                runs[-1].append(number)
            else:
                runs.append([number])
        broken = [(a, b) for a, b in pairwise(runs) if a[-1] + 1 == b[0]]
        if not broken:
            return chosen
        stranger = min((run for pair in broken for run in pair), key=len)
        done.append(f"lines that belong to another ledger were left out: {_span(stranger[0], stranger[-1])}")
        chosen = {number: one for number, one in chosen.items() if number not in set(stranger)}


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _joined(old: list[Whole | Gap], chosen: dict[int, Whole], done: list[str]) -> list[Whole | Gap]:
    """Old lines, numbered ones, and gaps."""
    if not chosen:
        return old
    first = min(chosen)
    items: list[Whole | Gap] = [one for one in old if isinstance(one, Whole)]
    if items:
        items = _sealed_by(items, chosen[first], done)
    elif first > 1:
        items.append(Gap(first - 1))
    expected = first
    for number in sorted(chosen):
        if number > expected:
            items.append(Gap(number - expected))
        items.append(chosen[number])
        expected = number + 1
    return items


def _sealed_by(old: list[Whole | Gap], first: Whole, done: list[str]) -> list[Whole | Gap]:
    """The old lines as the first numbered one was written after them; with a gap where they are not all there."""
    by_time = sorted((one for one in old if isinstance(one, Whole)), key=lambda one: float(one.line.event["time"]))
    for lines in (old, by_time):
        place = Place()
        for one in lines:
            if isinstance(one, Whole):
                place.move_on(one.raw, False)
        if place.before == first.line.before:
            done += ["the order of the lines was restored"] if lines is by_time else []
            return list(lines)
    return [*old, Gap(max(0, first.line.number - 1 - len(old)))]


def _hint(piece: bytes) -> str:
    kind, trial = _KIND.search(piece), _TRIAL.search(piece)
    words = [found[1].decode() for found in (kind, trial) if found]
    return " of ".join(words) or f"{len(piece):,} bytes"
