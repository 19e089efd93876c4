"""A sweep that confirms its best trials at its end: it is finished when their runs have ended, over kills too."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.tune_rsst.fake_sweep import events
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.measure import Measured
from tune_rsst import conduct
from tune_rsst.intake import Intake
from tune_rsst.ledger.file import read
from tune_rsst.ledger.view import TrialView
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.estimate import estimate, lines
from tune_rsst.planning.plan import Finished, Plan
from tune_rsst.planning.resume import extension
from tune_rsst.results.confirmed.choice import choice, over
from tune_rsst.runners import replay
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.written import given
from tune_rsst.storage.folder import Sweep, SweepFolder

pytestmark = pytest.mark.usefixtures("fast_uploads")
WORDS = ("name=fake", "trials=3", "epochs=2", "warmup=0", "sampler=random", "stopping=none")


@pytest.mark.parametrize(
    ("written", "confirmed"),
    [
        ({}, 3),
        ({"name": "mine", "seed": 4, "max_concurrent_trials": 1, "confirm_seeds": 2}, 3),
        ({"space": "digits"}, 3),
        ({"confirm": 0}, 0),
        ({"confirm": 1}, 1),
        ({"trials": 12}, 0),
        ({"epochs": 14}, 0),
        ({"space": "scratch"}, 0),
        ({"space": "scratch", "confirm": 2}, 2),
    ],
)
def test_the_sweep_without_settings_of_its_own_confirms_three(written: dict[str, Any], confirmed: int) -> None:
    assert resolve(written).confirm == confirmed


@pytest.mark.parametrize("written", [{"confirm": -1}, {"confirm": "x"}, {"confirm_seeds": 1}, {"confirm_seeds": 0.5}])
def test_what_cannot_be_is_one_line(written: dict[str, Any]) -> None:
    (name, value) = next(iter(written.items()))
    with pytest.raises(ConfigError, match=f"^{name} = {value}: valid is ") as refused:
        resolve(written)
    assert "\n" not in str(refused.value)


@pytest.fixture
def fast_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is not the matter here."""
    monkeypatch.setattr("tune_rsst.tracking.uploader.Uploader._upload", lambda self: None)
    monkeypatch.setattr("tune_rsst.tracking.uploader.Uploader.missing", lambda self: 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return SweepFolder(tmp_path / "home" / "fake")


def planned(*words: str, resume: bool = False) -> Plan | Finished:
    return make_plan(given(None, list(words)), None, resume)


def ran(
    plan: Plan | Finished, reports: int | None = None, then: Callable[[Intake], None] | None = None
) -> tuple[int, str]:
    """Exit code and text; after so many `reports` of runs that confirm, `then` happens."""

    def curve(trial: TrialView, config: RSSTConfig) -> Iterator[dict[str, Any]]:
        for event in events(config):
            lucky = {"val_top1": 0.5 + 0.01 * trial.number} if config.seed and "val_top1" in event else {}
            yield {**event, **lucky}

    def runner(driver: Intake, tick: Callable[[], object]) -> None:
        limit = reports if driver.called == "runs" else None
        for _ in islice(replay.reports(driver, curve), limit):
            tick()
        if limit is not None and then is not None:
            then(driver)

    out = io.StringIO()
    return conduct.run(plan, Console(file=out, width=300), runner, models=False), out.getvalue()


def interrupt(driver: Intake) -> None:
    raise KeyboardInterrupt


def kill(driver: Intake) -> None:
    raise SystemExit(9)


def kinds(folder: SweepFolder) -> list[str]:
    return [line["event"] for line in read(folder.ledger)]


@pytest.mark.medium
def test_it_is_finished_when_the_runs_have_ended(folder: SweepFolder) -> None:
    code, text = ran(planned(*WORDS, "confirm=2", "confirm_seeds=2"))
    assert code == 0 and "Confirming " in text and "with 2 fresh seeds each" in text and "Chosen: " in text
    assert text.index("Confirming ") > text.index("3 of 3 trials ended") and "4 of 4 runs ended" in text
    sweep = Sweep.of(folder)
    assert sweep.state == "finished" and len(sweep.view.trials) == 3 and kinds(folder)[-1] == "sweep_ended"
    assert over(sweep.view) and choice(sweep.view) is not None
    epochs = sum(trial.metrics["epochs_trained"] for trial in sweep.view.trials.values())
    assert sweep.view.spending.epochs == epochs
    assert isinstance(planned("name=fake", resume=True), Finished)


@pytest.mark.medium
@pytest.mark.parametrize("how", [interrupt, kill], ids=["Ctrl-C", "kill"])
def test_stopped_before_that_it_goes_on_by_resume(folder: SweepFolder, how: Callable[[Intake], None]) -> None:
    words = (*WORDS, "confirm=2", "confirm_seeds=2")
    if how is kill:
        with pytest.raises(SystemExit):
            ran(planned(*words), 5, how)
    else:
        code, text = ran(planned(*words), 5, how)
        assert code == 130 and "3 of 3 trials have ended, 4 runs that confirm the best are left" in text
        assert text.strip().endswith("sweep --name fake --resume")
        assert kinds(folder)[-1] == "interrupted"
    half = Sweep.of(folder)
    assert half.state == "interrupted" and not over(half.view) and half.view.confirm is not None
    assert {run.state for run in half.view.confirm.trials.values()} == {"interrupted"}
    code, text = ran(planned("name=fake", resume=True))
    assert code == 0 and "Chosen: " in text, text
    assert Sweep.of(folder).state == "finished" and kinds(folder).count("confirm_suggested") == 4
    told = [(e["trial"], e["seq"]) for e in read(folder.ledger) if e["event"] in ("reported", "confirm_reported")]
    assert len(told) == len(set(told))


@pytest.mark.medium
def test_extended_it_confirms_again_what_is_best_then_and_takes_what_is_there(folder: SweepFolder) -> None:
    ran(planned(*WORDS, "confirm=3", "confirm_seeds=2"))
    first = set(Sweep.of(folder).view.confirm.trials)  # type: ignore[union-attr]
    code, _ = ran(extension("fake", 2))
    view = Sweep.of(folder).view
    assert code == 0 and len(view.trials) == 5 and view.confirm is not None and over(view)
    assert first <= set(view.confirm.trials) and kinds(folder).count("confirm_suggested") == len(view.confirm.trials)


@pytest.mark.medium
def test_it_is_off_where_a_budget_is_spent_and_where_nobody_asked(folder: SweepFolder) -> None:
    code, text = ran(planned(*WORDS, "confirm=2", "epoch_budget=5"))
    assert code == 0 and "Confirming" not in text and "confirm_started" not in kinds(folder)
    code, text = ran(planned("name=fake", "epoch_budget=none", "confirm=0", resume=True))
    assert code == 0 and "Confirming" not in text and Sweep.of(folder).state == "finished"


@pytest.mark.parametrize(
    ("words", "said"), [(("confirm=2",), "6 runs more at the end (the best 2 with 3 fresh seeds"), ((), None)]
)
def test_the_plan_says_what_it_takes(folder: SweepFolder, words: tuple[str, ...], said: str | None) -> None:
    plan = planned(*WORDS, *words)
    assert isinstance(plan, Plan)
    text = "\n".join(lines(plan, estimate(plan, lambda config, copies: measured())))
    assert (said in text) if said else "confirm  " not in text


def measured() -> Measured:
    return Measured(0.1, 0.01, 0.01, 100.0, 10.0, 0.0, 0.0)
