"""What a ledger says: the sweep's settings and state, and each trial with its state, knobs and metrics.

Comes in: ledger events, one by one (`SweepView.apply`), in order; the driver feeds it while it writes, readers feed it
from the file. Goes out: the view; applying the same events again gives the same view. `key(...)` is how events of a
trial are told apart, so that a report that arrives twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.rsst.config import KNOBS
from trainables.rsst.event import Event
from trainables.rsst.metrics import kept_per

UNFINISHED = "running"
ORIGIN = kept_per("start")  # what a trial started from, known before its first round


def trial_key(number: int) -> str:
    """ "t0007": the trial's id everywhere; the number is Optuna's."""
    return f"t{number:04d}"


def data_key(knobs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides, besides the images themselves, which digest a trial's data has."""
    return tuple(knobs.get(name) for name, knob in KNOBS.items() if knob.of_the_images and knob.in_fingerprint)


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
    """What the sampler had to remember after this trial (`searcher.Asked.sampler`)."""
    places: list[dict[str, Any]] = field(default_factory=list)
    """Host and Ray node of each time that a worker opened the trial, and the epochs that its checkpoint held then."""

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
        elif kind == "round":
            self.round_events.append(metrics)
        elif kind == "final":
            self.final = metrics
        return True


@dataclass
class SweepView:
    """One sweep as far as the ledger knows it. `former`: trials of former sweeps that its study began with."""

    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, TrialView] = field(default_factory=dict)
    repeats: list[dict[str, Any]] = field(default_factory=list)
    former: dict[str, TrialView] = field(default_factory=dict)
    ended: bool = False
    started_at: float = 0.0
    updated_at: float = 0.0

    @classmethod
    def of(cls, events: Iterable[dict[str, Any]]) -> SweepView:
        """The view of all `events`."""
        view = cls()
        for event in events:
            view.apply(event)
        return view

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take one ledger event in. Kinds that a later version may add are passed over."""
        kind, now = event["event"], float(event["time"])
        self.updated_at = now
        if kind == "sweep_started":
            self.name, self.settings, self.start, self.started_at = event["name"], event["settings"], dict(event), now
            self.former = {record["trial"]: _former(record) for record in event.get("warm_start", ())}
        elif kind == "suggested":
            self.trials[event["trial"]] = TrialView(
                trial=event["trial"],
                number=event["number"],
                params=event["params"],
                distributions=event["distributions"],
                knobs=event["knobs"],
                fingerprint=event["fingerprint"],
                rounds=event["rounds"],
                sampler=event.get("sampler", {}),
            )
        elif kind == "reported":
            self.trials[event["trial"]].apply_report(Event(event["kind"], event["metrics"]))
        elif kind == "ended":
            trial = self.trials[event["trial"]]
            trial.state, trial.reason, trial.rung, trial.ended_at = event["state"], event["reason"], event["rung"], now
        elif kind == "reopened":
            trial = self.trials[event["trial"]]
            trial.state, trial.reason, trial.rung, trial.ended_at = UNFINISHED, None, None, None
            self.ended = False
        elif kind == "repeated":
            self.repeats.append(dict(event))
        elif kind == "sweep_ended":
            self.ended = True
        elif kind == "extended":
            self.ended = False
            self.settings = {**self.settings, "trials": event["trials"]}
        elif kind == "placed":
            self.trials[event["trial"]].places.append({n: event[n] for n in ("host", "node", "epochs_there")})
        elif kind == "retried":
            self.trials[event["trial"]].micro_batch_size = event["micro_batch_size"]
        elif kind == "resumed":
            self.ended = False
            self.settings = {**self.settings, **event.get("settings", {})}

    def known(self, trial: str | None) -> TrialView | None:
        """A trial of this sweep, or a former one that its study began with."""
        return None if trial is None else self.trials.get(trial) or self.former.get(trial)

    @property
    def unfinished(self) -> list[TrialView]:
        """Trials that were suggested and have not ended, in the order of their numbers."""
        return [t for t in self.trials.values() if t.state == UNFINISHED]

    def state(self, running: bool) -> str:
        """running, finished or interrupted; `running` says whether a driver holds the sweep's lock."""
        if running:
            return "running"
        return "finished" if self.ended else "interrupted"

    def count(self, state: str) -> int:
        """Number of trials in `state`."""
        return sum(t.state == state for t in self.trials.values())


def _former(record: Mapping[str, Any]) -> TrialView:
    """A trial of an earlier sweep, as tune_rsst/planning/warm_start.py recorded it."""
    names = ("trial", "number", "params", "distributions", "fingerprint")
    trial = TrialView(**{name: record[name] for name in names}, knobs={}, rounds=0)
    trial.state, trial.final = "finished", dict(record["metrics"])
    return trial
