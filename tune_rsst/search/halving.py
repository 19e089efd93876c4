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

from trainables.errors import FAILS_AGAIN
from trainables.plugins import PluginError, is_plugin
from tune_rsst.ledger.objective import TOP1, Objective
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.search.stopping import StoppingRule

if TYPE_CHECKING:
    from tune_rsst.settings.settings import SweepSettings

SLACK = 1e-9


@dataclass(frozen=True)
class Decision:
    """What a rung says: `value` is the trial's, `cutoff` the least value that goes on.

    `rule`: it was decided by that rule of the user's, which gave `why`; `rung` is the round then. `broken`: it raised.
    """

    rung: int
    value: float
    cutoff: float
    stop: bool
    metric: str = TOP1
    sign: int = 1
    rule: str = ""
    why: str = ""
    broken: bool = False

    @property
    def state(self) -> str:
        """How a trial ends that stops here: one whose stopping rule raised has failed."""
        return "failed" if self.broken else "stopped"

    @property
    def reason(self) -> str:
        """One line for tables and records."""
        if self.broken:
            return f"{FAILS_AGAIN}{self.why}"
        if self.rule:
            return f"{self.rule} after round {self.rung}, {self.metric} {self.value:.4f}: {self.why or 'go on'}"
        word = ("<" if self.stop else "≥") if self.sign > 0 else (">" if self.stop else "≤")
        return f"rung {self.rung}: {self.metric} {self.value:.4f} {word} {self.cutoff:.4f}"


@dataclass
class EqualShareHalving:
    """Rungs of one sweep. `rungs` are the q, ascending; rung numbers in decisions count from 1.

    Values are those of `metric`; a higher one is better where `sign` is 1, a lower one where it is −1.
    """

    target_density: float
    rungs: Sequence[float]
    reduction_factor: float
    metric: str = TOP1
    sign: int = 1
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
            merit = self.sign * value
            insort(self._ascending[index], merit)
            cutoff = self._cutoff(self._ascending[index])
            stop = merit < cutoff and not last_round
            decision = Decision(index + 1, value, self.sign * cutoff, stop, self.metric, self.sign)
        return decision

    def _cutoff(self, ascending: Sequence[float]) -> float:
        """The value of the last one that continues; the lowest of all while the rung is too empty to judge."""
        if len(ascending) < self.reduction_factor:
            return ascending[0]
        return ascending[-math.ceil(len(ascending) / self.reduction_factor)]


@dataclass
class Rungs:
    """The rungs of a sweep and what follows from them. `halving` is None where trials are not compared.

    `rule`: the user's own, in place of halving. `metric`, `sign`: as in `EqualShareHalving`.
    `reached`: trial → rung → value. `due`: decisions to stop a trial, whether the ledger has its end already or not.
    """

    halving: EqualShareHalving | None
    reached: dict[str, dict[int, float]] = field(default_factory=dict)
    due: dict[str, Decision] = field(default_factory=dict)
    rule: StoppingRule | None = None
    metric: str = TOP1
    sign: int = 1

    @classmethod
    def of(cls, settings: SweepSettings) -> Rungs:
        """The empty rungs of a sweep."""
        objective = Objective.of(settings.flat())
        metric, sign = objective.metric, objective.sign
        rule = StoppingRule(settings.stopping) if is_plugin(settings.stopping) else None
        halving = None
        if settings.stopping == "halving" and settings.target_density is not None:
            shape = settings.target_density, settings.rungs, settings.reduction_factor
            halving = EqualShareHalving(*shape, metric, sign)
        return cls(halving, rule=rule, metric=metric, sign=sign)

    def compare(self, trial: TrialView, metrics: Mapping[str, Any], *, ask: bool = True) -> Decision | None:
        """Take a hardened round in; the decision where it entered a rung, or where the user's rule was asked.

        `ask`: false where the rule has been asked about this round before.
        """
        if self.metric not in metrics:
            return None
        last = metrics["round"] >= trial.rounds - 1
        decision = None
        if self.rule is not None:
            decision = self._by_rule(self.rule, trial, metrics, ask=ask and not last)
        elif self.halving is not None:
            share, value = metrics["kept_share_asked"], metrics[self.metric]
            decision = self.halving.enter(trial.trial, share, value, last_round=last)
        if decision:
            self.reached.setdefault(trial.trial, {})[decision.rung] = decision.value
            if decision.stop:
                self.due[trial.trial] = decision
        return decision

    def _by_rule(self, rule: StoppingRule, trial: TrialView, metrics: Mapping[str, Any], *, ask: bool) -> Decision:
        rule.note(trial)
        why, broken = None, False
        try:
            why = rule.asked(trial.trial) if ask else None
        except PluginError as error:
            why, broken = str(error), True
        value, at = float(metrics[self.metric]), int(metrics["round"])
        return Decision(at, value, value, why is not None, self.metric, self.sign, rule.name, why or "", broken)


def replay(events: Iterable[Mapping[str, Any]], rungs: Rungs, home: str = "", ask: bool = True) -> SweepView:
    """The view of a ledger's `events`, in `home`; the same pass fills `rungs`.

    A rule of the user's is asked about a report that nothing came after; about the others it was, when they came.
    `ask`: false: it is not asked at all.
    """
    view, last = SweepView(home=home), None
    for event in events:
        view.apply(event)
        if event["event"] == "reported" and event["kind"] == "round":
            rungs.compare(view.trials[event["trial"]], event["metrics"], ask=False)
            last = event
        elif "trial" in event:
            last = None
    if ask and last is not None and rungs.rule is not None:
        rungs.compare(view.trials[last["trial"]], last["metrics"])
    return view
