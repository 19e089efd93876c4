"""Which runs repeat which trials: what `tune-rsst confirm` was asked for, and how its runs are called.

In: a sweep as its ledger has it; trials, a number of seeds. Out: names of runs, seeds, knobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_rsst.ledger.trial import TrialView, replicates_in
from tune_rsst.ledger.view import SweepView


def run_name(trial: str, seed: int, split: bool = False) -> str:
    """Such as "t0007-seed12"; with a split of its own "t0007-seed12-split"."""
    return f"{trial}-seed{seed}{'-split' if split else ''}"


def run_knobs(knobs: Mapping[str, Any], seed: int, split: bool = False) -> dict[str, Any]:
    """A trial's `knobs` for a run with `seed`; but for `split` it sees the trial's own split."""
    own = knobs.get("split_seed")
    kept = knobs.get("seed", 0) if own is None else own
    return {**knobs, "seed": seed, "split_seed": None if split else kept}


@dataclass(frozen=True)
class Wanted:
    """Each of `trials` (best first) with each of `seeds`; `split`: each seed splits the images anew."""

    trials: tuple[str, ...]
    seeds: tuple[int, ...]
    split: bool = False

    @classmethod
    def last(cls, view: SweepView) -> Wanted | None:
        """What was asked for last; None where nothing ever was."""
        if view.confirm is None:
            return None
        start = view.confirm.start
        return cls(tuple(start["trials"]), tuple(start["seeds"]), start["split"])

    @classmethod
    def of(cls, view: SweepView, trials: Sequence[TrialView], number: int, split: bool) -> Wanted:
        """`trials` with the first `number` seeds after those of the sweep's own runs: the same for every trial.

        So runs that are there already count, and trials are compared on equal seeds. All that `replicates` may use are
        left out, whether each trial got them or not: what is confirmed was ranked by none of these.
        """
        first = max((trial.knobs.get("seed", 0) for trial in view.trials.values()), default=0)
        first += replicates_in(view.settings)
        return cls(tuple(trial.trial for trial in trials), tuple(range(first, first + number)), split)

    def run(self, trial: str, seed: int) -> str:
        """Such as "t0007-seed12"; with a split of its own "t0007-seed12-split"."""
        return run_name(trial, seed, self.split)

    def runs(self) -> Iterator[tuple[str, str, int]]:
        """(run, trial, seed), one seed after the other: a table that is not complete yet is even."""
        return ((self.run(trial, seed), trial, seed) for seed in self.seeds for trial in self.trials)

    def knobs(self, trial: TrialView, seed: int) -> dict[str, Any]:
        """As `run_knobs`."""
        return run_knobs(trial.knobs, seed, self.split)

    def left(self, view: SweepView) -> list[str]:
        """Its runs that have not ended, or not begun."""
        there = {} if view.confirm is None else view.confirm.trials
        return [run for run, _, _ in self.runs() if run not in there or there[run].unfinished]
