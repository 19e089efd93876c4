"""Several seeds for each trial: means, the race, and a ledger that tells the same whatever is killed."""

from __future__ import annotations

import io
import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from tests.chaos.toy_sweep import rewrite
from tests.tune_rsst.fake_sweep import FakeSweep, settings_of, tiny
from tune_rsst.driver.race import Race
from tune_rsst.ledger.file import read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results import replicated
from tune_rsst.results.as_json import as_json
from tune_rsst.results.ranking import best_of, ranking
from tune_rsst.results.table import print_table
from tune_rsst.search.spaces import Space
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.writes import RunWrites

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


def test_lines_of_a_stranger_are_refused_or_shown(tmp_path: Path) -> None:
    """Whatever stands in a line of a further run: the ledger is refused in one line, or everything can be shown."""
    folder = SweepFolder(tmp_path / "fake")
    folder.path.mkdir()
    finished(folder.path, "trials=3")
    events, seen = [dict(event) for event in read(folder.ledger)], set()
    tried = refused = 0
    for at, event in enumerate(events):
        kind = (event["event"], event.get("kind"))
        if kind in seen or not event["event"].startswith(("replicate_", "ended")):
            continue
        seen.add(kind)
        for name in event.keys() - {"event", "line", "before", "crc"}:
            for value in (None, "x", {}, -1):
                changed = [*events[:at], {**event, name: value}, *events[at + 1 :]]
                rewrite(folder.ledger, [{k: e[k] for k in e if k not in ("line", "before", "crc")} for e in changed])
                tried += 1
                try:
                    found = Sweep.of(folder)
                except LedgerError as error:
                    refused += "\n" not in str(error)
                    continue
                assert json.dumps(as_json(found, None)) and list(replicated.rows(found.view)) is not None
                print_table(Console(file=io.StringIO(), width=100), found)
                writes = RunWrites("uid", folder)
                for line in found.lines.events:
                    writes.apply(line)
                assert writes.take()
    assert len(seen) >= 6 and 0 < refused < tried


def test_one_seed_a_trial_is_a_sweep_without_the_setting_to_the_byte(tmp_path: Path) -> None:
    ledgers = []
    for words in (("replicates=1",), ()):
        folder = tmp_path / f"sweep{len(words)}"
        folder.mkdir()
        found = FakeSweep(folder, TINY, settings_of(TINY, "trials=6", *words))
        found.run(2)
        found.ledger.close()
        ledgers.append((folder / "ledger.jsonl").read_bytes().replace(str(folder).encode(), b""))
    assert ledgers[0] == ledgers[1] and b"replicate" not in ledgers[0] and b'"seeds"' not in ledgers[0]


def trial_of(number: int, values: list[float], state: str = "running", **metrics: Any) -> TrialView:
    """A trial whose runs have come to these values of val_top1."""
    found = None
    for seed, value in enumerate(values):
        name = f"t{number:04d}" + (f"-seed{seed}" if seed else "")
        run = TrialView(name, number, {}, {}, {"seed": seed}, name, 2, "finished" if seed else state, seeds=3)
        run.final = {"round": 1, "val_top1": value, "kept_share_asked": 0.3, **metrics}
        if found is None:
            found = run
        else:
            run.seeds, run.replicates = 1, found.trial
            found.runs[name] = run
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("values", "behind"),
    [([0.8527], False), ([0.8525], True), ([0.886, 0.886], False), ([0.884, 0.884], True), ([0.99], False)],
)
def test_the_race_by_hand(values: list[float], behind: bool) -> None:
    """m = 0.92, s = 0.02 with ν = 2, t = 2.920: one seed falls behind from 0.0674 on.

    Two equal seeds: s² = 0.0008 / 3, ν = 3, t = 2.353, and from 2.353 · 0.01633 · √(1/2 + 1/3) = 0.0351 on.
    """
    race = Race(3, Objective.of({"target_density": 0.3}))
    best, trial = trial_of(0, [0.90, 0.92, 0.94], "finished"), trial_of(1, values)
    view = SweepView(settings={"target_density": 0.3}, trials={"t0000": best, "t0001": trial})
    end = race.end_of(view, trial)
    assert (end is not None and end.state == "stopped") is behind
    assert end is None or (end.reason or "").startswith(f"after {len(values)} of 3 seeds: mean val_top1 ")


def test_without_a_spread_or_a_rival_nobody_falls_behind_and_a_larger_model_is_no_rival() -> None:
    race = Race(3, Objective.of({"target_density": 0.3}))
    alone = trial_of(1, [0.1])
    assert race.end_of(SweepView(trials={"t0001": alone}), alone) is None
    pair = {"t0000": trial_of(0, [0.90, 0.92], "running"), "t0001": alone}
    assert race.end_of(SweepView(trials=pair), alone) is None
    front = Race(3, Objective.of({"objective": "pareto", "target_density": 0.3, "pareto_against": "density"}))
    for size, behind in ((0.5, False), (0.3, True)):
        best, small = trial_of(0, [0.90, 0.92, 0.94], "finished", density=size), trial_of(1, [0.1], density=0.4)
        found = front.end_of(SweepView(trials={"t0000": best, "t0001": small}), small)
        assert (found is not None) is behind
