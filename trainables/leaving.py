"""How both programs end early: signals that end them as Ctrl-C does, and output that nobody reads any more.

In: SIGTERM, SIGHUP (the terminal was closed; nohup ignores it); a pipe or a terminal that takes no more.
Out: one KeyboardInterrupt; lines that go nowhere, so that a run is neither ended by them nor its last words lost.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

ENDING = (signal.SIGTERM, signal.SIGHUP)
GONE = (errno.EPIPE, errno.EIO)
Handlers = dict[signal.Signals, Any]


def hear(handler: Callable[[int, Any], None]) -> Handlers:
    """Let `handler` have the signals that end a process; returns what was there, for `unhear`. Ignored ones stay so."""
    found = {number: before for number in ENDING if (before := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in found:
        signal.signal(number, handler)
    return found


def unhear(before: Handlers) -> None:
    """Put back what `hear` has found."""
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, a signal that ends a process raises one KeyboardInterrupt: a closed terminal sends SIGHUP twice."""

    def interrupt(number: int, frame: Any) -> None:
        for heard in before:
            signal.signal(heard, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = hear(interrupt)
    try:
        yield
    finally:
        unhear(before)


class _Lasting:
    """A stream that outlives its reader: once that is gone, what is written goes to the null device.

    `notice` is then said on standard error, once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.notice = stream, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            if error.errno not in GONE:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
            if self.notice:
                print(self.notice, file=sys.stderr, flush=True)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within, standard output and error outlive their reader. Other errors, such as a full disk, are raised."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and _Lasting(stream) for stream in before)  # type: ignore[assignment]
    try:
        yield
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        finally:
            sys.stdout, sys.stderr = before


def notice_if_unread(line: str) -> None:
    """What to say on standard error when nobody reads standard output any more."""
    if isinstance(sys.stdout, _Lasting):
        sys.stdout.notice = line
