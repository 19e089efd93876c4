"""What a ledger says: the sweep's settings and state, and each trial with its state, knobs and metrics.

In: ledger events in order (`SweepView.apply`): from the driver while it writes, from the file for everyone else.
Out: the view. The same events give the same view; a report that arrives twice counts once (`Event.key`).
`APPLY` has one function for each kind of event that changes the view (tune_rsst/ledger/events.py declares them all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.rsst.event import Event
from tune_rsst.ledger.content import refuse_misfit
from tune_rsst.ledger.events import POINTS as POINTS
from tune_rsst.ledger.events import REPLICATE
from tune_rsst.ledger.places import moved
from tune_rsst.ledger.spending import BUDGETS, Spending
from tune_rsst.ledger.trial import INTERRUPTED, UNFINISHED, TrialView, replicates_in
from tune_rsst.ledger.trial import data_key as data_key
from tune_rsst.ledger.trial import searched as searched
from tune_rsst.ledger.trial import trial_key as trial_key

LIKE_A_TRIALS = ("placed", "reported", "retried", "hung", "ended", "reopened", "interrupted")
WITH_PLACES = ("sweep_started", "suggested", "resumed", "confirm_suggested", "replicate_suggested")  # hold addresses


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
    replicas: dict[str, TrialView] = field(default_factory=dict)
    """Further runs of trials with other seeds (setting `replicates`); also in `TrialView.runs` of their trials."""
    former: dict[str, TrialView] = field(default_factory=dict)
    ended: bool = False
    driven: bool = True
    """Whether a driver is at it, as far as the ledger tells; a killed driver does not write that it has gone."""
    spending: Spending = field(default_factory=Spending)
    """What was spent by all lives of the driver, up to the newest line."""
    confirm: SweepView | None = None
    """The runs that repeat trials with fresh seeds, as its `trials`; `start`: what was asked for last."""
    started_at: float = 0.0
    updated_at: float = 0.0
    events_taken: int = field(default=0, compare=False)
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
        self.events_taken += 1
        runs = None if self.confirm is None else self.confirm.trials
        refuse_misfit(event, self.events_taken, self.name or "SWEEP", self.trials, runs, self.replicas)
        self.updated_at = float(event["time"])
        self.written_in = event.get("home", self.written_in)
        if event["event"] in WITH_PLACES and self.home and self.written_in not in ("", self.home):
            event = moved(event, self.written_in, self.home)
        self.spending.apply(event)
        if change := APPLY.get(event["event"]):
            change(self, event)

    @property
    def points(self) -> list[dict[str, Any]]:
        """What is suggested first: `params`, and `by` whom."""
        return list(self.start.get("points", ()))

    def suggested_by(self, number: int) -> str:
        """guide, points or grid, where Optuna's trial `number` is such a point; else the sampler's name."""
        place, points = number - len(self.former), self.start.get("points", ())
        return str(points[place]["by"] if 0 <= place < len(points) else self.settings.get("sampler", ""))

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

    @property
    def unfinished_replicas(self) -> list[TrialView]:
        """Further runs of trials that have not ended."""
        return [run for run in self.replicas.values() if run.unfinished]

    def state(self, running: bool) -> str:
        """running, finished or interrupted; `running` says whether a driver holds the sweep's lock."""
        if running:
            return "running"
        return "finished" if self.ended else "interrupted"

    def drive(self, driven: bool) -> None:
        """A driver is at the sweep from now on, or none: trials that have not ended run, or are interrupted."""
        self.driven = driven
        for trial in (*self.unfinished, *self.unfinished_replicas):
            trial.state = UNFINISHED if driven else INTERRUPTED
        if self.confirm is not None and not driven:
            self.confirm.drive(False)

    def run(self, name: str) -> TrialView:
        """A trial of this sweep, a further run of one, or a run that repeats one."""
        here = self.replicas if name in self.replicas and name not in self.trials else self.trials
        return here[name] if name in here or self.confirm is None else self.confirm.trials[name]

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
    about = {"sampler": event.get("sampler", {}), "suggested_by": view.suggested_by(event["number"])}
    about["seeds"] = replicates_in(view.settings)
    view.trials[event["trial"]] = TrialView(**{n: event[n] for n in names}, state=state, **about)


def _repeated(view: SweepView, event: Mapping[str, Any]) -> None:
    view.repeats.append(dict(event))
    view.repeats_of.setdefault(event["of"], []).append(event["number"])


def _infeasible(view: SweepView, event: Mapping[str, Any]) -> None:
    view.infeasible.append(dict(event))


