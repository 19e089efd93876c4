"""Work tells how far it is: which work, that numbers do not change for it, and the lines of a single run."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.trainables import toy
from trainables import console as console_module
from trainables import progress
from trainables.console import Console
from trainables.progress import KEPT, Work, after_waiting, every, keeper, kept, lasting, teller, tracked, watched
from trainables.rsst.experiment import run
from trainables.storage.locks import held
from trainables.text import amount

pytestmark = pytest.mark.usefixtures("toy")


def test_the_work_of_a_trial_is_told_and_its_numbers_are_the_same() -> None:
    config, data, told = toy.config(criteria="l1"), toy.images(), list[Work]()
    alone = toy.outcome(config, data)
    with watched(told.append):
        assert toy.outcome(config, data) == alone
    assert {work.what for work in told} == {"training", "evaluating", "scoring units"}
    training = [(work.done, work.total) for work in told if work.what == "training"]
    assert training == [(done, 96) for done in (0, 32, 64, 96)] * 6, "3 rounds of 2 epochs"
    assert all(0 <= work.done <= work.total and work.seconds >= 0 for work in told)


def test_nobody_hears_of_work_after_the_watch() -> None:
    told = list[Work]()
    with watched(told.append):
        assert list(tracked("counting", [[1, 2], [3]], 3)) == [[1, 2], [3]]
    assert [work.done for work in told] == [0, 2, 3]
    teller("counting", 3)(3)
    assert len(told) == 3


def test_of_an_unknown_total_the_amount_is_told() -> None:
    told = list[Work]()
    with watched(told.append):
        list(tracked("downloading", [b"ab", b"c"], 0, unit="bytes"))
    assert [work.done for work in told] == [0, 2, 3] and told[-1].seconds_left is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((1280, 45000, "images"), "1,280/45,000 images"),
        ((312.4, 0, "images"), "312 images"),
        ((0.512, 0, "images"), "0.51 images"),
        ((0, 0, "images"), "0 images"),
        ((12 * 2**20, 48 * 2**20, "bytes"), "12/48 MiB"),
        ((2**19, 0, "bytes"), "0.5 MiB"),
    ],
)
def test_amounts(given: tuple[float, float, str], said: str) -> None:
    assert amount(*given) == said


class Screen(io.StringIO):
    """A terminal, or none."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, terminal: bool, every_s: float = 0.0) -> tuple[str, str]:
    """What a trial of two epochs and two rounds shows when all of its work counts as long, and its log."""
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "100")
    for name, value in (("_WORK_AFTER_S", 0.0), ("_REDRAW_S", 0.0), ("_WORK_EVERY_S", every_s)):
        monkeypatch.setattr(console_module, name, value)
    config = toy.config(pruning_times=2)
    with Console(config, tmp_path / "run.log") as console, watched(console.work):
        console.work(Work("preparing the images (train)", 500, 2000, "images", 10.0))
        for event in run(config, toy.images()):
            console.show(event)
    return screen.getvalue(), (tmp_path / "run.log").read_text(encoding="utf-8")


def test_without_a_terminal_the_work_is_in_plain_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said, log = shown(monkeypatch, tmp_path, terminal=False)
    assert "\r" not in said and "\x1b" not in said
    lines = said.splitlines()
    assert lines[0] == "preparing the images (train) 500/2,000 images · 50 images/s · 30 s left"
    first = re.compile(r"round 1/2 epoch 1/2 · training 32/96 images · [\d,.]+ images/s · epoch done in 0 s · ETA \d s")
    assert any(first.fullmatch(line) for line in lines), said
    assert any(line.startswith("round 2/2 epoch 2/2 · training 96/96 images") for line in lines)
    assert any(re.match(r"round 2/2 · evaluating 48/48 images .* · last val \d", line) for line in lines)
    assert any(line.startswith("test · evaluating 48/48") for line in lines)
    assert [line[20:] for line in log.splitlines() if " · training " in line] == [x for x in lines if "training" in x]


def test_on_a_terminal_the_work_is_one_live_line_and_the_log_has_it_now_and_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, log = shown(monkeypatch, tmp_path, terminal=True, every_s=3600.0)
    live = [part for part in said.split("\r\x1b[K") if " · training " in part]
    assert len(live) >= 12 and all(len(line) < 100 and "\n" not in line for line in live)
    assert " · training " not in log, "nothing was quiet for long enough"
    _, log = shown(monkeypatch, tmp_path, terminal=True)
    assert " · training " in log


