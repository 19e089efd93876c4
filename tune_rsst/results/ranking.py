"""Which trials are good by the objective. The one place that ranks trials and says what the front is.

In: the view of a ledger. Out: trials in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results.confirmed.choice import choice

Standing = Literal["feasible", "infeasible", "stopped", "failed", "running", "interrupted"]


def at_target(view: SweepView, trial: TrialView) -> bool:
    """Whether the trial's newest model is one that the sweep is after; the trial may still run, or be stopped."""
    return Objective.of(view.settings).allows(trial.metrics)


def order(objective: Objective, trial: TrialView) -> tuple[float, float, int]:
    """Best first: what the objective ranks by, then fewer parameters, then the lower number."""
    return -objective.merit(trial.metrics), trial.metrics.get("params", math.inf), trial.number


def standing(view: SweepView) -> dict[str, Standing]:
    """Every trial's place in plots and tables: finished ones are feasible or not, the others are what they are."""
    objective = Objective.of(view.settings)
    return {name: _standing(objective, trial) for name, trial in view.trials.items()}


def _standing(objective: Objective, trial: TrialView) -> Standing:
    if trial.state == "finished":
        return "feasible" if objective.allows(trial.metrics) else "infeasible"
    return trial.state  # type: ignore[return-value]


def ranking(view: SweepView) -> list[TrialView]:
    """Finished trials that the objective allows, best first (`order`); their models are hardened."""
    places, objective = standing(view), Objective.of(view.settings)
    feasible = (t for t in view.trials.values() if places[t.trial] == "feasible")
    return sorted(feasible, key=lambda trial: order(objective, trial))


def best_of(view: SweepView) -> TrialView | None:
    """What `tune-rsst confirm` has chosen, else the first of the ranking (pareto: the most accurate of the front).

    None while there is none. A trial that finished since then and ranks above all that were repeated goes before.
    """
    order = ranking(view)
    chosen, wanted = choice(view), Wanted.last(view)
    if chosen is not None and wanted is not None and chosen.trial in order and order[0].trial in wanted.trials:
        return chosen.trial
    return next(iter(order), None)


@dataclass(frozen=True)
class Hardened:
    """The model that a trial had after a round; `size` is what the objective goes against."""

    trial: str
    round: int
    size: float
    val_top1: float

    @property
    def name(self) -> str:
        """As `tune-rsst export` names its folder: the round as files count, 0 is dense."""
        return f"{self.trial}-r{self.round:03d}"


def rounds_front(view: SweepView) -> list[Hardened]:
    """The models of all rounds and trials that no other beats in val_top1 and size both, smallest first.

    Whatever became of the trial: a stopped one has hardened its rounds too. Only models within the limits.
    """
    objective = Objective.of(view.settings)
    against = objective.against
    reports = [(t.trial, m) for t in view.trials.values() for m in t.round_events if {against, "val_top1"} <= m.keys()]
    found = [
        Hardened(trial, m["round"], float(m[against]), float(m["val_top1"]))
        for trial, m in reports
        if objective.within_limits(m)
    ]
    front: list[Hardened] = []
    for one in sorted(found, key=lambda h: (h.size, -h.val_top1, h.trial, h.round)):
        if not front or one.val_top1 > front[-1].val_top1:
            front.append(one)
    return front


def pareto_front(view: SweepView) -> list[str]:
    """Trials that no other feasible one beats in val_top1 and `against` both, smallest first.

    Only finished trials, whose model is hardened, and within the limits. Sweeps with another objective than pareto have
    a front too, against density; equal trials are all on it.
    """
    objective = Objective.of(view.settings)
    against = objective.against
    done = [t for t in view.trials.values() if t.state == "finished" and {"val_top1", against} <= t.metrics.keys()]
    done = [t for t in done if objective.within_limits(t.metrics)]
    done.sort(key=lambda t: (t.metrics[against], -t.metrics["val_top1"], t.number))
    front: list[str] = []
    best, at = -math.inf, -math.inf
    for trial in done:
        value, size = trial.metrics["val_top1"], trial.metrics[against]
        if value > best or (value == best and size == at):
            front.append(trial.trial)
            best, at = value, size
    return front


def rank(view: SweepView) -> list[TrialView]:
    """Ended trials: finished ones that the objective allows, best first; other finished ones, stopped, failed."""
    places, objective = standing(view), Objective.of(view.settings)
    groups = ("feasible", "infeasible", "stopped", "failed")
    ended = [t for t in view.trials.values() if places[t.trial] in groups]
    return sorted(ended, key=lambda t: (groups.index(places[t.trial]), *order(objective, t)))


def ranks(view: SweepView) -> dict[str, int]:
    """Trial → its place from 1 on; only finished trials that the objective allows have one."""
    return {trial.trial: place for place, trial in enumerate(ranking(view), start=1)}
