"""A sweep with a budget, over kills and resumes: what is spent at most, what pauses, how it goes on; without Ray."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.tune_rsst.fake_sweep import EPOCHS, events, tiny
from trainables.rsst.config import ConfigError
from trainables.rsst.measure import Measured
from tune_rsst import conduct
from tune_rsst.cli import app
from tune_rsst.driver import Driver, assemble
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning import resume
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.estimate import estimate, lines
from tune_rsst.planning.plan import Finished, Plan
from tune_rsst.results.progress import Progress
from tune_rsst.runners import replay
from tune_rsst.search.spaces import Space, settled
from tune_rsst.settings.written import given
from tune_rsst.storage.folder import Sweep, SweepFolder

TINY = Space("tiny", tiny)
WORDS = ("name=fake", "trials=6", "sampler=random", "stopping=none", "gpus_per_trial=1")
STEP_S = 1.0  # the ledger's clock moves on by so much with each line
ROUND_LINES = EPOCHS + 1


def driver_in(folder: Path, clock: Callable[[], float], *words: str) -> Driver:
    folder.mkdir(parents=True, exist_ok=True)
    settings, space = settled([*WORDS, *words], TINY)
    ledger = Ledger(folder / "ledger.jsonl", clock=clock)
    begun = bool(ledger.events)
    driver = assemble(ledger, settings, space)
    if begun:
        own = {name: getattr(settings, name) for name in ("epoch_budget", "time_budget_s", "gpu_hours_budget")}
        driver.record("resumed", versions={}, settings={**own, "gpus_per_trial": 1})
    return driver


def curve(trial: Any, config: Any) -> Iterator[dict[str, Any]]:
    yield {"kind": "start", "round": 0, "epoch": 0, "epochs_trained": 0}
    yield from events(config)


def placing(driver: Driver) -> Driver:
    """As on Ray: the first result of a trial in this life says where a worker has opened it."""
    opened: set[str] = set()
    take = driver.take

    def taking(result: Any) -> bool:
        name = result["trial_key"]
        first = {} if name in opened else {"placed": [{"host": "h", "node": "n", "epochs_there": 0}]}
        opened.add(name)
        return take({**result, **first})

    driver.take = taking  # type: ignore[method-assign]
    return driver


@pytest.mark.parametrize("budget", ["epoch_budget=17", "time_budget_s=40", "gpu_hours_budget=0.012"])
@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("kills", [(), (5,), (3, 9, 4)])
def test_at_most_a_round_of_each_running_trial_more_than_the_budget_over_all_lives(
    tmp_path: Path, budget: str, at_once: int, kills: tuple[int, ...]
) -> None:
    ticks = itertools.count(start=100.0, step=STEP_S)
    for life in (*kills, None):
        driver = placing(driver_in(tmp_path, lambda: next(ticks), budget))
        for _ in islice(replay.reports(driver, curve, at_once), life):
            pass
    driver.record("interrupted", reason=str(driver.halted))
    spent, view = driver.view.spending, driver.view
    name, _, limit = budget.partition("=")
    lines_of_a_round = ROUND_LINES + 3  # its reports, and suggested, placed, paused
    bound = {
        "epoch_budget": (spent.epochs, at_once * EPOCHS),
        "time_budget_s": (spent.seconds, at_once * lines_of_a_round * STEP_S),
        "gpu_hours_budget": (spent.gpu_hours, at_once**2 * lines_of_a_round * STEP_S / 3600),
    }[name]
    assert driver.halted == driver.spent is not None and not driver.complete
    assert float(limit) <= bound[0] <= float(limit) + bound[1]
    rounds = [json.dumps(t.round_events[-1]["round"]) for t in view.unfinished if t.round_events]
    assert len(rounds) <= at_once and all(t.state == "interrupted" for t in view.unfinished)
    between = [t.last_epoch.get("epoch", EPOCHS) == EPOCHS for t in view.unfinished]
    assert all(between), "a trial paused within a round"
    assert SweepView.of(read(tmp_path / "ledger.jsonl")).spending == spent


def test_raised_it_ends_as_a_sweep_without_a_budget(tmp_path: Path) -> None:
    whole = driver_in(tmp_path / "whole", lambda: 1.0)
    replay.run(whole, lambda: None, curve)
    lives = 0
    while True:
        driver = driver_in(tmp_path / "parts", lambda: 1.0, f"epoch_budget={7 * (lives + 1)}")
        replay.run(driver, lambda: None, curve)
        lives += 1
        if driver.complete:
            break
        assert driver.halted and lives < 20
        driver.record("interrupted", reason=driver.halted)
    trained = [(t.fingerprint, t.state, t.final) for t in driver.view.trials.values()]
    assert trained == [(t.fingerprint, t.state, t.final) for t in whole.view.trials.values()]
    assert lives > 2 and driver.view.spending.epochs == whole.view.spending.epochs
    reported = [(e["trial"], e["seq"]) for e in read(tmp_path / "parts" / "ledger.jsonl") if e["event"] == "reported"]
    assert len(reported) == len(set(reported))


def test_a_trial_that_has_only_its_test_left_ends(tmp_path: Path) -> None:
    driver = driver_in(tmp_path, lambda: 1.0, "trials=1")
    replay.run(driver, lambda: None, curve)
    epochs = driver.view.spending.epochs
    other = driver_in(tmp_path / "other", lambda: 1.0, "trials=1", f"epoch_budget={epochs}")
    replay.run(other, lambda: None, curve)
    assert other.spent and other.complete and other.halted is None


def test_the_line_of_progress_says_what_is_spent_and_does_not_promise_more_than_the_budget_leaves(
    tmp_path: Path,
) -> None:
    lines = {}
    for words in (["epoch_budget=12"], []):
        driver = driver_in(tmp_path / str(len(words)), lambda: 1.0, *words)
        progress = Progress(driver.view, 6, 0.0)
        for _ in islice(replay.reports(driver, curve), 10):
            pass
        lines[len(words)] = progress.line(60.0), progress.eta_s(60.0)
    epochs = driver.view.spending.epochs
    assert f" · {epochs} of 12 epochs · 1 min 00 s · " in lines[1][0] and "epochs" not in lines[0][0]
    assert lines[1][1] == pytest.approx(60.0 / epochs * (12 - epochs)) and (lines[0][1] or 0) > (lines[1][1] or 0)


def test_a_budget_of_gpus_needs_gpus() -> None:
    with pytest.raises(ConfigError, match=r"^gpu_hours_budget = 2\.0: valid is given with gpus_per_trial above 0"):
        settled(["name=fake", "gpu_hours_budget=2"], TINY)
    for name, value in {"epoch_budget": 0, "time_budget_s": -1, "gpu_hours_budget": 0}.items():
        with pytest.raises(ConfigError, match=f"^{name} = {value}: valid is "):
            settled([*WORDS, f"{name}={value}"], TINY)


# --- the whole way, as a user meets it -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return SweepFolder(tmp_path / "home" / "fake")


def begin(*words: str) -> Plan:
    made = make_plan(
        given(None, ["name=fake", "trials=3", "epochs=2", "warmup=0", "sampler=random", *words]), None, False
    )
    assert isinstance(made, Plan)
    return made


def planned(*words: str) -> Plan | Finished:
    return make_plan(given(None, ["name=fake", *words]), None, True)


def ran(plan: Plan | Finished) -> tuple[int, str]:
    """Exit code and text; a plan that would start Ray fails."""

    def runner(driver: Driver, tick: Callable[[], object]) -> None:
        assert isinstance(plan, Plan)
        replay.run(driver, tick, curve)

    out = io.StringIO()
    return conduct.run(plan, Console(file=out, width=300), runner, models=False), out.getvalue()


@pytest.mark.medium
def test_spent_said_in_one_line_resumed_refused_raised_and_finished(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = ran(begin("epoch_budget=5", "stopping=none"))
    assert code == 0
    line = next(one for one in text.splitlines() if one.startswith("epoch_budget = 5 is spent (6 epochs); 0 of 3 "))
    assert "nothing is lost. Go on with: " in line and line.endswith("sweep --name fake --resume epoch_budget=11")
    assert "Spent: 6 of 5 epochs, " in text
    assert Sweep.of(folder).state == "interrupted" and Sweep.of(folder).view.settings["epoch_budget"] == 5
    assert list(read(folder.ledger))[-1]["reason"] == "epoch_budget = 5 is spent (6 epochs)"

    again = planned()
    assert isinstance(again, Finished) and again.spent
    before = folder.ledger.read_bytes()
    code, text = ran(again)
    assert code == 0 and "epoch_budget = 5 is spent (6 epochs); 0 of 3 trials have ended" in text
    assert folder.ledger.read_bytes() == before
    monkeypatch.setattr("sys.argv", ["tune-rsst", "sweep", "--name", "fake", "--resume", "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0 and "epoch_budget = 5 is spent" in capsys.readouterr().out

    for refused in (lambda: resume.extension("fake", 2), lambda: resume.extension("fake", 2, {"epoch_budget": 6})):
        with pytest.raises(ConfigError, match=r"^epoch_budget = [56]: valid is above the 6 epochs that the sweep has"):
            refused()
    with pytest.raises(ConfigError, match=r"^lr = 0\.1: valid is not given to `tune-rsst extend`"):
        resume.extension("fake", 2, {"lr": 0.1})
    assert resume.extension("fake", 2, {"epoch_budget": None}).more_trials == 2

    code, _ = ran(planned("epoch_budget=7"))
    view = Sweep.of(folder).view
    assert code == 0 and view.settings["epoch_budget"] == 7 and 7 <= view.spending.epochs <= 8
    code, text = ran(planned("epoch_budget=none"))
    assert code == 0 and Sweep.of(folder).state == "finished" and "is spent" not in text


REFUSED = {
    "extend fake 2 lr=0.1": "lr = 0.1: valid is not given to `tune-rsst extend`, which takes ",
    "extend fake 2 trials=9": "trials = 9: valid is not given to `tune-rsst extend`, which takes ",
    "extend fake 2": "epoch_budget = 5: valid is above the 6 epochs that the sweep has spent, or none; add ",
    "extend fake 2 epoch_budget=0": "epoch_budget = 0: valid is ",
    "retry fake t0000 epoch_budget=99": "retry = t0000: valid is a failed trial of fake",
    "retry fake epoch_budget=99": "retry = fake: valid is a sweep with failed trials; it has none",
}


@pytest.mark.medium
def test_extend_and_retry_take_settings_of_the_run_and_refuse_others(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(begin("epoch_budget=5", "stopping=none"))
    capsys.readouterr()
    before = folder.ledger.read_bytes()
    for words, said in REFUSED.items():
        monkeypatch.setattr("sys.argv", ["tune-rsst", *words.split()])
        with pytest.raises(SystemExit) as ended:
            app.main()
        text = capsys.readouterr()
        assert ended.value.code == 2 and said in text.err and text.err.count("\n") == 1
    assert folder.ledger.read_bytes() == before


@pytest.mark.medium
def test_the_plan_shows_the_budget_and_what_is_spent_of_it(folder: SweepFolder) -> None:
    ran(begin("epoch_budget=5", "stopping=none"))
    step = Measured("cpu", train_s=1e-3, train_small_s=1e-3, eval_s=0.0, peak_mib=400.0)
    for plan, line in [
        (
            begin("name=new", "time_budget_s=600"),
            "  spent so far    0 epochs, 0 s of 10 min 00 s; then trials end with",
        ),
        (planned("epoch_budget=50"), "  spent so far    6 of 50 epochs, "),
    ]:
        assert isinstance(plan, Plan)
        assert any(one.startswith(line) for one in lines(plan, estimate(plan, lambda *_: step)))
    new = begin("name=new")
    assert not any("spent" in one for one in lines(new, estimate(new, lambda *_: step)))
