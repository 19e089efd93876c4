"""What comes back from runs: each report is written once, before anything follows from it. Knows no Ray, no Optuna.

In: results of the workers. Out: lines of the ledger. What a run's rounds and its end mean is up to whoever gives the
runs out (`Driver`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from trainables.errors import FAILS_AGAIN
from trainables.plugins import PluginError
from trainables.rsst.event import Event
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.objective import Aim
from tune_rsst.ledger.view import SweepView, TrialView, data_key
from tune_rsst.settings.settings import HERE, SweepSettings


class OtherData(RuntimeError):
    """A trial was given other images than the trials before it: nothing of it may be compared. One line."""


class Follower(Protocol):
    """Somebody who reads the ledger while it grows."""

    def notify(self, hurry: bool = False) -> None:
        """The ledger has a new line; with `hurry` there is little time left to pass it on. Returns at once."""


class Intake(ABC):
    """What a runner needs of whoever gives runs out: the next one, and where its results go."""

    view: SweepView
    """Holds the runs, as its `trials`."""
    settings: SweepSettings
    interruption: Interruption
    called = "trials"
    """What its runs are, for people."""

    def __init__(self) -> None:
        self._worker_errors: dict[str, str] = {}
        self._data_digests: dict[tuple[Any, ...], str] = {}

    @abstractmethod
    def next_trial(self) -> TrialView | None:
        """A run to carry out; None where there is none to begin now."""

    @property
    @abstractmethod
    def remaining(self) -> int:
        """Runs that have not ended, those not given out yet included."""

    @property
    def runs_left(self) -> int:
        """How many runs may be given out yet, those that run now included."""
        return self.remaining

    @property
    def waits(self) -> bool:
        """Whether more may come, though there is none to begin now."""
        return False

    @property
    def total(self) -> int:
        """All of its runs, those that have ended and those that are to come."""
        return len(self.view.trials)

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Nothing is left to run."""

    @abstractmethod
    def leave(self) -> None:
        """Where the process may be killed within seconds: write that once."""

    @abstractmethod
    def _write(self, event: str, **fields: Any) -> None:
        """Write an event of a run, which is the field `trial`."""

    @abstractmethod
    def entered(self, trial: TrialView, metrics: Mapping[str, Any]) -> None:
        """A hardened round of `trial` is written: what follows from it."""

    def knobs_of(self, trial: TrialView) -> dict[str, Any]:
        """The trial's knobs with this run's own data folder and device, which do not decide its numbers."""
        here = {name: value for name, value in self.settings.fixed.items() if name in HERE}
        if trial.micro_batch_size is not None:
            here["micro_batch_size"] = trial.micro_batch_size
        return {**trial.knobs, **here}

    def expect_images_of(self, trials: Iterable[TrialView]) -> None:
        """Others that are to see the same images must see those of `trials`."""
        for trial in trials:
            if trial.data_digest:
                self._data_digests.setdefault(data_key(trial.knobs), trial.data_digest)

    def take(self, result: Mapping[str, Any]) -> bool:
        """Take a worker's result in. True when the run shall not go on. Taking it twice does nothing."""
        trial = self.view.run(result["trial_key"])
        if not trial.over:
            self._take_notes(trial, result)
        for event in result.get("events", ()):
            if trial.over:
                return True
            self._take_event(trial, Event.from_json(event))
        if not trial.over and result.get("failed"):
            self.end(trial, "failed", str(result["failed"]))
        return trial.over

    def _take_notes(self, trial: TrialView, result: Mapping[str, Any]) -> None:
        """What a worker says besides events: where it is; that it waits for the store; smaller micro-batches."""
        if result.get("waiting") and self._worker_errors.get(trial.trial) != result["waiting"]:
            self.worker_error(trial.trial, result["waiting"])
        if samples := result.get("system"):
            self._write("system", trial=trial.trial, samples=samples)
        for event in ("placed", "retried"):
            for note in result.get(event, ()):
                self._write(event, trial=trial.trial, **note)

    def _refuse_other_data(self, trial: TrialView, metrics: Mapping[str, Any]) -> None:
        found, place = metrics.get("data_digest"), data_key(trial.knobs)
        if found is None:
            return
        known = self._data_digests.setdefault(place, found)
        if known != found:
            raise OtherData(
                f"data = {trial.knobs.get('data')}: {trial.trial} found other images (digest {found}) than the "
                f"sweep's first trials ({known}); put them back and resume"
            )

    def _take_event(self, trial: TrialView, event: Event) -> None:
        if trial.knows(event):
            return
        kind, metrics = event.kind, event.metrics
        if bad := [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]:
            where = f"(round {metrics.get('round')})"
            self.end(trial, "failed", f"{FAILS_AGAIN}{bad[0]} = {metrics[bad[0]]} is not a finite number {where}")
            return
        if kind == "start":
            self._refuse_other_data(trial, metrics)
        if kind in ("round", "final"):
            try:
                metrics = {**metrics, **Aim.of(self.settings.objective).computed(metrics)}
            except PluginError as error:
                self.end(trial, "failed", f"{FAILS_AGAIN}{error}")
                return
        self._write("reported", trial=trial.trial, seq=len(trial.seen), kind=kind, metrics=metrics)
        if kind == "round":
            self.entered(trial, metrics)
        elif kind == "final":
            self.end(trial, "finished")

    def end(self, trial: TrialView, state: str, reason: str | None = None, rung: int | None = None) -> None:
        """Write the end of a run."""
        self._write("ended", trial=trial.trial, state=state, reason=reason, rung=rung)

    def worker_error(self, trial: str, reason: str) -> None:
        """A worker died or raised; Tune may try again. Kept for the trial's reason, and written for the user."""
        self._worker_errors[trial] = reason
        self._write("worker_error", trial=trial, reason=reason)

    def hung(self, trial: str, reason: str) -> None:
        """Its process was ended, because it said nothing for too long; Tune tries it again, or gives it up."""
        self._worker_errors[trial] = reason
        self._write("hung", trial=trial, reason=reason)

    def given_up(self, trial: str) -> None:
        """Tune will not try this trial again."""
        if not (run := self.view.run(trial)).over:
            self.end(run, "failed", self._worker_errors.get(trial, "the worker failed and gave no reason"))
