"""Trials that hang, as Tune's callback ends them: continued once in each round, then failed; without a Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tune_rsst.fake_sweep import FakeSweep, events, settings_of, tiny
from trainables.progress import KEPT
from trainables.rsst.config import RSSTConfig
from tune_rsst.ledger.file import read
from tune_rsst.runners import hung as hung_module
from tune_rsst.runners.end_process import Examined, end_unless_alive, sign_in
from tune_rsst.runners.hung import HungTrials
from tune_rsst.runners.ray_tune import MAX_WORKER_FAILURES, LedgerScheduler, LedgerSearcher
from tune_rsst.search.spaces import Space
from tune_rsst.storage.folder import SweepFolder

TINY = Space("tiny", tiny)
PENDING: Any = object()
ERROR: Any = object()


class Tuned:
    """Tune's trial as far as the adapters look."""

    def __init__(self, name: str) -> None:
        self.trial_id, self.config, self.status = f"tune-{name}", {"trial_key": name}, "RUNNING"
        self.run_metadata = SimpleNamespace(num_failures=0)
        self.temporary_state = SimpleNamespace(ray_actor=None)
        self.error_file: str | None = None
        self.starts("actor0")

    def starts(self, actor: str) -> None:
        self.temporary_state.ray_actor = SimpleNamespace(_actor_id=SimpleNamespace(hex=lambda: actor))

    def get_pickled_error(self) -> None:
        return None


