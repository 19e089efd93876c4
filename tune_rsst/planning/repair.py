"""`tune-rsst repair`: a damaged ledger is put right, as far as it follows for certain from what else there is.

In: a sweep's folder. Out: its ledger with whole lines, each bound to the one before; lines that say what was done, what
was rebuilt, and what is lost. The old file is kept beside it. Nothing is written where nothing is wrong.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trainables.rsst.config import METHOD_VERSION, ConfigError
from trainables.rsst.event import read_report
from trainables.rsst.store.reading import history_in
from trainables.storage.files import keep_as, regular_bytes, replaced
from trainables.storage.forms import WrongForm
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.file import LEDGER_NAME
from tune_rsst.ledger.lines import LedgerError, Place, encode, events_in
from tune_rsst.ledger.lock import driving
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning import own_plugins
from tune_rsst.planning.damage.rebuild import Entry, Rebuilding
from tune_rsst.planning.damage.salvage import Gap, Whole, salvage
from tune_rsst.planning.own_space import refuse_uncopied
from tune_rsst.planning.plan import Plan, checked, with_addresses
from tune_rsst.planning.resume import settings_again
from tune_rsst.search.asked_again import asked_again, trials_of
from tune_rsst.search.halving import Rungs
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.settings.addresses import without_secrets
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.settings.written import written_by_us
from tune_rsst.storage import bucket, home
from tune_rsst.storage.folder import Sweep, SweepFolder, is_foreign

MOST_BYTES = 1 << 32


@dataclass
class Repair:
    """What was, or would be done. `content`: the new ledger; None where nothing is wrong with the old one."""

    folder: SweepFolder
    content: bytes | None
    lines: int
    done: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    aside: Path | None = None

    def said(self) -> list[str]:
        """For people, a line each."""
        if self.content is None:
            return [f"{self.folder.name}: nothing to repair, {self.lines} lines follow each other as they were written"]
        found = [f"{self.folder.name}: {line}" for line in dict.fromkeys(self.done)]
        found += [f"{self.folder.name}: rebuilt: {line}" for line in self.rebuilt]
        found += [f"{self.folder.name}: lost: {line}" for line in self.lost]
        if self.aside:
            found.append(f"{self.folder.name}: {self.lines} lines; the old ledger is {self.aside}")
        return found


def find(name: str) -> SweepFolder:
    """The sweep of that name, also where nothing of its ledger can be read."""
    path = home.home() / name
    if "/" not in name and path.is_dir() and (os.path.lexists(path / LEDGER_NAME) or (path / "trials").is_dir()):
        return SweepFolder(path)
    return home.find(name)


def repair(folder: SweepFolder, *, dry_run: bool) -> Repair:
    """Put the ledger in `folder` right; with `dry_run` only say what would be done. Holds the sweep's lock."""
    with driving(folder.path):
        found = _planned(folder)
        if found.content is None or dry_run:
            return found
        storage = _view(found.content, folder).settings.get("storage")
        with bucket.held(storage, folder, print, Interruption()):
            if found.aside is not None:
                _write(folder, found.content, found.aside)
            if storage is not None:
                bucket.replace_ledger(storage, folder)
        return found


def _planned(folder: SweepFolder) -> Repair:
    old = _bytes(folder.ledger)
    salvaged = salvage(old)
    there = b""
    if salvaged.items and (storage := _storage(salvaged.items)):
        there = bucket.ledger_bytes(storage, folder.name)
        salvaged = salvage(old, there)
    items, done, rebuilt = list(salvaged.items), list(salvaged.done), list[str]()
    if is_foreign(folder, _fingerprints(items)):
        items, done = [], ["the ledger was that of another sweep: none of its trials is here"]
    if not items or not isinstance(items[0], Whole) or items[0].line.event["event"] != "sweep_started":
        items, said = _with_first_line(folder, items)
        rebuilt.append(said)
    sources = _Sources(folder, items)
    rebuilding = Rebuilding.of(items, sources.asked, sources.history, sources.rungs, sources.numbers)
    rebuilding.run()
    entries, rebuilt, lost = rebuilding.entries(), [*rebuilt, *rebuilding.rebuilt], rebuilding.lost
    content = _encoded(entries)
    if content == old and content.startswith(there):
        return Repair(folder, None, len(entries))
    if content == old:
        return Repair(folder, content, len(entries), [*done, "the ledger in the bucket is written anew"])
    aside = _aside(folder)
    if rebuilt or lost:
        told = {"lines": len(entries), "rebuilt": rebuilt, "lost": lost, "to_do": rebuilding.to_do}
        told |= {"aside": aside.name}
        entries.append(Entry({"event": "repaired", "time": round(time.time(), 3), **told}))
        content = _encoded(entries)
    _view(content, folder)
    return Repair(folder, content, len(entries), done, rebuilt, lost, aside)


def _bytes(path: Path) -> bytes:
    try:
        return regular_bytes(path, MOST_BYTES)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EIO):
            raise LedgerError(f"ledger = {path}: can't be read ({error.strerror})") from None
        return b""


def _fingerprints(items: Sequence[Whole | Gap]) -> set[str]:
    events = [item.line.event for item in items if isinstance(item, Whole)]
    return {str(event.get("fingerprint")) for event in events if event["event"] == "suggested"}


def _storage(items: Sequence[Whole | Gap]) -> str | None:
    first = items[0]
    settings = first.line.event.get("settings") if isinstance(first, Whole) else None
    return settings.get("storage") if isinstance(settings, dict) else None


