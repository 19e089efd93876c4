"""Which trial gets another seed (setting `replicates`): one after the other, until it has all or has fallen behind.

In: the view of a sweep, a trial whose runs so far have ended. Out: its next run, or how it ends. The same view gives
the same answer, and the driver writes it at once: a restart decides as it was decided, or would have been.

The rule is a race with Student's t (M. Birattari, T. Stützle, L. Paquete, K. Varrentrapp: A racing algorithm for
configuring metaheuristics, GECCO 2002), with one variance for all trials: a few seeds have none of their own. Let m be
the best mean of the trials that have all n seeds and that the objective allows. A trial with mean x after k seeds has
fallen behind where

    m − x > t·s·√(1/k + 1/n)

with s² the mean square of runs about their trial's mean, over all trials that have several, ν its degrees of freedom,
and t the 95 % point of Student's distribution with ν of them. Until two runs of one trial are there, none falls behind.
For a front (pareto) only trials that are not larger are compared with.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from trainables.errors import FAILS_AGAIN
from trainables.rsst.config import RSSTConfig
from trainables.text import counted
from tune_rsst.ledger.objective import SLACK, Objective
from tune_rsst.ledger.repeats.spread import student_t
from tune_rsst.ledger.repeats.wanted import run_knobs, run_name
from tune_rsst.ledger.view import SweepView, TrialView

ONE_SIDED = 0.95
MOST_FREEDOM = 200  # from here on t changes by less than a hundredth
EQUAL = 1e-9  # sums of the same hits in another order


@dataclass(frozen=True)
class End:
    """How a trial ends whose runs have ended."""

    state: str
    reason: str | None = None


class Race:
    """Up to `seeds` runs for each trial."""

    def __init__(self, seeds: int, objective: Objective) -> None:
        self.seeds, self._objective = seeds, objective

    def end_of(self, view: SweepView, trial: TrialView) -> End | None:
        """How the trial ends; None: it gets another seed. All of its runs so far have ended."""
        for run in trial.runs.values():
            if run.state == "failed":
                reason = (run.reason or "").removeprefix(FAILS_AGAIN)
                return End("failed", f"{FAILS_AGAIN if run.fails_again else ''}{run.trial}: {reason}")
        have, metrics = len(trial.all_runs), trial.metrics
        if have >= self.seeds:
            return End("finished")
        after = f"after {have} of {counted(self.seeds, 'seed')}"
        if not self._objective.allows(metrics):
            return End("stopped", f"{after}: the objective does not allow it ({self._objective.words})")
        return self._behind(view, trial, after)

    def _behind(self, view: SweepView, trial: TrialView, after: str) -> End | None:
        rivals = [one for one in view.trials.values() if one.state == "finished" and self._is_rival(one, trial)]
        best = max(rivals, key=lambda one: (self._objective.merit(one.metrics), -one.number), default=None)
        noise, freedom = self._noise(view.trials.values())
        if best is None or not freedom:
            return None
        t = student_t(min(freedom, MOST_FREEDOM), 2 * ONE_SIDED - 1)
        margin = t * noise * math.sqrt(1 / len(trial.all_runs) + 1 / len(best.all_runs))
        metric, there, here = self._objective.metric, best.metrics, trial.metrics
        if self._objective.merit(there) - self._objective.merit(here) <= margin + EQUAL:
            return None
        what = (
            f"mean {metric} {here[metric]:.4f} is behind {best.trial}'s {there[metric]:.4f} by more than {margin:.4f}"
        )
        return End("stopped", f"{after}: {what}")

    def _is_rival(self, one: TrialView, trial: TrialView) -> bool:
        objective = self._objective
        if len(one.all_runs) < self.seeds or not objective.allows(one.metrics):
            return False
        if objective.kind != "pareto":
            return True
        return float(one.metrics[objective.against]) <= float(trial.metrics[objective.against]) + SLACK

    def _noise(self, trials: Iterable[TrialView]) -> tuple[float, int]:
        """The standard deviation of a run about its trial's mean, and its degrees of freedom."""
        square, freedom = 0.0, 0
        for trial in trials:
            done = [run for run in trial.runs.values() if run.state == "finished"]
            if not done:
                continue
            values = [self._objective.merit(run.own_metrics) for run in (trial, *done)]
            square += statistics.variance(values) * (len(values) - 1)
            freedom += len(values) - 1
        return math.sqrt(square / freedom) if freedom else 0.0, freedom

    def next_of(self, trial: TrialView) -> dict[str, Any]:
        """`further_run` with the next seed."""
        had = {run.knobs.get("seed", 0) for run in trial.all_runs}
        return further_run(trial.trial, trial.knobs, next(s for s in count(min(had)) if s not in had))

    def open_runs(self, view: SweepView) -> list[TrialView]:
        """Runs of trials that have not ended, which are to be carried out; trial by trial, seed by seed."""
        found = [run for trial in view.unfinished for run in trial.all_runs]
        return [run for run in found if not run.over]

    def runs_left(self, view: SweepView, trials_left: int) -> int:
        """How many runs may come yet, where `trials_left` trials have not ended."""
        over = sum(run.over for trial in view.unfinished for run in trial.all_runs)
        return trials_left * self.seeds - over


def further_run(of: str, knobs: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The fields of the line that suggests the run of the trial `of`, which has `knobs`, with another seed."""
    config = RSSTConfig.from_knobs(run_knobs(knobs, seed))
    about = {"knobs": config.knobs(), "fingerprint": config.fingerprint, "rounds": config.rounds}
    return {"trial": run_name(of, seed), "of": of, "seed": seed, **about}
