"""Damaged lines of further runs: rebuilt where they follow, else a resume reads them again from the checkpoints."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import toy_sweep
from tests.trainables import toy
from tune_rsst.driver import Confirmation
from tune_rsst.ledger.file import Ledger, read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning.repair import repair
from tune_rsst.planning.resume import settings_again
from tune_rsst.runners import serial
from tune_rsst.storage.folder import Sweep, SweepFolder

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a sweep of two seeds a trial that has ended."""
    home = tmp_path_factory.mktemp("home") / "home"
    with toy.installed(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_HOME", str(home))
        toy_sweep.make(home, "toys", "replicates=2", "trials=2", "stopping=none", "sampler=random")
        yield home


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    return SweepFolder(tmp_path / "home" / "toys")


def said(view: SweepView) -> dict[str, Any]:
    """Of each trial and each run."""
    runs = {run.trial: (run.state, run.knobs, run.fingerprint, sorted(run.seen)) for run in view.replicas.values()}
    return toy_sweep.said(view) | runs


def test_whichever_lines_are_gone_a_resume_ends_with_the_same(folder: SweepFolder) -> None:
    right, lines = said(Sweep.of(folder).view), folder.ledger.read_bytes().splitlines(keepends=True)
    assert len([name for name in right if "-seed1" in name]) == 2
    kinds = [line["event"] for line in read(folder.ledger)]
    single = [{at} for at, kind in enumerate(kinds) if kind.startswith("replicate_") or kind == "ended"][::2]
    many = [set(random.Random(seed).sample(range(1, len(lines)), 9)) for seed in range(4)]
    whole = [{at for at, line in enumerate(lines) if b"t0000-seed1" in line}]
    for gone in single + many + whole:
        folder.ledger.write_bytes(b"".join(line for at, line in enumerate(lines) if at not in gone))
        with pytest.raises(LedgerError, match="tune-rsst repair toys"):
            Sweep.of(folder)
        assert repair(folder, dry_run=False).content is not None
        half = Sweep.of(folder).view
        assert all(trial.unfinished or len(trial.all_runs) == 2 for trial in half.trials.values()), gone
        done = toy_sweep.resumed(folder)
        assert done.state == "finished" and said(done.view) == right, gone


def test_a_run_whose_folder_is_gone_too_is_trained_again_to_the_same(folder: SweepFolder) -> None:
    view = Sweep.of(folder).view
    right, run = said(view), view.replicas["t0001-seed1"]
    lines = folder.ledger.read_bytes().splitlines(keepends=True)
    at = next(at for at, line in enumerate(lines) if b'"replicate_reported"' in line and b"t0001-seed1" in line)
    folder.ledger.write_bytes(b"".join(lines[: at + 1]))
    shutil.rmtree(folder.store(run.fingerprint))
    done = toy_sweep.resumed(folder)
    assert done.state == "finished" and said(done.view) == right


def test_a_lost_line_of_confirm_is_no_error_of_repairs(folder: SweepFolder) -> None:
    view, ledger = Sweep.of(folder).view, Ledger(folder.ledger)
    settings = settings_again(Sweep.of(folder), {})
    confirmation = Confirmation(ledger, view, settings, Wanted.of(view, [view.trials["t0000"]], 2, split=False))
    for _ in serial.reports(confirmation, folder):
        pass
    ledger.close()
    lines = folder.ledger.read_bytes().splitlines(keepends=True)
    (first, _) = [at for at, line in enumerate(lines) if b'"confirm_suggested"' in line]
    folder.ledger.write_bytes(b"".join(line for at, line in enumerate(lines) if at != first))
    lost = repair(folder, dry_run=False).lost
    assert any(line.endswith("tune-rsst confirm runs it again") for line in lost)
    assert Sweep.of(folder).view.confirm is not None
