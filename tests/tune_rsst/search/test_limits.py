"""Limits on parameters and MACs are known before training: what breaks them costs no worker, and it is said."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from tests.tune_rsst.fake_sweep import FakeSweep, tiny
from trainables.rsst import size
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.measure import Measured
from tune_rsst.ending import _shortfall
from tune_rsst.ledger.file import read
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning import begin, estimate
from tune_rsst.planning.plan import Plan
from tune_rsst.results.as_json import as_json
from tune_rsst.results.table import print_table
from tune_rsst.search.limits import KnownSizes, reach
from tune_rsst.search.spaces import settled
from tune_rsst.search.suggestions import Space
from tune_rsst.settings import written
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.writes import PARENT, RunWrites

TINY = Space("tiny", tiny)
HALF = 80_000  # parameters; the dense model has 136,138, and sizes from 0.3 to 0.875 are searched
PARETO = ("objective=pareto", "pareto_against=params")
CONSTRAINED = ("objective=constrained",)


def config(share: float = 0.3, **knobs: Any) -> RSSTConfig:
    return RSSTConfig.from_knobs({"dataset": "digits", "target_density": share, **knobs})


def known(**limits: float) -> KnownSizes:
    return KnownSizes(Objective.of({"objective": "constrained", **limits}))


def sweep(folder: Path, *words: str, storage: str = "memory") -> FakeSweep:
    folder.mkdir(exist_ok=True)
    settings, space = settled(["name=fake", "trials=8", "startup_trials=4", *words], TINY)
    return FakeSweep(folder, space, settings, storage)


@pytest.mark.parametrize("arch", ["vit_digits", "vit_tiny"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_size_depends_on_how_many_units_stay_and_not_on_where(arch: str, seed: int) -> None:
    """Why scope = global is no estimate."""
    draw = random.Random(seed)
    full = size.architecture_of(RSSTConfig.from_knobs({"dataset": "synthetic", "arch": arch}))
    even = full.with_counts([2] * full.depth, [50] * full.depth)
    heads, neurons = list(even.heads), list(even.neurons)
    for counts, most in ((heads, 1), (neurons, 49)):
        for _ in range(full.depth // 2):
            give, take = draw.sample(range(full.depth), 2)
            moved = min(draw.randint(0, most), counts[give] - 1)
            counts[give], counts[take] = counts[give] - moved, counts[take] + moved
    assert size.size_of(full.with_counts(heads, neurons)) == size.size_of(even) and heads != list(even.heads)


BROKEN = [  # limits → what is broken at a kept share of 0.3, which has 39,970 parameters
    ({"max_params": 136_138}, None),
    ({"max_params": 10}, "params 39,970 > max_params 10"),
    ({"max_params": 39_970}, None),
    ({"max_params": 39_969}, "params 39,970 > max_params 39,969"),
    ({"max_gmacs": 1.0}, None),
    ({"max_gmacs": 1e-5}, "gmacs "),
    ({"max_latency_ms": 1e-9}, None),  # not known before training
    ({"max_params": 10, "max_latency_ms": 1e-9}, "params 39,970 > max_params 10"),
    ({"max_params": 10, "max_gmacs": 1e-5}, "gmacs "),
]


@pytest.mark.parametrize(("limits", "said"), BROKEN)
def test_what_is_broken_is_said(limits: dict[str, float], said: str | None) -> None:
    sizes = known(**limits)
    found = sizes.broken(sizes.of(config()))
    assert found is None if said is None else found is not None and found.startswith(said)
    assert set(sizes.of(config())) == {key.removeprefix("max_") for key in limits} - {"latency_ms"}


def test_a_data_set_that_is_not_here_leaves_it_to_the_worker(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    sizes = known(max_params=1)
    assert sizes.of(RSSTConfig.from_knobs({"dataset": "folder", "data": str(tmp_path / "gone"), "img_size": 8})) == {}
    assert sizes.broken({}) is None


@pytest.mark.parametrize(
    ("sampler", "words"),
    [("tpe", PARETO), ("nsga2", PARETO), ("tpe", CONSTRAINED), ("nsga3", CONSTRAINED), ("qmc", CONSTRAINED)],
)
def test_they_are_not_trained_and_optuna_knows_why(tmp_path: Path, sampler: str, words: tuple[str, ...]) -> None:
    run = sweep(tmp_path, f"sampler={sampler}", *words, f"max_params={HALF}")
    run.run()
    assert run.driver.complete and len(run.view.trials) == 8, "they take no trial's place"
    assert run.view.infeasible and {t for t, _ in run.trained} == set(run.view.trials)
    for record in run.view.infeasible:
        frozen = run.searcher.study.trials[record["number"]]
        assert frozen.state == TrialState.PRUNED and frozen.params == record["params"]
        assert frozen.constraints == {"params": pytest.approx(record["metrics"]["params"] / HALF - 1)}
        assert frozen.constraints["params"] > 0 and f"> max_params {HALF:,}" in record["reason"]
    for trial in run.view.trials.values():
        assert size.cost(RSSTConfig.from_knobs(trial.knobs)).params <= HALF
    assert len(run.searcher.study.trials) == len(run.view.trials) + len(run.view.infeasible) + len(run.view.repeats)


def test_the_gaussian_process_takes_them_too(tmp_path: Path) -> None:
    run = sweep(tmp_path, "sampler=gp", "trials=5", *CONSTRAINED, f"max_params={HALF}")
    run.run()
    assert len(run.view.trials) == 5 and run.view.infeasible


@pytest.mark.parametrize(
    ("words", "storage"), [(PARETO, False), pytest.param(CONSTRAINED, True, marks=pytest.mark.medium)]
)
def test_after_a_kill_nothing_is_asked_twice(tmp_path: Path, words: tuple[str, ...], storage: bool) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}" if storage else "memory"
    words = (*words, f"max_params={HALF}", "sampler=random", *(["trials=4"] if storage else []))
    before = sweep(tmp_path, *words, storage=url)
    before.run(reports=20)
    assert before.view.infeasible
    after = sweep(tmp_path, *words, storage=url)
    assert after.view == before.view and not after.searcher.rebuilt
    same = ("state", "params", "values", "constraints")
    for old, new in zip(before.searcher.study.trials, after.searcher.study.trials, strict=True):
        assert [getattr(old, name) for name in same] == [getattr(new, name) for name in same]
    after.run()
    whole = sweep(tmp_path / "whole", *words)
    whole.run()
    assert [t.params for t in after.view.trials.values()] == [t.params for t in whole.view.trials.values()]
    assert [r["params"] for r in after.view.infeasible] == [r["params"] for r in whole.view.infeasible]


def test_a_limit_that_nothing_more_keeps_ends_the_sweep_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_rsst.driver.sweep.MAX_ASKS_UNDER_LIMITS", 12)
    run = sweep(tmp_path, *CONSTRAINED, "max_params=10", "sampler=random")
    run.run()
    assert run.driver.complete and not run.view.trials and len(run.view.infeasible) == 12
    plan: Any = type("P", (), {"settings": run.settings})
    assert "known to break a limit" in str(_shortfall(plan, run.driver))


def test_a_sweep_without_such_limits_asks_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "size_of", lambda arch: pytest.fail("no limit asks for it"))
    run = sweep(tmp_path, "objective=constrained", "max_latency_ms=1000")
    run.run()
    assert not run.view.infeasible


def test_everybody_hears_of_them(tmp_path: Path) -> None:
    run = sweep(tmp_path / "fake", *CONSTRAINED, f"max_params={HALF}", "sampler=random")
    run.run()
    found = Sweep.of(SweepFolder(tmp_path / "fake"))
    n = len(run.view.infeasible)
    console = Console(file=io.StringIO(), width=200)
    print_table(console, found)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{n} over a limit, not trained" in text
    assert f"{n} suggestions known to break a limit, not trained: params " in text and "(least params " in text
    listed = json.loads(json.dumps(as_json(found, None)))["infeasible"]
    assert len(listed) == n and {"number", "params", "metrics", "reason"} == set(listed[0])
    writes = RunWrites("uid", found.folder)
    for event in read(found.folder.ledger):
        writes.apply(event)
    parent = next(write for write in writes.take() if write.run == PARENT)
    assert [value for key, value, _, _ in parent.points if key == "trials/infeasible"] == list(
        map(float, range(1, n + 1))
    )


def test_a_ledger_of_before_reads_as_ever(tmp_path: Path) -> None:
    assert SweepView.of([{"event": "sweep_started", "time": 1.0, "name": "a", "settings": {}}]).infeasible == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)


def planned(*words: str) -> Plan:
    plan = begin.make_plan(written.given(None, words), None, False)
    assert isinstance(plan, Plan)
    return plan


OUT_OF_REACH = [
    (("max_params=10",), "max_params = 10: valid is at least ", "the least final params of 39 random draws"),
    (("max_gmacs=1e-9",), "max_gmacs = 1e-09: valid is at least ", "the least final gmacs of 39 random draws"),
    (("max_params=1000000", "max_gmacs=1e-9"), "max_gmacs = 1e-09: ", "raise it"),
    (("max_params=10", "max_gmacs=1"), "max_params = 10: ", "target_density"),
]


@pytest.mark.parametrize("objective", ["constrained", "pareto"])
@pytest.mark.parametrize(("words", "starts", "holds"), OUT_OF_REACH)
@pytest.mark.usefixtures("home")
def test_limits_that_no_draw_keeps_are_refused_with_the_least_value(
    words: tuple[str, ...], starts: str, holds: str, objective: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(f"objective={objective}", *words)
    said = str(refused.value)
    assert said.startswith(starts) and holds in said and "\n" not in said


def test_limits_that_no_draw_keeps_together_are_refused_together() -> None:
    wide, fine = config(patch_size=8), config(patch_size=2)  # more parameters, more MACs
    params, gmacs = size.cost(fine).params, size.cost(wide).gmacs
    assert size.cost(wide).params > params and size.cost(fine).gmacs > gmacs
    objective = Objective.of({"objective": "constrained", "max_params": params, "max_gmacs": gmacs})
    with pytest.raises(ConfigError) as refused:
        reach(objective, [wide, fine], refuse=True)
    said = str(refused.value)
    assert said.startswith("max_gmacs and max_params = ") and "keeps together; the nearest has gmacs" in said
    assert reach(objective, [wide, fine], refuse=False).within == (), "a sweep that goes on is not refused"


@pytest.mark.usefixtures("home")
def test_the_plan_says_how_many_of_its_draws_pass_and_counts_on_those() -> None:
    plan = planned("objective=constrained", f"max_params={HALF}")
    passing = [c for c in plan.draws if size.cost(c).params <= HALF]
    assert 0 < len(passing) < len(plan.draws) and list(plan.to_train) == passing
    line = f"{len(passing)} of {len(plan.draws)} random draws keep max_params {HALF:,}; the others would not be trained"
    found = estimate.estimate(plan, lambda *_: Measured("cpu", 1e-3, 1e-3, 0.0, 400.0))
    assert f"  limits          {line}" in estimate.lines(plan, found)
    assert planned("objective=constrained", "max_latency_ms=1").reach.line == ""
    assert planned().to_train == planned().draws
