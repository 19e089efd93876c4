"""Early stopping at equal kept share: asynchronous successive halving over rungs that are model sizes, not epochs.

The rule and why: docs/method.md, "When a trial stops early: rungs". It is the same in every objective: under
constraints and for a front, where trials end at sizes of their own, τ is the smallest, and a trial that ends above a
rung never enters it. The driver acts on the decision (`Driver.entered`).

In: (trial, asked kept share, value, last round?) in the order of the ledger.
Out: the decision. The state is a function of that order alone: `replay` of a ledger gives the same rungs and decisions.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tune_rsst.ledger.view import SweepView, TrialView

if TYPE_CHECKING:
    from tune_rsst.settings.settings import SweepSettings

SLACK = 1e-9


@dataclass(frozen=True)
class Decision:
    """What a rung says: `value` is the trial's, `cutoff` the least value that goes on."""

    rung: int
    value: float
    cutoff: float
    stop: bool

    @property
    def reason(self) -> str:
        """One line for tables and records."""
        word = "<" if self.stop else "≥"
        return f"rung {self.rung}: val_top1 {self.value:.4f} {word} {self.cutoff:.4f}"


@dataclass
class EqualShareHalving:
    """Rungs of one sweep. `rungs` are the q, ascending; rung numbers in decisions count from 1."""

    target_density: float
    rungs: Sequence[float]
    reduction_factor: float
    values: list[dict[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.values = [{} for _ in self.rungs]
        self._ascending: list[list[float]] = [[] for _ in self.rungs]

    def enter(self, trial: str, kept_share_asked: float, value: float, *, last_round: bool) -> Decision | None:
        """Record a hardened round. None when it enters no new rung, else the decision of the highest rung entered."""
        decision = None
        for index, q in enumerate(self.rungs):
            entered = self.values[index]
            if trial in entered or kept_share_asked > self.target_density**q + SLACK:
                continue
            entered[trial] = value
            insort(self._ascending[index], value)
            cutoff = self._cutoff(self._ascending[index])
            decision = Decision(index + 1, value, cutoff, stop=value < cutoff and not last_round)
        return decision

    def _cutoff(self, ascending: Sequence[float]) -> float:
        """The value of the last one that continues; the lowest of all while the rung is too empty to judge."""
        if len(ascending) < self.reduction_factor:
            return ascending[0]
        return ascending[-math.ceil(len(ascending) / self.reduction_factor)]


@dataclass
class Rungs:
    """The rungs of a sweep and what follows from them. `halving` is None where trials are not compared.

    `reached`: trial → rung → value. `due`: decisions to stop a trial, whether the ledger has its end already or not.
    """

    halving: EqualShareHalving | None
    reached: dict[str, dict[int, float]] = field(default_factory=dict)
    due: dict[str, Decision] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: SweepSettings) -> Rungs:
        """The empty rungs of a sweep."""
        if settings.stopping != "halving" or settings.target_density is None:
            return cls(None)
        return cls(EqualShareHalving(settings.target_density, settings.rungs, settings.reduction_factor))

    def compare(self, trial: TrialView, metrics: Mapping[str, Any]) -> Decision | None:
        """Take a hardened round in; the decision where it entered a rung."""
        if self.halving is None or "val_top1" not in metrics:
            return None
        share, last = metrics["kept_share_asked"], metrics["round"] >= trial.rounds - 1
        decision = self.halving.enter(trial.trial, share, metrics["val_top1"], last_round=last)
        if decision:
            self.reached.setdefault(trial.trial, {})[decision.rung] = decision.value
            if decision.stop:
                self.due[trial.trial] = decision
        return decision


def replay(events: Iterable[Mapping[str, Any]], rungs: Rungs, home: str = "") -> SweepView:
    """The view of a ledger's `events`, in `home`; the same pass fills `rungs`."""
    view = SweepView(home=home)
    for event in events:
        view.apply(event)
        if event["event"] == "reported" and event["kind"] == "round":
            rungs.compare(view.trials[event["trial"]], event["metrics"])
    return view
