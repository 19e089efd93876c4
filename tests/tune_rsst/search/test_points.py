"""Points that are tried first, and grids: compared with the space before, given out once each over any kills."""

from __future__ import annotations

import io
import random
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console

from tests.tune_rsst.fake_sweep import EPOCHS, FakeSweep, events, few, settings_of, tiny
from trainables.rsst.config import ConfigError
from trainables.rsst.measure import Measured
from tune_rsst import conduct
from tune_rsst.ledger.file import read
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.estimate import estimate, lines
from tune_rsst.planning.plan import Finished, Plan
from tune_rsst.planning.resume import extension
from tune_rsst.results.columns import points as told
from tune_rsst.runners import replay
from tune_rsst.search.points import first, guides_point
from tune_rsst.search.spaces import Space, settled
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.written import from_python, given
from tune_rsst.storage.folder import Sweep, SweepFolder

TINY, FEW = Space("tiny", tiny), Space("few", few)
POINTS = [{"lr": 1e-3, "rate": 0.4}, {"lr": 2e-3}, {"rate": 0.5}, {"lr": 5e-3, "rate": 0.36}]
GRID = ("sampler=grid", "stopping=none")


def branching(trial: Any) -> dict[str, Any]:
    """rate is asked for in one branch, prunings in the other."""
    knobs = {"dataset": "digits", "epochs": EPOCHS, "warmup": trial.suggest_int("warmup", 0, 1)}
    if trial.suggest_categorical("by", ["rate", "prunings"]) == "rate":
        return {**knobs, "rate": trial.suggest_float("rate", 0.35, 0.5, step=0.05)}
    return {**knobs, "prunings": trial.suggest_int("prunings", 2, 3)}


def bare(trial: Any) -> dict[str, Any]:
    """A batch size of 0 makes no trial."""
    batch = trial.suggest_categorical("batch_size", [0, 16, 32])
    return {"dataset": "digits", "epochs": EPOCHS, "warmup": 0, "rate": 0.4, "batch_size": batch}


def begun(folder: Path, points: Any, *words: str, space: Space = TINY, storage: str = "memory") -> FakeSweep:
    settings = settled_with(space, points, *words)
    found = first(space, settings)
    settings = settings.model_copy(update={"trials": found.trials(settings)})
    return FakeSweep(folder, space, settings, storage, points=list(found.points))


def settled_with(space: Space, points: Any, *words: str) -> Any:
    settings = settings_of(space, *words)
    return settings.model_copy(update={"points": tuple(points)})


def given_out(view: SweepView) -> list[dict[str, Any]]:
    return [trial.params for trial in view.trials.values()]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random", "qmc"])
def test_points_come_first_in_their_order_and_the_sampler_completes_them(tmp_path: Path, sampler: str) -> None:
    sweep = begun(tmp_path, POINTS, "trials=6", f"sampler={sampler}")
    sweep.run()
    seen = given_out(sweep.view)
    for point, params in zip(POINTS, seen, strict=False):
        assert params.keys() == {"lr", "rate"} and point.items() <= params.items()
    assert [t.suggested_by for t in sweep.view.trials.values()] == ["points"] * 4 + [sampler] * 2
    by = [trial.user_attrs.get("suggested_by") for trial in sweep.searcher.study.trials]
    assert by == ["points"] * 4 + [None] * 2
    assert told(sweep.view) == [f"Suggested by: points t0000, t0001, t0002, t0003; {sampler} 2 trials"]


@pytest.mark.parametrize("storage", ["memory", "sqlite"])
def test_kills_lose_no_point_and_give_none_twice(tmp_path: Path, storage: str) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}" if storage == "sqlite" else storage
    randomly = random.Random(3)
    for _ in range(60):
        sweep = begun(tmp_path, POINTS, "trials=6", "sampler=random", storage=url)
        sweep.run(reports=randomly.randint(9, 40))
        sweep.ledger.close()
        if sweep.driver.complete:
            break
    (tmp_path / "straight").mkdir()
    straight = begun(tmp_path / "straight", POINTS, "trials=6", "sampler=random")
    straight.run()
    assert sweep.driver.complete and given_out(sweep.view) == given_out(straight.view)
    assert [t.params for t in sweep.searcher.study.trials] == given_out(sweep.view)


