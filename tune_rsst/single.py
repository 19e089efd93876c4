"""A run of `python -m trainables` in MLflow: one run without a parent, or joined to a sweep's.

Comes in: SAVE_DIR, where the run keeps its report or, while it goes on, its checkpoints. Goes out: an MLflow run, found
again by its tags. Points get their times from the run's start and the seconds that the report counts, so that the same
report a second time gives the same points once.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.config import hide_password
from tune_rsst.origin import origin
from tune_rsst.tracking_note import rerun_command
from tune_rsst.tracking_plan import FINAL, PARENT, PER_EPOCH, PER_ROUND, START_TAGS, Point, Write, finite_number, text

FOLLOW_S = 2.0
Events = list[dict[str, Any]]


@dataclass(frozen=True)
class SingleRun:
    """A run as far as its folder shows it; `events` are the core's, in order, each with its kind."""

    folder: Path
    config: RSSTConfig
    events: Events

    @property
    def finished(self) -> bool:
        return any(event["kind"] == "final" for event in self.events)

    @property
    def uid(self) -> str:
        """12 hex digits: what was run, and where it lies."""
        return hashlib.sha256(f"{self.config.fingerprint} {self.folder}".encode()).hexdigest()[:12]


def read(save_dir: Path) -> SingleRun:
    """What `save_dir` shows now: the report of a finished run, else the newest checkpoint's history.

    Raises:
        ConfigError: it is not the folder of a run.
    """
    folder = save_dir.expanduser().absolute()
    try:
        config = RSSTConfig.from_knobs(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its config.json can't be read"
        raise ConfigError("save_dir", save_dir, "the folder of a python -m trainables run", reason) from None
    report = folder / "report.json"
    if report.exists():
        return SingleRun(folder, config, _of_report(json.loads(report.read_text(encoding="utf-8"))))
    return SingleRun(folder, config, _of_checkpoint(folder / "state" / config.fingerprint))


def _of_report(report: Mapping[str, Any]) -> Events:
    found = [{"kind": "start", **report["start"]}] if report["start"] else []
    by_round: dict[int, Events] = {}
    for event in report["epochs"]:
        by_round.setdefault(event["round"], []).append({"kind": "epoch", **event})
    for event in report["rounds"]:
        by_round.setdefault(event["round"], []).append({"kind": "round", **event})
    found += [event for number in sorted(by_round) for event in by_round[number]]
    return found + ([{"kind": "final", **report["final"]}] if report["final"] else [])


def _of_checkpoint(store: Path) -> Events:
    """The history of the newest checkpoint; empty before the first. A folder that vanishes meanwhile is passed over."""
    for folder in sorted(store.glob("r[0-9]*"), reverse=True):
        try:
            history = json.loads((folder / "state.json").read_text(encoding="utf-8"))["history"]
        except (OSError, ValueError, KeyError):
            continue
        return list(history)
    return []


class SinglePlan:
    """What is to be in the run's record. Built anew from the folder each time; the store writes only what is new."""

    def __init__(self, run: SingleRun, joined: tuple[str, str] | None) -> None:
        """`joined`: name of the sweep and id of its parent run."""
        self.run, self._joined = run, joined
        self.start_ms = round((run.folder / "config.json").stat().st_ctime * 1000)

    def identity(self, run: str) -> tuple[str, int, dict[str, str]]:
        """Name, start in ms and tags that the run is created with, and found again by."""
        assert run == PARENT, "a single run has no children"
        config = self.run.config
        tags = {"sweep_uid": self.run.uid, "role": "single", "mlflow.source.name": "tune-rsst track"}
        if self._joined is not None:
            tags |= {"sweep": self._joined[0], "mlflow.parentRunId": self._joined[1]}
        return f"{config.arch} {config.dataset} {self.run.folder.name}", self.start_ms, tags

    def write(self, begun_ms: int, done: int) -> Write:
        """All but the first `done` events, with times counted from `begun_ms`; everything else in full."""
        run = self.run
        write = Write(PARENT, params={name: text(value) for name, value in run.config.knobs().items()})
        write.tags = {"state": "finished" if run.finished else "running", "fingerprint": run.config.fingerprint}
        write.tags |= {"save_dir": text(run.folder), "mlflow.note.content": self._note()}
        write.tags |= {name: text(value) for name, value in origin().items() if name == "host"}
        for event in run.events:
            write.tags |= {name: text(event[name]) for name in START_TAGS if event.get(name) is not None}
        ms = begun_ms
        for number, (ms, event) in enumerate(self._timed(begun_ms)):
            if number >= done:
                write.points += _points(event, ms)
        write.status = "FINISHED" if run.finished else "RUNNING"
        write.end_ms = ms if run.finished else None
        return write

    def _timed(self, begun_ms: int) -> Iterator[tuple[int, dict[str, Any]]]:
        seconds = 0.0
        for event in self.run.events:
            seconds += float(event.get("seconds", 0.0)) if event["kind"] == "epoch" else 0.0
            yield begun_ms + round(1000 * seconds), event

    def _note(self) -> str:
        again = rerun_command(self.run.config.knobs())
        resume = f"python -m trainables --config {self.run.folder}/config.json --save_dir {self.run.folder} --resume"
        return f"Run it again:\n\n```\n{again}\n```\n\nGo on with it:\n\n```\n{resume}\n```"


def _points(event: Mapping[str, Any], ms: int) -> list[Point]:
    names, step, into = {
        "epoch": (PER_EPOCH, event.get("epochs_trained", 0), ""),
        "round": (PER_ROUND, event.get("round", 0), ""),
        "final": (FINAL, 0, "final/"),
    }.get(event["kind"], ((), 0, ""))
    values = ((name, finite_number(event.get(name))) for name in names)
    return [(into + name, value, ms, int(step)) for name, value in values if value is not None]


class Follower:
    """Keeps an MLflow run level with a run's folder."""

    def __init__(self, save_dir: Path, uri: str, experiment: str, sweep: str | None) -> None:
        """Connect.

        Raises:
            ConfigError: no folder of a run, or no such sweep in MLflow.
            Exception: the store can't be reached.
        """
        from tune_rsst.tracking import SweepRuns, find_parent_run

        self.run = read(save_dir)
        joined = None
        if sweep is not None:
            parent = find_parent_run(uri, experiment, sweep)
            if parent is None:
                raise ConfigError("sweep", sweep, f"a sweep in the experiment {experiment} of that MLflow")
            joined = (sweep, parent)
        self._joined = joined
        self._store = SweepRuns(uri, experiment, self.run.uid)
        self._done = 0

    @property
    def run_id(self) -> str:
        return self._store.runs[PARENT]

    def step(self) -> int:
        """Upload what is new; the number of events that are in MLflow now.

        Raises:
            RuntimeError: MLflow will never take it.
            Exception: the store can't be reached; try again.
        """
        self.run = read(self.run.folder)
        plan = SinglePlan(self.run, self._joined)
        refusal = self._store.put(plan.write(self._store.start_ms(PARENT, plan), self._done), plan)
        if refusal:
            raise RuntimeError(f"MLflow: {refusal}")
        self._done = len(self.run.events)
        return self._done


def keep_level(save_dir: Path, uri: str, experiment: str, sweep: str | None, follow: bool) -> None:
    """Upload once or, with `follow`, until the run has finished; says what is there.

    Raises:
        ConfigError: no folder of a run, or no such sweep in MLflow.
        ConnectionError: MLflow can't be reached, or refuses; one line without passwords. Not with `follow`.
    """
    read(save_dir)
    follower: Follower | None = None
    shown, told = -1, ""
    while True:
        try:
            follower = follower or Follower(save_dir, uri, experiment, sweep)
            count = follower.step()
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever a store raises)
            line = hide_password(" ".join(str(error).split())[:300])
            if not follow:
                raise ConnectionError(f"mlflow = {hide_password(uri)}: {line}") from None
            if line != told:
                print(f"MLflow can't be reached, trying again: {line}", file=sys.stderr, flush=True)
            told = line
        else:
            if count != shown:
                state = "finished" if follower.run.finished else "running"
                print(f"{save_dir}: {count} events in run {follower.run_id} ({state})", flush=True)
            shown = count
            if follower.run.finished or not follow:
                return
        time.sleep(FOLLOW_S)