def _encoded(entries: Sequence[Entry]) -> bytes:
    """The lines as they were written, up to the first that is not where it was; from there on they are bound anew."""
    place, found = Place(), bytearray()
    for entry in entries:
        line = entry.whole.line if entry.whole else None
        fits = line is not None and (
            not place.sealed if not line.number else (line.number, line.before) == (place.lines + 1, place.before)
        )
        raw = entry.whole.raw if entry.whole and fits else encode(entry.event, place)
        place.move_on(raw, not fits or bool(line and line.number))
        found += raw
    return bytes(found)


def _view(content: bytes, folder: SweepFolder) -> SweepView:
    """The view of the new ledger; a LedgerError where it is none."""
    return SweepView.of(events_in(content), str(folder.path.parent))


def _aside(folder: SweepFolder) -> Path:
    """A name for the old ledger that nothing has."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (f"{LEDGER_NAME}.{stamp}{more}.aside" for more in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(folder.path / name for name in names if not os.path.lexists(folder.path / name))


def _write(folder: SweepFolder, content: bytes, aside: Path) -> None:
    if os.path.lexists(folder.ledger):
        keep_as(folder.ledger, aside)
    with replaced(folder.ledger) as new:
        new.write_bytes(content)
    with suppress(FileNotFoundError, IsADirectoryError):
        folder.cursor.unlink()  # it counts bytes of the old file; MLflow takes each line once


def _with_first_line(folder: SweepFolder, items: list[Whole | Gap]) -> tuple[list[Whole | Gap], str]:
    """The lines with a first one that says what settings.yaml says."""
    plan = _planned_from_settings(folder)
    rest = items[1:] if items and isinstance(items[0], Gap) and items[0].lines <= 1 else items
    begins = next((item.line.event["time"] for item in rest if isinstance(item, Whole)), time.time())
    event = {
        "event": "sweep_started",
        "time": begins,
        "name": folder.name,
        "settings": without_secrets(plan.settings.flat()),
        "space": plan.settings.space,
        "method": METHOD_VERSION,
        "home": str(folder.path.parent),
        **plan.record(),
        "seed": plan.settings.seed,
    }
    place = Place()
    raw = encode(event, place)
    (line,) = [item for item in salvage(raw).items if isinstance(item, Whole)]
    rest = rest or [Gap()]
    return [line, *rest], "the first line, from settings.yaml and the space as it is now; MLflow gets a new run for it"


def _planned_from_settings(folder: SweepFolder) -> Plan:
    why = f"ledger = {folder.ledger}: its first line is lost, and"
    try:
        written = written_by_us(folder.settings)
        if written.get("warm_start"):
            raise LedgerError(f"{why} trials of earlier sweeps stood in it, which nothing else tells of")
        settings = resolve({**written, "name": folder.name})
        refuse_uncopied(settings, folder)
        own_plugins.refuse_uncopied(settings, folder)
        return checked(with_addresses(settings, folder), folder, weights=_own_weights(folder))
    except ConfigError as error:
        raise LedgerError(f"{why} it can't be rebuilt: {error}") from None


def _own_weights(folder: SweepFolder) -> SweepWeights | None:
    """None: those of the settings are looked for."""
    return None if not folder.weights.is_dir() or not any(folder.weights.iterdir()) else SweepWeights()


class _Sources:
    """What else tells of the sweep: its study and space, its trials' stores."""

    def __init__(self, folder: SweepFolder, items: Sequence[Whole | Gap]) -> None:
        self._folder = folder
        first = items[0]
        assert isinstance(first, Whole)
        self._uid = hashlib.sha256(first.raw).hexdigest()[:12]
        self._view = SweepView.of([first.line.event], str(folder.path.parent))

    @cached_property
    def _settings(self) -> SweepSettings:
        return settings_again(Sweep(self._folder, self._view, "interrupted"), {})

    def rungs(self) -> Rungs:
        """The sweep's empty rungs."""
        return Rungs.of(self._settings)

    def history(self, fingerprint: str) -> Sequence[Mapping[str, Any]]:
        """Reports of a trial in its newest checkpoint, else in its report.json."""
        store = self._folder.store(fingerprint)
        try:
            if found := history_in(store):  # without a report its model is still to be written
                return [e for e in found if e["kind"] != "final" or (store / "report.json").exists()]
            report = read_report(store / "report.json")
        except (OSError, WrongForm):
            return []
        both = [{"kind": kind, **metrics} for kind in ("epoch", "round") for metrics in report[f"{kind}s"]]
        start, final = ([{"kind": kind, **report[kind]}] if report[kind] else [] for kind in ("start", "final"))
        return [*start, *sorted(both, key=lambda event: (event["round"], event["kind"] == "round")), *final]

    @cached_property
    def _asked(self) -> Mapping[int, Any]:
        address = self._settings.optuna_storage
        if address in (None, "memory"):
            return {}
        return trials_of(str(address), self._folder.name, None if address == self._folder.study else self._uid)

    @cached_property
    def _plan(self) -> Plan | None:
        try:
            weights = SweepWeights.recalled(self._view.start.get("weights", ()), self._folder.weights)
            sweep = Sweep(self._folder, self._view, "interrupted")
            plan = checked(self._settings, self._folder, weights=weights, sweep=sweep)
        except ConfigError:
            return None
        return plan if plan.space_digest == self._view.start.get("space_digest", plan.space_digest) else None

    def numbers(self) -> Iterable[int]:
        """Of the suggestions that the study holds."""
        return self._asked.keys()

    def asked(self, number: int, known: Mapping[str, str]) -> dict[str, Any] | None:
        """The line of the study's suggestion `number`; None where study or space can't tell."""
        frozen = self._asked.get(number)
        if frozen is None or self._plan is None:
            return None
        return asked_again(frozen, self._plan.space, self._plan.weights, self._plan.settings, known)
