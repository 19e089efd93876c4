"""The ranking, the best trial, the JSON contract, best.yaml and best_model, from a sweep of formulas."""

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.tune_rsst.fake_sweep import FakeSweep, settings_of, tiny
from trainables.rsst.config import RSSTConfig, config
from trainables.rsst.event import Event
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.lock import driving
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.planning import begin, plan
from tune_rsst.report.page import write_report
from tune_rsst.results import as_json, columns, query, ranking, table
from tune_rsst.results.best import MODEL_FILES, best_is_written, write_best
from tune_rsst.results.commands import next_commands
from tune_rsst.search.spaces import Space
from tune_rsst.settings.written import given
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.notes import sweep_note, trial_note

TINY = Space("tiny", tiny)


def trial(number: int, val_top1: float, params: int, share: float, state: str = "finished") -> TrialView:
    found = TrialView(f"t{number:04d}", number, {"lr": 0.1}, {}, {"lr": 0.1}, f"f{number}", 3, state=state)
    metrics = {"round": 2, "val_top1": val_top1, "params": params, "kept_share_asked": share, "kept_share": share}
    found.apply_report(Event("round", metrics))
    found.apply_report(Event("final", {**metrics, "test_top1": 0.5}))
    return found


def view_of(*trials: TrialView, target: float | None = 0.3) -> SweepView:
    return SweepView(name="x", settings={"target_density": target}, trials={t.trial: t for t in trials})


def test_best_is_the_highest_accuracy_at_or_under_the_target_then_smaller_then_earlier() -> None:
    over, stopped = trial(0, 0.99, 10, 0.5), trial(1, 0.98, 10, 0.3, state="stopped")
    large, small, later = trial(2, 0.9, 20, 0.3), trial(3, 0.9, 10, 0.3 + 1e-12), trial(4, 0.9, 10, 0.3)
    assert ranking.best_of(view_of(over, stopped, large, later, small)) is small
    assert ranking.best_of(view_of(over, stopped)) is None
    assert ranking.best_of(view_of(over, large, target=None)) is over


def test_ranking_has_finished_before_stopped_before_failed() -> None:
    failed, stopped, finished = (
        trial(n, 0.9 - n / 10, 1, 0.3, s) for n, s in enumerate(("failed", "stopped", "finished"))
    )
    order = ranking.rank(view_of(failed, stopped, finished))
    assert [t.trial for t in order] == ["t0002", "t0001", "t0000"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "my home"))
    folder = SweepFolder(home.home() / "fake")
    folder.path.mkdir(parents=True)
    return folder


def run(folder: SweepFolder, reports: int | None = None) -> FakeSweep:
    sweep = FakeSweep(
        folder.path, TINY, settings_of(TINY, "trials=6", f"mlflow_tracking_uri=sqlite:///{home.home()}/m.db")
    )
    sweep.run(reports=reports)
    if sweep.driver.complete:
        sweep.driver.record("sweep_ended")
    return sweep


def test_the_json_object_is_what_the_contract_says(folder: SweepFolder) -> None:
    run(folder)
    shown = json.loads(json.dumps(as_json.as_json(Sweep.of(folder), "run-1")))
    assert (shown["name"], shown["state"], shown["objective"]) == ("fake", "finished", "val_top1")
    assert shown["mlflow_parent_run_id"] == "run-1" and shown["mlflow_tracking_uri"].startswith("sqlite:///")
    assert [t["id"] for t in shown["trials"]] == [f"t{n:04d}" for n in range(6)]
    for one in shown["trials"]:
        assert one["state"] in ("finished", "stopped") and set(one["params"]) == {"lr", "rate"}
        assert all(one["metrics"][name] is not None for name in as_json.ALWAYS)
    finished = [t for t in shown["trials"] if t["state"] == "finished"]
    assert shown["best"] == max(finished, key=lambda t: t["metrics"]["val_top1"])
    assert shown["best"]["metrics"]["test_top1"] is not None


def test_a_sweep_in_between_is_interrupted_or_running_and_has_no_nulls_missing(folder: SweepFolder) -> None:
    run(folder, reports=3)
    sweep = Sweep.of(folder)
    assert sweep.state == "interrupted"
    first = as_json.trial_json(sweep.view.trials["t0000"])
    assert first["state"] == "interrupted" and first["metrics"]["epochs_trained"] == 2
    assert set(as_json.ALWAYS) <= set(first["metrics"]) and first["metrics"]["val_top1"] is None
    with driving(folder.path):
        running = Sweep.of(folder)
    assert (running.state, running.view.trials["t0000"].state) == ("running", "running")


@pytest.mark.parametrize("ends", ["it is killed", "it says so", "it resumes and is killed"])
def test_nothing_that_shows_a_dead_sweep_calls_a_trial_running(
    folder: SweepFolder, ends: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, reports=3)
    ledger = Ledger(folder.ledger)
    for event in {"it says so": ["interrupted"], "it resumes and is killed": ["interrupted", "resumed"]}.get(ends, ()):
        ledger.append(event)
    ledger.close()
    sweep = Sweep.of(folder)
    screen = io.StringIO()
    table.print_table(Console(file=screen, width=220), sweep)
    query.print_csv(sweep.view, query.conditions(sweep.view, ["state=interrupted"]))
    page = write_report(sweep, folder.path / "page.html").read_text(encoding="utf-8").partition("<body>")[2]
    shown = {
        "table": screen.getvalue(),
        "csv": capsys.readouterr().out,
        "json": json.dumps(as_json.as_json(sweep, None)),
        "notes": sweep_note(sweep, []) + trial_note(sweep, sweep.view.trials["t0000"]),
        "page": re.sub(r"<script.*?</script>", "", page, flags=re.S),
        "counts": columns.counts(sweep.view),
    }
    assert {name: "running" in text for name, text in shown.items()} == dict.fromkeys(shown, False)
    assert {name: "interrupted" in text for name, text in shown.items()} == dict.fromkeys(shown, True)
    told = [command for what, command in next_commands(sweep) if what.startswith("It was killed")]
    assert [command.endswith("tune-rsst sync fake") for command in told] == ([] if ends == "it says so" else [True])
    assert query.conditions(sweep.view, ["state=interrupted"])(sweep.view.trials["t0000"])


