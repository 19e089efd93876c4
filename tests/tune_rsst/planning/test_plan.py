"""What a plan costs before the first trial: draws of the space, and reads of the ledger."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from search_spaces import SPACES
from tune_rsst import conduct
from tune_rsst.ledger import file as ledger_file
from tune_rsst.ledger.file import read
from tune_rsst.planning import begin, estimate
from tune_rsst.planning.plan import Finished, Plan
from tune_rsst.search.spaces import digest, find, samples
from tune_rsst.settings import written
from tune_rsst.storage.folder import Sweep


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)


def planned(*words: str, resume: bool = False) -> Plan | Finished:
    return begin.make_plan(written.given(None, words), None, resume)


def until_its_first_trial(monkeypatch: pytest.MonkeyPatch, plan: Plan, then: Callable[[Any], None]) -> int:
    """The whole way of a sweep, but that it is killed as soon as its first trial is known."""

    def train(plan: Plan, driver: Any, *_: object) -> str:
        estimate.largest_trial(plan)  # as cpus_per_trial=auto does
        assert driver.next_trial() is not None
        then(driver)
        return "killed by the test"

    monkeypatch.setattr(conduct, "_train", train)
    return conduct.run(plan, Console(file=io.StringIO()))


def test_a_new_sweep_draws_its_space_40_times_before_its_first_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, digits = [0], SPACES["digits"]

    def counting(trial: Any) -> dict[str, Any]:
        drawn[0] += 1
        return digits(trial)

    for module in ("search_spaces.space_files", "tune_rsst.search.spaces", "tune_rsst.search.suggestions"):
        monkeypatch.setattr(f"{module}.SPACES", {"counting": counting})
    plan = planned("space=counting", "trials=300", "name=fake")
    assert isinstance(plan, Plan) and 20 <= len(plan.draws) <= drawn[0]
    until_its_first_trial(monkeypatch, plan, lambda driver: drawn.append(drawn[0]))
    assert drawn[1] == 40


def test_a_resume_reads_each_line_of_its_ledger_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tails that follow the growing file (MLflow's uploader, a bucket) read it for themselves."""
    plan = planned("name=fake")
    assert isinstance(plan, Plan)
    until_its_first_trial(monkeypatch, plan, lambda driver: None)
    there = len(read(plan.folder.ledger))
    lines, read_next = [], ledger_file.read_next

    def counted_one(*at: Any) -> Any:
        found = read_next(*at)
        lines.extend([json.dumps(found)] if found else [])
        return found

    monkeypatch.setattr(ledger_file, "read_next", counted_one)
    counted: list[int] = []
    again = planned(resume=True)
    assert isinstance(again, Plan) and again.resumes
    until_its_first_trial(monkeypatch, again, lambda driver: counted.append(len(lines)))
    assert there >= 3 and counted == [there] and len(set(lines)) == there


def test_what_another_driver_wrote_after_the_plan_was_made_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("name=fake")
    assert isinstance(plan, Plan)
    until_its_first_trial(monkeypatch, plan, lambda driver: None)
    early, late = planned(resume=True), planned(resume=True)
    assert isinstance(early, Plan) and isinstance(late, Plan)
    until_its_first_trial(monkeypatch, early, lambda driver: driver.next_trial())
    known: list[list[str]] = []
    until_its_first_trial(monkeypatch, late, lambda driver: known.append(list(driver.view.trials)))
    assert known[0][:2] == ["t0000", "t0001"]
    resumed = [event for event in read(plan.folder.ledger) if event["event"] == "resumed"]
    assert len(resumed) == 2 and not Sweep.of(plan.folder).view.ended


def test_a_ledger_that_was_put_in_place_of_the_one_that_was_read_is_read_from_its_beginning(tmp_path: Path) -> None:
    path, other = tmp_path / "ledger.jsonl", tmp_path / "other"
    for file, names in ((path, "ab"), (other, "xyz")):
        ledger = ledger_file.Ledger(file, clock=lambda: 1.0)
        for name in names:
            ledger.append(name)
        ledger.close()
    known = ledger_file.read_on(path, ledger_file.Lines())
    assert ledger_file.read_on(path, known) == known
    other.replace(path)
    opened = ledger_file.Ledger(path, known)
    opened.close()
    assert [event["event"] for event in opened.events] == ["x", "y", "z"]


@pytest.mark.parametrize(("space", "known"), [("digits", "7d7bb8969b5ba963"), ("scratch", "50a9f0b28a5240d1")])
def test_the_digests_of_spaces_are_those_that_ledgers_hold(space: str, known: str) -> None:
    for drawn in (list(samples(find(space), {}, 40)), list(samples(find(space), {}, 80))[40:]):
        assert digest([draw for draw, _ in drawn], {}) == f"ranges1:{known}"


@pytest.mark.parametrize(
    ("words", "meet"),
    [
        (("space=digits",), False),
        (("space=digits", "lr=0.001"), True),
        (("space=penalty", "dataset=digits", "rate=0.4"), True),
    ],
    ids=str,
)
def test_a_plan_knows_whether_its_trials_share_dense_rounds(words: tuple[str, ...], meet: bool) -> None:
    plan = planned(*words, "target_density=0.3", "name=fake")
    assert isinstance(plan, Plan) and plan.dense_meet is meet
