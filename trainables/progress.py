"""How far long work has come: a loop tells it, whoever watches hears it. Without a watcher it costs next to nothing.

In: `tracked` around a loop, or a `teller`.
Out: `Work` values for the watcher of this thread (`watched`).
Nothing is read back from a device: on a GPU a step counts as done when it is queued.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

Part = TypeVar("Part")


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
