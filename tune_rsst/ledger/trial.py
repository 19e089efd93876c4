"""One trial, or one run that repeats a trial, as far as the ledger knows it.

In: the lines of the trial. Out: its state, knobs and metrics; a report that arrives twice counts once (`Event.key`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.errors import FAILS_AGAIN
from trainables.plugins import is_plugin, said
from trainables.rsst.config import KNOBS
from trainables.rsst.event import Event
from trainables.rsst.metrics import kept_per
from tune_rsst.ledger.repeats.spread import averaged

UNFINISHED, INTERRUPTED = "running", "interrupted"
"""States of a trial that has not ended: a driver is at the sweep, or nobody is."""
ORIGIN = kept_per("start")  # what a trial started from, known before its first round


def replicates_in(settings: Mapping[str, Any]) -> int:
    """How many runs a trial gets at most, in settings as a ledger has them: those of older sweeps do not say it."""
    given = settings.get("replicates", 1)
    return given if type(given) is int and given > 1 else 1


def trial_key(number: int) -> str:
    """ "t0007": the trial's id everywhere; the number is Optuna's."""
    return f"t{number:04d}"


def data_key(knobs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides, besides the images themselves, which digest a trial's data has."""
    if knobs.get("split_seed") is not None:
        knobs = {**knobs, "seed": knobs["split_seed"], "split_seed": None}
    return tuple(knobs.get(name) for name, knob in KNOBS.items() if knob.of_the_images and knob.in_fingerprint)


def searched(params: Mapping[str, Any], knobs: Mapping[str, Any]) -> dict[str, Any]:
    """`params` for people: a suggested rate as the trial has it, the effective one; a plug-in by its name."""
    values = {name: knobs.get(name, value) if name == "rate" else value for name, value in params.items()}
    return {name: said(value) if is_plugin(value) else value for name, value in values.items()}


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
    suggested_by: str = ""
    """guide, points or grid: a point that was to be tried first; else the sampler's name."""
    """What the sampler had to remember after this trial (`Suggestion.sampler`)."""
    places: list[dict[str, Any]] = field(default_factory=list)
    """Host and Ray node of each time that a worker opened the trial, and the epochs that its checkpoint held then."""
    adopted: bool = False  # its dense round, or a part of it
    silences: list[dict[str, Any]] = field(default_factory=list)  # each time that it hung: round, reason
    confirms: str | None = None
    """The trial that this run repeats with another seed (`tune-rsst confirm`); None: it is a trial itself."""
    replicates: str | None = None
    """The trial that this run is a further run of (setting `replicates`); None: it is none."""
    seeds: int = 1
    """How many runs it may get (setting `replicates`)."""
    runs: dict[str, TrialView] = field(default_factory=dict)
    """The trial's further runs, each with another seed, in their order; the first one is its own."""
    _means: tuple[int, dict[str, Any]] | None = field(default=None, repr=False, compare=False)

    @property
    def unfinished(self) -> bool:
        """Whether it has not ended: it runs, waits for a worker, or goes on when the sweep is resumed."""
        return self.state in (UNFINISHED, INTERRUPTED)

    @property
    def over(self) -> bool:
        """Whether its own run has come to its end; the trial itself may wait for runs with other seeds."""
        return self.final is not None or not self.unfinished

    @property
    def all_runs(self) -> tuple[TrialView, ...]:
        """Its own run and the further ones."""
        return (self, *self.runs.values())

    @property
    def fell_behind(self) -> bool:
        """Whether it got no more seeds: its runs have come to their ends, and it was stopped all the same."""
        return self.state == "stopped" and self.final is not None

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
        """What the trial is judged by: `own_metrics`, each number the mean over its runs that have finished."""
        if self.seeds == 1 or self.final is None:
            return self.own_metrics
        done = [run for run in self.runs.values() if run.state == "finished"]
        if self._means is None or self._means[0] != len(done):  # a run that has finished changes no more
            self._means = len(done), averaged([self.own_metrics, *(run.own_metrics for run in done)])
        return dict(self._means[1])

    @property
    def own_metrics(self) -> dict[str, Any]:
        """The newest value of everything: where the run started, the last hardened round, the final event, epochs."""
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
