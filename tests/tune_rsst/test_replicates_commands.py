"""Several seeds for each trial, from settings to what is shown: budgets, resume, extend, retry, confirm."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tests.tune_rsst.fake_sweep import events
from tests.tune_rsst.test_confirm_at_the_end import measured
from tests.tune_rsst.test_replicates import lucky
from trainables.errors import FAILS_AGAIN
from trainables.rsst.config import ConfigError, RSSTConfig
from tune_rsst import conduct
from tune_rsst.intake import Intake
from tune_rsst.ledger.file import read
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.estimate import estimate, lines
from tune_rsst.planning.plan import Finished, Plan
from tune_rsst.planning.resume import extension, second_try
from tune_rsst.report.page import write_report
from tune_rsst.results import replicated
from tune_rsst.results.as_json import as_json
from tune_rsst.results.ranking import best_of
from tune_rsst.results.table import print_table
from tune_rsst.runners import replay
from tune_rsst.runners.replay import TrialFailed
from tune_rsst.settings.resolved import resolve
from tune_rsst.settings.written import given
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.writes import PARENT, RunWrites

WORDS = ("name=fake", "trials=3", "replicates=3", "epochs=2", "warmup=0", "sampler=random", "stopping=none")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """An empty home; MLflow is not the matter here."""
    monkeypatch.setattr("tune_rsst.tracking.uploader.Uploader._upload", lambda self: None)
    monkeypatch.setattr("tune_rsst.tracking.uploader.Uploader.missing", lambda self: 0)
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return SweepFolder(tmp_path / "home" / "fake")


def planned(*words: str, resume: bool = False) -> Plan | Finished:
    return make_plan(given(None, list(words)), None, resume)


def ran(
    plan: Plan | Finished,
    reports: int | None = None,
    breaks: Callable[[TrialView], str | None] = lambda trial: None,
) -> tuple[int, str]:
    """Exit code and text; after so many `reports` Ctrl-C; a run for which `breaks` has words fails."""

    def curve(trial: TrialView, config: RSSTConfig) -> Iterator[dict[str, Any]]:
        for event in events(config):
            yield lucky(trial, event)
            if event["kind"] == "round" and (why := breaks(trial)):
                raise TrialFailed(why)

    def runner(driver: Intake, tick: Callable[[], object]) -> None:
        for _ in islice(replay.reports(driver, curve), reports):
            tick()
        if reports is not None:
            raise KeyboardInterrupt

    out = io.StringIO()
    return conduct.run(plan, Console(file=out, width=300), runner, models=False), out.getvalue()


def view_of(folder: SweepFolder) -> SweepView:
    return Sweep.of(folder).view


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "none", "true", "[2]", "1e400"])
def test_what_is_no_number_of_seeds_is_one_line(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^replicates = ") as refused:
        resolve(given(None, [f"replicates={value}"]))
    assert "\n" not in str(refused.value) and "valid is " in str(refused.value)


def test_a_space_that_draws_the_seed_is_one_line(folder: SweepFolder, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "def own(trial):\n    return {'dataset': 'digits', 'lr': trial.suggest_float('lr', 1e-4, 1e-2),\n"
        "            'seed': trial.suggest_int('seed', 0, 9)}\n"
    )
    with pytest.raises(ConfigError, match="a space without seed") as refused:
        planned(f"space={file}:own", "replicates=2")
    assert "\n" not in str(refused.value) and not folder.path.exists()


def test_one_seed_is_as_if_it_was_not_said(folder: SweepFolder) -> None:
    flat = resolve(given(None, ["trials=3", "replicates=1"])).flat()
    assert "replicates" not in flat and flat == resolve(given(None, ["trials=3"])).flat()
    assert resolve(given(None, ["replicates=2"])).flat()["replicates"] == 2


@pytest.mark.medium
def test_another_number_is_refused_at_a_resume(folder: SweepFolder) -> None:
    ran(planned(*WORDS), 12)
    before = folder.ledger.read_bytes()
    with pytest.raises(ConfigError, match=r"it differs in replicates \(3 → 2\)"):
        planned("name=fake", "replicates=2", resume=True)
    with pytest.raises(ConfigError, match="not given to `tune-rsst extend`"):
        extension("fake", 2, {"replicates": 2})
    assert folder.ledger.read_bytes() == before
    code, text = ran(planned("name=fake", "replicates=3", resume=True))
    assert code == 0 and Sweep.of(folder).state == "finished", text


@pytest.mark.medium
def test_a_budget_counts_each_run_and_a_resume_goes_on(folder: SweepFolder) -> None:
    code, text = ran(planned(*WORDS, "epoch_budget=13"))
    half = view_of(folder)
    told = {line["event"] for line in read(folder.ledger)}
    assert code == 0 and "epoch_budget = 13 is spent" in text and half.replicas and "replicate_paused" in told
    spent = [e for e in read(folder.ledger) if e["event"].endswith("reported") and e["kind"] == "epoch"]
    assert half.spending.epochs == len(spent) and 13 <= len(spent) <= 13 + 2
    code, text = ran(planned("name=fake", "epoch_budget=none", resume=True))
    view = view_of(folder)
    assert code == 0 and Sweep.of(folder).state == "finished" and not view.unfinished_replicas, text
    assert view.spending.epochs == sum(
        run.metrics["epochs_trained"] for t in view.trials.values() for run in t.all_runs
    )


@pytest.mark.medium
def test_extended_retried_and_confirmed(folder: SweepFolder) -> None:
    """The second seed of the first trial fails: so does the trial, until it is tried again."""
    broken = lambda run: "the disk is full" if run.trial == "t0000-seed1" else None  # noqa: E731
    code, text = ran(planned(*WORDS), breaks=broken)
    trial = view_of(folder).trials["t0000"]
    assert code == 3 and trial.state == "failed" and trial.reason == "t0000-seed1: the disk is full", text
    assert len(trial.all_runs) == 2 and not trial.fails_again and best_of(view_of(folder)) is not trial
    code, text = ran(second_try("fake", []))
    trial = view_of(folder).trials["t0000"]
    assert code == 0 and trial.state in ("finished", "stopped") and len(trial.all_runs) >= 2, text
    assert {run.state for run in trial.runs.values()} == {"finished"}
    code, text = ran(extension("fake", 2))
    view = view_of(folder)
    assert code == 0 and len(view.trials) == 5 and {len(t.all_runs) for t in view.trials.values()} <= {1, 2, 3}
    fresh = Wanted.of(view, [view.trials["t0000"]], 2, split=False)
    assert fresh.seeds == (3, 4) and not {run for run, _, _ in fresh.runs()} & view.replicas.keys()


@pytest.mark.medium
def test_a_seed_that_fails_for_certain_is_not_tried_again_unless_named(folder: SweepFolder) -> None:
    broken = lambda run: f"{FAILS_AGAIN}loss is nan" if run.trial == "t0001-seed1" else None  # noqa: E731
    words = (*WORDS[:1], "trials=2", *WORDS[2:])
    code, _ = ran(planned(*words), breaks=broken)
    assert code == 3 and view_of(folder).trials["t0001"].fails_again
    with pytest.raises(ConfigError, match="t0001 would fail in the same way"):
        second_try("fake", [])
    code, text = ran(second_try("fake", ["t0001"]))
    assert code == 0 and view_of(folder).trials["t0001"].state in ("finished", "stopped"), text


@pytest.mark.medium
def test_what_is_shown_of_the_seeds(folder: SweepFolder, tmp_path: Path) -> None:
    code, text = ran(planned(*WORDS, "confirm=1", "confirm_seeds=2"))
    sweep = Sweep.of(folder)
    view, best = sweep.view, best_of(sweep.view)
    assert code == 0 and best is not None and view.confirm is not None
    assert {run.knobs["seed"] for run in view.confirm.trials.values()} == {3, 4}
    assert "the mean of the runs that the sweep ranked by" in text and "Means over seeds 0, 1, 2: val_top1" in text
    head = next(line for line in text.splitlines() if line.startswith("#"))
    assert {"seeds", "std"} <= set(head.split())
    shown = as_json(sweep, None)
    (one,) = [trial for trial in shown["trials"] if trial["id"] == best.trial]
    assert [run["seed"] for run in one["replicates"]] == [0, 1, 2] and one["metrics"]["seeds"] == 3
    assert one["metrics"]["val_top1"] == pytest.approx(sum(run["val_top1"] for run in one["replicates"]) / 3)
    assert json.dumps(shown) and replicated.remark(view, best) in text
    page = write_report(sweep, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Seeds</h2>" in page and all(
        f"<td>{cell}</td>" in page for _, row in replicated.rows(view) for cell in row[:3]
    )
    print_table(Console(file=io.StringIO(), width=100), sweep)
    assert yaml.safe_load(folder.settings.read_text())["replicates"] == 3


def test_the_plan_counts_all_seeds(folder: SweepFolder) -> None:
    several, one = (planned("name=fake", *WORDS[1:2], *words, *WORDS[3:]) for words in (("replicates=3",), ()))
    assert isinstance(several, Plan) and isinstance(one, Plan)
    found, before = (estimate(plan, lambda config, copies: measured()) for plan in (several, one))
    assert (found.trials, found.runs, before.runs) == (3, 9, 3) and abs(found.epochs_most - 3 * before.epochs_most) <= 3
    text = "\n".join(lines(several, found))
    assert "9 at most, 3 seeds for each trial" in text and "seeds for each" not in "\n".join(lines(one, before))


@pytest.mark.medium
def test_mlflow_groups_the_runs_by_their_trial(folder: SweepFolder) -> None:
    ran(planned(*WORDS))
    plan = RunWrites("uid", folder)
    for event in read(folder.ledger):
        plan.apply(event)
    writes = {write.run: write for write in plan.take()}
    view = plan.view
    assert writes.keys() == {PARENT, *view.trials, *view.replicas}
    for trial in view.trials.values():
        for run in trial.all_runs:
            _, _, tags = plan.identity(run.trial)
            assert tags["configuration"] == trial.trial and tags["role"] == ("trial" if run is trial else "replicate")
            assert writes[run.trial].status in ("FINISHED", "KILLED") and writes[run.trial].end_ms
        means = {key: value for key, value, _, _ in writes[trial.trial].points if key.startswith("mean/")}
        assert means["mean/val_top1"] == trial.metrics["val_top1"] and means["mean/seeds"] == len(trial.all_runs)
