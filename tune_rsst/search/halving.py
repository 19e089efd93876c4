"""Early stopping at equal kept share: asynchronous successive halving over rungs that are model sizes, not epochs.

Why not by epoch or round: a trial that removes half of its units in a round is, after two rounds, a quarter of the
model that a gentle trial still trains in full. Compared at the same epoch or round the aggressive trial looks bad
although it may be the better one at the size that counts. So a trial enters rung q (0 < q < 1) of a sweep to target
density τ with the hardened accuracy of its first round at asked kept share ≤ τ^q. Only trials of equal size are
compared.

The same in every objective: top-1 is compared at equal kept share also under constraints and for a front, where trials
end at sizes of their own and τ is the smallest; a trial that ends above a rung never enters it. `stopping=none` is the
choice to train every trial to its end.

A trial stops in a rung where it is not among the best 1/`reduction_factor` of all that entered it so far, once at least
`reduction_factor` trials have entered. It never stops after its last round: then it is finished, at no further cost.
Comes in: (trial, asked kept share, value, last round?) in the order of the ledger. Goes out: the decision. The state is
a pure function of that order, so replaying the ledger gives the same rungs and the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

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

    def enter(self, trial: str, kept_share_asked: float, value: float, *, last_round: bool) -> Decision | None:
        """Record a hardened round. None when it enters no new rung, else the decision of the highest rung entered."""
        decision = None
        for index, q in enumerate(self.rungs):
            entered = self.values[index]
            if trial in entered or kept_share_asked > self.target_density**q + SLACK:
                continue
            entered[trial] = value
            cutoff = self._cutoff(list(entered.values()))
            decision = Decision(index + 1, value, cutoff, stop=value < cutoff and not last_round)
        return decision

    def _cutoff(self, values: list[float]) -> float:
        """The value of the last one that goes on; the lowest of all while the rung is too empty to judge."""
        if len(values) < self.reduction_factor:
            return min(values)
        keep = math.ceil(len(values) / self.reduction_factor)
        return sorted(values, reverse=True)[keep - 1]
