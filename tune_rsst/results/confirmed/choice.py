"""Which trial is chosen by the mean of its runs with fresh seeds, and how sure that is.

In: the view of a ledger. Out: mean, standard deviation and interval of each trial that was repeated; the choice.

Intervals are Student's (tune_rsst/ledger/repeats/spread.py). With the sweep's own split they are about seeds alone:
which images are in validation is the same in every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.repeats.spread import Spread
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.view import SweepView, TrialView

EQUAL = 1e-9  # means that differ by less are a tie: sums of the same hits in another order


@dataclass(frozen=True)
class Repeated:
    """A trial and its runs with the seeds that were asked for last; `val` and `test`: of those that have finished.

    `val` is of what the objective ranks by, of which more is better where `sign` is 1, less where it is −1.
    """

    trial: TrialView
    runs: tuple[TrialView, ...]
    val: Spread | None
    test: Spread | None
    sign: int = 1

    @property
    def complete(self) -> bool:
        """Every run has finished: only such trials can be chosen."""
        return all(run.state == "finished" for run in self.runs)

    def count(self, *states: str) -> int:
        """Runs in one of `states`."""
        return sum(run.state in states for run in self.runs)


def repeated(view: SweepView) -> list[Repeated]:
    """What was asked for last, best first: by mean val_top1 (or what else the objective ranks by), then fewer
    parameters, then the lower number.

    Trials whose runs have not all finished stand last.
    """
    wanted = Wanted.last(view)
    if wanted is None or view.confirm is None:
        return []
    there, found, objective = view.confirm.trials, [], Objective.of(view.settings)
    for name in wanted.trials:
        runs = tuple(there[run] for seed in wanted.seeds if (run := wanted.run(name, seed)) in there)
        done = [run.metrics for run in runs if run.state == "finished"]
        spreads = [Spread.of([m[metric] for m in done if metric in m]) for metric in (objective.metric, "test_top1")]
        found.append(Repeated(view.trials[name], runs, spreads[0], spreads[1], objective.sign))
    return sorted(found, key=_order)


def _order(one: Repeated) -> tuple[bool, float, float, int]:
    merit = -math.inf if one.val is None else one.sign * round(one.val.mean / EQUAL)
    return not one.complete, -merit, one.trial.metrics.get("params", math.inf), one.trial.number


def over(view: SweepView) -> bool:
    """Whether something was to be repeated, and every run of it has ended."""
    wanted = Wanted.last(view)
    return wanted is not None and not wanted.left(view)


def choice(view: SweepView) -> Repeated | None:
    """The trial with the best mean, once every run has ended; None before, and where no trial can be."""
    first = next(iter(repeated(view)), None) if over(view) else None
    return first if first is not None and first.complete else None


def tied(view: SweepView) -> list[Repeated]:
    """The trials whose mean equals that of the choice, the choice first; fewer than two: there is no tie."""
    first = choice(view)
    if first is None:
        return []
    return [one for one in repeated(view) if one.complete and _order(one)[1] == _order(first)[1]]