class Stage:
    """One running trial, Tune's three adapters, a clock, and a node whose answers the test gives."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
        self.folder = SweepFolder(folder)
        self.sweep = FakeSweep(folder, TINY, settings_of(TINY, "trials=1", "stopping=none", *words))
        self.driver, self.now = self.sweep.driver, 0.0
        self.hung = HungTrials(self.driver, self.folder, MAX_WORKER_FAILURES, lambda: self.now)
        self.scheduler = LedgerScheduler(self.driver, self.hung)
        self.searcher = LedgerSearcher(self.driver, self.folder, {"CPU": 1})
        self.tuned: Any
        self.begins("t0000")
        self.done: list[tuple[Any, ...]] = []
        self.answers: list[Any] = []
        self.killed: list[Any] = []

        def on_node(node: str, action: Any, *given: Any) -> Any:
            self.done.append((action, *given))
            return self.answers.pop(0)

        monkeypatch.setattr(hung_module, "_place", lambda trial: ("node", 4711, "box"))
        monkeypatch.setattr(hung_module, "_on_node", on_node)
        monkeypatch.setattr(hung_module.ray, "wait", lambda refs, timeout: ([] if refs[0] is PENDING else refs, []))
        monkeypatch.setattr(hung_module.ray, "kill", self.killed.append)
        monkeypatch.setattr(hung_module, "_value", lambda answer: None if answer is ERROR else answer)

    def begins(self, name: str) -> None:
        """The searcher gives out the run `name`."""
        found = self.searcher.suggest(f"tune-{name}")
        assert isinstance(found, dict) and found["trial_key"] == name
        self.name, self.tuned = name, Tuned(name)
        self.reports = list(events(RSSTConfig.from_knobs(self.driver.knobs_of(self.trial))))

    @property
    def trial(self) -> Any:
        return self.driver.view.run(self.name)

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now += 1.0
            self.hung.on_step_end(0, [self.tuned])

    def report(self, number: int) -> None:
        result = {"trial_key": self.name, "events": self.reports[:number]}
        self.scheduler.on_trial_result(None, self.tuned, result)
        self.hung.on_trial_result(0, [self.tuned], self.tuned, result)

    def loses_its_worker(self) -> bool:
        """What Tune does when an actor has died. Whether it tries again."""
        self.tuned.run_metadata.num_failures += 1
        again = bool(self.tuned.run_metadata.num_failures <= MAX_WORKER_FAILURES)
        self.scheduler.on_trial_error(None, self.tuned)
        if again:
            self.tuned.starts(f"actor{len(self.done)}")
        else:
            self.searcher.on_trial_complete(self.tuned.trial_id, error=True)
        return again

    @property
    def written(self) -> list[tuple[str, str]]:
        kept = [start + kind for start in ("", "replicate_") for kind in ("hung", "worker_error", "ended")]
        return [(e["event"], e["reason"]) for e in read(self.folder.ledger) if e["event"] in kept]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch, "hung_after_s=60", "hung_first_round_s=600")


def test_it_is_continued_once_and_fails_the_second_time_in_the_same_round(stage: Stage) -> None:
    stage.passes(1)
    stage.report(3)  # two epochs, the first round
    stage.answers = [Examined(True, None), Examined(True, None)]
    stage.passes(59)
    assert not stage.done
    stage.passes(2)
    store = stage.folder.store(stage.trial.fingerprint)
    assert stage.done == [(end_unless_alive, 4711, store, None)] and len(stage.trial.silences) == 1
    assert stage.loses_its_worker() is True
    stage.passes(599)
    assert len(stage.done) == 1, "another worker opens it: the first limit"
    stage.report(3)
    stage.passes(59)
    assert len(stage.done) == 1 and stage.trial.unfinished
    stage.passes(2)
    assert len(stage.done) == 2
    assert stage.loses_its_worker() is False
    assert stage.trial.state == "failed" and not stage.trial.fails_again
    first, second, ended = stage.written
    assert first[0] == second[0] == "hung" and ended == ("ended", second[1])
    assert first[1].startswith("nothing was heard of it for 1 min 00 s in round 2; its process 4711 on box was ended")
    assert second[1].startswith("it hung again: nothing was heard of it for 1 min 00 s in round 2; ")
    assert len(stage.killed) == 2, "Ray is told too: a process in the kernel does not hear SIGKILL at once"
    assert first[1].endswith(f"its stack is in {store / 'messages.log'}")


def test_in_a_later_round_it_is_continued_again(stage: Stage) -> None:
    stage.passes(1)
    for rounds in (1, 2, 3):
        stage.answers = [Examined(True, None)]
        stage.report(3 * rounds)
        stage.passes(61)
        assert stage.loses_its_worker() is True
        stage.passes(1)
    assert [one["round"] for one in stage.trial.silences] == [1, 2, 3]


def test_a_further_seed_that_hangs_is_continued_once_and_then_fails_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch, "hung_after_s=60", "replicates=2")
    stage.report(len(stage.reports))
    assert stage.trial.final is not None and stage.trial.unfinished, "it waits for its other seed"
    stage.begins("t0000-seed1")
    for again in (True, False):
        stage.passes(1)
        stage.answers = [Examined(True, None)]
        stage.report(3)
        stage.passes(62)
        assert stage.loses_its_worker() is again
    first, second, ended, trials = stage.written
    assert first[0] == second[0] == "replicate_hung" and ended == ("replicate_ended", second[1])
    assert trials[0] == "ended" and trials[1].startswith("t0000-seed1: it hung again: ")
    assert stage.driver.view.trials["t0000"].state == "failed" and stage.driver.complete
    assert FakeSweep(tmp_path, TINY, stage.sweep.settings).view == stage.driver.view


def test_before_the_first_round_the_first_limit_counts_and_a_sign_is_one_of_life(stage: Stage) -> None:
    stage.answers = [Examined(True, b"10 of 100")]
    store = stage.folder.store(stage.trial.fingerprint)
    store.mkdir(parents=True)
    stage.passes(599)
    (store / KEPT).write_bytes(b"10 of 100")
    stage.passes(599)
    assert not stage.done
    stage.passes(3)
    assert stage.done == [(end_unless_alive, 4711, store, b"10 of 100")]


def test_who_gives_a_sign_at_the_last_moment_or_whose_node_does_not_answer_goes_on(stage: Stage) -> None:
    stage.passes(1)
    stage.report(3)
    stage.tuned.run_metadata.num_failures = 1
    for answer in (Examined(False, b"11 of 100"), ERROR):
        stage.answers = [answer]
        stage.passes(62)
        assert stage.tuned.run_metadata.num_failures == 1 and not stage.trial.silences
    assert stage.done and stage.trial.unfinished
    stage.tuned.status = "TERMINATED"
    done = len(stage.done)
    stage.passes(1000)
    assert len(stage.done) == done, "a trial that does not run can't hang"


def test_a_worker_that_is_lost_otherwise_keeps_its_own_reason(stage: Stage) -> None:
    stage.passes(1)
    assert stage.loses_its_worker() is True
    assert [event for event, _ in stage.written] == ["worker_error"]
    stage.answers = [PENDING]
    stage.report(3)
    stage.passes(62)
    assert stage.loses_its_worker() is True, "its node has not said that it ended it"
    assert [event for event, _ in stage.written] == ["worker_error", "worker_error"]


def test_a_node_that_does_not_answer_is_not_waited_for(stage: Stage) -> None:
    stage.passes(1)
    stage.report(3)
    stage.answers = [PENDING]
    stage.passes(60 + 58)
    assert not stage.killed and not stage.trial.silences
    stage.passes(4)
    assert len(stage.killed) == 1 and stage.written[0][1].endswith("was ended, its node did not say its stack")
    assert stage.loses_its_worker() is True and len(stage.written) == 1


def test_where_nobody_sets_a_limit_a_trial_may_say_nothing_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch, "hung_after_s=none")
    stage.report(3)
    stage.passes(10_000)
    assert not stage.done and stage.trial.unfinished


def test_in_a_bucket_the_node_is_asked_four_times_within_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch, "hung_after_s=60", "storage=s3://bucket/prefix")
    stage.passes(1)
    stage.report(3)
    stage.answers = [b"1", b"2", b"2", b"2", b"2", Examined(True, b"2")]
    store = stage.folder.store(stage.trial.fingerprint)
    stage.passes(40)
    assert [one[0] for one in stage.done] == [sign_in, sign_in]
    assert stage.done[0] == (sign_in, store)
    stage.passes(80)
    assert stage.done[-1] == (end_unless_alive, 4711, store, b"2") and len(stage.trial.silences) == 1
    assert [one[0] for one in stage.done[:-1]] == [sign_in] * 5 and not stage.answers
