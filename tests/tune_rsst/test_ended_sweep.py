"""A sweep that has ended and is run once more: what a kill in its last moment left out is added, what it left goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import toy_sweep
from tune_rsst.conduct import run
from tune_rsst.planning.plan import Finished
from tune_rsst.planning.resume import go_on
from tune_rsst.results.table import make_console
from tune_rsst.storage.folder import Sweep
from tune_rsst.tracking.uploader import Uploader


def test_tunes_own_folder_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by `make chaos --seed 75`: the driver was killed after the sweep's last line."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Uploader, "missing", lambda uploader: 0)  # pictures take seconds
    folder = toy_sweep.make(tmp_path / "home")
    (folder.tune / "chaos").mkdir(parents=True)
    (folder.tune / "chaos" / "experiment_state.json").write_bytes(b"{}")
    ended = go_on(Sweep.of(folder), {})
    assert isinstance(ended, Finished) and run(ended, make_console()) == 0
    assert not folder.tune.exists() and folder.best_model.is_dir()
