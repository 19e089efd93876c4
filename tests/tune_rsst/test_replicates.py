"""Several seeds for each trial: means, the race, and a ledger that tells the same whatever is killed."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.tune_rsst.fake_sweep import FakeSweep, settings_of, tiny
from tune_rsst.ledger.file import read
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results.ranking import best_of, ranking
from tune_rsst.search.spaces import Space

TINY = Space("tiny", tiny)
WORDS = ("trials=5", "replicates=3", "stopping=none", "sampler=random")


def noise(trial: TrialView) -> float:
    """The luck of a run: of its trial and its seed."""
    return random.Random(f"{trial.number} {trial.knobs['seed']}").uniform(-0.01, 0.01)


def lucky(trial: TrialView, event: dict[str, Any]) -> dict[str, Any]:
    top1 = {name: event[name] + noise(trial) for name in ("val_top1", "test_top1") if name in event}
    return {**event, **top1}


def sweep(folder: Path, *words: str, **how: Any) -> FakeSweep:
    return FakeSweep(folder, TINY, settings_of(TINY, *WORDS, *words), **how)


def finished(folder: Path, *words: str, at_once: int = 1) -> FakeSweep:
    found = sweep(folder, *words)
    found.run(at_once, alter=lucky)
    found.ledger.close()
    return found


def essence(path: Path) -> list[tuple[Any, ...]]:
    """What the lines say, without what they are bound by."""
    lines = read(path / "ledger.jsonl")
    return [
        tuple(sorted((k, str(v)) for k, v in line.items() if k not in ("time", "line", "before", "crc")))
        for line in lines
    ]


def test_a_trial_is_judged_by_the_mean_of_its_seeds(tmp_path: Path) -> None:
    found = finished(tmp_path)
    view = found.view
    assert found.driver.complete and len(view.trials) == 5 and found.driver.total == 5
    for trial in view.trials.values():
        assert [run.knobs["seed"] for run in trial.all_runs] == list(range(len(trial.all_runs)))
        assert all(run.knobs["split_seed"] == 0 for run in trial.runs.values())
        assert (trial.state == "finished") is (len(trial.all_runs) == 3)
        values = [run.own_metrics["val_top1"] for run in trial.all_runs]
        assert trial.metrics["val_top1"] == pytest.approx(statistics.fmean(values))
        assert trial.metrics["seeds"] == len(values)
        asked = found.searcher.study.trials[trial.number]
        assert asked.state == TrialState.COMPLETE and asked.values == [trial.metrics["val_top1"]]
    assert {trial.state for trial in view.trials.values()} == {"finished", "stopped"}
    assert best_of(view) == max(ranking(view), key=lambda trial: trial.metrics["val_top1"])
    assert SweepView.of(read(tmp_path / "ledger.jsonl")) == view


def test_cut_off_after_any_line_it_goes_on_to_the_same_ledger(tmp_path: Path) -> None:
    """A kill -9 leaves whole lines and a torn one: what was decided is decided again, nothing is there twice."""
    whole = tmp_path / "whole"
    whole.mkdir()
    finished(whole, "trials=3")
    lines, told = (whole / "ledger.jsonl").read_bytes().splitlines(keepends=True), essence(whole)
    kinds = [line["event"] for line in read(whole / "ledger.jsonl")]
    assert {"replicate_suggested", "replicate_ended", "ended"} <= set(kinds)
    decided = {at for at, kind in enumerate(kinds) if kind.endswith(("suggested", "ended"))}
    for cut in sorted({*range(1, len(lines), 9), *decided, *(at + 1 for at in decided)} & set(range(1, len(lines)))):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "ledger.jsonl").write_bytes(b"".join(lines[:cut]) + lines[cut][:20])
        finished(folder, "trials=3")
        assert essence(folder) == told, cut


@pytest.mark.parametrize("kill", range(5, 90, 17))
def test_side_by_side_a_kill_loses_no_run_and_trains_no_round_twice(tmp_path: Path, kill: int) -> None:
    first = sweep(tmp_path)
    first.run(3, kill, alter=lucky)
    first.ledger.close()
    half = SweepView.of(read(tmp_path / "ledger.jsonl"))
    second = sweep(tmp_path)
    assert half.trials.keys() <= second.view.trials.keys() and half.replicas.keys() <= second.view.replicas.keys()
    second.run(3, alter=lucky)
    view = second.view
    assert second.driver.complete and len(view.trials) == 5 and not view.unfinished and not view.unfinished_replicas
    lines = read(tmp_path / "ledger.jsonl")
    reports = [(line["trial"], line["seq"]) for line in lines if line["event"].endswith("reported")]
    assert len(reports) == len(set(reports)) and not set(first.trained) & set(second.trained)
    rounds = sum(len(run.round_events) for trial in view.trials.values() for run in trial.all_runs)
    assert len({*first.trained, *second.trained}) == rounds
