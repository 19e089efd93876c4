"""A study whose server is away for a while: the sweep waits, and its study is that of a sweep that had it all along."""

from __future__ import annotations

import signal
from functools import partial
from itertools import count
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from psycopg import errors
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError

from tests.postgres import Postgres
from tests.tune_rsst.fake_sweep import FakeSweep, settings_of, tiny
from trainables.rsst.config import ConfigError
from tune_rsst.driver import patient, sweep
from tune_rsst.driver.patient import PatientSearcher, is_away
from tune_rsst.search.spaces import Space
from tune_rsst.search.study import StudySearcher

TINY = Space("tiny", tiny)


class OfMySQL(Exception):
    """What a driver for MySQL raises: a number and a text."""


def lost(orig: Exception | None = None, kind: Any = OperationalError) -> Exception:
    found: Exception = kind("select 1", {}, orig or errors.OperationalError("server closed the connection"))
    return found


def wrapped(error: Exception) -> Exception:
    found = StorageInternalError("an exception is raised during the commit")
    found.__cause__ = error
    return found


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (lost(), True),
        (wrapped(lost()), True),
        (lost(errors.AdminShutdown("terminating connection")), True),
        (lost(errors.CannotConnectNow("the database system is starting up")), True),
        (lost(errors.TooManyConnections("sorry, too many clients already")), True),
        (lost(errors.InterfaceError("the connection is closed"), InterfaceError), True),
        (lost(OfMySQL(2006, "server has gone away")), True),
        (lost(OfMySQL(1205, "lock wait timeout")), False),
        (lost(errors.UniqueViolation("twice"), IntegrityError), False),
        (lost(errors.ReadOnlySqlTransaction("read-only")), False),
        (lost(errors.LockNotAvailable("locked")), False),
        (ConfigError("lr", 1, "less"), False),
        (RuntimeError("Optuna's study was changed by another program"), False),
        (OSError("No space left on device"), False),
    ],
)
def test_what_says_that_a_server_is_away(error: Exception, away: bool) -> None:
    assert is_away(error) == away


def told(found: FakeSweep) -> list[tuple[Any, ...]]:
    trials = found.searcher.study.trials
    return [(t.number, t.state, t.params, t.values, t.intermediate_values, t.user_attrs) for t in trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FakeSweep:
    """A sweep whose study was there all the time."""
    return played(tmp_path_factory.mktemp("whole"))


def played(folder: Path, storage: str = "memory") -> FakeSweep:
    found = FakeSweep(folder, TINY, settings_of(TINY, "trials=6"), storage)
    found.run()
    return found


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a user is told. Every study is treated as one on a server."""
    said: list[str] = []
    monkeypatch.setattr(patient, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sweep, "StudySearcher", partial(PatientSearcher, say=said.append))
    return said


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("call", "turn"), [("ask", 1), ("ask", 5), ("report_rung", 2), ("note", 5), ("tell", 3)])
def test_a_connection_that_is_lost_at_a_call_changes_nothing(
    whole: FakeSweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    call: str,
    turn: int,
    after: bool,
) -> None:
    """Before the database did what it was asked, or after: then nobody knows whether it did."""
    work, turns = getattr(StudySearcher, call), count(1)

    def fails(*given: Any) -> Any:
        now = next(turns) == turn
        if now and not after:
            raise lost()
        done = work(*given)
        if now:
            raise wrapped(lost())
        return done

    monkeypatch.setattr(StudySearcher, call, fails)
    found = played(tmp_path, f"sqlite:///{tmp_path / 'study.db'}")
    assert next(turns) > turn + 1 and told(found) == told(whole)
    assert found.ledger.path.read_bytes() == whole.ledger.path.read_bytes()
    assert len(lines) == 2 and lines[0].startswith("Optuna's database does not answer: ") and "again" in lines[1]


def test_it_gives_up_in_the_end_and_anything_else_is_raised_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setattr(patient, "PATIENCE_S", 0.05)
    found = FakeSweep(tmp_path, TINY, settings_of(TINY, "trials=3"), f"sqlite:///{tmp_path / 'study.db'}")
    for error, told_of in ((RuntimeError("something else"), 0), (lost(), 1)):

        def fails(*given: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(StudySearcher, "ask", fails)
            with pytest.raises(type(error)):
                found.driver.next_trial()
        assert len(lines) == told_of
    assert found.driver.next_trial() is not None, "nothing of it stays"


def test_it_can_be_interrupted_while_it_waits_whatever_tune_does_with_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    found = FakeSweep(tmp_path, TINY, settings_of(TINY, "trials=3"), f"sqlite:///{tmp_path / 'study.db'}")
    found.searcher._address = "postgresql+psycopg://u@127.0.0.1:1/x"

    def fails(*given: Any) -> None:
        raise lost()

    monkeypatch.setattr(StudySearcher, "ask", fails)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            found.driver.next_trial()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN and len(lines) == 1
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.medium
def test_a_server_that_is_killed_and_started_again(
    whole: FakeSweep, tmp_path: Path, database: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    found = FakeSweep(tmp_path, TINY, settings_of(TINY, "trials=6"), database.make("patient"))
    assert isinstance(found.searcher, PatientSearcher)
    events = count(1)

    def killed(trial: Any, event: dict[str, Any]) -> dict[str, Any]:
        if next(events) in (4, 40):
            database.kill()
            Timer(0.5, database.start).start()
        return event

    found.run(alter=killed)
    printed = capsys.readouterr().out
    assert told(found) == told(whole) and found.ledger.path.read_bytes() == whole.ledger.path.read_bytes()
    assert printed.count("does not answer: ") == 2 == printed.count("answers again, after ")
    assert database.password not in printed
