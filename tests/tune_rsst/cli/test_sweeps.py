"""`list` and `delete`: every sweep is a line, also a damaged one; one goes as a whole, and says what stays."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tune_rsst.recorded import sweep_events
from trainables.storage import files
from tune_rsst.cli import app
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.lock import driving


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the sweeps `one` (finished) and `two` (interrupted)."""
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    for at, name in enumerate(("one", "two")):
        folder = tmp_path / "home" / name
        store = folder / "trials" / f"{0:016x}"  # of the first trial
        store.mkdir(parents=True)
        (store / "state").write_bytes(bytes(3 * 2**20))
        ledger = Ledger(folder / "ledger.jsonl", clock=lambda at=at: 1000.0 + at)
        for event in sweep_events(name, ended=name == "one"):
            ledger.append(event.pop("event"), **event)
        ledger.close()
    return tmp_path / "home"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tune-rsst", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return int(ended.value.code or 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_sweep_is_a_line(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "bad").mkdir()
    (home / "bad" / "ledger.jsonl").write_text("no ledger\nat all\n")
    assert run(monkeypatch, "list") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    *lines, why = lines
    assert (
        why.startswith("bad: ")
        and head.split()[:3] == ["sweep", "state", "space"]
        and sorted(line.split()[0] for line in lines) == [*("bad", "one", "two")]
    )
    by_name = {line.split()[0]: line for line in lines}
    assert "finished" in by_name["one"] and "interrupted" in by_name["two"] and "damaged" in by_name["bad"]
    assert "3.0 MiB" in by_name["one"] and "ago" in by_name["one"]
    assert run(monkeypatch, "list", "--json") == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["one"]["state"] == "finished" and found["one"]["best"] in ("t0000", "t0001")
    assert found["one"]["bytes"] > 3 * 2**20 and found["bad"]["reason"] and found["bad"]["best"] is None


def test_an_empty_home_says_how_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "none"))
    assert run(monkeypatch, "list") == 0 and "start one: tune-rsst sweep" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_a_sweep_goes_and_what_stays_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "delete", "one", "--yes") == 0
    said = capsys.readouterr().out
    assert f"deleted: {home / 'one'}, 3.0 MiB" in said and "MLflow stay" in said
    assert [path.name for path in home.iterdir()] == ["two"]


@pytest.mark.parametrize(
    ("answer", "gone"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_person_at_a_terminal_is_asked(
    home: Path, answer: str, gone: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert run(monkeypatch, "delete", "one") == (0 if gone else 1)
    assert (home / "one").exists() is not gone and str(home / "one") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["delete", "one"], "--yes where nobody can be asked"),
        (["delete", "on", "--yes"], "did you mean one"),
        (["delete", "cache", "--yes"], "a sweep in"),
        (["delete", "../home/one", "--yes"], "a sweep in"),
        (["delete", ".", "--yes"], "a sweep in"),
        (["delete", "--yes"], "Missing argument"),
        (["list", "one"], "unexpected extra argument"),
    ],
)
def test_what_is_no_sweep_is_refused_and_nothing_goes(
    home: Path, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "cache").mkdir()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert sorted(path.name for path in home.iterdir()) == ["cache", "one", "two"]


def test_a_running_sweep_stays(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with driving(home / "one"):
        assert run(monkeypatch, "delete", "one", "--yes") == 2
    assert "a driver is running this sweep" in capsys.readouterr().err and (home / "one/ledger.jsonl").exists()


def test_a_damaged_sweep_can_be_deleted(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "one" / "ledger.jsonl").write_text("no ledger\nat all\n")
    assert run(monkeypatch, "delete", "one", "--yes") == 0
    assert "is not known" in capsys.readouterr().out and not (home / "one").exists()


def test_a_delete_that_was_killed_is_finished_by_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", killed)
        if (child := os.fork()) == 0:
            run(monkeypatch, "delete", "one", "--yes")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert run(monkeypatch, "list") == 0 and "one" not in capsys.readouterr().out
    assert run(monkeypatch, "delete", "one", "--yes") == 0
    assert "was half deleted; the rest is gone now: 3.0 MiB" in capsys.readouterr().out
    assert [path.name for path in home.iterdir()] == ["two"] and shutil.disk_usage(home).free


def test_the_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0 and capsys.readouterr().out.split()[0] == "tune-rsst"
