"""Conditions, CSV, and the table of a sweep that another process drives."""

from __future__ import annotations

import csv
import io
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.tune_rsst.recorded import Recorder, sweep_events
from trainables.rsst.config import ConfigError
from tune_rsst.ledger.lock import driving
from tune_rsst.ledger.view import SweepView
from tune_rsst.results import live, query, ranking
from tune_rsst.storage.folder import SweepFolder


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "demo")
    folder.path.mkdir()
    return folder


@pytest.fixture
def view() -> SweepView:
    return SweepView.of([{**event, "time": float(i)} for i, event in enumerate(sweep_events(trials=8))])


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["state=finished"], ["t0000", "t0001", "t0004", "t0005"]),
        (["state!=finished", "state != failed"], ["t0002", "t0006"]),
        (["params>=1004", "state=finished"], ["t0004", "t0005"]),
        (["pretrained=false", "params<1001"], ["t0000"]),
        ([], [f"t{n:04d}" for n in range(8)]),
    ],
)
def test_conditions_on_state_metrics_and_knobs(view: SweepView, texts: list[str], kept: list[str]) -> None:
    keep = query.conditions(view, texts)
    assert [trial.trial for trial in view.trials.values() if keep(trial)] == kept


@pytest.mark.parametrize(
    ("text", "said"), [("val_top1", "NAME OP VALUE"), ("speed>1", "none has speed"), ("lr>x", "lr is one"),
                       ("state>a", "it is no number")]
)  # fmt: skip
def test_a_condition_that_makes_no_sense_is_refused(view: SweepView, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        query.conditions(view, [text])


def test_csv_has_a_line_for_each_trial_that_is_kept(view: SweepView, capsys: pytest.CaptureFixture[str]) -> None:
    query.print_csv(view, query.conditions(view, ["state!=failed"]))
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["trial"] for row in rows][:1] == [ranking.rank(view)[0].trial] and len(rows) == 6
    assert float(rows[0]["val_top1"]) == view.trials[rows[0]["trial"]].metrics["val_top1"]
    assert float(rows[0]["knob.lr"]) == view.trials[rows[0]["trial"]].params["lr"] and rows[0]["rank"] == "1"
    assert rows[-1]["rank"] == ""


def test_csv_ranks_only_what_the_objective_allows(view: SweepView, capsys: pytest.CaptureFixture[str]) -> None:
    for trial in view.trials.values():
        if trial.final is not None and trial.trial != "t0004":
            trial.final["kept_share_asked"] = 0.5
    query.print_csv(view, lambda trial: True)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["trial"]: row["rank"] for row in rows if row["state"] == "finished"} == {
        **dict.fromkeys(("t0000", "t0001", "t0005"), ""),
        "t0004": "1",
    }


@pytest.mark.medium
def test_watching_tells_what_a_driver_writes_and_ends_with_it(folder: SweepFolder) -> None:
    recorder, events = Recorder(folder.ledger), list(sweep_events())
    recorder.write(*events[:6])
    out = io.StringIO()
    with driving(folder.path):
        thread = threading.Thread(target=live.watch, args=(Console(file=out, width=200), folder))
        thread.start()
        time.sleep(0.3)
        recorder.write(*events[6:])
        time.sleep(1.2)
    thread.join(10)
    assert not thread.is_alive() and "t0000 finished val_top1" in out.getvalue() and "4 of 4 trials" in out.getvalue()
