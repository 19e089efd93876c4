"""What the ledger declares is what the driver writes, what the view applies and what docs/ledger.md says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tune_rsst.fake_sweep import FakeSweep, settings_of, tiny
from tune_rsst.ledger import file
from tune_rsst.ledger.events import KINDS, check
from tune_rsst.ledger.view import APPLY
from tune_rsst.search.halving import Rungs, replay
from tune_rsst.search.spaces import Space

DOCUMENT = Path(__file__).parents[3] / "docs" / "ledger.md"
TINY = Space("tiny", tiny)
IN_NO_VIEW = {"measured"} | {
    f"{of}{kind}" for of in ("", "confirm_", "replicate_") for kind in ("system", "worker_error")
}


def test_every_kind_is_applied_to_the_view_or_said_to_be_in_none() -> None:
    assert APPLY.keys() | IN_NO_VIEW == KINDS.keys() and not APPLY.keys() & IN_NO_VIEW


@pytest.mark.parametrize(
    ("event", "fields", "complaint"),
    [
        ("begun", {}, "not declared"),
        ("reopened", {}, r"missing fields \['trial'\]"),
        ("reopened", {"trial": "t0000", "why": "x"}, r"unknown fields \['why'\]"),
        ("ended", {"trial": "t0000", "state": "failed"}, r"missing fields \['reason', 'rung'\]"),
    ],
)
def test_what_is_not_declared_is_refused(event: str, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check(event, fields)


def test_optional_fields_may_be_there_or_not() -> None:
    assert KINDS["interrupted"].optional.keys() == {"reason"} and not KINDS["interrupted"].fields
    check("interrupted", {})
    check("interrupted", {"reason": "the disk is full"})


def test_a_driver_writes_nothing_else(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path, TINY, settings_of(TINY, "trials=2"))
    with pytest.raises(ValueError, match="not declared"):
        sweep.driver.record("sweep_begun", name="x")
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(ValueError, match="unknown fields"):
        sweep.driver.record("sweep_ended", why="x")
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def sections() -> Iterator[tuple[str, str]]:
    """(kind, text) of each heading of the third level."""
    for part in DOCUMENT.read_text(encoding="utf-8").split("\n### ")[1:]:
        name, _, text = part.partition("\n")
        yield name, text


def test_the_document_has_every_kind_and_every_field_and_no_more() -> None:
    found = dict(sections())
    assert list(found) == list(KINDS)
    for name, kind in KINDS.items():
        rows = re.findall(r"^\| `(\w+)`( \(optional\))? \| (.+) \|$", found[name], re.M)
        declared = [(f, "", text) for f, text in kind.fields.items()]
        assert rows == declared + [(f, " (optional)", text) for f, text in kind.optional.items()], name
        assert kind.help in found[name] and kind.writer in found[name] and kind.readers in found[name], name


def test_the_example_of_the_document_reads_a_ledger(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path, TINY, settings_of(TINY, "trials=3"))
    sweep.run()
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    assert code
    command = [sys.executable, "-c", code[1], str(tmp_path / "ledger.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rounds = [r for trial in sweep.view.trials.values() for r in trial.round_events]
    assert len(rounds) > 3 and len(done.stdout.splitlines()) == len(rounds)
    with (tmp_path / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b'{"event":"ended","ti')
    torn = subprocess.run(command, capture_output=True, text=True, check=False)
    assert torn.returncode == 1 and "is damaged, or was being written" in torn.stderr


def test_view_and_rungs_are_rebuilt_from_the_file_alone(tmp_path: Path) -> None:
    settings = settings_of(TINY, "trials=12")
    sweep = FakeSweep(tmp_path, TINY, settings)
    sweep.run(at_once=3)
    rungs = Rungs.of(settings)
    view = replay(file.read(tmp_path / "ledger.jsonl"), rungs)
    assert view == sweep.view and rungs.reached == sweep.driver.rungs
    stopped = {trial.trial for trial in view.trials.values() if trial.state == "stopped"}
    assert stopped and rungs.due.keys() == stopped


def test_rebuilding_imports_neither_ray_nor_optuna_nor_torch() -> None:
    code = (
        "import sys; from tune_rsst.search.halving import Rungs, replay; from tune_rsst.ledger.file import read; "
        "print([m for m in ('ray', 'optuna', 'mlflow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