def test_a_kill_between_the_study_and_the_ledger_gives_the_same_point_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    sweep = begun(tmp_path, POINTS, "trials=6", storage=url)
    sweep.driver.next_trial()
    sweep.searcher.ask({})  # the ledger never hears of it
    sweep.searcher.study.enqueue_trial({"lr": 9e-3})  # nor of this
    sweep.ledger.close()
    again = begun(tmp_path, POINTS, "trials=6", storage=url)
    assert again.searcher.rebuilt and len(again.searcher.study.trials) == 1
    again.run()
    assert all(p.items() <= q.items() for p, q in zip(POINTS, given_out(again.view), strict=False))
    assert len(again.view.trials) == 6


def test_a_study_that_is_rebuilt_says_the_same_of_each_trial(tmp_path: Path) -> None:
    one = begun(tmp_path, POINTS, "trials=6", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    one.run()
    one.ledger.close()
    rebuilt = begun(tmp_path, POINTS, "trials=6")
    said = [
        [(t.state, t.params, t.values, t.user_attrs) for t in sweep.searcher.study.trials] for sweep in (one, rebuilt)
    ]
    assert said[0] == said[1]


WRONG_FORM = [
    (["points=3"], "points = 3: valid is a list of points"),
    (["points=[]", "points=[1]"], "points, point 1 = 1: valid is parameters with values"),
    (["points=[{}]"], "point 1 = {}: valid is parameters with values"),
    (["points=[{lr: []}]"], "point 1: lr = []: valid is one value, or a list of some"),
    (["points=[{lr: 0.001}, {lr: [0.002, 0.001]}]"], "point 2 = {'lr': 0.001}: valid is no point that was there"),
    (["points=[{lr: {low: 1}}]"], "point 1: lr = {'low': 1}: valid is one value"),
    (["points=nowhere.yaml"], "points = nowhere.yaml: valid is a YAML file that can be read"),
    (["points={lr: 1}"], "points = {'lr': 1}: valid is a list of points"),
    (["first=us"], "first = us: valid is 'guide' or 'none'"),
]


@pytest.mark.parametrize(("words", "line"), WRONG_FORM, ids=[line for _, line in WRONG_FORM])
def test_what_is_no_list_of_points_is_one_line(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(given(None, words))
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_holds_no_list_is_named(tmp_path: Path) -> None:
    file = tmp_path / "points.yaml"
    for text, why in (("lr: 1\n", "it holds no list"), ("- {lr: 1", "line"), ("", "it holds no list")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=why):
            resolve({"points": str(file)})
    file.write_text("- {lr: 0.001, rate: 0.4}\n- {lr: [0.002, 0.003]}\n")
    assert resolve({"points": str(file)}).points == ({"lr": 1e-3, "rate": 0.4}, {"lr": 2e-3}, {"lr": 3e-3})
    assert resolve({"points": "none"}).points == ()


@pytest.mark.parametrize(
    ("space", "point", "words", "line"),
    [
        (TINY, {"lr": 0.5}, (), "points, point 2: lr = 0.5: valid is 0.0001 to 0.01, log scale"),
        (TINY, {"lr": "high"}, (), "lr = high: valid is 0.0001 to 0.01"),
        (TINY, {"lr": True}, (), "lr = True: valid is 0.0001 to 0.01"),
        (TINY, {"lr": float("nan")}, (), "lr = nan: valid is 0.0001 to 0.01"),
        (TINY, {"ratte": 0.4}, (), "a parameter of the space here: lr, rate; did you mean rate?"),
        (TINY, {"epochs": 4}, (), "epochs = 4: valid is a parameter of the space here"),
        (TINY, {"lr": 1e-3}, ("lr=0.002",), "the sweep fixes lr = 0.002"),
        (FEW, {"lr": 3e-3}, (), "lr = 0.003: valid is one of 0.001, 0.002"),
        (FEW, {"batch_size": 16.5}, (), "valid is one of 16, 32"),
        (Space("b", branching), {"by": "rate", "prunings": 2}, (), "prunings = 2: valid is a parameter of the space"),
        (Space("b", branching), {"rate": 0.37}, (), "rate = 0.37: valid is 0.35 to 0.5, step 0.05"),
        (Space("b", branching), {"warmup": 0.5}, (), "warmup = 0.5: valid is whole number 0 to 1"),
        (Space("bare", bare), {"batch_size": 0}, (), "batch_size=0: valid is a point that makes a trial"),
    ],
)
def test_a_point_that_the_space_could_not_give_is_one_line(
    space: Space, point: dict[str, Any], words: tuple[str, ...], line: str
) -> None:
    settings = settled(["name=fake", *words], space)[0] if space.address != "bare" else settings_of(TINY)
    with pytest.raises(ConfigError) as refused:
        first(space, settings.model_copy(update={"points": ({}, point)}))
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_point_may_name_what_hangs_on_a_choice_that_it_leaves_open(tmp_path: Path) -> None:
    found = first(Space("b", branching), settled_with(Space("b", branching), [{"prunings": 3}, {"warmup": 1.0}]))
    assert [p["params"] for p in found.points] == [{"prunings": 3}, {"warmup": 1}]
    assert isinstance(found.points[1]["params"]["warmup"], int)


# --- the guide -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "words", "point"),
    [
        ("scratch", (), {"lr": 1e-3, "warmup": 40, "prunings": 8, "reg_granularity_prune": 0.3}),
        ("pretrained", (), {"lr": 5e-4, "warmup": 20, "prunings": 8, "reg_granularity_prune": 0.3}),
        ("scratch", ("arch=vit_tiny",), {"lr": 1e-3, "warmup": 40, "prunings": 8, "reg_granularity_prune": 0.5}),
        ("scratch", ("target_density=0.1",), {"lr": 1e-3, "warmup": 40, "prunings": 15, "reg_granularity_prune": 0.3}),
        ("scratch", ("pruning_times=15", "stopping=none"), {"lr": 1e-3, "warmup": 40, "reg_granularity_prune": 0.3}),
        ("scratch", ("epochs=10", "lr=0.002"), {"warmup": 4, "prunings": 8, "reg_granularity_prune": 0.3}),
        ("scratch", ("struct=refill",), {"lr": 1e-3, "warmup": 40, "prunings": 8}),
        ("scratch", ("objective=pareto",), {"lr": 1e-3, "warmup": 40, "rate": 0.15, "reg_granularity_prune": 0.3}),
    ],
)
def test_the_guides_values_are_a_point_of_its_spaces(space: str, words: tuple[str, ...], point: dict[str, Any]) -> None:
    settings, found = settled([f"space={space}", *words], None)
    assert settings.first == "guide"
    expected = point | ({"rate": 0.15} if "pruning_times=15" in words else {})
    assert guides_point(found, settings.fixed_in_trials) == expected
    (record,) = first(found, settings).points
    assert record == {"params": expected, "by": "guide"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["space=digits"], "none"),
        (["space=init_compare"], "none"),
        (["space=scratch", "first=none"], "none"),
        (["space=scratch", "sampler=grid"], "none"),
        (["space=pretrained"], "guide"),
        (["space=pretrained", "first=guide"], "guide"),
    ],
)
def test_the_guide_is_asked_in_its_own_spaces(words: list[str], wanted: str) -> None:
    assert resolve(given(None, words)).first == wanted


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["space=digits", "first=guide"], "none here: the guide speaks of the spaces scratch and pretrained"),
        (["space=scratch", "sampler=grid", "first=guide"], "none with sampler = grid"),
    ],
)
def test_the_guide_elsewhere_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        settled(words)


