"""Pictures go up beside the lines, never before them: new lines do not wait while a picture is being drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tune_rsst.recorded import Recorder, sweep_events
from tune_rsst.ledger.file import read
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.storage.folder import SweepFolder
from tune_rsst.tracking.artifacts import RunFiles
from tune_rsst.tracking.runs import SweepRuns
from tune_rsst.tracking.uploader import Uploader

PATIENCE_S = 60.0


class SlowPictures:
    """Draws for as long as it may, and is never done; counts the drawings that were begun and that were ended."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    def draw(self, folder: SweepFolder, *names: str, timeout_s: float) -> Iterator[None]:
        self.begun += 1
        try:
            while True:
                time.sleep(0.01)
                yield
        finally:
            self.ended += 1


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    found = SweepFolder(tmp_path / "demo")
    found.path.mkdir()
    return found


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowPictures:
    pictures = SlowPictures()
    monkeypatch.setattr("tune_rsst.tracking.uploader.GATHER_S", 0.05)
    monkeypatch.setattr("tune_rsst.tracking.artifacts.draw", pictures.draw)
    return pictures


def uploader_of(folder: SweepFolder, home: Path) -> tuple[Uploader, RunFiles]:
    uploader = Uploader(folder, {"mlflow_tracking_uri": sqlite_uri(home), "mlflow_experiment": "tests"})
    assert uploader._files is not None
    return uploader, uploader._files


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lines_that_come_while_a_picture_is_drawn_do_not_wait_for_it(
    folder: SweepFolder, tmp_path: Path, slow: SlowPictures
) -> None:
    recorder, events = Recorder(folder.ledger), list(sweep_events(ended=False))
    first_end = next(n for n, event in enumerate(events) if event["event"] == "ended") + 1
    uploader, files = uploader_of(folder, tmp_path)
    recorder.write(*events[:first_end])
    uploader.start()
    until(lambda: slow.begun)
    recorder.write(*events[first_end:])
    uploader.notify()
    until(lambda: not uploader.missing())
    assert (slow.begun, slow.ended) == (1, 0), "the same picture is still being drawn"
    assert uploader.close(0.5) == 0
    assert not any(files._tried.values()), "a drawing that was broken off is no try"


def test_in_a_hurry_the_drawing_ends_at_once_and_the_line_goes_up(
    folder: SweepFolder, tmp_path: Path, slow: SlowPictures
) -> None:
    recorder, events = Recorder(folder.ledger), list(sweep_events(ended=False))
    first_end = next(n for n, event in enumerate(events) if event["event"] == "ended") + 1
    uploader, files = uploader_of(folder, tmp_path)
    recorder.write(*events[:first_end])
    uploader.start()
    until(lambda: slow.begun)
    recorder.write(*events[first_end:], {"event": "interrupted"})
    uploader.notify(hurry=True)
    until(lambda: not uploader.missing())
    assert (slow.begun, slow.ended) == (1, 1) and not any(files._tried.values())
    assert uploader.close(0.5) == 0


def test_a_server_that_goes_away_while_a_picture_is_drawn_gets_the_lines_later(
    folder: SweepFolder, tmp_path: Path, slow: SlowPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, events = Recorder(folder.ledger), list(sweep_events(ended=False))
    first_end = next(n for n, event in enumerate(events) if event["event"] == "ended") + 1
    uploader, _ = uploader_of(folder, tmp_path)
    recorder.write(*events[:first_end])
    uploader.start()
    until(lambda: slow.begun)
    put, away = SweepRuns.put, [True]

    def refusing(self: SweepRuns, *arguments: Any) -> str | None:
        if away:
            raise ConnectionError("nobody there")
        return put(self, *arguments)

    monkeypatch.setattr(SweepRuns, "put", refusing)
    recorder.write(*events[first_end:])
    uploader.notify()
    until(lambda: "nobody there" in uploader.problems)
    assert uploader.missing() == len(read(folder.ledger)) - first_end
    away.clear()
    until(lambda: not uploader.missing())
    assert uploader.close(0.5) == 0


def test_one_process_draws_what_is_due_and_what_failed_once_is_drawn_alone(
    folder: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, ...]] = []

    def draw(where: SweepFolder, *names: str, timeout_s: float) -> Iterator[None]:
        drawn.append(names)
        yield
        if "--sweep" in names:
            raise RuntimeError("pictures: no report today")
        for name in names:
            where.pictures_of(name).mkdir(parents=True)
            (where.pictures_of(name) / "rounds.png").write_bytes(b"png")

    monkeypatch.setattr("tune_rsst.tracking.artifacts.draw", draw)
    recorder = Recorder(folder.ledger)
    recorder.write(*sweep_events())
    uploader, _ = uploader_of(folder, tmp_path)
    assert uploader.sync_once(60) == 0
    trials = tuple(name for name in drawn[0] if name != "--sweep")
    assert drawn[0] == (*trials, "--sweep") and len(trials) > 1
    assert uploader.sync_once(60) == 0
    assert drawn[1:] == [*((name,) for name in trials), ("--sweep",)], "each is kept though the report fails again"
    assert uploader.sync_once(60) == 0 and len(drawn) == 2 + len(trials)
