"""How far long work has come: a loop tells it, whoever watches hears it. Without a watcher it costs next to nothing.

In: `tracked` around a loop, or a `teller`; `lasting` around what can't say how far it is.
Out: `Work` values for the watcher of this thread (`watched`): the console, lines now and then (`every`), or a small
file in a folder (`keeper`) that another process reads (`kept`).
Nothing is read back from a device: on a GPU a step counts as done when it is queued.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainables.storage.forms import WrongForm, number, record, text, whole
from trainables.storage.state_files import read_state, write_state
from trainables.text import amount, duration

Part = TypeVar("Part")
KEPT = "progress.json"
_WORK = record(
    {"time": number, "what": text(most=200), "done": whole(), "total": whole()}
    | {"unit": text(most=40), "seconds": number}
)
KEEP_EVERY_S = 2.0
SMALL = 1 << 14  # bytes of such a file, at most
FRESH_S = 300.0  # longer than any step; an older file was left behind by a process that is gone


@dataclass(frozen=True)
class Work:
    """`done` of `total` (0: not known) in `unit`, after `seconds` of work. `what` is a phrase such as "training"."""

    what: str
    done: int
    total: int
    unit: str
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None while there is none."""
        return self.seconds / self.done * (self.total - self.done) if self.done and self.total else None

    @property
    def words(self) -> list[str]:
        """ "training 1,280/45,000 images", "312 images/s"."""
        said = [f"{self.what} {amount(self.done, self.total, self.unit)}" if self.unit else self.what]
        if self.done and self.seconds:
            said.append(f"{amount(self.done / self.seconds, 0, self.unit)}/s")
        return said


TRAINING = "training"
"""What an epoch's own loop calls its work."""

Watcher = Callable[[Work], None]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` hear of every step of the work in the body; it must return at once."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def teller(what: str, total: int, unit: str = "images") -> Callable[[int], None]:
    """What a piece of work calls with how much of it is done; it has begun now."""
    watcher = _watcher.get()
    if watcher is None:
        return lambda done: None
    began = time.monotonic()

    def tell(done: int) -> None:
        watcher(Work(what, min(done, total) if total else done, total, unit, time.monotonic() - began))

    tell(0)
    return tell


def tracked(
    what: str, parts: Iterable[Part], total: int, *, unit: str = "images", size: Callable[[Any], int] = len
) -> Iterator[Part]:
    """`parts` one by one; each counts as `size` of `total` when the next is asked for."""
    tell, done = teller(what, total, unit), 0
    for part in parts:
        yield part
        done += size(part)
        tell(done)


@contextmanager
def lasting(what: str) -> Iterator[None]:
    """The body may take long and says nothing meanwhile: a thread tells the watcher every 2 s that it goes on.

    For waiting on others (a lock, a network, a compiler) only: a body that hangs looks as if it worked.
    """
    watcher = _watcher.get()
    if watcher is None:
        yield
        return
    began, over, told = time.monotonic(), threading.Event(), threading.Event()

    def beat() -> None:
        while not over.wait(KEEP_EVERY_S):
            told.set()
            watcher(Work(what, 0, 0, "", time.monotonic() - began))

    thread = threading.Thread(target=beat, name="lasting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if told.is_set():
            watcher(Work(what, 1, 1, "", time.monotonic() - began))


@contextmanager
def after_waiting(what: str, lock: AbstractContextManager[Any]) -> Iterator[None]:
    """`lock`, which another process may hold for long: as `lasting` until it is entered, not in the body."""
    with ExitStack() as entered:
        with lasting(what):
            entered.enter_context(lock)
        yield


def every(seconds: float, say: Callable[[str], None]) -> Watcher:
    """A watcher that says a line of the work, the first after `seconds`, then at most every `seconds`."""
    said_at = time.monotonic()

    def watch(work: Work) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= seconds:
            said_at = time.monotonic()
            left = [] if work.seconds_left is None else [f"{duration(work.seconds_left)} left"]
            say(f"  {' · '.join([*work.words, *left])}")

    return watch


def keeper(folder: Path) -> Watcher:
    """A watcher that keeps long work in a file of `folder`, which is made if missing, while it lasts."""
    kept_at = 0.0

    def watch(work: Work) -> None:
        nonlocal kept_at
        now = time.monotonic()
        with suppress(OSError):  # what is shown may be missing; the work goes on
            if kept_at and work.total and work.done == work.total:
                kept_at = 0.0
                (folder / KEPT).unlink(missing_ok=True)
            elif work.seconds >= KEEP_EVERY_S and now - kept_at >= KEEP_EVERY_S:
                kept_at = now
                folder.mkdir(parents=True, exist_ok=True)
                write_state(folder / KEPT, {"time": time.time(), **asdict(work)})

    return watch


def kept(folder: Path) -> Work | None:
    """The work that a `keeper` of another process is at in `folder`; None where there is none, or nothing long."""
    try:
        found = read_state(folder / KEPT, _WORK, most=SMALL)
    except (OSError, WrongForm):  # also: half written
        return None
    return Work(**found) if abs(time.time() - found.pop("time")) < FRESH_S else None
