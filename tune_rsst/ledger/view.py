"""What a ledger says: the sweep's settings and state, and each trial with its state, knobs and metrics.

In: ledger events in order (`SweepView.apply`): from the driver while it writes, from the file for everyone else.
Out: the view. The same events give the same view; a report that arrives twice counts once (`Event.key`).
`APPLY` has one function for each kind of event that changes the view (tune_rsst/ledger/events.py declares them all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.errors import FAILS_AGAIN
from trainables.rsst.config import KNOBS
from trainables.rsst.event import Event
from trainables.rsst.metrics import kept_per
from tune_rsst.ledger.places import moved
from tune_rsst.ledger.spending import Spending

UNFINISHED, INTERRUPTED = "running", "interrupted"
"""States of a trial that has not ended: a driver is at the sweep, or nobody is."""
WITH_PLACES = ("sweep_started", "suggested", "resumed")  # events that hold addresses
ORIGIN = kept_per("start")  # what a trial started from, known before its first round


def trial_key(number: int) -> str:
    """ "t0007": the trial's id everywhere; the number is Optuna's."""
    return f"t{number:04d}"


def data_key(knobs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides, besides the images themselves, which digest a trial's data has."""
    if knobs.get("split_seed") is not None:
        knobs = {**knobs, "seed": knobs["split_seed"], "split_seed": None}
    return tuple(knobs.get(name) for name, knob in KNOBS.items() if knob.of_the_images and knob.in_fingerprint)


def searched(params: Mapping[str, Any], knobs: Mapping[str, Any]) -> dict[str, Any]:
    """`params` for people: a suggested rate as the trial has it, the effective one."""
    return {name: knobs.get(name, value) if name == "rate" else value for name, value in params.items()}


@dataclass
class TrialView:
    """One trial as far as the ledger knows it."""

    trial: str
    number: int
    params: dict[str, Any]
    distributions: dict[str, str]
    knobs: dict[str, Any]
    fingerprint: str
    rounds: int
    state: str = UNFINISHED
    reason: str | None = None
    rung: int | None = None
    ended_at: float | None = None
    seen: set[tuple[str, int, int]] = field(default_factory=set)
    round_events: list[dict[str, Any]] = field(default_factory=list)
    last_epoch: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    final: dict[str, Any] | None = None
    seconds: float = 0.0
    micro_batch_size: int | None = None
    sampler: dict[str, Any] = field(default_factory=dict)
    """What the sampler had to remember after this trial (`Suggestion.sampler`)."""
    places: list[dict[str, Any]] = field(default_factory=list)
    """Host and Ray node of each time that a worker opened the trial, and the epochs that its checkpoint held then."""
    adopted: bool = False  # its dense round, or a part of it
    silences: list[dict[str, Any]] = field(default_factory=list)  # each time that it hung: round, reason

    @property
    def unfinished(self) -> bool:
        """Whether it has not ended: it runs, waits for a worker, or goes on when the sweep is resumed."""
        return self.state in (UNFINISHED, INTERRUPTED)

    @property
    def fails_again(self) -> bool:
        """Whether it failed so that no second try would help."""
        return self.state == "failed" and (self.reason or "").startswith(FAILS_AGAIN)

    @property
    def searched(self) -> dict[str, Any]:
        """`params` for people."""
        return searched(self.params, self.knobs)

    @property
    def data_digest(self) -> str | None:
        """Digest of the images that the trial began with; None before its first report (and in older ledgers)."""
        return self.origin.get("data_digest")

    @property
    def metrics(self) -> dict[str, Any]:
        """The newest value of everything: where the trial started, the last hardened round, the final event, epochs."""
        found = self.origin | (self.round_events[-1] if self.round_events else {})
        found |= self.final or {}
        if self.micro_batch_size is not None:
            found["micro_batch_size"] = self.micro_batch_size
        if self.last_epoch and self.last_epoch["epochs_trained"] > found.get("epochs_trained", -1):
            found["epochs_trained"] = self.last_epoch["epochs_trained"]
            found.setdefault("round", self.last_epoch["round"])
        return found

    def knows(self, event: Event) -> bool:
        """Whether this core event is in the ledger already."""
        return event.key in self.seen

    def apply_report(self, event: Event) -> bool:
        """Take one core event in. False when it was known already."""
        key, kind, metrics = event.key, event.kind, event.metrics
        if key in self.seen:
            return False
        self.seen.add(key)
        if kind == "start":
            self.origin = {name: metrics[name] for name in ORIGIN if name in metrics}
        elif kind == "epoch":
            self.last_epoch = metrics
            self.seconds += float(metrics.get("seconds", 0.0))
            self.adopted = self.adopted or "adopted_from" in metrics
        elif kind == "round":
            self.round_events.append(metrics)
        elif kind == "final":
            self.final = metrics
        return True


