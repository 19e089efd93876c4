"""What each line of the ledger means in MLflow, without MLflow: a pure function of the lines so far.

In: ledger events in order (`RunWrites.apply`).
Out: `RunWrites.take()`, one `Write` per run: what is to be in it. runs.py puts it there.
Points carry the ledger's own timestamps, so that writing them twice gives the same points once.

Steps: per-epoch curves have step = epochs_trained, per-round curves step = round, the parent's best/val_top1
step = epochs trained by the whole sweep, its trials/… counts step = number of trials that have ended
(infeasible: of such suggestions), system/… of a trial step = number of its samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.rsst.event import Event
from trainables.rsst.metrics import METRICS, kept_per
from trainables.storage.secrets import hide_password
from tune_rsst.ledger.view import SweepView, searched
from tune_rsst.results.ranking import at_target, pareto_front, ranking
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.notes import NOTE_LENGTH, run_name, sweep_note, trial_note

PARENT = ""
STATUS = {
    "running": "RUNNING",
    "interrupted": "KILLED",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
SWEEP_STATUS = {"running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED"}
START_PARAMS = tuple(name for name in kept_per("start") if not METRICS[name].words)
PARETO_COLOR = "#c2410c"
MAX_TAG, MAX_PARAM = NOTE_LENGTH, 6000

Point = tuple[str, float, int, int]
"""key, value, time in ms, step"""
Images = tuple[Mapping[str, Any], str]
"""What is known of a data set, and where it is"""


@dataclass
class Write:
    """What is to be in one run (`run` is a trial or PARENT) beside what is there already; `status` None leaves it.

    `images`: data sets that the run reads, each as its start event has it (`AboutImages.to_json`) and where it is.
    """

    run: str
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    images: list[Images] = field(default_factory=list)
    status: str | None = None
    end_ms: int | None = None


def text(value: object) -> str:
    """A value as parameter text: numbers as the UI reads numbers, truth values and None as the flags take them."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return hide_password(str(value))[:MAX_PARAM]


def points(names: Iterable[str], metrics: Mapping[str, Any], ms: int, step: int, into: str = "") -> list[Point]:
    """Those of `names` that are finite numbers in `metrics`, as points of MLflow's curves."""
    numbers = ((n, v) for n in names if isinstance(v := metrics.get(n), int | float) and not isinstance(v, bool))
    return [(into + name, float(value), ms, step) for name, value in numbers if math.isfinite(value)]


def points_of(event: Event, ms: int) -> list[Point]:
    """What a trial's event adds to its curves. The end adds what rounds do not report: the rest ends with its curve.

    What is known at the start is no curve but a parameter.
    """
    if event.kind == "start":
        return []
    step = event.metrics.get("epochs_trained" if event.kind == "epoch" else "round", 0)
    of_rounds = kept_per("round") if event.kind == "final" else ()
    return points((n for n in kept_per(event.kind) if n not in of_rounds), event.metrics, ms, int(step))


