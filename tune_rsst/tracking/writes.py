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
from typing import Any

from trainables.rsst.event import Event
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView, searched
from tune_rsst.results.confirmed.choice import choice
from tune_rsst.results.ranking import at_target, best_of, pareto_front, ranking
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.notes import run_name, sweep_note, trial_note
from tune_rsst.tracking.write import (
    MAX_TAG,
    MEANS,
    PARENT,
    PARETO_COLOR,
    START_PARAMS,
    STATUS,
    SWEEP_STATUS,
    Point,
    Write,
    images_of,
    points,
    points_of,
    tags_of,
    text,
)


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
        self._curves: dict[tuple[str, int], float] = {}
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
                best, confirmed = best_of(self.view), choice(self.view)
                tags |= {"best_trial": best.trial} if best else {}
                tags |= {"confirmed_trial": confirmed.trial.trial} if confirmed else {}
                tags["mlflow.note.content"] = sweep_note(sweep, order)[:MAX_TAG]
            else:
                tags["mlflow.note.content"] = trial_note(sweep, self.view.run(run))[:MAX_TAG]
        writes = sorted(self._writes.values(), key=lambda w: w.run)
        self._writes, self._touched, self._rank_again = {}, set(), False
        return writes

    def identity(self, run: str) -> tuple[str, int, dict[str, str]]:
        """Name, start in ms and tags that a run of this sweep is created with, and found again by."""
        tags = {"sweep": self.view.name, "sweep_uid": self.sweep_uid, "mlflow.source.name": "tune-rsst"}
        if run == PARENT:
            return self.view.name, self.births[PARENT], {**tags, "role": "sweep"}
        trial = self.view.run(run)
        if of := trial.confirms or trial.replicates:
            tags |= {"role": "confirm" if trial.confirms else "replicate", "configuration": of}
        else:
            tags |= {"role": "trial"} | ({"configuration": run} if trial.seeds > 1 else {})
        return run_name(run, trial.searched), self.births[run], {**tags, "trial": run}

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take the next ledger event in. Kinds that a later version may add ask for nothing."""
        kind = str(event["event"])
        report = Event(event["kind"], event["metrics"]) if kind.endswith("reported") else None
        known = report is not None and self.view.run(event["trial"]).knows(report)
        self.view.apply(event)
        ms = round(float(event["time"]) * 1000)
        match kind:
            case "sweep_started":
                self._sweep_started(event, ms)
            case "suggested":
                self._suggested(event, event["params"], ms)
            case "confirm_suggested" | "replicate_suggested":
                self._suggested(event, {}, ms)
            case "infeasible":
                n = len(self.view.infeasible)
                self._draw([("trials/infeasible", float(n), ms, n)])
                self._touched.add(PARENT)
            case "reported" | "confirm_reported" | "replicate_reported" if report is not None and not known:
                self._reported(event["trial"], report, ms)
            case "ended":
                self._trial_ended(event["trial"], ms)
            case "confirm_ended" | "replicate_ended":
                self._run_ended(event["trial"], ms)
            case "reopened":
                self._reopened(event["trial"], ms)
            case "confirm_reopened" | "replicate_reopened":
                self._goes_on(event["trial"], ms)
            case "confirm_started" | "confirm_interrupted":
                self._runs_that_repeat(ms)
            case "system" | "confirm_system" | "replicate_system":
                for sample in event["samples"]:
                    self._sampled(event["trial"], sample)
            case "placed" | "confirm_placed" | "replicate_placed":
                self._write(event["trial"]).tags |= {
                    name: text(event[name]) for name in ("host", "node") if event[name]
                }
            case "resumed":
                self._sweep_state("running", None)
                self._trials_that_go_on(ms)
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
        self._trials_that_go_on(ms)
        self._runs_that_repeat(ms)

    @property
    def repeats(self) -> bool:
        """Whether runs that repeat trials are under way, as far as the ledger tells."""
        runs = self.view.confirm
        return runs is not None and runs.driven and bool(runs.unfinished)

    def repeats_no_more(self) -> None:
        """Nobody carries them out any more."""
        if self.view.confirm is not None:
            self.view.confirm.drive(False)
            self._runs_that_repeat(round(self.view.updated_at * 1000))

    def _trials_that_go_on(self, ms: int) -> None:
        for run in (*self.view.unfinished, *self.view.unfinished_replicas):
            self._trial_state(run.trial, ms)

    def _runs_that_repeat(self, ms: int) -> None:
        for run in self.view.confirm.unfinished if self.view.confirm else ():
            self._trial_state(run.trial, ms)

    def _draw(self, told: Iterable[Point]) -> None:
        """Points of the sweep's own curves: what was told of a step, and is so still, is not told again.

        Each driver that leaves says what is best, and a trial that is tried again ends twice.
        """
        for point in told:
            key, value, _, step = point
            if self._curves.get((key, step)) != value:
                self._curves[key, step] = value
                self._write(PARENT).points.append(point)

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

    def _suggested(self, event: Mapping[str, Any], params: Mapping[str, Any], ms: int) -> None:
        trial = event["trial"]
        self.births.setdefault(trial, ms)
        write = self._write(trial)
        knobs = event["knobs"]
        write.params |= {name: text(value) for name, value in {**knobs, **searched(params, knobs)}.items()}
        write.tags["fingerprint"] = event["fingerprint"]
        if by := self.view.run(trial).suggested_by:
            write.tags["suggested_by"] = by
        self._trial_state(trial, ms)

    def _trial_state(self, name: str, ms: int) -> None:
        """The run's status is that of the trial since `ms`."""
        write, state = self._write(name), self.view.run(name).state
        write.status, write.tags["state"] = STATUS[state], state
        write.end_ms = None if write.status == "RUNNING" else ms
        self._touched.add(name)

    def _reported(self, trial: str, event: Event, ms: int) -> None:
        write, kind, metrics = self._write(trial), event.kind, event.metrics
        write.points += points_of(event, ms)
        write.tags |= tags_of(metrics)
        write.params |= {name: text(metrics[name]) for name in START_PARAMS if metrics.get(name) is not None}
        run = self.view.run(trial)
        for images in images_of(event, run.knobs):
            write.images.append(images)
            if (digest := images[0]["digest"]) not in self._data_sets:  # the sweep's own run names each once
                self._data_sets.add(digest)
                self._write(PARENT).images.append(images)
        self._epochs += kind == "epoch" and run.confirms is None
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

    def _run_ended(self, name: str, ms: int) -> None:
        self._trial_state(name, ms)
        if reason := self.view.run(name).reason:
            self._write(name).tags["reason"] = text(reason)[:MAX_TAG]
        self._touched.add(PARENT)

    def _trial_ended(self, name: str, ms: int) -> None:
        trial, write = self.view.trials[name], self._write(name)
        self._run_ended(name, ms)
        if trial.state == "stopped" and not trial.fell_behind:
            write.points += points_of(Event("final", trial.metrics), ms)
        if "seeds" in trial.metrics:
            write.points += points(MEANS, trial.metrics, ms, len(trial.all_runs), "mean/")
        self._count[trial.state] += 1
        ended = sum(self._count.values())
        self._draw((f"trials/{state}", float(n), ms, ended) for state, n in self._count.items())
        objective = Objective.of(self.view.settings)
        merit = objective.merit(trial.metrics)
        if trial.state == "finished" and at_target(self.view, trial) and merit > self._best:
            self._best = merit
            self._draw([(f"best/{objective.metric}", float(trial.metrics[objective.metric]), ms, self._epochs)])

    def _goes_on(self, name: str, ms: int) -> None:
        """What has failed is tried again, in the same run."""
        self._trial_state(name, ms)
        self._write(name).tags["reason"] = ""

    def _reopened(self, name: str, ms: int) -> None:
        self._goes_on(name, ms)
        self._count["failed"] -= 1
        self._touched.add(PARENT)

    def _sweep_state(self, state: str, end_ms: int | None) -> None:
        write = self._write(PARENT)
        write.status, write.end_ms = SWEEP_STATUS[state], end_ms
        write.tags["state"] = self.state = state
        self._touched.add(PARENT)
        self._rank_again = self._rank_again or end_ms is not None

    def _sweep_best(self, ms: int) -> None:
        if best := best_of(self.view):
            self._draw(points(("test_top1", "density", "params"), best.metrics, ms, self._epochs, "best/"))

    def _tag_ranks(self) -> None:
        front, places = pareto_front(self.view), {t.trial: n for n, t in enumerate(ranking(self.view), start=1)}
        for name, trial in self.view.trials.items():
            if trial.state == "finished":
                tags = {"pareto": text(name in front), "rank": str(places.get(name, ""))}
                self._write(name).tags |= tags | ({"mlflow.runColor": PARETO_COLOR} if name in front else {})
