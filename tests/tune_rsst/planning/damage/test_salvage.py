"""What is left of a damaged ledger is found, in its order; what is gone is a gap and never a guess."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tune_rsst.ledger.test_lines import Lines, old_ledger, written
from tune_rsst.ledger.file import Ledger
from tune_rsst.planning.damage.salvage import Gap, Whole, salvage


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]


def content(*copies: bytes) -> bytes:
    """The lines that were found; `?` for each gap."""
    return b"".join(item.raw if isinstance(item, Whole) else b"?" for item in salvage(*copies).items)


def lines_of(tmp_path: Path, count: int = 6) -> Lines:
    return written(tmp_path / "ledger.jsonl", count).read_bytes().splitlines(keepends=True)


def test_what_is_whole_stays_as_it_is(tmp_path: Path) -> None:
    whole = b"".join(lines_of(tmp_path))
    found = salvage(whole)
    assert content(whole) == whole and found.exact and found.done == []


RESTORED: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "swapped": (lambda x: [x[0], x[3], x[2], x[1], *x[4:]], "order"),
    "reversed": (lambda x: x[::-1], "order"),
    "doubled": (lambda x: [*x[:3], *x[2:]], "doubled"),
    "all doubled": (lambda x: [*x, *x], "doubled"),
    "line breaks of another system": (lambda x: [line.replace(b"\n", b"\r\n") for line in x], "line break"),
    "no line breaks": (lambda x: [line.replace(b"\n", b"") for line in x], "line break"),
    "blanks": (lambda x: [b"  " + line.replace(b"\n", b"\t\n") for line in x], "line break"),
    "UTF-16": (lambda x: [b"".join(x).decode().encode("utf-16")], "UTF-16"),
    "a byte order mark": (lambda x: [b"\xef\xbb\xbf", *x], "line break"),
    "text between": (lambda x: [*x[:2], b"hello\n", *x[2:]], "bytes that are no line"),
}


@pytest.mark.parametrize("how", RESTORED)
def test_what_was_moved_about_comes_back_to_the_byte(tmp_path: Path, how: str) -> None:
    lines = lines_of(tmp_path)
    spoil, said = RESTORED[how]
    found = salvage(b"".join(spoil(lines)))
    assert content(b"".join(spoil(lines))) == b"".join(lines) and found.exact and said in " ".join(found.done)


def test_any_flipped_bit_is_put_right(tmp_path: Path) -> None:
    whole = b"".join(lines_of(tmp_path))
    draw = random.Random(3)
    for _ in range(300):
        at, bit = draw.randrange(len(whole)), draw.randrange(8)
        assert content(flipped(whole, at, bit)) == whole, (at, bit)


@pytest.mark.parametrize("at", range(5))
def test_a_line_that_is_gone_is_a_gap(tmp_path: Path, at: int) -> None:
    lines = lines_of(tmp_path)
    found = salvage(b"".join([*lines[:at], *lines[at + 1 :]]))
    assert isinstance(found.items[at], Gap) and found.items[at].lines == 1 and not found.exact


def test_a_gap_knows_what_can_still_be_read_of_its_line(tmp_path: Path) -> None:
    lines = lines_of(tmp_path)
    lines[2] = lines[2].replace(b'"n":2', b'"trial":"t0007",*').replace(b'crc":"', b'crc":"00')
    gap = salvage(b"".join(lines)).items[2]
    assert isinstance(gap, Gap) and gap.hints == ["reported of t0007"]


def test_lines_of_another_ledger_are_left_out(tmp_path: Path) -> None:
    lines, other = lines_of(tmp_path), written(tmp_path / "other", said="m").read_bytes().splitlines(keepends=True)
    assert content(b"".join([*lines[:3], other[3], *lines[4:]])) == b"".join([*lines[:3], b"?", *lines[4:]])
    assert content(b"".join([*lines, *other[2:4]])) == b"".join(lines)
    assert content(b"".join([*lines, *other[-1:]])) == b"".join(lines)


def test_a_copy_has_what_the_file_lacks(tmp_path: Path) -> None:
    lines = lines_of(tmp_path)
    assert content(b"".join(lines[:2] + lines[4:]), b"".join(lines[:5])) == b"".join(lines)


def test_a_torn_end_is_cut(tmp_path: Path) -> None:
    lines = lines_of(tmp_path)
    found = salvage(b"".join(lines)[:-30])
    assert [isinstance(item, Gap) for item in found.items] == [False] * 5 + [True]
    assert "a torn line at the end was cut" in found.done


def test_old_lines_keep_their_order_and_the_seal_over_them_tells_what_is_gone(tmp_path: Path) -> None:
    path = old_ledger(tmp_path / "ledger.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    assert content(b"".join([*lines[:2], lines[1], *lines[2:]])) == b"".join(lines)
    assert content(b"".join([*lines[:2], b'{"event":"x\n', *lines[3:]])) == b"".join([*lines[:2], b"?", *lines[3:]])
    ledger = Ledger(path, clock=lambda: 2.0)
    ledger.append("reported", n=4)
    sealed = path.read_bytes().splitlines(keepends=True)[-1]
    assert content(b"".join([*lines, sealed])) == b"".join([*lines, sealed])
    assert content(b"".join([*lines[1:], sealed])) == b"".join([*lines[1:], b"?", sealed])
