"""The faults that the chaos suite puts into a sweep: signals to its processes, damage to its files between two lives.

In: the sweep, a stream of random numbers. Out: what was done, in words; None where there was nothing to do it to.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.chaos import damage_sweeps
from tests.chaos.damage import spoil
from tests.chaos.lives.services import MLFLOW, OBJECTS, POSTGRES
from tests.chaos.lives.subject import Subject
from tune_rsst.ledger.file import read
from tune_rsst.ledger.view import SweepView

STOPPED_S, AWAY_S, FULL_S, SLOW_S = (0.2, 3.0), (1.0, 8.0), (1.0, 6.0), (0.05, 1.0)
MOUNT_S = 3.0  # a disk on which a file is being written does not become read-only
CLOCK_S = 86_400.0  # as far as a clock is moved, in either direction
Act = Callable[[random.Random, Subject], str | None]


class Kind(NamedTuple):
    """`role`: whose process gets `signals`, one after the other; `pattern` names files that are damaged; else `act`.

    `often`: how often it is in a deck. `ends`: exit codes of a life that it ends; without any it ends none. `may_end`:
    of one that it may end, then or later.
    """

    role: str = ""
    signals: tuple[signal.Signals, ...] = ()
    often: int = 1
    ends: tuple[int, ...] = ()
    pattern: str = ""
    act: Act | None = None
    may_end: tuple[int, ...] = ()


STOP = (signal.SIGSTOP, signal.SIGCONT)
KINDS: dict[str, Kind] = {
    "kill -9 of the driver": Kind("driver", (signal.SIGKILL,), 1, (-9,)),
    "Ctrl-C": Kind("driver", (signal.SIGINT,), 1, (130,)),
    "SIGTERM to the driver": Kind("driver", (signal.SIGTERM,), 1, (130,)),
    "SIGHUP to the driver": Kind("driver", (signal.SIGHUP,), 1, (130,)),
    "the driver stopped for a while": Kind("driver", STOP, 3),
    "kill -9 of a worker": Kind("worker", (signal.SIGKILL,), 2),
    "a worker stopped for a while": Kind("worker", STOP, 3),
    "kill -9 of the raylet": Kind("raylet", (signal.SIGKILL,), 1, (1,)),
    "the raylet stopped for a while": Kind("raylet", STOP, 3),
    "kill -9 of the control store": Kind("control store", (signal.SIGKILL,), 1, (1,)),
    "the control store stopped for a while": Kind("control store", STOP, 3),
    "kill -9 of the picture process": Kind("pictures", (signal.SIGKILL,)),
    "a damaged checkpoint": Kind(often=2, pattern="trials/*/r[0-9]*/*"),
    "a damaged ledger": Kind(often=2, pattern="ledger.jsonl"),
    "damaged settings": Kind(pattern="settings.yaml"),
    "a damaged cursor": Kind(pattern="mlflow_cursor.json"),
    "a damaged study": Kind(pattern="optuna.db"),
}
"""What may be done to each sweep, by its name."""


def _kill(name: str, draw: random.Random, subject: Subject) -> str:
    """It is started again after a while."""
    assert subject.services is not None
    subject.services.kill(name)
    time.sleep(away_s := draw.uniform(*AWAY_S))
    subject.services.start(name)
    return f"for {away_s:.1f} s"


def _stop(name: str, draw: random.Random, subject: Subject) -> str:
    assert subject.services is not None
    subject.services.tell(name, signal.SIGSTOP)
    time.sleep(stopped_s := draw.uniform(*STOPPED_S))
    subject.services.tell(name, signal.SIGCONT)
    return f"for {stopped_s:.1f} s"


def _cut(name: str, draw: random.Random, subject: Subject) -> str:
    assert subject.services is not None
    subject.services.wires[name].cut(away_s := draw.uniform(*AWAY_S))
    return f"for {away_s:.1f} s"


def _slow(name: str, draw: random.Random, subject: Subject) -> str:
    assert subject.services is not None
    each_s, for_s = draw.uniform(*SLOW_S), draw.uniform(*AWAY_S)
    subject.services.wires[name].slow(each_s, for_s)
    return f"each block by {each_s:.2f} s, for {for_s:.1f} s"


def _move_clock(draw: random.Random, subject: Subject) -> str:
    assert subject.clock is not None
    subject.clock.write_text(f"{(ahead := round(draw.uniform(-CLOCK_S, CLOCK_S))):+d}\n")
    return f"{ahead:+d} s against the machine's"


def _fill_disk(draw: random.Random, subject: Subject) -> str:
    assert subject.disk is not None
    filler = subject.disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    time.sleep(full_s := draw.uniform(*FULL_S))
    filler.unlink()
    return f"for {full_s:.1f} s"


def _take_inodes(draw: random.Random, subject: Subject) -> str | None:
    assert subject.disk is not None
    had = os.statvfs(subject.disk)
    if not _mounted_again(subject.disk, f"nr_inodes={had.f_files - had.f_ffree}"):
        return None
    time.sleep(full_s := draw.uniform(*FULL_S))
    assert _mounted_again(subject.disk, f"nr_inodes={had.f_files}")
    return f"for {full_s:.1f} s"


def _make_read_only(draw: random.Random, subject: Subject) -> str | None:
    assert subject.disk is not None
    deadline = time.monotonic() + MOUNT_S
    while not _mounted_again(subject.disk, "ro"):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
    time.sleep(for_s := draw.uniform(*FULL_S))
    assert _mounted_again(subject.disk, "rw")
    return f"for {for_s:.1f} s"


def _mounted_again(disk: Path, how: str) -> bool:
    return not subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], capture_output=True, check=False).returncode


SERVICES = {
    f"{word} {name}{after}": Kind(act=partial(act, name), may_end=(2,))  # where the sweep was only to begin
    for name in (POSTGRES, MLFLOW, OBJECTS)
    for word, act, after in (
        ("kill -9 of", _kill, ""),
        ("SIGSTOP of", _stop, " for a while"),
        ("connections cut to", _cut, ""),
        ("slow connections to", _slow, ""),
    )
}
KINDS_OF: dict[str, dict[str, Kind]] = {
    "plain": KINDS,
    "toys": {
        name: kind
        for name, kind in KINDS.items()
        if kind.role == "driver" or (kind.pattern and name != "damaged settings")
    },
    "services": {name: kind for name, kind in KINDS.items() if name != "a damaged study"} | SERVICES,
    "clock": KINDS | {"the clock of the programs moved": Kind(act=_move_clock, often=4)},
    "disk": KINDS
    | {
        "a full disk for a while": Kind(act=_fill_disk, often=3, may_end=(1, 2)),
        "a disk without inodes for a while": Kind(act=_take_inodes, often=2, may_end=(1, 2)),
        "a read-only disk for a while": Kind(act=_make_read_only, often=2, may_end=(1, 2)),
    },
}
"""What may be done to a sweep of each of MODES."""


def deck(draw: random.Random, kinds: dict[str, Kind]) -> list[str]:
    """Names of kinds in a random order, each as often as it is to happen.

    Those that end a life have as many of the others before them as there are, for a life takes long to begin; of the
    others each is there once before one is there again.
    """
    ending = [name for name, kind in kinds.items() if kind.ends for _ in range(kind.often)]
    others = [name for name, kind in kinds.items() if not kind.ends]
    again = [name for name in others for _ in range(kinds[name].often - 1)]
    others = sorted(draw.sample(others, len(others)), key=lambda name: kinds[name].act is None)  # the mode's own first
    others += draw.sample(again, len(again))
    count = len(others)
    for at, name in enumerate(draw.sample(ending, len(ending)), 1):
        others.insert(round(at * count / len(ending)) + at - 1, name)
    return others


def send(draw: random.Random, subject: Subject, driver: int, kind: Kind, patience_s: float) -> str | None:
    """Send the signals of `kind` to one process of that role, which is waited for; which one, or None.

    Where `kind` is not done to a process of the sweep: do that, and what was done.
    """
    if kind.act is not None:
        return kind.act(draw, subject) if psutil.pid_exists(driver) else None
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and psutil.pid_exists(driver):
        with suppress(psutil.NoSuchProcess):
            life = psutil.Process(driver)
            found = [one for one in subject.of_role(kind.role) if one.create_time() >= life.create_time()]
            found = [life] if kind.role == "driver" else found
            if found and (target := draw.choice(found)).status() != psutil.STATUS_ZOMBIE:
                _tell(draw, target, kind.signals)
                return f"{kind.role} {target.pid}"
        time.sleep(0.1)
    return None


def _tell(draw: random.Random, target: psutil.Process, signals: tuple[signal.Signals, ...]) -> None:
    for number in signals:
        target.send_signal(number)
        if number == signal.SIGSTOP:
            time.sleep(draw.uniform(*STOPPED_S))


def damage(draw: random.Random, subject: Subject, kind: Kind) -> str | None:
    """Damage one file that `kind` names; which and how, or None where there is none yet.

    Of trials' files only those of trials that go on: nobody reads the checkpoints of the others again.
    """
    files = sorted(one for one in subject.folder.path.glob(kind.pattern) if one.is_file() and not one.is_symlink())
    if kind.pattern.startswith("trials"):
        going_on = SweepView.of(read(subject.folder.ledger)).unfinished if subject.folder.ledger.exists() else []
        stores = {subject.folder.store(trial.fingerprint) for trial in going_on}
        files = [one for one in files if one.parent.parent in stores]
    if not files:
        return None
    file, how = draw.choice(files), None
    if file == subject.folder.ledger and len(file.read_bytes().splitlines()) > 1:
        how = damage_sweeps.spoil_ledger(draw, file, [file])
    how = how or spoil(draw, file, [subject.space])
    return f"{file.relative_to(subject.folder.path)}: {how}"
