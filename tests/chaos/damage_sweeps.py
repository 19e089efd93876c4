"""The ledger, the settings and the study of a finished toy sweep, damaged, and read back or repaired by the product.

In: a stream of random numbers and a copy of the sweep's home, which TUNE_RSST_HOME names. Out: what the readers say of
it, and what they may say: what the whole sweep says; of a ledger that lacks its end, what it said some lines ago.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.chaos import toy_sweep
from tests.chaos.edits import edited
from tune_rsst.driver import assemble
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.lines import Place, decode, encode
from tune_rsst.ledger.tail import LedgerTail
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning.repair import find, repair
from tune_rsst.planning.resume import settings_again
from tune_rsst.results.as_json import as_json
from tune_rsst.search import spaces
from tune_rsst.search.study import _essence
from tune_rsst.settings.written import written_by_us
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder

Lines = list[bytes]
EARLIER, LEDGER = "earlier", "toys/ledger.jsonl"
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037")
LINES = (
    b"[]\n", b"null\n", b"{}\n", b"0\n", b"\n", b"\0" * 100 + b"\n", b'{"event":"ended"}\n', b'{"event":1,"time":1}\n',
    b"[" * 5000 + b"]" * 5000 + b"\n", b'{"event":"' + b"x" * 1_000_000 + b'"}\n', b"\xff\xfe\n", b"\r\n", b"hello\n",
)  # fmt: skip


def make(folder: Path) -> None:
    """The home `folder` with a finished sweep, and the ledger of another one beside it."""
    before = os.environ.get("TUNE_RSST_HOME")
    os.environ["TUNE_RSST_HOME"] = str(folder)
    try:
        toy_sweep.make(folder, "toys")
        other = toy_sweep.make(folder, "other", "seed=5", "trials=2")
        other.ledger.rename(folder / "other.jsonl")
        shutil.copy(folder / LEDGER, folder / "original.jsonl")
    finally:
        os.environ.pop("TUNE_RSST_HOME")
        if before is not None:
            os.environ["TUNE_RSST_HOME"] = before


def sealed(text: str) -> bytes:
    """An event with a right checksum of its own, as an earlier version wrote lines."""
    return f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def bound(lines: Lines) -> Lines:
    """The same events, each bound anew to the one before, as only somebody who knows how can do."""
    place, found = Place(), []
    for line in lines:
        known = decode(line)
        new = encode(known.event, place) if known else line
        place.move_on(new, known is not None)
        found.append(new)
    return found


def spoil_ledger(draw: random.Random, path: Path, others: list[Path]) -> str | None:
    """Damage a ledger by lines in one way; which. None: let it be damaged as any other file is."""
    if draw.random() < 0.4:
        return None
    content, foreign = path.read_bytes(), others[0].read_bytes().splitlines(keepends=True)
    lines = content.splitlines(keepends=True)
    a, b = sorted(draw.sample(range(len(lines)), 2))
    other = draw.randrange(len(foreign))
    line = draw.choice(LINES) if draw.random() < 0.7 else sealed('{"event":"ended","time":1.0,"trial":"t0001"}')
    ways: dict[str, Callable[[], Lines]] = {
        "missing": lambda: lines[:a] + lines[a + 1 :],
        "several missing": lambda: lines[:a] + lines[b:],
        "some missing": lambda: [one for one in lines if draw.random() < 0.8],
        "doubled": lambda: lines[: a + 1] + lines[a:],
        "several doubled": lambda: lines[:b] + lines[a:],
        "swapped": lambda: [*lines[:a], lines[b], *lines[a + 1 : b], lines[a], *lines[b + 1 :]],
        "shuffled": lambda: draw.sample(lines, len(lines)),
        "end missing": lambda: lines[:b],
        "JSON in its place": lambda: [*lines[:a], line, *lines[a + 1 :]],
        "JSON before it": lambda: [*lines[:a], line, *lines[a:]],
        "JSON at the end": lambda: [*lines, line],
        "foreign in its place": lambda: [*lines[:a], foreign[min(a, len(foreign) - 1)], *lines[a + 1 :]],
        "foreign before it": lambda: [*lines[:a], foreign[other], *lines[a:]],
        "foreign at the end": lambda: [*lines, *foreign[other:]],
        "line break gone": lambda: [*lines[:a], lines[a][:-1], *lines[a + 1 :]],
        "other line breaks": lambda: [one.replace(b"\n", b"\r\n") for one in lines],
        "another encoding": lambda: [content.decode().encode(draw.choice(ENCODINGS), "replace")],
        "zeros within": lambda: [content[: (at := draw.randrange(len(content)))], b"\0" * 7, content[at:]],
        "several bits": lambda: [bytes(byte ^ (draw.random() < 0.001) for byte in content)],
    }
    way = draw.choice(sorted(ways))
    path.write_bytes(b"".join(ways[way]()))
    return way


def spoil_well(draw: random.Random, path: Path, others: list[Path]) -> str:
    """Edit events and bind all lines anew: checksums and digests are right, the content is not."""
    lines = path.read_bytes().splitlines(keepends=True)
    at = draw.randrange(len(lines))
    event = decode(lines[at])
    assert event is not None
    content = edited(draw, event.event)
    text = json.dumps(content, separators=(",", ":"))
    lines[at] = sealed(text) if isinstance(content, dict) and len(content) > 1 else text.encode() + b"\n"
    moved = draw.choice((lines, lines[:at] + lines[at + 1 :], [*lines[:at], lines[at - 1], *lines[at:]], lines, lines))
    path.write_bytes(b"".join(bound(moved)))
    return "edited and bound anew"


def _found(folder: Path) -> SweepFolder:
    os.environ["TUNE_RSST_HOME"] = str(folder)
    return home.find("toys")


def _told(sweep: Sweep) -> Any:
    json.dumps(as_json(sweep, None))
    return [sweep.state, toy_sweep.said(sweep.view)]


@cache
def _states(original: bytes) -> list[Any]:
    """What the sweep said after each of its lines, the last first."""
    events = [found.event for line in original.splitlines(keepends=True) if (found := decode(line))]
    views = [SweepView.of(events[:count]) for count in range(len(events), 0, -1)]
    for view in views:
        view.drive(False)
    return [toy_sweep.said(view) for view in views]


def read_ledger(folder: Path, said: list[str]) -> Any:
    """As `show` reads it, and as who follows it does."""
    sweep = Sweep.of(_found(folder))
    tail, view = LedgerTail(sweep.folder.ledger), SweepView(home=str(folder))
    while events := tail.read():
        for event in events:
            view.apply(event)
    assert toy_sweep.said(view).keys() == toy_sweep.said(sweep.view).keys()
    return _judged(folder, sweep)


def _judged(folder: Path, sweep: Sweep) -> Any:
    """The answer; EARLIER where it is that of an earlier moment and the file lacks its end alone."""
    told, states = _told(sweep)[1], _states((folder / "original.jsonl").read_bytes())
    if told == states[0]:
        return told
    if told in states:
        whole = (folder / "original.jsonl").read_bytes()
        if whole.startswith(sweep.folder.ledger.read_bytes()[: sweep.lines.place.size]):
            return EARLIER
    return told


def read_well(folder: Path, said: list[str]) -> Any:
    """A ledger that was written by somebody else: whatever it says, it is said or refused in one line."""
    _told(Sweep.of(_found(folder)))
    return EARLIER


def read_repaired(folder: Path, said: list[str]) -> Any:
    """The sweep after `tune-rsst repair`; EARLIER where it says what is lost."""
    os.environ["TUNE_RSST_HOME"] = str(folder)
    ledger, states = folder / LEDGER, _states((folder / "original.jsonl").read_bytes())
    damaged = ledger.read_bytes() if ledger.is_file() and not ledger.is_symlink() else b""
    done = repair(find("toys"), dry_run=False)
    said += done.said()
    sweep = Sweep.of(_found(folder))
    told = _told(sweep)[1]
    if told == states[0]:
        return told
    lines = (folder / "original.jsonl").read_bytes().splitlines(keepends=True)
    there = [found.event for line in lines if line in damaged and (found := decode(line))]
    kept = all(event in sweep.lines.events for event in there)
    return EARLIER if done.lost or (kept and told in states) else told


def read_settings(folder: Path, said: list[str]) -> Any:
    """As `repair` reads them."""
    return written_by_us(folder / "toys" / "settings.yaml")


def read_study(folder: Path, said: list[str]) -> Any:
    """As a resume opens it."""
    found = _found(folder)
    sweep = Sweep.of(found)
    settings, space, _ = spaces.settle(settings_again(sweep, {}))
    ledger = Ledger(found.ledger)
    try:
        driver = assemble(ledger, settings, space)
        study = driver.searcher.study
        trials = [(_essence(one), one.distributions) for one in study.get_trials(deepcopy=False)]
        return [trials, study.directions, driver.searcher.ask({}).number]
    finally:
        ledger.close()
