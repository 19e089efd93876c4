"""Signals that end both programs as Ctrl-C does, once; output that nobody reads ends nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
from PIL import Image

from tests.trainables import toy
from trainables import __main__ as single
from trainables.console import Console
from trainables.leaving import ENDING, interruptible, lasting_output, notice_if_unread
from trainables.rsst import trial

ENDINGS: dict[str, tuple[list[signal.Signals], int]] = {  # signals → KeyboardInterrupts
    "none": ([], 0),
    "Ctrl-C": ([signal.SIGINT], 1),
    "SIGTERM": ([signal.SIGTERM], 1),
    "a closed terminal": ([signal.SIGHUP], 1),
    "a closed terminal, told by the shell too": ([signal.SIGHUP, signal.SIGHUP], 1),
    "a scheduler that is in a hurry": ([signal.SIGTERM, signal.SIGTERM, signal.SIGTERM], 1),
    "a scheduler, then a terminal": ([signal.SIGTERM, signal.SIGHUP], 1),
    "a terminal, then Ctrl-C": ([signal.SIGHUP, signal.SIGINT], 2),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_interrupts_once(name: str) -> None:
    signals, expected = ENDINGS[name]
    before, interrupts = [signal.getsignal(number) for number in ENDING], 0
    with interruptible():
        for number in signals:
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt:
                interrupts += 1
    assert interrupts == expected and [signal.getsignal(number) for number in ENDING] == before


def test_an_interruption_that_a_callback_swallows_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Found by `make chaos`: Ctrl-C in a weak reference's callback was a traceback, and the sweep went on."""
    things = [threading.Event()]

    def wait() -> None:
        kept = weakref.ref(things[0], lambda _: signal.raise_signal(signal.SIGINT))
        things.clear()
        time.sleep(5)
        assert kept() is None

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruptible() as heard:
        wait()
    assert heard.interrupted and time.monotonic() - began < 4 and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("number", ENDING)
def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def pipe() -> tuple[int, int]:
    return os.pipe()


def terminal() -> tuple[int, int]:
    return os.openpty()


@pytest.fixture(params=[pipe, terminal])
def unread(request: pytest.FixtureRequest) -> Iterator[tuple[TextIO, Callable[[], None]]]:
    """A stream, and what makes its reader go away."""
    reader, writer = request.param()
    stream = os.fdopen(writer, "w")
    yield stream, lambda: os.close(reader)
    stream.close()


def test_lines_that_nobody_reads_go_nowhere_and_it_is_said_once(
    unread: tuple[TextIO, Callable[[], None]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, leave = unread
    monkeypatch.setattr(sys, "stdout", stream)
    with lasting_output():
        notice_if_unread("it goes on")
        print("read", flush=True)
        leave()
        for _ in range(3):
            print("unread " * 10_000, flush=True)
        sys.stdout.write("left in the buffer")
    assert sys.stdout is stream and capsys.readouterr().err == "it goes on\n"


def test_a_standard_error_that_is_gone_too_ends_nothing(
    unread: tuple[TextIO, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, leave = unread
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with lasting_output():
        notice_if_unread("nobody hears it")
        leave()
        print("unread", flush=True)
        print("unread", file=sys.stderr, flush=True)
    assert sys.stdout is stream and sys.stderr is stream


def test_a_full_disk_is_no_reader_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError) as caught, lasting_output():
            print("lost", flush=True)
        assert caught.value.errno == errno.ENOSPC
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that it can be closed


def test_without_standard_output_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with lasting_output():
        print("nowhere")
    assert sys.stdout is None


SHORT = "--arch vit_toy --dataset digits --epochs 1 --warmup 0 --pruning_times 2 --rate 0.3 --batch_size 32"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("number", [None, *ENDING])
def test_a_single_run_outlives_its_reader_and_ends_with_its_terminal(
    number: signal.Signals | None,
    unread: tuple[TextIO, Callable[[], None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, leave = unread
    monkeypatch.setattr(trial, "load", toy.images)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    real, shown = Console.show, list[str]()

    def show(console: Console, event: Any) -> None:
        real(console, event)
        shown.append(event.kind)
        if shown == ["start", "epoch", "round"]:
            leave()
            if number:
                signal.raise_signal(number)

    monkeypatch.setattr(Console, "show", show)
    folder = tmp_path / "run"
    assert single.main([*SHORT.split(), "--save_dir", str(folder)]) == (130 if number else 0)
    log = (folder / "run.log").read_text(encoding="utf-8")
    assert ("interrupted; go on with: " in log.splitlines()[-1]) == (number is not None)
    assert ("finished · test_top1" in log) == (folder / "report.json").exists() == (number is None)


def test_who_is_interrupted_before_the_run_begins_is_told_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(single, "_main", lambda words: signal.raise_signal(signal.SIGHUP))
    assert single.main([]) == 130 and capsys.readouterr().err == "interrupted before the run began\n"


@pytest.mark.medium
def test_the_printed_command_goes_on_from_another_folder_with_a_bare_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the images and the run's folder were given by relative paths."""
    home = tmp_path / "it's my folder"
    for name in ("a", "b"):
        (home / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng([number, ord(name)]).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(home / "images" / name / f"{number}.png")
    monkeypatch.chdir(home)
    real = Console.show

    def show(console: Console, event: Any) -> None:
        real(console, event)
        if event.kind == "round":
            raise KeyboardInterrupt

    monkeypatch.setattr(Console, "show", show)
    words = [*SHORT.split(), "--arch", "vit_digits", "--dataset", "images", "--img_size", "8", "--save_dir", "run"]
    assert single.main(words) == 130
    command = capsys.readouterr().out.splitlines()[-1].partition("go on with: ")[2]
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd="/", env=bare, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0 and "going on after round 1/2" in done.stdout, done.stdout + done.stderr
    assert (home / "run" / "report.json").exists()


LEAVING = """
import atexit, sys, threading, time
from trainables.leaving import leave
atexit.register(lambda: print("at exit"))
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
print("said")
leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_leaving_loses_no_thread_no_exit_function_and_no_output(code: int) -> None:
    command = [sys.executable, "-c", LEAVING, str(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "said\na thread\nat exit\n", "")


@pytest.mark.parametrize(("code", "told"), [(0, 120), (3, 3)])
def test_output_that_can_not_be_written_is_no_success(code: int, told: int) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        how: dict[str, Any] = {"stdout": full, "stderr": subprocess.DEVNULL, "env": buffered, "timeout": 60}
        done = subprocess.run([sys.executable, "-c", LEAVING, str(code)], check=False, **how)
    assert done.returncode == told
