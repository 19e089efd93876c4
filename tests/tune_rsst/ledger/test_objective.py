"""Objectives: who may win, what Optuna is told, what the front holds; formulas over the real driver and study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.tune_rsst.fake_sweep import FakeSweep, tiny
from trainables.rsst.config import ConfigError
from trainables.rsst.event import Event
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.planning.begin import make_plan
from tune_rsst.results import table
from tune_rsst.results.ranking import best_of, pareto_front, ranking, rounds_front, standing
from tune_rsst.search import spaces
from tune_rsst.search.spaces import Space, settled
from tune_rsst.settings import rules
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.settings import SweepSettings
from tune_rsst.settings.written import given

TINY = Space("tiny", tiny)
PARETO = ("objective=pareto", "pareto_against=gmacs")


def trial(number: int, val_top1: float, gmacs: float, state: str = "finished") -> TrialView:
    found = TrialView(f"t{number:04d}", number, {}, {}, {}, f"f{number}", 3, state=state)
    size = {
        "gmacs": gmacs,
        "density": gmacs,
        "params": int(gmacs * 100),
        "kept_share_asked": gmacs,
        "latency_ms": gmacs,
    }
    found.apply_report(Event("round", {"round": 2, "val_top1": val_top1, **size}))
    return found


def view_of(*trials: TrialView, **settings: Any) -> SweepView:
    return SweepView(settings={"target_density": 0.3, **settings}, trials={t.trial: t for t in trials})


TRIALS = (
    trial(0, 0.90, 0.3),
    trial(1, 0.95, 0.6),
    trial(2, 0.94, 0.7),  # beaten by 1 in both
    trial(3, 0.99, 0.5, "stopped"),
    trial(4, 0.99, 0.4, "failed"),
    trial(5, 0.97, 0.8),
)


def test_the_front_holds_finished_trials_that_none_beats_in_both() -> None:
    assert pareto_front(view_of(*TRIALS, objective="pareto", pareto_against="gmacs")) == ["t0000", "t0001", "t0005"]
    limited = view_of(*TRIALS, objective="pareto", pareto_against="gmacs", max_gmacs=0.65)
    assert pareto_front(limited) == ["t0000", "t0001"]


def rounds(number: int, *models: tuple[float, float], state: str = "finished") -> TrialView:
    """A trial whose rounds left models of (val_top1, gmacs)."""
    found = trial(number, *models[-1], state)
    found.round_events = [
        {"round": at, "val_top1": top1, "gmacs": gmacs, "density": gmacs, "params": int(gmacs * 100)}
        for at, (top1, gmacs) in enumerate(models)
    ]
    return found


ROUNDS = (
    rounds(0, (0.97, 1.0), (0.46, 0.447), (0.33, 0.295)),
    rounds(1, (0.96, 1.0), (0.80, 0.5), (0.40, 0.25), state="stopped"),
    rounds(2, (0.97, 1.0), (0.80, 0.6), state="failed"),
)
FRONTS = [  # settings → the front over the rounds
    ({"pareto_against": "gmacs"}, ["t0001-r002", "t0000-r001", "t0001-r001", "t0000-r000"]),
    ({"pareto_against": "params"}, ["t0001-r002", "t0000-r001", "t0001-r001", "t0000-r000"]),
    ({}, ["t0001-r002", "t0000-r001", "t0001-r001", "t0000-r000"]),
    ({"max_gmacs": 0.5}, ["t0001-r002", "t0000-r001", "t0001-r001"]),
    ({"max_params": 30}, ["t0001-r002"]),
    ({"max_gmacs": 0.1}, []),
    ({"pareto_against": "latency_ms"}, []),  # these reports have none
]


@pytest.mark.parametrize(("settings", "front"), FRONTS)
def test_the_front_over_the_rounds_is_of_every_hardened_model(settings: dict[str, Any], front: list[str]) -> None:
    found = rounds_front(view_of(*ROUNDS, objective="pareto", **settings))
    assert [one.name for one in found] == front


def test_equal_models_of_rounds_are_named_once_and_the_first_trial_wins() -> None:
    view = view_of(rounds(1, (0.9, 0.5)), rounds(0, (0.9, 0.5)))
    assert [one.name for one in rounds_front(view)] == ["t0000-r000"]


def test_stopped_failed_and_infeasible_trials_stand_apart() -> None:
    places = standing(view_of(*TRIALS, objective="constrained", max_gmacs=0.65))
    assert list(places.values()) == ["feasible", "feasible", "infeasible", "stopped", "failed", "infeasible"]


def test_the_table_says_which_trials_are_on_the_front() -> None:
    def states(**settings: Any) -> list[str]:
        found = table._ranking(view_of(*TRIALS, **settings), None, ["val_top1"], lambda trial: True)
        return list(map(str, found.columns[2].cells))

    assert states(objective="pareto", pareto_against="gmacs") == [
        *("finished, front", "finished, front", "finished", "finished, front", "stopped", "failed")
    ]
    assert states()[:2] == ["finished", "finished, not allowed"]


@pytest.mark.parametrize(
    ("settings", "best"),
    [
        ({}, "t0000"),
        ({"objective": "constrained", "max_gmacs": 0.65}, "t0001"),
        ({"objective": "constrained", "max_params": 70}, "t0001"),
        ({"objective": "constrained", "max_latency_ms": 0.65, "max_gmacs": 0.5}, "t0000"),
        ({"objective": "pareto"}, "t0005"),
        ({"objective": "constrained", "max_gmacs": 0.1}, None),
    ],
)
def test_the_best_is_the_most_accurate_that_the_objective_allows(settings: dict[str, Any], best: str | None) -> None:
    found = best_of(view_of(*TRIALS, **settings))
    assert (found.trial if found else None) == best


def test_constraints_are_shares_over_the_limit() -> None:
    found = Objective.of({"objective": "constrained", "max_gmacs": 0.5, "max_latency_ms": 2.0})
    assert found.constraints({"gmacs": 0.75, "latency_ms": 1.0}) == {"gmacs": 0.5, "latency_ms": -0.5}


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["max_gmacs=1"], "max_gmacs"),
        (["objective=constrained"], "objective"),
        (["pareto_against=gmacs"], "pareto_against"),
        (["objective=constrained", "max_params=9", "pareto_against=density"], "pareto_against"),
        (["largest_density=0.5"], "largest_density"),
        (["objective=pareto", "largest_density=0.2"], "largest_density"),
        (["objective=pareto", "pruning_times=4", "stopping=none"], "pruning_times"),
        (["objective=pareto", "target_density=abc"], "target_density"),
        (["objective=pareto", "max_gmacs=-1"], "max_gmacs"),
        (["objective=best"], "objective"),
        (["sampler=gp", "space=method"], "sampler"),
    ],
)
def test_what_contradicts_the_objective_is_one_line_that_names_its_key(overrides: list[str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(given(None, overrides), None, False)
    assert str(caught.value).startswith(f"{key} = ") and "\n" not in str(caught.value)


def sized_settings(*overrides: str) -> tuple[Space, SweepSettings]:
    settings, space = settled(["name=fake", "trials=10", *overrides], TINY)
    return space, settings


def test_the_final_size_is_searched_in_steps_of_whole_neurons() -> None:
    space, settings = sized_settings(*PARETO)
    found = [c.target_density for _, c in spaces.samples(space, settings.fixed_in_trials, 200)]
    assert settings.target_density == 0.3 and min(found) >= 0.3 and max(found) <= 0.875 and len(set(found)) > 40
    assert all(density * 128 == round(density * 128) for density in found)
    assert len({round(density * 128) for density in found}) == len(set(found)), "no two sizes keep the same neurons"


def test_one_size_where_largest_equals_smallest() -> None:
    space, settings = sized_settings(*PARETO, "largest_density=0.3")
    assert space is TINY and settings.fixed_in_trials["target_density"] == 0.3


@pytest.mark.parametrize(
    "sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow), "nsga2", "nsga3", "random", "qmc"]
)
@pytest.mark.parametrize("words", [PARETO, ("objective=constrained", "max_gmacs=0.6")], ids=["pareto", "constrained"])
def test_every_sampler_works_and_the_study_says_what_the_ledger_says(
    tmp_path: Path, sampler: str, words: tuple[str, ...]
) -> None:
    trials = 8 if sampler == "gp" else 16  # a front's Gaussian process takes ten seconds for a suggestion
    space, settings = sized_settings(
        f"sampler={sampler}", "startup_trials=5", f"trials={trials}", "largest_density=0.5", *words
    )
    run = FakeSweep(tmp_path, space, settings)
    run.run()
    named = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    pareto = settings.objective == "pareto"
    assert run.driver.complete and run.view.count("finished") and (run.view.count("stopped") or sampler != "random")
    for one in run.view.trials.values():
        frozen = run.searcher.study.trials[one.number]
        assert frozen.state == named[one.state]
        if one.state == "finished":
            m = one.metrics
            assert frozen.values == ([m["val_top1"], m["gmacs"]] if pareto else [m["val_top1"]])
            assert frozen.constraints == ({} if pareto else {"gmacs": pytest.approx(m["gmacs"] / 0.6 - 1)})
        elif pareto:
            assert frozen.values is None and not frozen.intermediate_values
    front = pareto_front(run.view)
    assert front and all(run.view.trials[name].state == "finished" for name in front)
    if pareto:
        best = {(t.values[0], t.values[1]) for t in run.searcher.study.best_trials}
        metrics = [run.view.trials[name].metrics for name in front]
        assert {(m["val_top1"], m["gmacs"]) for m in metrics} == best, "Optuna sees the same front"
    else:
        assert all(t.metrics["gmacs"] <= 0.6 for t in ranking(run.view))
        assert run.searcher.study.best_trial.value == best_of(run.view).metrics["val_top1"]


@pytest.mark.parametrize("storage", [False, True], ids=["memory", "sqlite"])
@pytest.mark.parametrize(
    "words", [(), PARETO, ("objective=constrained", "max_gmacs=0.6")], ids=["val_top1", "pareto", "constrained"]
)
def test_after_a_kill_the_rungs_and_the_study_equal_those_before(
    tmp_path: Path, words: tuple[str, ...], storage: bool
) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}" if storage else "memory"
    space, settings = sized_settings("startup_trials=5", *words)
    before = FakeSweep(tmp_path, space, settings, url)
    before.run(reports=60)
    after = FakeSweep(tmp_path, space, settings, url)
    assert after.driver.halving.values == before.driver.halving.values and any(after.driver.halving.values)
    assert after.driver.rungs == before.driver.rungs and not after.searcher.rebuilt
    for old, new in zip(before.searcher.study.trials, after.searcher.study.trials, strict=True):
        same = ("state", "params", "values", "intermediate_values", "constraints")
        assert [getattr(old, name) for name in same] == [getattr(new, name) for name in same]
    after.run()
    assert after.driver.complete


def test_stopping_none_finishes_every_trial_in_pareto_too(tmp_path: Path) -> None:
    space, settings = sized_settings(*PARETO, "stopping=none")
    run = FakeSweep(tmp_path, space, settings)
    run.run()
    assert run.view.count("finished") == 10 and run.driver.halving is None


def test_resume_with_the_defaults_written_out_is_accepted() -> None:
    """A resume resolves the settings of the ledger again; keys that were left out must not look as if given."""
    flat = resolve(given(None, ["name=a"])).flat()
    again = resolve({key: value for key, value in flat.items() if value is not None})
    rules.check(again)
    assert again.flat() == flat
