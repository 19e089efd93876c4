"""A study in a database that may be away for a while: the sweep waits for it, and then goes on.

In: the driver's calls. Out: the study's answers, later where its server was killed, restarted or cut off meanwhile.
The ledger has the study. So whatever the server had taken when it went, the study is compared with the ledger once it
answers, put right, and what was asked of it is asked again: each call may happen twice.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from sqlalchemy.exc import InterfaceError, OperationalError

from trainables.rsst.config import ConfigError
from trainables.text import LONGEST_LINE, duration, shown
from tune_rsst.interrupt import why
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.search.study import Outcome, StudySearcher, Suggestion
from tune_rsst.search.study_database import connection

PATIENCE_S, LOOK_EVERY_S = 600.0, 1.0
AWAY_STATES = ("08", "53", "57P")  # the connection; no room for one more; the server stops, has crashed, or starts
AWAY_IN_MYSQL = (1040, 1053, 2002, 2003, 2006, 2013)
T = TypeVar("T")


class PatientSearcher(StudySearcher):
    """Ask and tell over a study on a server. `say` gets a line when the server has gone, and one when it is back.

    After PATIENCE_S without an answer the error of the database's driver is raised: the sweep ends, and can be resumed.
    """

    def __init__(self, *given: Any, say: Callable[[str], None], **more: Any) -> None:
        self._say_here = say
        self._seen: tuple[SweepView, Mapping[str, dict[int, float]]] | None = None
        super().__init__(*given, **more)

    def sync(self, view: SweepView, rungs: Mapping[str, dict[int, float]]) -> None:
        self._seen = view, rungs
        self._patiently(partial(super().sync, view, rungs))

    @property
    def points_left(self) -> int:
        return self._patiently(lambda: StudySearcher.points_left.fget(self))  # type: ignore[attr-defined, no-any-return]

    def ask(self, known: Mapping[str, str]) -> Suggestion:
        return self._patiently(partial(super().ask, known))

    def report_rung(self, number: int, rung: int, value: float) -> None:
        self._patiently(partial(super().report_rung, number, rung, value))

    def note(self, number: int, trial: TrialView) -> None:
        self._patiently(partial(super().note, number, trial))

    def tell(self, number: int, seen: Outcome) -> None:
        self._patiently(partial(super().tell, number, seen))

    def _patiently(self, work: Callable[[], T]) -> T:
        """`work()`; where the server is away, wait for it, put the study right, and do it again."""
        since, gone = time.monotonic(), False
        while True:
            try:
                if gone:
                    self._put_right()
                done = work()
            except Exception as error:
                if self._seen is None or not is_away(error):
                    raise
                if not gone:
                    said = f"{why(error)}; the sweep waits for it, {duration(PATIENCE_S)} at most"
                    self._say_here(shown(f"Optuna's database does not answer: {said}", LONGEST_LINE))
                gone = True
                if not self._comes_back(since + PATIENCE_S):
                    raise
                continue
            if gone:
                self._say_here(f"Optuna's database answers again, after {duration(time.monotonic() - since)}")
            return done

    def _comes_back(self, until: float) -> bool:
        """Wait for the server; whether it answered before `until`."""
        with _interruptible():
            while time.monotonic() < until:
                time.sleep(LOOK_EVERY_S)
                with suppress(ConfigError), connection("optuna_storage", str(self._address)):
                    return True
        return False

    def _put_right(self) -> None:
        assert self._seen is not None, "nothing is asked before the first sync"
        self._storage = RDBStorage(str(self._address))
        self.study = self._create()
        self._sync(*self._seen)


def is_away(error: BaseException | None) -> bool:
    """Whether `error`, or what it came from, says that the database's server can't be reached now.

    By SQLSTATE or MySQL's number; an error of the connection that has neither says so too.
    """
    while error is not None and not isinstance(error, OperationalError | InterfaceError):
        error = error.__cause__
    if error is None or error.orig is None:
        return False
    state, number = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None), error.orig.args[:1]
    if state:
        return str(state).startswith(AWAY_STATES)
    return number[0] in AWAY_IN_MYSQL if number and isinstance(number[0], int) else True


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt within, whatever Tune's loop makes of it."""
    before: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
