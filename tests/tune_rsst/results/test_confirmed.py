"""Means, intervals and the choice among repeated trials: numbers that can be checked by hand or stand in tables."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trainables.rsst.event import Event
from tune_rsst.ledger.repeats.spread import Spread, student_t
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.report.page import write_report
from tune_rsst.results import ranking
from tune_rsst.results.as_json import as_json
from tune_rsst.results.confirmed import table
from tune_rsst.results.confirmed.choice import choice, over, repeated, tied
from tune_rsst.results.table import print_table
from tune_rsst.storage.folder import Sweep, SweepFolder

# 97.5 % points of Student's distribution, as every table has them
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize("freedom", TABLE)
def test_students_t_is_that_of_the_tables(freedom: int) -> None:
    assert student_t(freedom) == pytest.approx(TABLE[freedom], abs=5e-4)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99, 0.999])
@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 8, 99])
def test_students_t_is_scipys(freedom: int, confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_t(freedom, confidence) == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-9)


def test_a_spread_by_hand() -> None:
    found = Spread.of([0.8, 0.9, 1.0])
    assert found is not None and found.n == 3 and found.mean == pytest.approx(0.9)
    assert found.deviation == pytest.approx(0.1)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(0.9 - half), pytest.approx(0.9 + half))
    assert Spread.of([]) is None
    single = Spread.of([0.5])
    assert single == Spread(1, 0.5, None, None, None) and single is not None and single.overlaps(found)
    same = Spread.of([0.7, 0.7])
    assert same is not None and (same.low, same.high) == (0.7, 0.7) and not same.overlaps(Spread(2, 0.8, 0, 0.8, 0.8))


def trial(number: int, val_top1: float, params: int = 100, test_top1: float = 0.5) -> TrialView:
    knobs = {"seed": 0, "lr": number}
    found = TrialView(f"t{number:04d}", number, {}, {}, knobs, f"f{number}", 1, state="finished", ended_at=1.0)
    told = {"round": 0, "val_top1": val_top1, "params": params, "kept_share_asked": 0.3, "kept_share": 0.3}
    told |= {"density": 0.3, "gmacs": 0.1, "hardening_gap": 0.0, "epochs_trained": 1}
    found.apply_report(Event("round", told))
    found.apply_report(Event("final", told | {"test_top1": test_top1}))
    return found


def view_of(
    trials: list[TrialView], runs: dict[str, list[float | str | None]], test_top1: float = 0.5, split: bool = False
) -> SweepView:
    """Trials, and what each of their runs came to: val_top1, a reason of failure, or None for one that goes on."""
    view = SweepView(name="x", settings={"target_density": 0.3, "mlflow_tracking_uri": "sqlite:///x"})
    view.trials = {one.trial: one for one in trials}
    seeds = list(range(1, 1 + max(map(len, runs.values()))))
    apply(view, "confirm_started", trials=list(runs), seeds=seeds, split=split)
    wanted = Wanted.last(view)
    assert wanted is not None
    for of, results in runs.items():
        for seed, result in zip(seeds, results, strict=True):
            run = wanted.run(of, seed)
            knobs = wanted.knobs(view.trials[of], seed)
            about = {"knobs": knobs, "fingerprint": run, "rounds": 1}
            apply(view, "confirm_suggested", trial=run, of=of, seed=seed, **about)
            if isinstance(result, float):
                told = {"round": 0, "val_top1": result, "test_top1": test_top1}
                apply(view, "confirm_reported", trial=run, seq=0, kind="round", metrics=told)
                apply(view, "confirm_reported", trial=run, seq=1, kind="final", metrics=told)
            if result is not None:
                state, reason = ("finished", None) if isinstance(result, float) else ("failed", result)
                apply(view, "confirm_ended", trial=run, state=state, reason=reason, rung=None)
    return view


def apply(view: SweepView, event: str, **fields: Any) -> None:
    view.apply({"event": event, "time": 2.0, **fields})


FIRST, SECOND = trial(0, 0.98), trial(1, 0.96, test_top1=0.99)
CASES: dict[str, tuple[list[TrialView], dict[str, list[float | str | None]], str | None, str]] = {
    "the higher mean": ([FIRST, SECOND], {"t0000": [0.9, 0.92], "t0001": [0.95, 0.95]}, "t0001", "Chosen: t0001"),
    "the single run does not count": (
        [FIRST, SECOND],
        {"t0000": [0.90, 0.90], "t0001": [0.90, 0.91]},
        "t0001",
        "overlaps with that of t0000",
    ),
    "not told apart": (
        [FIRST, SECOND],
        {"t0000": [0.90, 0.94], "t0001": [0.89, 0.93]},
        "t0000",
        "overlaps with that of t0001: these seeds do not tell them apart",
    ),
    "a tie, fewer parameters": (
        [trial(0, 0.98), trial(1, 0.96, params=50)],
        {"t0000": [0.9, 0.8], "t0001": [0.8, 0.9]},
        "t0001",
        "t0000 had the same mean: fewer parameters decided",
    ),
    "a tie, the lower number": (
        [FIRST, SECOND, trial(2, 0.9)],
        {"t0001": [0.9, 0.8], "t0002": [0.7, 0.7], "t0000": [0.8, 0.9]},
        "t0000",
        "t0001 had the same mean",
    ),
    "sums of the same hits in another order": (
        [FIRST, SECOND],
        {"t0000": [0.1, 0.2, 0.3], "t0001": [0.3, 0.2, 0.1]},
        "t0000",
        "t0001 had the same mean",
    ),
    "a run that failed": (
        [FIRST, SECOND],
        {"t0000": [0.9, "loss is nan"], "t0001": [0.5, 0.6]},
        "t0001",
        "t0000-seed2 failed: loss is nan",
    ),
    "all have failed": (
        [FIRST, SECOND],
        {"t0000": [0.9, "x"], "t0001": ["x", 0.6]},
        None,
        "Nothing is chosen: each of these trials has a run that failed",
    ),
    "not over": ([FIRST, SECOND], {"t0000": [0.9, 0.9], "t0001": [0.5, None]}, None, "3 of 4 runs have ended"),
    "one trial alone": ([FIRST, SECOND], {"t0001": [0.9, 0.8]}, "t0001", "Chosen: t0001"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_choice_and_what_is_said_of_it(name: str) -> None:
    trials, runs, chosen, said = CASES[name]
    view = view_of(trials, runs)
    found = choice(view)
    assert (found.trial.trial if found else None) == chosen
    assert any(said in line for line in table.lines(view)), table.lines(view)
    assert over(view) == ("not over" not in name)
    order = [cells[0] for _, cells in table.rows(view)]
    assert sorted(order) == sorted(runs) and (chosen is None or order[0] == chosen)
    told = table.as_json(Sweep(SweepFolder(Path("/home/x")), view, "finished"))
    assert told["chosen"] == chosen and told["tied"] == (
        [one.trial.trial for one in tied(view)] if tied(view)[1:] else []
    )


def test_it_never_chooses_by_test() -> None:
    trials, runs, *_ = CASES["the higher mean"]
    choices = {choice(view_of(trials, runs, test_top1)).trial.trial for test_top1 in (0.0, 1.0)}  # type: ignore[union-attr]
    assert choices == {"t0001"}
    view = view_of([FIRST, SECOND], {"t0000": [0.9, 0.8], "t0001": [0.9, 0.8]})
    assert SECOND.metrics["test_top1"] > FIRST.metrics["test_top1"] and choice(view).trial is FIRST  # type: ignore[union-attr]


def test_the_best_is_what_was_chosen_until_another_trial_ranks_above_all_that_were_repeated() -> None:
    trials, runs, *_ = CASES["the higher mean"]
    view = view_of(trials, runs)
    best = ranking.best_of(view)
    assert best is SECOND and table.remark(view) == (
        "Confirmed with 2 fresh seeds: mean val_top1 0.9500 ± 0.0000, interval 0.9500 – 0.9500 (the "
        "best mean of 2 trials)"
    )
    view.trials["t0002"] = trial(2, 0.97)
    assert ranking.best_of(view) is SECOND
    view.trials["t0003"] = trial(3, 0.99)
    assert ranking.best_of(view) is view.trials["t0003"] and table.remark(view) is None
    assert any("t0003, which finished since then" in line for line in table.lines(view))
    unfinished = view_of(*CASES["not over"][:2])
    assert ranking.best_of(unfinished) is FIRST and table.remark(unfinished) is None


def test_the_runs_are_no_trials_and_show_keeps_its_keys() -> None:
    trials, runs, *_ = CASES["the higher mean"]
    folder = SweepFolder(Path("/home/x"))
    before = as_json(Sweep(folder, SweepView(name="x", trials={t.trial: t for t in trials}), "finished"), None)
    after = as_json(Sweep(folder, view_of(trials, runs), "finished"), None)
    assert (
        after.keys() == before.keys()
        and after["trials"] == before["trials"]
        and after["standing"] == before["standing"]
    )
    assert [t.trial for t in ranking.rank(view_of(trials, runs))] == ["t0000", "t0001"]


@pytest.mark.parametrize("split", [False, True])
def test_fresh_seeds_are_the_same_for_all_and_keep_the_split_unless_asked(split: bool) -> None:
    view = SweepView(trials={t.trial: t for t in (FIRST, SECOND)})
    few, more = (Wanted.of(view, [SECOND, FIRST], number, split) for number in (2, 4))
    assert few.seeds == (1, 2) and more.seeds[:2] == few.seeds and {*few.runs()} < {*more.runs()}
    other = Wanted(few.trials, (1, 2), not split)
    assert {run for run, _, _ in few.runs()}.isdisjoint(run for run, _, _ in other.runs())
    knobs = few.knobs(FIRST, 2)
    assert (knobs["seed"], knobs["split_seed"]) == (2, None if split else 0) and knobs["lr"] == 0
    apart = TrialView("t0005", 5, {}, {}, {"seed": 7, "split_seed": 3}, "f", 1)
    assert few.knobs(apart, 8)["split_seed"] == (None if split else 3)


def test_seeds_of_what_was_asked_for_last_count_and_others_wait() -> None:
    view = view_of(*CASES["not over"][:2])
    (waiting,) = list(view.confirm.unfinished) if view.confirm else []
    apply(view, "confirm_started", trials=["t0000"], seeds=[1, 2], split=False)
    assert over(view) and choice(view).trial is FIRST and waiting.state == "interrupted"  # type: ignore[union-attr]
    assert [one.trial.trial for one in repeated(view)] == ["t0000"]
    apply(view, "confirm_started", trials=["t0000"], seeds=[1, 2], split=True)
    assert not over(view) and repeated(view)[0].val is None
    apply(view, "confirm_started", trials=["t0000", "t0001"], seeds=[1, 2], split=False)
    assert waiting.state == "running" and not over(view)


def test_the_line_of_the_best_says_why_it_is_not_the_first_of_the_ranking(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "x")
    folder.path.mkdir()

    def best_line(view: SweepView) -> str:
        console = Console(file=io.StringIO(), width=300)
        print_table(console, Sweep(folder, view, "finished"))
        [line] = re.findall(r"^Best: .*$", console.file.getvalue(), re.M)  # type: ignore[attr-defined]
        return str(line)

    trials, runs, *_ = CASES["the higher mean"]
    assert "Best: t0001," in best_line(view_of(trials, runs))
    assert "(confirmed with 2 fresh seeds: mean val_top1 0.9500" in best_line(view_of(trials, runs))
    bare = SweepView(name="x", settings={"mlflow_tracking_uri": "sqlite:///x"}, trials={"t0000": FIRST})
    assert best_line(bare).endswith("(objective: highest val_top1)")


def test_the_report_page_has_the_table(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "x")
    folder.path.mkdir()
    for view in (view_of(*CASES["not told apart"][:2]), view_of([FIRST], {"t0000": [0.9, 0.9]})):
        page = write_report(Sweep(folder, view, "finished"), tmp_path / "report.html").read_text(encoding="utf-8")
        assert "The best trials again, with fresh seeds" in page
        assert all(line.replace("'", "&#x27;") in page for line in table.lines(view))
    bare = SweepView(name="x", settings={"mlflow_tracking_uri": "sqlite:///x"}, trials={"t0000": FIRST})
    page = write_report(Sweep(folder, bare, "finished"), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "with fresh seeds" not in page
