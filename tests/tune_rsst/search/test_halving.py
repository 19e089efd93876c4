"""Trials are compared at equal kept share, in numbers that can be checked by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from tune_rsst.search.halving import EqualShareHalving


def halving(**changes: object) -> EqualShareHalving:
    given = {"target_density": 0.25, "rungs": (0.5,), "reduction_factor": 2.0} | changes
    return EqualShareHalving(**given)  # type: ignore[arg-type]


def test_a_trial_enters_a_rung_at_its_first_round_at_or_below_the_share() -> None:
    h = halving()
    assert h.enter("a", 1.0, 0.9, last_round=False) is None
    assert h.enter("a", 0.51, 0.9, last_round=False) is None
    decision = h.enter("a", 0.5 + 1e-12, 0.8, last_round=False)
    assert decision is not None and (decision.rung, decision.value, decision.stop) == (1, 0.8, False)
    assert h.enter("a", 0.4, 0.1, last_round=False) is None
    assert h.values == [{"a": 0.8}]


def test_the_worse_half_stops_once_there_are_two_to_compare() -> None:
    h = halving()
    stops = []
    for trial, value in [("a", 0.7), ("b", 0.6), ("c", 0.8), ("d", 0.7), ("e", 0.75)]:
        decision = h.enter(trial, 0.5, value, last_round=False)
        assert decision is not None
        stops.append((decision.cutoff, decision.stop))
    # kept of 1..5: all (too few), 1, 2, 2, 3
    assert stops == [(0.7, False), (0.7, True), (0.7, False), (0.7, False), (0.7, False)]


def test_reduction_factor_three_keeps_the_best_third() -> None:
    h = halving(reduction_factor=3.0)
    decisions = [h.enter(str(i), 0.5, v, last_round=False) for i, v in enumerate([0.9, 0.8, 0.7, 0.95])]
    assert [d.stop for d in decisions if d] == [False, False, True, False]


def test_the_last_round_is_never_stopped() -> None:
    h = halving()
    h.enter("a", 0.5, 0.9, last_round=False)
    decision = h.enter("b", 0.25, 0.1, last_round=True)
    assert decision is not None and not decision.stop


def test_one_round_can_pass_two_rungs_and_is_judged_in_the_higher() -> None:
    h = halving(rungs=(0.25, 0.75))
    decision = h.enter("a", 0.3, 0.9, last_round=False)
    assert decision is not None and decision.rung == 2 and h.values == [{"a": 0.9}, {"a": 0.9}]


def test_comparing_by_round_or_epoch_would_stop_the_wrong_trial() -> None:
    """Curves of (kept share asked, val_top1): at share 0.5 the fast trial is ahead, round by round it looks worse."""
    gentle = [(1.0, 0.95), (0.8, 0.94), (0.64, 0.93), (0.5, 0.90), (0.4, 0.85), (0.25, 0.80)]
    fast = [(1.0, 0.95), (0.5, 0.92), (0.25, 0.88)]
    assert gentle[1][1] > fast[1][1], "at equal round the fast trial would be the one to stop"
    h = halving()
    stopped = {}
    for name, curve in (("fast", fast), ("gentle", gentle)):
        for index, (share, value) in enumerate(curve):
            decision = h.enter(name, share, value, last_round=index == len(curve) - 1)
            if decision and decision.stop:
                stopped[name] = share
                break
    assert stopped == {"gentle": 0.5}, "at equal share the gentle trial is behind, and ends up behind"


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_replaying_the_same_order_gives_the_same_rungs(order: tuple[str, ...]) -> None:
    values = {"a": 0.5, "b": 0.6, "c": 0.4}

    def play() -> tuple[list[dict[str, float]], list[bool]]:
        h = halving()
        stops = [d.stop for t in order if (d := h.enter(t, 0.5, values[t], last_round=False))]
        return h.values, stops

    assert play() == play()


CURVES = json.loads((Path(__file__).parents[3] / "docs" / "figures" / "curves.json").read_text())


def stopped(trials: dict[str, Any], progress: dict[str, Any]) -> list[str]:
    """Who is stopped when `progress` (kept share asked → rung, by round or by epoch) decides where trials meet."""
    h = EqualShareHalving(0.3, (0.3, 0.6), 2.0)
    out = []
    for name, trial in trials.items():
        for index, done in enumerate(trial["rounds"]):
            share = done["kept_share_asked"]
            if "round" in progress:
                share = 0.3 ** dict(zip(progress["round"], h.rungs, strict=True)).get(done["round"], 0.0)
            elif "epoch" in progress:
                passed = [
                    q for q, epoch in zip(h.rungs, progress["epoch"], strict=True) if done["epochs_trained"] >= epoch
                ]
                share = 0.3 ** max(passed, default=0.0)
            last = index == len(trial["rounds"]) - 1
            decision = h.enter(name, share, done["val_top1"], last_round=last)
            if decision and decision.stop:
                out.append(name)
                break
    return out


def test_on_recorded_curves_comparing_by_round_or_epoch_stops_the_best_trial_and_equal_share_keeps_it() -> None:
    """Three real trials (benchmarks.search_pays, seed 4): 5, 5 and 4 rounds to the same size."""
    trials = {name: CURVES["random-4"][name] for name in ("t0001", "t0008", "t0005")}
    best = max(trials, key=lambda name: trials[name]["val_top1"])
    assert best == "t0005" and len(trials[best]["rounds"]) == 4
    assert stopped(trials, {"round": (1, 2)}) == [best]
    assert stopped(trials, {"epoch": (8, 12)}) == [best]
    assert best not in stopped(trials, {})
    assert stopped(dict(reversed(trials.items())), {}) == ["t0008", "t0001"], "whoever comes first"