@dataclass
class SweepView:
    """One sweep as far as the ledger knows it. `former`: trials of earlier sweeps that its study began with."""

    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, TrialView] = field(default_factory=dict)
    repeats: list[dict[str, Any]] = field(default_factory=list)
    repeats_of: dict[str | None, list[int]] = field(default_factory=dict)
    """Trial → Optuna's numbers of the suggestions that repeated it."""
    infeasible: list[dict[str, Any]] = field(default_factory=list)
    """Suggestions that were not trained, because their last model is known to break a limit."""
    former: dict[str, TrialView] = field(default_factory=dict)
    ended: bool = False
    driven: bool = True
    """Whether a driver is at it, as far as the ledger tells; a killed driver does not write that it has gone."""
    spending: Spending = field(default_factory=Spending)  # of all lives of the driver
    started_at: float = 0.0
    updated_at: float = 0.0
    home: str = field(default="", compare=False)
    """The home that the ledger lies in now: addresses below the one it was written in are read as below this one."""
    written_in: str = field(default="", compare=False)

    @classmethod
    def of(cls, events: Iterable[dict[str, Any]], home: str = "") -> SweepView:
        """The view of all `events`, of a ledger in `home`."""
        view = cls(home=home)
        for event in events:
            view.apply(event)
        return view

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take one ledger event in. Kinds that a later version may add are passed over."""
        self.updated_at = float(event["time"])
        self.written_in = event.get("home", self.written_in)
        if event["event"] in WITH_PLACES and self.home and self.written_in not in ("", self.home):
            event = moved(event, self.written_in, self.home)
        self.spending.apply(event)
        if change := APPLY.get(event["event"]):
            change(self, event)

    def known(self, trial: str | None) -> TrialView | None:
        """A trial of this sweep, or an earlier one that its study began with."""
        return None if trial is None else self.trials.get(trial) or self.former.get(trial)

    @property
    def method(self) -> int:
        """The METHOD_VERSION that its trials are trained by; the first one was not recorded."""
        return int(self.start.get("method", 1))

    @property
    def unfinished(self) -> list[TrialView]:
        """Trials that were suggested and have not ended, in the order of their numbers."""
        return [t for t in self.trials.values() if t.unfinished]

    def state(self, running: bool) -> str:
        """running, finished or interrupted; `running` says whether a driver holds the sweep's lock."""
        if running:
            return "running"
        return "finished" if self.ended else "interrupted"

    def drive(self, driven: bool) -> None:
        """A driver is at the sweep from now on, or none: trials that have not ended run, or are interrupted."""
        self.driven = driven
        for trial in self.unfinished:
            trial.state = UNFINISHED if driven else INTERRUPTED

    def count(self, state: str) -> int:
        """Number of trials in `state`."""
        return sum(t.state == state for t in self.trials.values())


def _former(record: Mapping[str, Any]) -> TrialView:
    """A trial of an earlier sweep, as tune_rsst/planning/warm_start.py recorded it."""
    names = ("trial", "number", "params", "distributions", "fingerprint")
    trial = TrialView(**{name: record[name] for name in names}, knobs={}, rounds=0)
    trial.state, trial.final = "finished", dict(record["metrics"])
    return trial


def _sweep_started(view: SweepView, event: Mapping[str, Any]) -> None:
    view.name, view.settings, view.start = event["name"], event["settings"], dict(event)
    view.started_at = view.updated_at
    view.former = {record["trial"]: _former(record) for record in event.get("warm_start", ())}


def _suggested(view: SweepView, event: Mapping[str, Any]) -> None:
    names = ("trial", "number", "params", "distributions", "knobs", "fingerprint", "rounds")
    state = UNFINISHED if view.driven else INTERRUPTED
    view.trials[event["trial"]] = TrialView(
        **{n: event[n] for n in names}, state=state, sampler=event.get("sampler", {})
    )


def _repeated(view: SweepView, event: Mapping[str, Any]) -> None:
    view.repeats.append(dict(event))
    view.repeats_of.setdefault(event["of"], []).append(event["number"])


def _infeasible(view: SweepView, event: Mapping[str, Any]) -> None:
    view.infeasible.append(dict(event))


def _placed(view: SweepView, event: Mapping[str, Any]) -> None:
    view.trials[event["trial"]].places.append({n: event[n] for n in ("host", "node", "epochs_there")})


def _reported(view: SweepView, event: Mapping[str, Any]) -> None:
    report = Event(event["kind"], event["metrics"])
    new = view.trials[event["trial"]].apply_report(report)
    view.spending.epochs += new and report.kind == "epoch" and "adopted_from" not in report.metrics


def _retried(view: SweepView, event: Mapping[str, Any]) -> None:
    view.trials[event["trial"]].micro_batch_size = event["micro_batch_size"]


def _hung(view: SweepView, event: Mapping[str, Any]) -> None:
    trial = view.trials[event["trial"]]
    trial.silences.append({"round": len(trial.round_events), "reason": event["reason"]})


def _ended(view: SweepView, event: Mapping[str, Any]) -> None:
    trial = view.trials[event["trial"]]
    trial.state, trial.reason, trial.rung = event["state"], event["reason"], event["rung"]
    trial.ended_at = view.updated_at


def _reopened(view: SweepView, event: Mapping[str, Any]) -> None:
    trial = view.trials[event["trial"]]
    trial.state, trial.reason, trial.rung, trial.ended_at = UNFINISHED, None, None, None
    view.ended = False


def _paused(view: SweepView, event: Mapping[str, Any]) -> None:
    view.trials[event["trial"]].state = INTERRUPTED


def _interrupted(view: SweepView, event: Mapping[str, Any]) -> None:
    view.drive(False)


def _resumed(view: SweepView, event: Mapping[str, Any]) -> None:
    view.drive(True)
    view.ended, view.settings = False, {**view.settings, **event.get("settings", {})}


def _extended(view: SweepView, event: Mapping[str, Any]) -> None:
    view.ended, view.settings = False, {**view.settings, "trials": event["trials"]}


def _sweep_ended(view: SweepView, event: Mapping[str, Any]) -> None:
    view.ended = True


APPLY: Mapping[str, Callable[[SweepView, Mapping[str, Any]], None]] = {
    "sweep_started": _sweep_started,
    "suggested": _suggested,
    "repeated": _repeated,
    "infeasible": _infeasible,
    "placed": _placed,
    "reported": _reported,
    "retried": _retried,
    "hung": _hung,
    "ended": _ended,
    "reopened": _reopened,
    "paused": _paused,
    "interrupted": _interrupted,
    "resumed": _resumed,
    "extended": _extended,
    "sweep_ended": _sweep_ended,
}
