"""A run of `python -m trainables` in MLflow: one run without a parent, or joined to a sweep's.

In: SAVE_DIR, where the run keeps its report or, while it runs, its checkpoints; its process holds the lock there.
Out: an MLflow run, found again by its tags. Points get their times from the run's start and the seconds
that the report counts, so that the same report a second time gives the same points once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.event import Event
from trainables.storage.locks import is_held
from trainables.text import single_run
from tune_rsst.ledger.provenance import origin
from tune_rsst.results.commands import rerun_command
from tune_rsst.tracking.writes import PARENT, SWEEP_STATUS, Write, points_of, tags_of, text


@dataclass(frozen=True)
class SingleRun:
    """A run as far as its folder shows it; `events` in order; `alive`: a process holds its lock."""

    folder: Path
    config: RSSTConfig
    events: list[Event]
    alive: bool

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


def read(save_dir: Path) -> SingleRun:
    """What `save_dir` shows now: the report of a finished run, else the newest checkpoint's history."""
    folder = save_dir.expanduser().absolute()
    try:
        config = RSSTConfig.from_knobs(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its config.json can't be read"
        raise ConfigError("save_dir", save_dir, "the folder of a python -m trainables run", reason) from None
    report, store = folder / "report.json", folder / "state" / config.fingerprint
    alive = is_held(store / "lock")  # first: a run that ends meanwhile has left its report
    if report.exists():
        return SingleRun(folder, config, _of_report(json.loads(report.read_text(encoding="utf-8"))), alive)
    return SingleRun(folder, config, _of_checkpoint(store), alive)


def _of_report(report: Mapping[str, Any]) -> list[Event]:
    epochs = [Event("epoch", metrics) for metrics in report["epochs"]]
    rounds = [Event("round", metrics) for metrics in report["rounds"]]
    found = [Event("start", report["start"])] if report["start"] else []
    found += sorted((*epochs, *rounds), key=lambda event: event.metrics["round"])
    return found + ([Event("final", report["final"])] if report["final"] else [])


def _of_checkpoint(store: Path) -> list[Event]:
    """The history of the newest checkpoint; empty before the first. A folder that vanishes meanwhile is passed over."""
    for folder in sorted(store.glob("r[0-9]*"), reverse=True):
        try:
            history = json.loads((folder / "state.json").read_text(encoding="utf-8"))["history"]
        except (OSError, ValueError, KeyError):
            continue
        return [Event.from_json(event) for event in history]
    return []


class SinglePlan:
    """What is to be in the run's record. Built from the folder each time; the store writes only what is new."""

    def __init__(self, run: SingleRun, joined: tuple[str, str] | None) -> None:
        """`joined`: name of the sweep and id of its parent run."""
        self.run, self._joined = run, joined
        self.start_ms = round((run.folder / "config.json").stat().st_ctime * 1000)

    def identity(self, run: str) -> tuple[str, int, dict[str, str]]:
        """Name, start in ms and tags that the run is created with, and found again by."""
        assert run == PARENT, "a single run has no children"
        config = self.run.config
        tags = {"sweep_uid": self.run.uid, "role": "single", "mlflow.source.name": "tune-rsst track"}
        return f"{config.arch} {config.dataset} {self.run.folder.name}", self.start_ms, tags | self._place()

    def _place(self) -> dict[str, str]:
        return {"sweep": self._joined[0], "mlflow.parentRunId": self._joined[1]} if self._joined else {}

    def write(self, begun_ms: int, done: int) -> Write:
        """All but the first `done` events, with times counted from `begun_ms`; everything else in full."""
        run = self.run
        write = Write(PARENT, params={name: text(value) for name, value in run.config.knobs().items()})
        write.tags = {"state": run.state, "fingerprint": run.config.fingerprint, **self._place()}
        write.tags |= {"save_dir": text(run.folder), "mlflow.note.content": self._note()}
        write.tags |= {name: text(value) for name, value in origin().items() if name == "host"}
        for event in run.events:
            write.tags |= tags_of(event.metrics)
        ms = begun_ms
        for number, (ms, event) in enumerate(self._timed(begun_ms)):
            if number >= done:
                write.points += points_of(event, ms)
        write.status = SWEEP_STATUS[run.state]
        write.end_ms = None if run.state == "running" else ms
        return write

    def _timed(self, begun_ms: int) -> Iterator[tuple[int, Event]]:
        seconds = 0.0
        for event in self.run.events:
            seconds += float(event.metrics.get("seconds", 0.0)) if event.kind == "epoch" else 0.0
            yield begun_ms + round(1000 * seconds), event

    def _note(self) -> str:
        again = rerun_command(self.run.config.knobs())
        resume = single_run(self.run.folder / "config.json", self.run.folder)
        return f"Run it again:\n\n```\n{again}\n```\n\nGo on with it:\n\n```\n{resume}\n```"