def tags_of(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The tags that a trial's event adds."""
    return {n: text(metrics[n]) for n, metric in METRICS.items() if metric.tag and metrics.get(n) is not None}


def images_of(event: Event, knobs: Mapping[str, Any]) -> list[Images]:
    """The data set that a trial's event names: its start, but for those of older versions."""
    found = event.metrics.get("images")
    return [(found, str(knobs.get("data") or found["name"]))] if found else []


class RunWrites:
    """Collects what to write while events are applied; `take` hands it out and begins again."""

    def __init__(self, sweep_uid: str, folder: SweepFolder) -> None:
        self.sweep_uid, self._folder = sweep_uid, folder
        self.view = SweepView(home=str(folder.path.parent))
        self.births: dict[str, int] = {}
        self._writes: dict[str, Write] = {}
        self._touched: set[str] = set()
        self._rank_again = False
        self._epochs = 0
        self._samples: Counter[str] = Counter()
        self._started_from: set[str] = set()
        self._data_sets: set[str] = set()
        self._best = -math.inf
        self._count = dict.fromkeys(("finished", "stopped", "failed"), 0)
        self.state = "running"

    def take(self) -> list[Write]:
        """What the events since the last call ask for, the parent first."""
        if self._rank_again:
            self._tag_ranks()
        sweep = Sweep(self._folder, self.view, self.state)
        for run in sorted(self._touched):
            tags = self._write(run).tags
            if run == PARENT:
                order = ranking(self.view)
                tags |= {"best_trial": order[0].trial} if order else {}
                tags["mlflow.note.content"] = sweep_note(sweep, order)[:MAX_TAG]
            else:
                tags["mlflow.note.content"] = trial_note(sweep, self.view.trials[run])[:MAX_TAG]
        writes = sorted(self._writes.values(), key=lambda w: w.run)
        self._writes, self._touched, self._rank_again = {}, set(), False
        return writes

    def identity(self, run: str) -> tuple[str, int, dict[str, str]]:
        """Name, start in ms and tags that a run of this sweep is created with, and found again by."""
        tags = {"sweep": self.view.name, "sweep_uid": self.sweep_uid, "mlflow.source.name": "tune-rsst"}
        if run == PARENT:
            return self.view.name, self.births[PARENT], {**tags, "role": "sweep"}
        return run_name(run, self.view.trials[run].searched), self.births[run], {**tags, "role": "trial", "trial": run}

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take the next ledger event in. Kinds that a later version may add ask for nothing."""
        report = Event(event["kind"], event["metrics"]) if event["event"] == "reported" else None
        known = report is not None and self.view.trials[event["trial"]].knows(report)
        self.view.apply(event)
        ms = round(float(event["time"]) * 1000)
        match event["event"]:
            case "sweep_started":
                self._sweep_started(event, ms)
            case "suggested":
                self._suggested(event, ms)
            case "infeasible":
                n = len(self.view.infeasible)
                self._write(PARENT).points.append(("trials/infeasible", float(n), ms, n))
                self._touched.add(PARENT)
            case "reported" if report is not None and not known:
                self._reported(event["trial"], report, ms)
            case "ended":
                self._trial_ended(event["trial"], ms)
            case "reopened":
                self._reopened(event["trial"], ms)
            case "system":
                for sample in event["samples"]:
                    self._sampled(event["trial"], sample)
            case "placed":
                self._write(event["trial"]).tags |= {
                    name: text(event[name]) for name in ("host", "node") if event[name]
                }
            case "resumed":
                self._sweep_state("running", None)
                for trial in self.view.unfinished:
                    self._trial_state(trial.trial, ms)
            case "interrupted":
                self.interrupted()
                self._sweep_best(ms)
            case "sweep_ended":
                self._sweep_state("finished", ms)
                self._sweep_best(ms)

    def interrupted(self) -> None:
        """Nobody drives the sweep any more, whether its last line says so or not: it and its trials end with that line.

        Once is enough: a later line that says it again does not move the end.
        """
        if self.state == "interrupted":
            return
        self.view.drive(False)
        ms = round(self.view.updated_at * 1000)
        self._sweep_state("interrupted", ms)
        for trial in self.view.unfinished:
            self._trial_state(trial.trial, ms)

    def _write(self, run: str) -> Write:
        return self._writes.setdefault(run, Write(run))

    def _sweep_started(self, event: Mapping[str, Any], ms: int) -> None:
        self.births[PARENT] = ms
        write = self._write(PARENT)
        named = {name: event[name] for name in ("space", "space_digest", "seed") if name in event}
        write.params |= {name: text(value) for name, value in {**event["settings"], **named}.items()}
        versions = event.get("versions") or {}
        write.tags |= {f"version.{name}": text(value) for name, value in versions.items() if name != "git"}
        for name, tag in (("git", "mlflow.source.git.commit"), ("host", "host"), ("user", "mlflow.user")):
            if value := event.get(name, versions.get(name)):
                write.tags[tag] = text(value)
        self._sweep_state("running", None)

    def _suggested(self, event: Mapping[str, Any], ms: int) -> None:
        trial = event["trial"]
        self.births.setdefault(trial, ms)
        write = self._write(trial)
        knobs = event["knobs"]
        write.params |= {name: text(value) for name, value in {**knobs, **searched(event["params"], knobs)}.items()}
        write.tags["fingerprint"] = event["fingerprint"]
        self._trial_state(trial, ms)

    def _trial_state(self, name: str, ms: int) -> None:
        """The run's status is that of the trial since `ms`."""
        write, state = self._write(name), self.view.trials[name].state
        write.status, write.tags["state"] = STATUS[state], state
        write.end_ms = None if write.status == "RUNNING" else ms
        self._touched.add(name)

    def _reported(self, trial: str, event: Event, ms: int) -> None:
        write, kind, metrics = self._write(trial), event.kind, event.metrics
        write.points += points_of(event, ms)
        write.tags |= tags_of(metrics)
        write.params |= {name: text(metrics[name]) for name in START_PARAMS if metrics.get(name) is not None}
        for images in images_of(event, self.view.trials[trial].knobs):
            write.images.append(images)
            if (digest := images[0]["digest"]) not in self._data_sets:  # the sweep's own run names each once
                self._data_sets.add(digest)
                self._write(PARENT).images.append(images)
        self._epochs += kind == "epoch"
        if kind == "round":
            self._touched.add(trial)
        if kind == "start" and metrics.get("init_effective"):
            self._started(text(metrics["init_effective"]))

    def _started(self, start: str) -> None:
        """What the sweep's trials really began from, on the sweep's own run: the tag lists what has come.

        A parameter can't be changed later: where trials will differ it says so from the first one on.
        """
        parent, expected = self._write(PARENT), self.view.start.get("starts", ())
        if not self._started_from:
            parent.params["init_effective"] = ", ".join(sorted({*expected, start}))
        self._started_from.add(start)
        parent.tags["init_effective"] = ", ".join(sorted(self._started_from))

    def _sampled(self, trial: str, sample: Mapping[str, Any]) -> None:
        """A sample of how busy the trial's machine was, for MLflow's page of system metrics."""
        self._samples[trial] += 1
        names, ms = (name for name in sample if name != "time"), round(float(sample["time"]) * 1000)
        self._write(trial).points += points(names, sample, ms, self._samples[trial], "system/")

    def _trial_ended(self, name: str, ms: int) -> None:
        trial, write = self.view.trials[name], self._write(name)
        self._trial_state(name, ms)
        if trial.reason:
            write.tags["reason"] = text(trial.reason)[:MAX_TAG]
        if trial.state == "stopped":
            write.points += points_of(Event("final", trial.metrics), ms)
        self._touched.add(PARENT)
        self._count[trial.state] += 1
        ended = sum(self._count.values())
        parent = self._write(PARENT)
        parent.points += [(f"trials/{state}", float(n), ms, ended) for state, n in self._count.items()]
        if trial.state == "finished" and at_target(self.view, trial) and trial.metrics["val_top1"] > self._best:
            self._best = trial.metrics["val_top1"]
            parent.points.append(("best/val_top1", self._best, ms, self._epochs))

    def _reopened(self, name: str, ms: int) -> None:
        """A failed trial is tried again, in the same run."""
        self._trial_state(name, ms)
        self._write(name).tags["reason"] = ""
        self._count["failed"] -= 1
        self._touched.add(PARENT)

    def _sweep_state(self, state: str, end_ms: int | None) -> None:
        write = self._write(PARENT)
        write.status, write.end_ms = SWEEP_STATUS[state], end_ms
        write.tags["state"] = self.state = state
        self._touched.add(PARENT)
        self._rank_again = self._rank_again or end_ms is not None

    def _sweep_best(self, ms: int) -> None:
        if order := ranking(self.view):
            best = points(("test_top1", "density", "params"), order[0].metrics, ms, self._epochs, "best/")
            self._write(PARENT).points += best

    def _tag_ranks(self) -> None:
        front, places = pareto_front(self.view), {t.trial: n for n, t in enumerate(ranking(self.view), start=1)}
        for name, trial in self.view.trials.items():
            if trial.state == "finished":
                tags = {"pareto": text(name in front), "rank": str(places.get(name, ""))}
                self._write(name).tags |= tags | ({"mlflow.runColor": PARETO_COLOR} if name in front else {})