def _placed(view: SweepView, event: Mapping[str, Any]) -> None:
    view.run(event["trial"]).places.append({n: event[n] for n in ("host", "node", "epochs_there")})


def _reported(view: SweepView, event: Mapping[str, Any]) -> None:
    report = Event(event["kind"], event["metrics"])
    new = view.run(event["trial"]).apply_report(report)
    view.spending.epochs += new and report.kind == "epoch" and "adopted_from" not in report.metrics


def _retried(view: SweepView, event: Mapping[str, Any]) -> None:
    view.run(event["trial"]).micro_batch_size = event["micro_batch_size"]


def _hung(view: SweepView, event: Mapping[str, Any]) -> None:
    trial = view.run(event["trial"])
    trial.silences.append({"round": len(trial.round_events), "reason": event["reason"]})


def _ended(view: SweepView, event: Mapping[str, Any]) -> None:
    trial = view.run(event["trial"])
    trial.state, trial.reason, trial.rung = event["state"], event["reason"], event["rung"]
    trial.ended_at = view.updated_at


def _reopened(view: SweepView, event: Mapping[str, Any]) -> None:
    trial = view.run(event["trial"])
    trial.state, trial.reason, trial.rung, trial.ended_at = UNFINISHED, None, None, None
    view.ended = False


def _paused(view: SweepView, event: Mapping[str, Any]) -> None:
    view.run(event["trial"]).state = INTERRUPTED


def _interrupted(view: SweepView, event: Mapping[str, Any]) -> None:
    view.drive(False)


def _resumed(view: SweepView, event: Mapping[str, Any]) -> None:
    view.drive(True)
    view.ended, view.settings = False, {**view.settings, **event.get("settings", {})}


def _extended(view: SweepView, event: Mapping[str, Any]) -> None:
    view.ended, view.settings = False, {**view.settings, "trials": event["trials"]}


def _repaired(view: SweepView, event: Mapping[str, Any]) -> None:
    view.drive(False)
    view.ended = view.ended and not event["to_do"]


def _sweep_ended(view: SweepView, event: Mapping[str, Any]) -> None:
    view.ended = True


def _confirm_started(view: SweepView, event: Mapping[str, Any]) -> None:
    """A life of `confirm` begins: those of its runs that were asked for this time go on."""
    view.confirm = runs = view.confirm or SweepView(view.name)
    runs.settings = {name: value for name, value in view.settings.items() if name not in BUDGETS}
    runs.start, runs.driven = dict(event), True
    for run in runs.unfinished:
        asked = run.confirms in event["trials"] and run.knobs["seed"] in event["seeds"]
        run.state = UNFINISHED if asked and is_split(run) == event["split"] else INTERRUPTED


def is_split(run: TrialView) -> bool:
    """Whether a run that repeats a trial sees a split of its own."""
    return run.knobs.get("split_seed") is None


def _confirm_suggested(view: SweepView, event: Mapping[str, Any]) -> None:
    runs, of = view.confirm, view.trials[event["of"]]
    assert runs is not None
    about = {name: event[name] for name in ("trial", "knobs", "fingerprint", "rounds")}
    own = TrialView(**about, number=of.number, params=of.params, distributions={}, confirms=of.trial)
    runs.trials[own.trial] = own


def _replicate_suggested(view: SweepView, event: Mapping[str, Any]) -> None:
    of = view.trials[event["of"]]
    about = {name: event[name] for name in ("trial", "knobs", "fingerprint", "rounds")}
    state = UNFINISHED if view.driven else INTERRUPTED
    own = TrialView(**about, number=of.number, params=of.params, distributions={}, state=state, replicates=of.trial)
    view.replicas[own.trial] = of.runs[own.trial] = own


def _confirm(view: SweepView, event: Mapping[str, Any]) -> None:
    """A line of a run that repeats a trial changes that run as the same line changes a trial."""
    assert view.confirm is not None
    view.confirm.apply({**event, "event": event["event"].removeprefix("confirm_")})


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
    "repaired": _repaired,
    "sweep_ended": _sweep_ended,
    "confirm_started": _confirm_started,
    "confirm_suggested": _confirm_suggested,
    **dict.fromkeys((f"confirm_{kind}" for kind in LIKE_A_TRIALS), _confirm),
    f"{REPLICATE}suggested": _replicate_suggested,
    f"{REPLICATE}placed": _placed,
    f"{REPLICATE}reported": _reported,
    f"{REPLICATE}retried": _retried,
    f"{REPLICATE}hung": _hung,
    f"{REPLICATE}ended": _ended,
    f"{REPLICATE}reopened": _reopened,
    f"{REPLICATE}paused": _paused,
}
