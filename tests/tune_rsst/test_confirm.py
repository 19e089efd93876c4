"""Runs that repeat trials: each wanted run is trained once whatever is killed, and the sweep hears nothing of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.tune_rsst.fake_sweep import FakeSweep, events, settings_of, tiny
from trainables.errors import FAILS_AGAIN
from trainables.rsst.config import RSSTConfig
from trainables.rsst.event import Event
from tune_rsst.driver import Confirmation
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results import ranking
from tune_rsst.results.as_json import as_json
from tune_rsst.results.confirmed.choice import choice, over
from tune_rsst.results.progress import Progress
from tune_rsst.runners import replay
from tune_rsst.runners.replay import TrialFailed
from tune_rsst.search.spaces import Space
from tune_rsst.storage.folder import Sweep, SweepFolder
from tune_rsst.tracking.writes import PARENT, RunWrites

TINY = Space("tiny", tiny)
SETTINGS = settings_of(TINY, "trials=4", "stopping=none", "sampler=random")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """A finished sweep of formulas."""
    folder = SweepFolder(tmp_path / "fake")
    folder.path.mkdir()
    fake = FakeSweep(folder.path, TINY, SETTINGS)
    fake.run()
    fake.driver.record("sweep_ended")
    fake.ledger.close()
    return folder


def curve(trial: TrialView, config: RSSTConfig) -> Iterator[dict[str, Any]]:
    """The formula's events; what was the worst of four trials is best with other seeds."""
    for event in events(config):
        luck = 0.001 * trial.number + 0.0001 * config.seed
        yield {**event, **({"val_top1": 0.5 + luck} if "val_top1" in event else {})}


class Confirmed:
    """A `Confirmation` over a sweep's ledger, as one process has it."""

    def __init__(self, folder: SweepFolder, top: int = 2, seeds: int = 2, split: bool = False, **how: Any) -> None:
        self.ledger = Ledger(folder.ledger, clock=lambda: 2.0)
        self.view = SweepView.of(self.ledger.events, str(folder.path.parent))
        wanted = Wanted.of(self.view, ranking.ranking(self.view)[:top], seeds, split)
        self.driver = Confirmation(self.ledger, self.view, SETTINGS, wanted, **how)
        self.trained: list[tuple[str, int]] = []

    def run(self, reports: int | None = None, at_once: int = 2, curve: Any = curve) -> Confirmed:
        def told(trial: TrialView, config: RSSTConfig) -> Iterator[dict[str, Any]]:
            for event in curve(trial, config):
                if event["kind"] == "round" and not trial.knows(Event.from_json(event)):
                    self.trained.append((trial.trial, event["round"]))
                yield event

        for _ in islice(replay.reports(self.driver, told, at_once), reports):
            pass
        self.ledger.close()
        return self


def runs(folder: SweepFolder) -> dict[str, TrialView]:
    view = Sweep.of(folder).view
    assert view.confirm is not None
    return view.confirm.trials


def test_every_run_is_trained_to_its_end_with_its_own_seed_on_the_sweeps_split(sweep: SweepFolder) -> None:
    before = Sweep.of(sweep).view
    found = Confirmed(sweep, top=2, seeds=3).run()
    best = [trial.trial for trial in ranking.ranking(before)[:2]]
    assert found.driver.complete and found.driver.total == 6 and not found.driver.remaining
    assert list(runs(sweep)) == [f"{trial}-seed{seed}" for seed in (1, 2, 3) for trial in best]
    for run in runs(sweep).values():
        own = before.trials[str(run.confirms)]
        assert run.state == "finished" and len(run.round_events) == run.rounds == own.rounds
        changed = {name for name in run.knobs if run.knobs[name] != own.knobs[name]}
        assert changed == {"seed", "split_seed"} and run.knobs["split_seed"] == own.knobs["seed"] == 0
        assert run.fingerprint not in {trial.fingerprint for trial in before.trials.values()}


