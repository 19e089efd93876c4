"""Damaged state is given back exactly or refused in one line: a part of `python -m tests.chaos.damage`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import damage
from tests.trainables import toy
from tune_rsst.ledger import lines

BOUNDED = {
    "checkpoint": 150,
    "report": 200,
    "config": 200,
    "cursor": 100,
    "model": 100,
    "rounds": 60,
    "dense": 60,
    "ledger": 250,
    "stranger": 60,
    "repair": 25,
    "settings": 100,
    "study": 25,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("damage") / "original"
    with toy.installed():
        damage.make(folder)
        yield folder


@pytest.mark.medium
@pytest.mark.parametrize("kind", damage.KINDS)
def test_damaged_files_come_back_exactly_or_are_refused_in_one_line(kind: str, original: Path, tmp_path: Path) -> None:
    found, faults = damage.run(kind, seed=17, first=0, count=BOUNDED[kind], original=original, work=tmp_path)
    assert faults == [] and found.total() == BOUNDED[kind]


def test_a_ledger_that_is_read_without_its_numbers_is_noticed(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_refuse_other_place", lambda found, place: None)
    _, faults = damage.run("ledger", seed=17, first=0, count=80, original=original, work=tmp_path)
    assert any("missing" in fault or "swapped" in fault or "foreign" in fault for fault in faults)


def test_a_reader_that_checks_nothing_is_noticed(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusting(folder: Path, said: list[str]) -> object:
        return (folder / "config.json").read_bytes()

    monkeypatch.setattr(damage, "ODD", ())  # it would read an endless device to the end
    monkeypatch.setitem(damage.KINDS, "config", damage.Kind("trial", "config.json", trusting))
    _, faults = damage.run("config", seed=17, first=0, count=60, original=original, work=tmp_path)
    assert len(faults) > 20 and any("in silence" in fault for fault in faults)
