"""A run of `python -m trainables` in MLflow: one run without a parent, or joined to a sweep's.

In: SAVE_DIR, where the run keeps its report or, while it runs, its checkpoints; its process holds the lock there.
Out: an MLflow run, found again by its tags. Points get their times from the run's start and the seconds
that the report counts, so that the same report a second time gives the same points once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.plugins import said
from trainables.provenance import origin
from trainables.rsst.config import ConfigError, RSSTConfig, read_config
from trainables.rsst.event import Event, read_report
from trainables.rsst.store.reading import history_in
from trainables.storage.files import expanded
from trainables.storage.forms import WrongForm
from trainables.storage.locks import is_held
from trainables.text import go_on_command
from tune_rsst.results.commands import rerun_command
from tune_rsst.tracking.writes import PARENT, SWEEP_STATUS, Write, images_of, points_of, tags_of, text


@dataclass(frozen=True)
class SingleRun:
    """A run as far as its folder shows it, and what its record is to hold.

    `events` in order; `alive`: a process holds its lock; `place`: the tags that put it below a sweep.
    """

    folder: Path
    config: RSSTConfig
    events: list[Event]
    alive: bool
    place: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """finished, running, or interrupted: it can be resumed."""
        if any(event.kind == "final" for event in self.events):
            return "finished"
        return "running" if self.alive else "interrupted"

    @property
    def uid(self) -> str:
        """12 hex digits: what was run, and where it is."""
        return hashlib.sha256(f"{self.config.fingerprint} {self.folder}".encode()).hexdigest()[:12]

    def identity(self, run: str) -> tuple[str, int, dict[str, str]]:
        """Name, start in ms and tags that the run is created with, and found again by."""
        assert run == PARENT, "a single run has no children"
        start_ms = round((self.folder / "config.json").stat().st_ctime * 1000)
        tags = {"sweep_uid": self.uid, "role": "single", "mlflow.source.name": "tune-rsst track", **self.place}
        return f"{self.config.arch} {said(self.config.dataset)} {self.folder.name}", start_ms, tags

    def write(self, begun_ms: int, done: int) -> Write:
        """All but the first `done` events, with times counted from `begun_ms`; everything else in full."""
        write = Write(PARENT, params={name: text(value) for name, value in self.config.knobs().items()})
        write.tags = {"state": self.state, "fingerprint": self.config.fingerprint, **self.place}
        write.tags |= {"save_dir": text(self.folder)} | {k: text(v) for k, v in origin().items() if k == "host"}
        again = rerun_command(self.config.knobs())
        resume = go_on_command(self.folder)
        note = f"Run it again:\n\n```\n{again}\n```\n\nGo on with it:\n\n```\n{resume}\n```"
        write.tags["mlflow.note.content"] = note
        ms, seconds = begun_ms, 0.0
        for number, event in enumerate(self.events):
            write.tags |= tags_of(event.metrics)
            seconds += float(event.metrics.get("seconds", 0.0)) if event.kind == "epoch" else 0.0
            ms = begun_ms + round(1000 * seconds)
            if number >= done:
                write.points += points_of(event, ms)
                write.images += images_of(event, self.config.knobs())
        write.status = SWEEP_STATUS[self.state]
        write.end_ms = None if self.state == "running" else ms
        return write


def read(save_dir: Path, place: Mapping[str, str] | None = None) -> SingleRun:
    """What `save_dir` shows now: the report of a finished run, else the newest checkpoint's history."""
    folder = expanded(save_dir)
    try:
        config = RSSTConfig.from_knobs(read_config(folder / "config.json"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"its config.json can't be read: {error}"
        raise ConfigError("save_dir", save_dir, "the folder of a python -m trainables run", reason) from None
    report, store = folder / "report.json", folder / "state" / config.fingerprint
    if not store.exists():  # an earlier method had other fingerprints
        store = next((folder / "state").glob("*/"), store)
    alive = is_held(store / "lock")  # first: a run that ends meanwhile has left its report
    events = _of_report(_whole(report)) if report.exists() else _of_checkpoint(store)
    return SingleRun(folder, config, events, alive, place or {})


def _whole(report: Path) -> dict[str, Any]:
    try:
        return read_report(report)
    except (OSError, WrongForm) as error:
        hint = f"{getattr(error, 'strerror', None) or error}; --resume in that folder writes it again"
        raise ConfigError("save_dir", report.parent, "a folder whose report.json can be read", hint) from None


def _of_report(report: Mapping[str, Any]) -> list[Event]:
    both = [Event(kind, metrics) for kind in ("epoch", "round") for metrics in report[f"{kind}s"]]
    start, final = ([Event(kind, report[kind])] if report[kind] else [] for kind in ("start", "final"))
    return [*start, *sorted(both, key=lambda event: event.metrics["round"]), *final]


def _of_checkpoint(store: Path) -> list[Event]:
    """The history of the newest checkpoint; empty before the first."""
    return [Event.from_json(event) for event in history_in(store)]