def test_the_sweep_hears_nothing_of_them(sweep: SweepFolder) -> None:
    before = Sweep.of(sweep)
    Confirmed(sweep, top=4).run()
    after = Sweep.of(sweep)
    assert after.view.trials == before.view.trials and after.view.spending == before.view.spending
    told, then = as_json(before, None), as_json(after, None)
    assert told.keys() == then.keys() and told["trials"] == then["trials"] and then["state"] == "finished"
    lines = read(sweep.ledger)
    assert all(line["event"].startswith("confirm_") for line in lines[len(before.lines.events) :])
    again = FakeSweep(sweep.path, TINY, SETTINGS.model_copy(update={"trials": 6}))
    assert set(again.driver.searcher.study.trials[0].params) == {"lr", "rate"}
    assert len(again.driver.searcher.study.trials) == 4


@pytest.mark.parametrize("kill", range(1, 33))
def test_a_kill_loses_no_run_doubles_none_and_trains_no_round_twice(sweep: SweepFolder, kill: int) -> None:
    first = Confirmed(sweep).run(kill)
    killed = Sweep.of(sweep)
    ended = {name for name, run in runs(sweep).items() if not run.unfinished}
    assert (killed.state, killed.killed) == ("finished", len(ended) < 4)
    assert {run.state for run in runs(sweep).values() if run.unfinished} <= {"interrupted"}
    second = Confirmed(sweep).run()
    reports = [(line["trial"], line["seq"]) for line in read(sweep.ledger) if line["event"] == "confirm_reported"]
    assert len(reports) == len(set(reports))
    assert sum(line["event"] == "confirm_suggested" for line in read(sweep.ledger)) == len(runs(sweep)) == 4
    twice = [trained for trained in second.trained if trained in first.trained]
    assert not twice and len({*first.trained, *second.trained}) == sum(run.rounds for run in runs(sweep).values())
    assert second.driver.complete and {run.state for run in runs(sweep).values()} == {"finished"}


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_kill_while_the_runs_are_named_leaves_none_out(sweep: SweepFolder, cut: int) -> None:
    """The ledger is cut after the first lines that a confirmation writes."""
    begun = len(sweep.ledger.read_bytes().splitlines())
    Confirmed(sweep).ledger.close()
    lines = sweep.ledger.read_bytes().splitlines(keepends=True)
    assert len(lines) == begun + 5
    sweep.ledger.write_bytes(b"".join(lines[: begun + cut]) + b'{"event":"confirm_su')
    assert Confirmed(sweep).run().driver.complete and len(runs(sweep)) == 4


def test_a_report_without_its_consequence_ends_the_run(sweep: SweepFolder) -> None:
    Confirmed(sweep).run()
    lines = sweep.ledger.read_bytes().splitlines(keepends=True)
    assert b'"confirm_ended"' in lines[-1]
    sweep.ledger.write_bytes(b"".join(lines[:-1]))
    again = Confirmed(sweep).run()
    assert again.driver.complete and not again.trained


def test_more_seeds_or_trials_take_the_runs_that_are_there(sweep: SweepFolder) -> None:
    first = Confirmed(sweep, top=2, seeds=2).run()
    more = Confirmed(sweep, top=3, seeds=3).run()
    assert len(runs(sweep)) == 9 and not {run for run, _ in first.trained} & {run for run, _ in more.trained}
    fewer = Confirmed(sweep, top=2, seeds=2).run()
    assert not fewer.trained and over(Sweep.of(sweep).view) and len(runs(sweep)) == 9
    split = Confirmed(sweep, top=2, seeds=2, split=True).run()
    assert len({run for run, _ in split.trained}) == 4
    assert {run.knobs["split_seed"] for name, run in runs(sweep).items() if name.endswith("-split")} == {None}


def test_budgets_of_the_sweep_are_not_shown_as_those_of_the_runs(sweep: SweepFolder) -> None:
    found = Confirmed(sweep)
    found.view.settings["epoch_budget"] = 1
    found.driver.record("confirm_started", trials=["t0000"], seeds=[1, 2], split=False)
    found.run()
    line = Progress(found.driver.view, found.driver.total, 0.0, found.driver.called).line(1.0)
    assert line.startswith("4 of 4 runs ended (4 finished)") and "epochs" not in line


def test_what_was_chosen_is_the_best_of_the_means(sweep: SweepFolder) -> None:
    best = ranking.best_of(Sweep.of(sweep).view)
    Confirmed(sweep, top=4).run()
    view = Sweep.of(sweep).view
    found = choice(view)
    assert found is not None and found.trial.trial == "t0003" != (best.trial if best else "")
    assert ranking.best_of(view) == view.trials["t0003"]


