"""`shared=true`: lr and warmup from a grid, so that trials meet in their dense rounds; without it all is as ever."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from typer.testing import CliRunner

from search_spaces import SHARED, SPACES
from search_spaces.parts import SHARED_LRS
from tests.tune_rsst.fake_sweep import FakeSweep
from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst.cli import app
from tune_rsst.planning import begin
from tune_rsst.planning.plan import Plan
from tune_rsst.planning.resume import extension
from tune_rsst.search.points import first
from tune_rsst.search.spaces import digest, settle, settled
from tune_rsst.settings import written
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.rules import idle
from tune_rsst.storage import home

TRAINING = ("lr", "warmup")
GRIDS = {
    "digits": ((0.0004, 0.0007113, 0.001265, 0.002249, 0.004), (0, 2)),
    "scratch": ((0.00025, 0.0005, 0.001, 0.002, 0.004), (0, 40)),
    "pretrained": ((0.000125, 0.00025, 0.0005, 0.001, 0.002), (0, 20)),
}
AS_EVER = {
    "digits": (FloatDistribution(4e-4, 4e-3, log=True), IntDistribution(0, 4)),
    "scratch": (FloatDistribution(2.5e-4, 4e-3, log=True), IntDistribution(0, 60)),
    "pretrained": (FloatDistribution(1.25e-4, 2e-3, log=True), IntDistribution(0, 32)),
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def drawn(*words: str, count: int = 40) -> list[Any]:

    return settle(resolve(written.given(None, words)), count=count)[2]


def planned(*words: str, name: str | None = None, resume: bool = False) -> Plan:
    made = begin.make_plan(written.given(None, words), name, resume)
    assert isinstance(made, Plan)
    return made


def begun(*words: str, reports: int | None = None) -> tuple[Plan, FakeSweep]:
    """A sweep named fake that is trained by formulas: to its end, or killed after some reports."""
    made = planned(*words, name="fake")
    path = home.home() / "fake"
    path.mkdir(parents=True)
    made.copy_files()
    sweep = FakeSweep(path, made.space, made.settings, **made.record())
    sweep.run(reports=reports)
    sweep.ledger.close()
    return made, sweep


def dense_rounds(sweep: FakeSweep) -> list[str]:
    return [RSSTConfig.from_knobs(t.knobs).of_round_0.fingerprint for t in sweep.view.trials.values()]


@pytest.mark.parametrize("name", SHARED)
def test_lr_and_warmup_are_a_grid_of_the_named_size_and_all_else_is_as_before(name: str) -> None:
    with_grid, without = drawn(f"space={name}", "shared=true"), drawn(f"space={name}")
    for (draw, _), (before, _) in zip(with_grid, without, strict=True):
        assert tuple(draw.ranges[one] for one in TRAINING) == tuple(map(CategoricalDistribution, GRIDS[name]))
        assert len(GRIDS[name][0]) == SHARED_LRS
        for parameter in before.ranges.keys() | draw.ranges.keys():
            assert parameter in TRAINING or draw.ranges[parameter] == before.ranges[parameter]
    met = {config.of_round_0.fingerprint for _, config in with_grid}
    assert len(met) <= 10 < 40 == len({config.fingerprint for _, config in with_grid})


@pytest.mark.parametrize("words", [[], ["shared=false"]])
@pytest.mark.parametrize("name", SHARED)
def test_without_it_ranges_and_record_are_as_ever(name: str, words: list[str]) -> None:
    for draw, _ in drawn(f"space={name}", *words, count=5):
        assert tuple(draw.ranges[one] for one in TRAINING) == AS_EVER[name]
    assert "shared" not in resolve(written.given(None, [f"space={name}", *words])).flat()


@pytest.mark.parametrize(("epochs", "warmups"), [(1, (0, 1)), (2, (0, 2)), (3, (0, 2))])
def test_a_short_round_shortens_the_warmup(epochs: int, warmups: tuple[int, ...]) -> None:
    for draw, _ in drawn("shared=true", f"epochs={epochs}", count=5):
        assert draw.ranges["warmup"].choices == warmups


@pytest.mark.parametrize(
    ("arch", "dataset"), [*itertools.product(("vit_tiny", "vit_base"), ("cifar10", "cifar100", "digits"))]
)
@pytest.mark.parametrize("name", ["scratch", "pretrained"])
def test_the_guides_point_is_on_the_grid(name: str, arch: str, dataset: str) -> None:

    settings, space = settled([f"space={name}", "shared=true", f"arch={arch}", f"dataset={dataset}"])
    assert first(space, settings).points[0]["by"] == "guide"


def test_trials_of_a_sweep_meet_and_a_resume_and_an_extension_ask_the_same() -> None:
    made, sweep = begun("space=digits", "shared=true", "trials=12", reports=60)
    assert made.dense_meet and sweep.view.settings["shared"] is True
    again = planned(name="fake", resume=True)
    assert again.settings.shared and again.space.shared and again.space_digest == made.space_digest
    resumed = FakeSweep(home.home() / "fake", again.space, again.settings, **again.record())
    resumed.run()
    resumed.ledger.close()
    met = dense_rounds(resumed)
    assert len(met) == 12 > len(set(met)) and len(set(met)) <= 10
    more = extension("fake", 3)
    assert isinstance(more, Plan) and more.space.shared and more.space_digest == made.space_digest


def test_a_resume_with_the_other_value_is_refused() -> None:
    begun("space=digits", "trials=4", reports=5)
    with pytest.raises(ConfigError, match=r"it differs in shared \(False → True\)"):
        planned("shared=true", name="fake", resume=True)


def test_the_digest_of_the_space_tells_them_apart() -> None:
    told = {digest([draw for draw, _ in drawn(*words)], {}) for words in ([], ["shared=false"], ["shared=true"])}
    assert len(told) == 2


@pytest.mark.parametrize("name", [*sorted(SPACES.keys() - set(SHARED)), "mine.py:space"])
def test_other_spaces_refuse_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def space(trial):\n    return {'dataset': 'digits'}\n", encoding="utf-8")
    address = name.replace("mine.py", str(file))
    monkeypatch.setattr("sys.argv", ["tune-rsst", "sweep", f"space={address}", "shared=true"])
    with pytest.raises(SystemExit) as end:
        app.main()
    said = capfd.readouterr().err
    assert end.value.code == 2 and len(said.splitlines()) == 1
    assert "shared = true: valid is false here: the spaces digits, scratch, pretrained" in said
    assert not list((tmp_path / "home").glob("*/ledger*"))


@pytest.mark.parametrize("point", [{"lr": 0.001}, {"warmup": 1}])
def test_a_point_outside_the_grid_is_refused_and_one_of_it_is_tried(point: dict[str, float]) -> None:
    name, value = next(iter(point.items()))
    with pytest.raises(ConfigError, match=rf"points, point 1: {name} = {value}: valid is one of 0"):
        planned("shared=true", f"points=[{{{name}: {value}}}]")
    assert planned(f"points=[{{{name}: {value}}}]").points[0]["params"] == point
    assert planned("shared=true", "points=[{lr: 0.0004, warmup: 2}]").points[0]["params"] == {"lr": 4e-4, "warmup": 2}


def test_where_lr_and_warmup_are_fixed_it_says_that_it_does_nothing() -> None:

    settings = resolve(written.given(None, ["shared=true", "lr=0.001", "warmup=1"]))
    assert idle(settings) == ["shared = True does nothing here: it acts with lr or warmup searched"]
    assert idle(resolve(written.given(None, ["shared=true", "lr=0.001"]))) == []


def test_the_list_of_spaces_shows_the_grid() -> None:
    shown = CliRunner().invoke(app.app, ["spaces", "digits", "shared=true"]).output
    assert "one of 0.0004, 0.0007113, 0.001265, 0.002249, 0.004" in shown and "one of 0, 2" in shown
