"""What ends a sweep early, in one object: signals, threads and the runner report to it, driver and ending ask it.

In: a signal; an error; another driver that took the sweep over. Out: why, what may still be written, the exit code.

What happens at Ctrl-C (SIGINT):
1. Ray Tune's own handler takes it: Tune ends its loop after the present step and stops the workers, whose checkpoints
   are on the disk; `fit` (runners/ray_tune.py) returns. Where Tune's loop does not run, and at a second Ctrl-C, it is a
   KeyboardInterrupt, which `_train` (conduct.py) catches.
2. `connected` (runners/ray_cluster.py) shuts Ray down. From here to the end of step 3 signals are ignored (`ignored`).
3. `conclude` (ending.py) writes best.yaml and the model, then the line `interrupted` to the ledger.
4. The last lines go to the bucket (at most STORE_AT_INTERRUPT_S) and to MLflow (at most UPLOAD_AT_INTERRUPT_S); another
   Ctrl-C cuts the upload to MLflow short.
5. The command that continues the sweep is printed; exit code 130.

What differs in the other cases:
- SIGTERM (`ray job stop`, a scheduler) and SIGHUP (the terminal was closed; nohup ignores it): `terminate` first, then
  as Ctrl-C, once. SIGKILL may follow within 3 s and Tune waits longer than that for its workers. So the driver writes
  `interrupted` after the present step or, where that hangs, after LEAVE_ANYWAY_S; from then on the bucket and MLflow
  get each line at once, and no pictures are drawn.
- `fail` (Ray or Tune raised): as Ctrl-C, but the line has the reason, and the exit code is 1.
- `lost` (what the runner can't do without has died): as `fail`, at once, past whatever the runner waits for.
- `break_off` (full disk, an error in the driver, another driver took the sweep over): nothing more is written, the
  runner is ended by SIGINT, and the exit code is 1.
- Any of them before trials run: one line, exit code 130 (cli/app.py). SIGKILL is not caught: a resume reads the ledger,
  and whoever looks sees by the lock that nobody drives the sweep.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from trainables.leaving import ENDING, Handlers, hear, unhear
from trainables.storage.secrets import hide_password
from trainables.text import LONGEST_LINE, shown

LEAVE_ANYWAY_S = 1.0
STUCK = 3


STACK, HEAD = "Traceback (most recent call last):", re.compile(r"(\w+\.)*[A-Z]\w*(\(\w+\))?(: |$)")


def why(error: BaseException) -> str:
    """The error that all began with, in one line without passwords: Optuna says of a lost database that data is bad.

    Tune's error for what happened in a worker holds a traceback as its text: its last error is what happened.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    said = str(error)
    if STACK in said:
        lines = said.rpartition(STACK)[2].splitlines()
        last = max((at for at, line in enumerate(lines) if HEAD.match(line)), default=None)
        said = said if last is None else "\n".join(lines[last:])
    else:
        said = f"{type(error).__name__}: {said}"
    return hide_password(" ".join(said.split())[:300])


class Interruption:
    """What ends one sweep early. Every method may be called from any thread, `terminate` from a signal handler too.

    `problem` says why in one line where nobody asked for the end; the first reason stays. `broken`: nothing more may be
    written. `terminated`: the process may be killed within seconds. `written`: a termination is in the ledger.
    `cut`: the work was left in the middle; it may have written a line to the ledger and not told the study.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self.broken = self.terminated = self.written = self.cut = False
        self.write_down: Callable[[], None] = lambda: None  # the driver's: it calls `claim` before it writes
        self._running, self._lost = False, 0
        self._lock = threading.Lock()

    @property
    def exit_code(self) -> int:
        """Of a sweep that has not come to its end: 1 with a problem, 130 without."""
        return 1 if self.problem else 130

    def fail(self, why: str) -> None:
        """What runs the trials has failed; the driver can still write."""
        self.problem = self.problem or why

    def break_off(self, why: str) -> None:
        """The driver can't continue: nothing more is written, and the runner is ended as by Ctrl-C."""
        self.fail(why)
        self.broken = True
        if self._running:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def lost(self, what: str) -> None:
        """What the runner can't do without has gone: it is ended as by an error, wherever it waits.

        Where that does not help, and this is called for more than STUCK times, the process ends as by SIGKILL.
        Nothing is wrong where the process is to end anyway: the signal that said so may have gone to that part too.
        """
        if not self.terminated:
            self.fail(what)
        self._lost += 1
        if self._lost > STUCK:  # in a library that waits for what has gone, and hears no signal
            line = f"error: {shown(what, LONGEST_LINE)}; nothing that was written is lost: go on with --resume\n"
            with suppress(OSError):
                os.write(2, line.encode())
            os._exit(self.exit_code)
        if self._running:  # not SIGINT, which Tune takes for itself, and ends its workers in order
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def taken_over(self, who: str) -> None:
        """Another driver has the sweep."""
        self.break_off(f"{who}; nothing more is written here")

    def terminate(self) -> None:
        """The process may be killed within seconds: the driver is to write that at once."""
        self.terminated = True
        moment = threading.Timer(LEAVE_ANYWAY_S, self.write_down)
        moment.daemon = True
        moment.start()

    def claim(self) -> bool:
        """Whether the caller is the one to write a termination to the ledger: true once at most."""
        with self._lock:
            due = self.terminated and not self.written and not self.broken
            self.written = self.written or due
        return due

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While a runner is at work: SIGTERM and SIGHUP are heard, and `break_off` ends the runner.

        All do so by SIGINT, which a script's background process (`tune-rsst sweep &`) begins by ignoring.
        """
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        before = self.hear()
        self._running = True
        try:
            yield
        finally:
            self._running = False
            unhear(before)
            if ignored:
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    def hear(self) -> Handlers:
        """Install the handler, again after another one has replaced it; returns what was there."""
        return hear(self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        if self._lost:
            raise KeyboardInterrupt
        if not self.terminated:  # a closed terminal sends SIGHUP twice; Tune takes a second SIGINT for impatience
            self.terminate()
            signal.raise_signal(signal.SIGINT)

    @staticmethod
    @contextmanager
    def ignored() -> Iterator[None]:
        """Signals are ignored while a few short writes are made."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *ENDING)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
