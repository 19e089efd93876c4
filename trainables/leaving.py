"""How both programs end early: signals that end them as Ctrl-C does, and output that nobody reads any more.

In: SIGINT; SIGTERM, SIGHUP (the terminal was closed; nohup ignores it); a pipe or a terminal that takes no more.
Out: one KeyboardInterrupt; lines that go nowhere, so that a run is neither ended by them nor its last words lost.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

ENDING = (signal.SIGTERM, signal.SIGHUP)
GONE = (errno.EPIPE, errno.EIO)
AGAIN_S = 0.02
UNWRITTEN = 120  # Python's exit code where its output could not be written
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


def ends_at_once(line: str = "", code: int = 130) -> None:
    """From now on a signal that ends this process does so at once, with `line` on standard error.

    For a program's first and last moments: while libraries are imported nothing is begun, and an exception would be
    lost, or become another one, somewhere in them; when all is said it would be a traceback of the interpreter's end.
    """

    def end(number: int, frame: Any) -> None:
        with suppress(OSError):
            os.write(2, f"{line}\n".encode() if line else b"")
        os._exit(code)

    for number in (signal.SIGINT, *ENDING):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def leave(code: int) -> NoReturn:
    """End this process as the interpreter does, but without taking thousands of modules apart, which takes seconds."""
    ends_at_once(code=code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            code = code or UNWRITTEN
    os._exit(code)


@dataclass
class Heard:
    """Whether a signal has come: libraries turn a KeyboardInterrupt into other errors, or lose it."""

    interrupted: bool = False


@contextmanager
def interruptible() -> Iterator[Heard]:
    """Within, a signal that ends a process raises one KeyboardInterrupt: a closed terminal sends SIGHUP twice.

    Raised where nobody can catch it, such as in a weak reference's callback, it is raised again a moment later.
    """
    found = Heard()

    def interrupt(number: int, frame: Any) -> None:
        found.interrupted = True
        for heard in before if number != signal.SIGINT else ():
            signal.signal(heard, signal.SIG_IGN)
        raise KeyboardInterrupt

    def again(lost: Any) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            threading.Timer(AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        else:
            of_others(lost)

    of_others, sys.unraisablehook = sys.unraisablehook, again
    before, on_ctrl_c = hear(interrupt), signal.getsignal(signal.SIGINT)
    if on_ctrl_c is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield found
    finally:
        sys.unraisablehook = of_others
        signal.signal(signal.SIGINT, on_ctrl_c)
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
