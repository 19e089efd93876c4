"""A driver that was killed between a trial's last checkpoint and its model: `repair` says of it that it goes on.

Found by `python -m tests.chaos --seed 61 --minutes 3 --modes toys`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import toy_sweep
from tests.trainables import toy
from trainables.rsst.store.reading import history_in
from tune_rsst.ledger.file import read
from tune_rsst.planning.repair import repair
from tune_rsst.storage.folder import Sweep, SweepFolder

pytestmark = pytest.mark.medium


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with toy.installed():
        yield


@pytest.mark.parametrize("gone", [("report.json",), ("report.json", "model.safetensors")])
def test_a_trial_whose_model_was_to_come_goes_on_and_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: tuple[str, ...]
) -> None:
    """Its last report is in its checkpoint; the ledger has lost the line of it, and of the end, with another."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    folder = toy_sweep.make(tmp_path / "home", "toys", "trials=2")
    right, events = toy_sweep.said(Sweep.of(folder).view), list(read(folder.ledger))
    trial = next(e["trial"] for e in events if e["event"] == "ended")
    store = folder.store(right[trial][5])
    assert history_in(store)[-1]["kind"] == "final"
    model = hashlib.sha256((store / "model.safetensors").read_bytes()).hexdigest()
    for name in gone:
        (store / name).unlink()
    lost = [at for at, e in enumerate(events) if e.get("trial") == trial and e["event"] in ("reported", "ended")][-3:]
    lines = folder.ledger.read_bytes().splitlines(keepends=True)
    folder.ledger.write_bytes(b"".join(line for at, line in enumerate(lines) if at not in lost))
    repair(folder, dry_run=False)
    assert Sweep.of(folder).view.trials[trial].state != "finished"
    done = toy_sweep.resumed(SweepFolder(folder.path))
    assert done.state == "finished" and toy_sweep.said(done.view) == right
    assert hashlib.sha256((store / "model.safetensors").read_bytes()).hexdigest() == model