@pytest.mark.parametrize(("reason", "again"), [("a node went away", True), (f"{FAILS_AGAIN}loss is nan", False)])
def test_a_run_that_failed_is_tried_again_unless_it_would_fail_again(
    sweep: SweepFolder, reason: str, again: bool
) -> None:
    def fails(trial: TrialView, config: RSSTConfig) -> Iterator[dict[str, Any]]:
        yield from islice(curve(trial, config), 3)
        if config.seed == 2:
            raise TrialFailed(reason)
        yield from islice(curve(trial, config), 3, None)

    Confirmed(sweep).run(curve=fails)
    failed = [run for run in runs(sweep).values() if run.state == "failed"]
    assert len(failed) == 2 and over(Sweep.of(sweep).view) and choice(Sweep.of(sweep).view) is None
    second = Confirmed(sweep).run()
    assert bool(second.trained) == again
    assert {run.state for run in runs(sweep).values()} == ({"finished"} if again else {"finished", "failed"})


@pytest.mark.parametrize("at_the_end", [False, True])
def test_an_interruption_is_written_once(sweep: SweepFolder, at_the_end: bool) -> None:
    interruption = Interruption()
    found = Confirmed(sweep, interruption=interruption, at_the_end=at_the_end)
    interruption.terminated = True
    found.driver.leave()
    found.driver.interrupted("a reason")
    kinds = [line["event"] for line in read(sweep.ledger)]
    expected = "interrupted" if at_the_end else "confirm_interrupted"
    assert kinds.count(expected) == 1 and kinds[-1] == expected
    assert found.view.confirm is not None and {r.state for r in found.view.confirm.trials.values()} == {"interrupted"}


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_mlflow_hears_of_runs_that_were_killed_and_go_on(sweep: SweepFolder, chunk: int) -> None:
    Confirmed(sweep).run(12)
    plan, tags, status = RunWrites("uid", sweep), {}, {}

    def take() -> None:
        for write in plan.take():
            tags.setdefault(write.run, {}).update(write.tags)
            status[write.run] = write.status or status.get(write.run)

    killed = read(sweep.ledger)
    for number, event in enumerate(killed):
        plan.apply(event)
        if number % chunk == 0:
            take()
    assert plan.repeats
    plan.repeats_no_more()
    take()
    ended = {name: run.unfinished for name, run in runs(sweep).items()}
    assert True in ended.values() and not plan.repeats
    assert {name: status[name] for name in ended} == {
        n: "KILLED" if is_open else "FINISHED" for n, is_open in ended.items()
    }
    assert status[PARENT] == "FINISHED"
    Confirmed(sweep).run()
    for event in read(sweep.ledger)[len(killed) :]:
        plan.apply(event)
    take()
    assert {status[name] for name in ended} == {"FINISHED"} and tags[PARENT]["confirmed_trial"]
    name, _, own = plan.identity("t0003-seed1")
    assert name.startswith("t0003-seed1") and own | {"role": "confirm", "configuration": "t0003"} == own
    assert plan.identity("t0003")[2]["role"] == "trial"


def test_other_images_than_the_sweeps_are_refused_and_a_new_split_is_not(sweep: SweepFolder) -> None:
    view = Sweep.of(sweep).view
    for trial in view.trials.values():
        trial.origin = {"data_digest": "a"}
    for split, refused in ((False, True), (True, False)):
        ledger = Ledger(sweep.ledger)
        fresh = SweepView.of(ledger.events)
        for trial in fresh.trials.values():
            trial.origin = {"data_digest": "a"}
        wanted = Wanted.of(fresh, ranking.ranking(fresh)[:1], 2, split)
        driver = Confirmation(ledger, fresh, SETTINGS, wanted)
        run = driver.next_trial()
        assert run is not None
        start = {"round": 0, "epoch": 0, "epochs_trained": 0, "data_digest": "b"}
        result = {"trial_key": run.trial, "events": [{"kind": "start", **start}]}
        if refused:
            with pytest.raises(RuntimeError, match="found other images"):
                driver.take(result)
        else:
            assert driver.take(result) is False
        ledger.close()