def test_fast_epochs_show_no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    screen = Screen(True)
    monkeypatch.setattr(sys, "stdout", screen)
    with Console(toy.config(), tmp_path / "run.log") as console, watched(console.work):
        console.work(Work("training", 32, 96, "images", 1.9))
        console.say("ready")
    assert screen.getvalue() == "ready\n"


def test_every_so_often_a_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = [100.0], list[str]()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    watch = every(10.0, said.append)
    for seconds, done in ((5.0, 10), (12.0, 24), (15.0, 30), (23.0, 46)):
        clock[0] = 100.0 + seconds
        watch(Work("preparing", done, 100, "images", seconds))
    assert said == [
        "  preparing 24/100 images · 2 images/s · 38 s left",
        "  preparing 46/100 images · 2 images/s · 27 s left",
    ]


def test_long_work_is_kept_for_other_processes_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, clock = tmp_path / "trials" / "ab12", [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    keep, writes = keeper(folder), list[Work | None]()
    for seconds, done in ((0.0, 0), (1.0, 10), (2.5, 25), (3.0, 30), (4.6, 46), (9.9, 99)):
        clock[0] = 100.0 + seconds
        keep(Work("training", done, 100, "images", seconds))
        writes.append(kept(folder))
    at = [work.done if work else None for work in writes]
    assert at == [None, None, 25, 25, 46, 99], "not before 2 s, then every 2 s"
    keep(Work("training", 100, 100, "images", 10.0))
    assert kept(folder) is None and list(folder.iterdir()) == []


LEFT_BEHIND = {
    "half written": '{"time": 1, "what": "tr',
    "empty": "",
    "no object": "[1]",
    "old": '{"time": 1.0, "what": "training", "done": 1, "total": 2, "unit": "images", "seconds": 3.0}',
    "of another version": '{"time": 1e18, "what": "training"}',
}


@pytest.mark.parametrize("content", LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_what_was_left_behind_is_no_work(tmp_path: Path, content: str) -> None:
    (tmp_path / KEPT).write_text(content)
    assert kept(tmp_path) is None


def test_a_full_disk_does_not_end_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keeper(tmp_path / "file" / "below")(Work("training", 1, 2, "images", 60.0))
    assert kept(tmp_path / "file" / "below") is None


def test_waiting_tells_that_it_goes_on_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "KEEP_EVERY_S", 0.02)
    told, signs = list[Work](), set[str]()
    with watched(told.append), lasting("waiting for a lock"):
        while len(told) < 3:
            time.sleep(0.01)
    assert {work.words[0] for work in told} == {"waiting for a lock"}
    assert [work.total for work in told[:3]] == [0, 0, 0] and told[-1].done == told[-1].total == 1
    with watched(keeper(tmp_path)), lasting("waiting for a lock"):
        while len(signs) < 2:
            if (work := kept(tmp_path)) is not None:
                signs.add(str(work))
    assert kept(tmp_path) is None and not (tmp_path / KEPT).exists()


def test_the_wait_for_a_lock_is_told_and_the_work_under_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "KEEP_EVERY_S", 0.02)
    told, inside = list[Work](), threading.Event()

    def waits() -> None:
        with watched(told.append), after_waiting("waiting for another process", held(tmp_path / "lock")):
            inside.set()

    with held(tmp_path / "lock"):
        thread = threading.Thread(target=waits, daemon=True)
        thread.start()
        while len(told) < 3:
            time.sleep(0.01)
        assert not inside.is_set()
    thread.join(60)
    assert inside.is_set() and {work.what for work in told} == {"waiting for another process"}
    with held(tmp_path / "lock", wait_s=0.0):
        before = len(told)
    with watched(told.append), after_waiting("not told", held(tmp_path / "lock")):
        time.sleep(0.1)
    assert len(told) == before, "neither a lock that is free nor the work under it"
    with pytest.raises(KeyError), after_waiting("waiting", held(tmp_path / "lock")):
        raise KeyError
    with held(tmp_path / "lock", wait_s=0.0):
        pass


def test_without_a_watcher_waiting_starts_no_thread() -> None:
    with lasting("waiting"):
        assert all(thread.name != "lasting" for thread in threading.enumerate())