# --- grids -----------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_once_and_ends(tmp_path: Path) -> None:
    sweep = begun(tmp_path, (), *GRID, space=FEW)
    assert sweep.settings.trials == 4
    sweep.run()
    order = [(1e-3, 16), (1e-3, 32), (2e-3, 16), (2e-3, 32)]
    assert [(p["lr"], p["batch_size"]) for p in given_out(sweep.view)] == order
    assert sweep.driver.complete and not sweep.view.repeats
    assert {t.suggested_by for t in sweep.view.trials.values()} == {"grid"}
    assert len(sweep.searcher.study.trials) == 4


def test_a_grid_follows_branches_steps_and_given_values(tmp_path: Path) -> None:
    space = Space("b", branching)
    found = first(space, settled_with(space, (), *GRID))
    by = [(p["params"]["warmup"], p["params"].get("rate"), p["params"].get("prunings")) for p in found.points]
    assert by == [(0, 0.35, None), (0, 0.5, None), (1, 0.35, None), (1, 0.5, None)], "3 and 2 prunings, by either way"
    assert "grid: combinations left out: 8 the same trial as another" in found.notes
    narrowed = first(TINY, settled_with(TINY, [{"lr": 1e-3, "rate": 0.4}, {"lr": 2e-3, "rate": 0.5}], *GRID))
    assert [p["params"] for p in narrowed.points] == [{"lr": 1e-3, "rate": 0.4}, {"lr": 2e-3, "rate": 0.5}]


