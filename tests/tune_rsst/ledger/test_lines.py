"""Lines are bound to each other: what is missing, doubled, moved, foreign or damaged is noticed by whoever reads."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.lines import LONGEST, LedgerError, Place, decode, encode
from tune_rsst.ledger.tail import LedgerTail

Lines = list[bytes]


def written(path: Path, count: int = 6, said: str = "n") -> Path:
    ledger = Ledger(path, clock=lambda: 1.0)
    for number in range(count):
        ledger.append("reported", **{said: number})
    ledger.close()
    return path


def old_form(event: str, **fields: object) -> bytes:
    """A line as versions before wrote it: a checksum, no number."""
    text = json.dumps({"event": event, "time": 1.0, **fields}, separators=(",", ":"))
    return f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def old_ledger(path: Path, count: int = 4) -> Path:
    path.write_bytes(b"".join(old_form("reported", n=number) for number in range(count)))
    return path


def test_a_line_carries_its_number_and_the_digest_of_the_one_before(tmp_path: Path) -> None:
    lines = written(tmp_path / "ledger.jsonl", 3).read_bytes().splitlines(keepends=True)
    found = [json.loads(line) for line in lines]
    assert [one["line"] for one in found] == [1, 2, 3]
    place = Place()
    for line, one in zip(lines, found, strict=True):
        assert one["before"] == place.before and list(one)[-3:] == ["line", "before", "crc"]
        place.move_on(line, True)
    assert read(tmp_path / "ledger.jsonl") == [{"event": "reported", "time": 1.0, "n": n} for n in range(3)]


def test_the_checksum_belongs_to_the_line() -> None:
    line = encode({"event": "x", "time": 1.0}, Place())
    found = decode(line)
    assert found is not None and found.event == {"event": "x", "time": 1.0} and found.number == 1
    assert decode(line.replace(b"1.0", b"1.5")) is None
    assert decode(b'{"event":"x"}\n') is None


@pytest.mark.parametrize(
    "text",
    [
        '{"event":1,"time":1}',
        '{"event":"x","time":"1"}',
        '{"event":"x"}',
        '{"time":1}',
        '{"event":"x","time":NaN}',
        '{"event":"x","time":1,"a":Infinity}',
        '{"event":"x","time":1,"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"event":"x","time":1,"a":}',
        '{"event":"x","time":true}',
    ],
    ids=range(9),
)
def test_a_right_checksum_does_not_make_a_line(text: str) -> None:
    assert decode(f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()) is None


DAMAGES: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "one is gone": (lambda x: x[:2] + x[3:], "line 3 is missing"),
    "three are gone": (lambda x: x[:1] + x[4:], "lines 2 to 4 are missing"),
    "the first is gone": (lambda x: x[1:], "line 1 is missing"),
    "one is doubled": (lambda x: x[:3] + x[2:], "where line 4 is to be, line 3 is there again"),
    "the last is doubled": (lambda x: [*x, x[-1]], "where line 7 is to be, line 6 is there again"),
    "the last comes again at the end": (lambda x: [*x, x[2]], "where line 7 is to be, line 3 is there again"),
    "two are swapped": (lambda x: [x[0], x[2], x[1], *x[3:]], "line 2 is missing"),
    "a bit": (lambda x: [*x[:2], x[2].replace(b'"n":2', b'"n":3'), *x[3:]], "line 3 is damaged"),
    "an empty line": (lambda x: [*x[:2], b"\n", *x[2:]], "line 3 is damaged"),
    "zeros": (lambda x: [*x[:2], b"\0" * 50 + b"\n", *x[3:]], "line 3 is damaged"),
    "line breaks of another system": (lambda x: [line.replace(b"\n", b"\r\n") for line in x], "line 1 is damaged"),
    "another encoding": (lambda x: [b"".join(x).decode().encode("utf-16")], "line 1 is damaged"),
    "a byte order mark": (lambda x: [b"\xef\xbb\xbf" + x[0], *x[1:]], "line 1 is damaged"),
    "without a number": (lambda x: [*x[:2], old_form("reported", n=2), *x[3:]], "line 3 has no number"),
    "other JSON at the end": (lambda x: [*x, b"[]\n"], "line 7 is damaged"),
    "text at the end": (lambda x: [*x, b"hello"], "line 7 is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_with_its_line_and_what_to_do(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path / "ledger.jsonl")
    spoil, said = DAMAGES[damage]
    path.write_bytes(b"".join(spoil(path.read_bytes().splitlines(keepends=True))))
    for reader in (read, Ledger, tail_to_the_end):
        with pytest.raises(LedgerError, match=f"{said}.*; put it right: tune-rsst repair {tmp_path.name}") as caught:
            reader(path)
        assert "\n" not in str(caught.value)


def tail_to_the_end(path: Path) -> None:
    tail = LedgerTail(path)
    while tail.read():
        pass


def test_a_line_of_another_ledger_is_noticed_though_its_number_fits(tmp_path: Path) -> None:
    lines = written(tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    other = written(tmp_path / "other", said="m").read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger.jsonl").write_bytes(b"".join([*lines[:3], other[3], *lines[4:]]))
    with pytest.raises(LedgerError, match="line 4 does not follow"):
        read(tmp_path / "ledger.jsonl")


@pytest.mark.parametrize("rest", [b"", b"{", b'{"event":"rep', b'{"event":"x","time":1.0}\n', b"\0" * 70, b'{"ev\0\0'])
def test_what_a_crash_leaves_at_the_end_does_not_count_and_goes(tmp_path: Path, rest: bytes) -> None:
    path = written(tmp_path / "ledger.jsonl", 2)
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    tail = LedgerTail(path)
    assert len(read(path)) == 2 and len(tail.read()) == 2 and tail.read() == []
    ledger = Ledger(path, clock=lambda: 1.0)
    assert path.read_bytes() == whole
    ledger.append("reported", n=2)
    assert [event["n"] for event in tail.read()] == [2] and len(read(path)) == 3


def test_a_ledger_of_an_earlier_version_is_read_and_goes_on_in_the_new_form(tmp_path: Path) -> None:
    path = old_ledger(tmp_path / "ledger.jsonl")
    before = path.read_bytes()
    ledger = Ledger(path, clock=lambda: 1.0)
    assert [event["n"] for event in ledger.events] == [0, 1, 2, 3]
    ledger.append("reported", n=4)
    ledger.append("reported", n=5)
    assert path.read_bytes().startswith(before) and [event["n"] for event in read(path)] == list(range(6))
    assert [json.loads(line).get("line") for line in path.read_bytes().splitlines()] == [None] * 4 + [5, 6]


@pytest.mark.parametrize("gone", range(4))
def test_once_it_went_on_none_of_the_old_lines_can_go(tmp_path: Path, gone: int) -> None:
    path = old_ledger(tmp_path / "ledger.jsonl")
    ledger = Ledger(path)
    ledger.append("reported", n=4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:gone], *lines[gone + 1 :]]))
    with pytest.raises(LedgerError, match="line 4 is missing"):
        read(path)
    path.write_bytes(b"".join([*lines[:gone], old_form("reported", n=7), *lines[gone + 1 :]]))
    with pytest.raises(LedgerError, match="line 5 does not follow what is before it"):
        read(path)


def odd(path: Path, what: str) -> None:
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to({"endless": Path("/dev/zero"), "loop": path, "dangling": path.with_name("x")}[what])


@pytest.mark.parametrize("what", ["fifo", "folder", "sparse", "endless", "loop", "dangling"])
def test_what_is_no_ledger_file_is_one_line_and_is_not_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / "ledger.jsonl"
    odd(path, what)
    for reader in (read, Ledger):
        with pytest.raises(LedgerError, match="tune-rsst repair"):
            reader(path)
    assert LedgerTail(path).uid() == "" and LedgerTail(path).lines_beyond(1 << 40) == 0


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl", 2)
    with path.open("ab") as file:
        file.write(b'{"event":"')
        file.truncate(file.tell() + LONGEST)
    with pytest.raises(LedgerError, match="line 3 is damaged"):
        read(path)


def test_an_emptied_ledger_of_a_sweep_with_trials_is_no_new_sweep(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "ledger.jsonl").write_bytes(b"")
    assert read(tmp_path / "ledger.jsonl") == []
    (tmp_path / "trials" / "0123").mkdir()
    with pytest.raises(LedgerError, match="it has no line, though"):
        Ledger(tmp_path / "ledger.jsonl")


def test_a_tail_stops_before_the_offset_that_it_is_given(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl")
    sizes = [len(line) for line in path.read_bytes().splitlines(keepends=True)]
    tail = LedgerTail(path)
    assert len(tail.read(until=sum(sizes[:3]))) == 3 and tail.offset == sum(sizes[:3])
    assert len(tail.read()) == 3 and tail.lines_beyond(0) == 6 and tail.lines_beyond(tail.offset) == 0
    tail.rewind()
    assert len(tail.read()) == 6
