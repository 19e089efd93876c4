"""Hostile input ends in one line or is taken: a bounded part of what `python -m tests.chaos.fuzz` does."""

from __future__ import annotations

import pytest

from tests.chaos import fuzz

BOUNDED = {"words": 150, "single": 150, "commands": 40, "yaml": 200, "spaces": 25, "folders": 20, "weights": 40}


@pytest.mark.medium
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_hostile_input_is_taken_or_refused_in_one_line(
    kind: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path_factory.mktemp("home") / "home"))
    found, faults = fuzz.run(kind, seed=17, first=0, count=BOUNDED[kind])
    assert faults == [] and found["refused"] > BOUNDED[kind] // 8 and found.total() == BOUNDED[kind]
