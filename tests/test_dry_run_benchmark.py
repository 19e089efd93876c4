"""The benchmark of `--dry-run` reads what a plan says, and pairs it with the sweep that came next."""

from __future__ import annotations

import pytest

from benchmarks import dry_run
from trainables.text import duration


@pytest.mark.parametrize("spent", [0, 45, 200, 3600 + 5 * 60, 9 * 86400 + 4 * 3600])
def test_a_plan_is_read_as_it_is_printed(spent: int) -> None:
    line = f"  in all          about {duration(spent)} from the command to the prompt, with start and end"
    assert dry_run.said(f"  trials 3\n{line}\n  memory a trial 1 s") == spent


def test_sweeps_lie_among_the_dry_runs_and_pairs_are_neighbours() -> None:
    assert dry_run.turns(2, 2) == [True, False, True, False]
    order = dry_run.turns(5, 2)
    assert order.count(True) == 5 and order.count(False) == 2 and order[-1] is False
    done = [(True, 10.0, 1.0), (False, 20.0, 2.0), (True, 30.0, 3.0)]
    assert dry_run.pairs(done) == [(10.0, 20.0, 1.0, 2.0), (30.0, 20.0, 3.0, 2.0)]