def test_best_yaml_is_the_best_trial_and_its_model_is_copied(folder: SweepFolder) -> None:
    sweep = run(folder)
    best = ranking.best_of(sweep.view)
    store = folder.store(best.fingerprint)
    store.mkdir(parents=True)
    for name in MODEL_FILES:
        (store / name).write_text(name)
    assert not best_is_written(Sweep.of(folder))
    write_best(Sweep.of(folder))
    assert best_is_written(Sweep.of(folder))
    written = given(folder.best, [])
    assert RSSTConfig.from_knobs(written).fingerprint == best.fingerprint
    assert sorted(p.name for p in folder.best_model.iterdir()) == sorted(MODEL_FILES)
    write_best(Sweep.of(folder))
    assert not list(folder.path.glob(".best*"))


@pytest.mark.parametrize("width", [60, 100, 220])
def test_the_table_fits_its_console_and_says_what_to_do_next(folder: SweepFolder, width: int) -> None:
    run(folder)
    write_best(Sweep.of(folder)) if folder.trials.exists() else None
    console = Console(width=width, record=True, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    table.print_table(console, Sweep.of(folder))
    text = console.export_text()
    assert "init_effective" in text and "val_top1" in text and "test_top1" in text
    assert width == 60 or "…" not in text.split("Best:")[0]
    assert "Best: " in text and str(folder.path) in text


def test_the_commands_can_be_pasted_although_the_home_has_a_blank(folder: SweepFolder) -> None:
    sweep = run(folder)
    for _, command in next_commands(Sweep(folder, sweep.view, "interrupted")):
        words = [w for w in shlex.split(command) if not re.match(r"[A-Z_]+=", w)]
        assert Path(words[0]).is_absolute() and Path(words[0]).exists()
    finished = dict(next_commands(Sweep(folder, sweep.view, "finished")))
    show = finished["See this table again"]
    assert not any("retry" in command for command in finished.values())
    next(iter(sweep.view.trials.values())).state = "failed"
    commands = [command for _, command in next_commands(Sweep(folder, sweep.view, "finished"))]
    assert any(command.endswith(" retry fake") for command in commands)
    done = subprocess.run(show, shell=True, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Sweep fake: finished" in done.stdout


def test_show_json_without_a_name_is_the_newest(folder: SweepFolder) -> None:
    run(folder)
    command = [sys.executable, "-m", "tune_rsst", "show", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "fake"


def planned(*overrides: str, name: str | None = None) -> plan.Plan:
    return begin.make_plan(given(None, overrides), name, resume=True)


def started(folder: SweepFolder, *overrides: str) -> None:
    """A sweep over the digits space that has begun and was killed."""
    made = begin.make_plan(given(None, overrides), folder.name, resume=False)
    FakeSweep(folder.path, made.space, made.settings, space_digest=made.space_digest).ledger.close()


def test_resume_keeps_the_settings_and_takes_those_of_the_run(folder: SweepFolder) -> None:
    started(folder, "trials=5", "lr=0.002", "sampler=random")
    made = planned()
    assert made.resumes and made.folder.name == "fake"
    assert (made.settings.trials, made.settings.sampler, made.settings.fixed["lr"]) == (5, "random", 0.002)
    assert planned("max_concurrent_trials=1", "lr=2e-3").settings.max_concurrent_trials == 1


@pytest.mark.parametrize("change", ["lr=0.003", "trials=6", "epochs=3", "seed=4", "space=search_spaces.digits:digits"])
def test_resume_with_another_setting_is_refused_with_the_differing_key(folder: SweepFolder, change: str) -> None:
    started(folder, "trials=5", "lr=0.002")
    key = change.partition("=")[0]
    with pytest.raises(config.ConfigError, match=rf"{key} \("):
        planned(change)


def test_a_name_that_is_taken_is_refused_without_resume(folder: SweepFolder) -> None:
    started(folder)
    with pytest.raises(config.ConfigError, match="name = fake"):
        begin.make_plan({}, "fake", resume=False)


def test_resume_asks_again_for_a_password_that_was_not_kept(folder: SweepFolder) -> None:
    started(folder, "optuna_storage=postgresql://me:secret@host/db")
    assert "secret" not in folder.ledger.read_text()
    with pytest.raises(config.ConfigError, match="optuna_storage"):
        planned()
    assert planned("optuna_storage=postgresql://me:secret@host/db").resumes


def test_a_name_that_was_never_begun_can_be_resumed_or_begun(folder: SweepFolder) -> None:
    (folder.path / "ledger.jsonl").touch()
    assert not planned(name="fake").resumes
    assert begin.make_plan({}, "fake", resume=False).folder == folder