def test_combinations_that_are_no_trial_are_left_out_and_said() -> None:
    found = first(Space("bare", bare), settings_of(FEW, *GRID))
    assert [p["params"]["batch_size"] for p in found.points] == [16, 32]
    assert "grid: combinations left out: 1 not valid" in found.notes


@pytest.mark.parametrize(
    ("points", "words", "line"),
    [
        ([], (), "but lr is 0.0001 to 0.01, log scale without steps; list its values in points=FILE.yaml, - lr: ["),
        ([{"lr": 1e-3}], (), "but rate is 0.35 to 0.5 without steps"),
        ([{"lr": 1e-3, "rate": 0.4}], ("trials=2",), "trials = 2: valid is at most 1, the points of the grid"),
        ([{"lr": 1e-3, "rate": 0.4, "warmup": 1}], (), "point 1: warmup = 1: valid is a parameter of the space here"),
    ],
)
def test_what_is_no_grid_is_one_line_that_says_how_to_write_one(points: Any, words: Any, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        begun(Path("nowhere"), points, *GRID, *words)
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_grid_without_an_end_is_refused() -> None:
    def endless(trial: Any) -> dict[str, Any]:
        return {**few(trial), "warmup": trial.suggest_int("warmup", 1, 10**9)}

    with pytest.raises(ConfigError, match="a grid of at most 10,000 points"):
        first(Space("endless", endless), settings_of(FEW, *GRID))


# --- the whole way ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setattr("tune_rsst.tracking.uploader.Uploader._upload", lambda self: None)
    monkeypatch.setattr("tune_rsst.tracking.uploader.Uploader.missing", lambda self: 0)
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return SweepFolder(tmp_path / "home" / "fake")


def ran(plan: Plan | Finished, reports: int | None = None) -> str:
    said = io.StringIO()

    def runner(driver: Any, tick: Any) -> None:
        for _ in islice(replay.reports(driver, lambda trial, config: events(config)), reports):
            tick()
        if reports is not None:
            raise KeyboardInterrupt

    conduct.run(plan, Console(file=said, width=200), runner, models=False)
    return said.getvalue()


def planned(settings: dict[str, Any], resume: bool = False) -> Plan | Finished:
    return make_plan(from_python({"name": "fake", "epochs": 2, "warmup": 0, **settings}), None, resume)


def test_a_grid_is_interrupted_resumed_and_extended_to_its_last_point(folder: SweepFolder) -> None:
    points = [{"lr": [1e-3, 2e-3], "reg_granularity_prune": 1.0}]
    plan = planned({"sampler": "grid", "points": points, "trials": 6, "stopping": None})
    assert isinstance(plan, Plan) and len(plan.points) == 8 and len(plan.draws) == 6
    assert plan.note and "only the first 6 points" in plan.note
    ran(plan, 20)
    assert planned({"points": points, "sampler": "grid"}, resume=True) is not None
    with pytest.raises(ConfigError, match="points"):
        planned({"points": [{"lr": 1e-3}]}, resume=True)
    ran(make_plan({"name": "fake"}, None, True))
    with pytest.raises(ConfigError, match="extend = 3: valid is at most 2: the grid has 8 points"):
        extension("fake", 3)
    assert "Suggested by: grid t0000, t0001" in ran(extension("fake", 2))
    view = Sweep.of(folder).view
    assert [t.params["lr"] for t in view.trials.values()] == [1e-3] * 4 + [2e-3] * 4 and view.ended
    assert [t.params["prunings"] for t in view.trials.values()] == [2, 3, 4, 5] * 2
    with pytest.raises(ConfigError, match="extend = 1: valid is at most 0"):
        extension("fake", 1)


def test_points_follow_the_trials_of_former_sweeps(folder: SweepFolder) -> None:
    small = {"trials": 2, "stopping": None}
    ran(planned({**small, "name": "old"}))
    ran(planned({**small, "points": [{"lr": 1e-3}], "warm_start": ["old"]}))
    view = Sweep.of(folder).view
    assert [t.number for t in view.trials.values()] == [2, 3]
    assert view.trials["t0002"].params["lr"] == 1e-3 and view.trials["t0002"].suggested_by == "points"
    study = optuna.load_study(study_name="fake", storage=f"sqlite:///{folder.path / 'optuna.db'}")
    assert [t.user_attrs.get("suggested_by") for t in study.trials] == [None, None, "points", None]
    assert [t.user_attrs["trial"] for t in study.trials] == ["old/t0000", "old/t0001", "t0002", "t0003"]


def said_before(plan: Plan | Finished) -> str:
    assert isinstance(plan, Plan)
    measured = Measured(0.1, 0.01, 0.01, 100.0, 10.0, 0.0, 0.0)
    return next(line for line in lines(plan, estimate(plan, lambda config, copies: measured)) if "suggested" in line)


def test_a_file_of_points_is_not_needed_again(folder: SweepFolder, tmp_path: Path) -> None:
    file = tmp_path / "points.yaml"
    file.write_text("- {lr: 0.001, prunings: 3}\n")
    plan = planned({"trials": 2, "points": str(file)})
    assert said_before(plan) == "  suggested by    points 1, tpe 1"
    ran(plan, 5)
    file.unlink()
    again = make_plan({"name": "fake"}, None, True)
    assert said_before(again) == said_before(plan)
    ran(again)
    started = read(folder.ledger)[0]
    assert started["points"] == [{"params": {"lr": 0.001, "prunings": 3}, "by": "points"}]
    assert given(folder.settings, [])["points"] == [{"lr": 0.001, "prunings": 3}]
    assert [t.suggested_by for t in Sweep.of(folder).view.trials.values()] == ["points", "tpe"]


def test_the_guides_trial_is_the_first_of_scratch(folder: SweepFolder) -> None:
    plan = planned({"space": "scratch", "dataset": "digits", "trials": 2})
    assert isinstance(plan, Plan) and plan.note and "the guide's values" in plan.note
    said = ran(plan)
    assert "Suggested by: guide t0000; tpe 1 trial" in said
    assert Sweep.of(folder).view.trials["t0000"].params == {"lr": 1e-3, "prunings": 8, "reg_granularity_prune": 0.3}
